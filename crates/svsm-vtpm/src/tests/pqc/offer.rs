use std::{vec, vec::Vec};

use super::{
    super::bench::{Bench, ECC_SIGNING, OWNER, Shelf},
    creation, dsa, hash_dsa, kem, kem_storage, started, started_with, template,
};
use crate::{
    Rc,
    crypto::{
        DsaMath, DsaSet, DsaSignature, KemCiphertext, KemMath, KemSet, LatticeKey, Permutation,
        RustCrypto,
    },
};

/// A whole list of GetCapability.
fn list(bench: &mut Bench, capability: u8, from: u32, item: usize) -> Vec<Vec<u8>> {
    let mut all = vec![];
    let mut next = from;
    loop {
        let params = [
            &[0, 0, 0, capability],
            &next.to_be_bytes()[..],
            &[0, 0, 1, 0],
        ];
        let answer = bench.ok(0x17A, &[], &params.concat());
        all.extend(answer[9..].chunks(item).map(<[u8]>::to_vec));
        if answer[0] == 0 {
            return all;
        }
        let last = all.last().unwrap();
        next = u32::from_be_bytes(last[..4].try_into().unwrap()) & 0xFFFF;
        next += 1;
    }
}

/// `TPM_PT_ML_PARAMETER_SETS`.
fn parameter_sets(bench: &mut Bench) -> Option<u32> {
    let all = list(bench, 6, 0x100, 8);
    let found = all.iter().find(|p| p[..4] == [0, 0, 1, 0x31]);
    found.map(|p| u32::from_be_bytes(p[4..].try_into().unwrap()))
}

#[test]
fn a_tpm_without_a_provider_is_one_without_the_feature() {
    let mut bench = Bench::started();
    assert_eq!(list(&mut bench, 0, 0, 6).len(), 29);
    assert_eq!(parameter_sets(&mut bench), None);
    let codes = list(&mut bench, 2, 0, 4);
    assert!(codes.iter().all(|c| c[2..] < [1, 0xA3][..]));
    let total = list(&mut bench, 6, 0x129, 8);
    assert_eq!(
        total[0][4..],
        u32::try_from(codes.len()).unwrap().to_be_bytes()
    );
    // The longest context is that of a key of number theory.
    let context = list(&mut bench, 6, 0x121, 8);
    assert_eq!(context[0][4..], 2082u32.to_be_bytes());
    for public in [kem(1), dsa(1, 0), hash_dsa(1, 0x0B)] {
        let params = &public[..2];
        let params = [params, &public[10..public.len() - 2]].concat();
        assert_eq!(bench.run(0x18A, &[], &[], &params).0, Rc::TYPE.param(1));
        let (rc, _) = bench.run(0x131, &[OWNER], &[b""], &creation(&public));
        assert_eq!(rc, Rc::TYPE.param(2));
    }
    // Nor does it look at more than the type: no set, no hint, no body.
    for set in [0, 4] {
        for params in [&[0, 0xA0, 0, 0x10, 0, set][..], &[0, 0xA1, 0, set, 0]] {
            assert_eq!(bench.run(0x18A, &[], &[], params).0, Rc::TYPE.param(1));
        }
        for public in [kem(set), dsa(set, 2), hash_dsa(set, 0)] {
            let (rc, _) = bench.run(0x131, &[OWNER], &[b""], &creation(&public));
            assert_eq!(rc, Rc::TYPE.param(2));
            // LoadExternal, of a public area that ends behind its type.
            let cut = [&[0, 0], &super::sized(&public[..4])[..]].concat();
            assert_eq!(bench.run(0x167, &[], &[], &cut).0, Rc::TYPE.param(2));
        }
    }
    let (key, _) = bench.create_primary(OWNER, ECC_SIGNING);
    for alg in [0xA1, 0xA2] {
        let signature = [&super::sized(&[5; 32])[..], &[0, alg]].concat();
        let (rc, _) = bench.run(0x177, &[key], &[], &signature);
        assert_eq!(rc, Rc::SCHEME.param(2));
    }
    bench.ok(0x165, &[], &key.to_be_bytes());
    // A salt is at most as long as a number of RSA-4096, and a context as the longest key.
    for (len, long) in [(512, false), (513, true)] {
        let salt = vec![1; len];
        let start = [
            &[0, 16][..],
            &[1; 16],
            &super::sized(&salt),
            b"\0\0\x10\0\x0B",
        ]
        .concat();
        let (rc, _) = bench.run(0x176, &[super::NULL, super::NULL], &[], &start);
        assert_ne!(rc, Rc::SUCCESS);
        assert_eq!(rc == Rc::SIZE.param(2), long, "{rc}");
    }
    let head = [
        &[0; 8][..],
        &0x8000_0000u32.to_be_bytes(),
        &super::NULL.to_be_bytes(),
    ]
    .concat();
    for (len, code) in [(2082, Rc::INTEGRITY), (2083, Rc::SIZE)] {
        let context = [
            &head[..],
            &super::sized(&[&[0, 32][..], &vec![0; len - 2]].concat()),
        ]
        .concat();
        assert_eq!(bench.run(0x161, &[], &[], &context).0, code.param(1));
    }
    for code in 0x1A3..=0x1AA {
        let (rc, _) = bench.run(code, &[0x8000_0000], &[], &[]);
        assert_eq!(rc, Rc::COMMAND_CODE, "{code:x}");
    }
    // Nor can a policy be limited to what is not there.
    let start = [&[0, 16][..], &[1; 16], b"\0\0\x01\0\x10\0\x0B"].concat();
    bench.ok(0x176, &[super::NULL, super::NULL], &start);
    let (rc, _) = bench.run(0x16C, &[0x0300_0000], &[], &[0, 0, 1, 0xA7]);
    assert_eq!(rc, Rc::POLICY_CC.param(1));
    // They are not among the algorithms that are tested, nor may they be asked for.
    bench.ok(0x143, &[], &[1]);
    assert_eq!(bench.ok(0x142, &[], &[0; 4]), [0; 4]);
    let (rc, _) = bench.run(0x142, &[], &[], &[0, 0, 0, 1, 0, 0xA0]);
    assert_eq!(rc, Rc::VALUE.param(1));
}

#[test]
fn algorithms_commands_and_parameter_sets_are_listed() {
    let mut bench = started();
    let algorithms = list(&mut bench, 0, 0xA0, 6);
    let listed: Vec<(u8, u16)> = algorithms
        .iter()
        .map(|a| (a[1], u16::from_be_bytes(a[4..].try_into().unwrap())))
        .collect();
    assert_eq!(listed, [(0xA0, 0x209), (0xA1, 0x109), (0xA2, 0x109)]);
    assert_eq!(parameter_sets(&mut bench), Some(0x7F));
    let attributes = |cc: u16| {
        let all = list(&mut started(), 2, u32::from(cc), 4);
        u32::from_be_bytes(all[0][..].try_into().unwrap())
    };
    assert_eq!(attributes(0x1A7), 0x0200_01A7);
    for (code, attributes_are) in [
        (0x1A3, 0x0500_01A3),
        (0x1A4, 0x0500_01A4),
        (0x1A5, 0x0200_01A5),
        (0x1A6, 0x0200_01A6),
        (0x1A8, 0x0200_01A8),
        (0x1A9, 0x1200_01A9),
        (0x1AA, 0x1200_01AA),
    ] {
        assert_eq!(attributes(code), attributes_are);
    }
    // They are tested when they are first used, or asked for.
    let left = bench.ok(0x142, &[], &[0; 4]);
    assert!(left.ends_with(&[0, 0xA0, 0, 0xA1, 0, 0xA2]));
    bench.create_primary(OWNER, &kem(1));
    let left = bench.ok(0x142, &[], &[0, 0, 0, 1, 0, 0xA2]);
    assert!(!left.chunks(2).any(|alg| alg[0] == 0 && alg[1] >= 0xA0));
    bench.ok(0x143, &[], &[1]);
    assert_eq!(bench.ok(0x17C, &[], &[])[2..], [0; 4]);
}

#[test]
fn parameters_that_are_not_supported_are_named() {
    let mut bench = started();
    for (public, code) in [
        (kem(0), Rc::PARMS.param(2)),
        (kem(4), Rc::PARMS.param(2)),
        (dsa(4, 0), Rc::PARMS.param(2)),
        (dsa(1, 2), Rc::VALUE.param(2)),
        (hash_dsa(0, 0x0B), Rc::PARMS.param(2)),
        (hash_dsa(1, 0x10), Rc::HASH.param(2)),
        // Keys of ML-KEM decrypt, keys of ML-DSA sign.
        (
            template(0xA0, 4, &[0, 0x10, 0, 1], &[]),
            Rc::ATTRIBUTES.param(2),
        ),
        (template(0xA1, 2, &[0, 1, 0], &[]), Rc::ATTRIBUTES.param(2)),
        (
            template(0xA2, 6, &[0, 1, 0, 0x0B], &[]),
            Rc::ATTRIBUTES.param(2),
        ),
        // A storage key has a cipher, and no other key has one.
        (
            template(0xA0, 3, &[0, 0x10, 0, 1], &[]),
            Rc::SYMMETRIC.param(2),
        ),
        (
            template(0xA0, 2, &[0, 6, 0, 128, 0, 0x43, 0, 1], &[]),
            Rc::SYMMETRIC.param(2),
        ),
        (
            template(0xA0, 2, &[0, 0x10, 0, 1], &[0; 2593]),
            Rc::SIZE.param(2),
        ),
    ] {
        let (rc, _) = bench.run(0x131, &[OWNER], &[b""], &creation(&public));
        assert_eq!(rc, code, "{public:02x?}");
    }
    for (params, code) in [
        (&[0, 0xA0, 0, 0x10, 0, 2][..], Rc::SUCCESS),
        (&[0, 0xA0, 0, 6, 0, 128, 0, 0x43, 0, 3], Rc::SUCCESS),
        (&[0, 0xA1, 0, 3, 1], Rc::SUCCESS),
        (&[0, 0xA2, 0, 1, 0, 0x0C], Rc::SUCCESS),
        (&[0, 0xA1, 0, 9, 0], Rc::PARMS.param(1)),
        (&[0, 0xA3, 0, 1, 0], Rc::TYPE.param(1)),
    ] {
        assert_eq!(bench.run(0x18A, &[], &[], params).0, code, "{params:02x?}");
    }
}

#[test]
fn what_does_not_fit_into_the_buffers_is_not_offered() {
    for (buffers, sets) in [
        (1024, 0x40),
        (2080, 0x41),
        (4087, 0x5F),
        (5362, 0x5F),
        (5363, 0x7F),
    ] {
        let mut bench = started_with(&Shelf::default(), buffers);
        assert_eq!(parameter_sets(&mut bench), Some(sets), "{buffers}");
        for (bit, public) in [
            kem_storage(1),
            kem_storage(2),
            kem_storage(3),
            dsa(1, 0),
            dsa(2, 1),
            dsa(3, 0),
        ]
        .iter()
        .enumerate()
        {
            let (rc, _) = bench.run(0x131, &[OWNER], &[b""], &creation(public));
            if sets >> bit & 1 == 1 {
                assert_eq!(rc, Rc::SUCCESS);
                bench.ok(0x165, &[], &[0x80, 0, 0, 0]);
            } else {
                assert_eq!(rc, Rc::PARMS.param(2));
            }
        }
    }
}

/// A provider that encapsulates something else, or takes every signature.
struct Faulty {
    kem: bool,
}

impl KemMath for Faulty {
    fn kem_public(&self, set: KemSet, seed: &[u8; 64]) -> LatticeKey {
        RustCrypto.kem_public(set, seed)
    }
    fn is_kem_public(&self, set: KemSet, public: &[u8]) -> bool {
        RustCrypto.is_kem_public(set, public)
    }
    fn encapsulate(
        &self,
        set: KemSet,
        public: &[u8],
        random: &[u8; 32],
    ) -> Option<([u8; 32], KemCiphertext)> {
        let (mut secret, ciphertext) = RustCrypto.encapsulate(set, public, random)?;
        secret[0] ^= u8::from(self.kem);
        Some((secret, ciphertext))
    }
    fn decapsulate(&self, set: KemSet, seed: &[u8; 64], ciphertext: &[u8]) -> Option<[u8; 32]> {
        RustCrypto.decapsulate(set, seed, ciphertext)
    }
}

impl DsaMath for Faulty {
    fn dsa_public(&self, set: DsaSet, seed: &[u8; 32]) -> LatticeKey {
        RustCrypto.dsa_public(set, seed)
    }
    fn dsa_sign(
        &self,
        set: DsaSet,
        seed: &[u8; 32],
        mu: &[u8; 64],
        random: &[u8; 32],
    ) -> Option<DsaSignature> {
        RustCrypto.dsa_sign(set, seed, mu, random)
    }
    fn dsa_verify(&self, set: DsaSet, public: &[u8], mu: &[u8; 64], signature: &[u8]) -> bool {
        !self.kem || RustCrypto.dsa_verify(set, public, mu, signature)
    }
}

impl Permutation for Faulty {
    fn keccak(&self, state: &mut [u64; 25]) {
        RustCrypto.keccak(state);
    }
}

#[test]
fn a_provider_that_computes_wrongly_is_found_out_at_the_first_key() {
    static BAD_KEM: Faulty = Faulty { kem: true };
    static BAD_DSA: Faulty = Faulty { kem: false };
    for (provider, good, bad) in [(&BAD_KEM, dsa(1, 0), kem(1)), (&BAD_DSA, kem(1), dsa(1, 0))] {
        let mut bench = Bench::powered(&Shelf::default());
        bench.tpm.set_lattices(provider);
        bench.ok(0x144, &[], &[0, 0]);
        bench.create_primary(OWNER, &good);
        let (rc, _) = bench.run(0x131, &[OWNER], &[b""], &creation(&bad));
        assert_eq!(rc, Rc::FAILURE);
        assert_eq!(bench.run(0x17B, &[], &[], &[0, 8]).0, Rc::FAILURE);
    }
}
