use std::vec::Vec;

use super::{
    super::bench::{Bench, ECC_STORAGE, OWNER, Shelf},
    DECRYPT, FIRST, LARGE, NULL, creation, dsa, field, hash_dsa, kem, kem_storage, name_of,
    public_of, sized, started, started_with, template, unique_of,
};
use crate::{
    Rc, Resume,
    crypto::{DsaMath as _, DsaSet, KemMath as _, KemSet, RustCrypto},
};

const PERSISTENT: u32 = 0x8100_0001;

/// Create: the private and the public area.
fn create(bench: &mut Bench, parent: u32, public: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let response = bench.ok_auth(0x153, &[parent], &creation(public));
    let mut rest = &response[4..];
    (field(&mut rest).to_vec(), field(&mut rest).to_vec())
}

fn load(bench: &mut Bench, parent: u32, private: &[u8], public: &[u8]) -> (Rc, Vec<u8>) {
    bench.run(
        0x157,
        &[parent],
        &[b""],
        &[sized(private), sized(public)].concat(),
    )
}

#[test]
fn keys_are_made_and_loaded_below_each_kind_of_parent() {
    for parent in [ECC_STORAGE.to_vec(), kem_storage(1)] {
        let mut bench = started();
        let (parent, _) = bench.create_primary(OWNER, &parent);
        for (template, len) in [(kem(3), 1568), (dsa(3, 1), 2592), (hash_dsa(1, 0x0C), 1312)] {
            let (private, public) = create(&mut bench, parent, &template);
            assert_eq!(unique_of(&public, len).len(), len);
            assert_ne!(create(&mut bench, parent, &template).1, public);
            let (rc, response) = load(&mut bench, parent, &private, &public);
            assert_eq!(rc, Rc::SUCCESS);
            let name = name_of(&public);
            assert_eq!(field(&mut &response[8..]), name);
            let read = bench.ok(0x173, &[FIRST + 1], &[]);
            let mut rest = &read[..];
            assert_eq!(field(&mut rest), public);
            assert_eq!(field(&mut rest), name);

            // Another value, with which the old private area does not go.
            let changed = bench.run(0x150, &[FIRST + 1, parent], &[b""], &sized(b"new"));
            assert_eq!(changed.0, Rc::SUCCESS);
            let private = field(&mut &changed.1[4..]).to_vec();
            bench.ok(0x165, &[], &(FIRST + 1).to_be_bytes());
            assert_eq!(load(&mut bench, parent, &private, &public).0, Rc::SUCCESS);
            bench.ok(0x165, &[], &(FIRST + 1).to_be_bytes());

            let mut other = public.clone();
            *other.last_mut().unwrap() ^= 1;
            let (rc, _) = load(&mut bench, parent, &private, &other);
            assert_eq!(rc, Rc::INTEGRITY.param(1));
        }
    }
}

#[test]
fn create_loaded_makes_primaries_and_children_and_derives_none() {
    let mut bench = started();
    let (parent, _) = bench.create_primary(OWNER, ECC_STORAGE);
    for public in [kem(2), dsa(2, 0)] {
        let params = [&[0, 4, 0, 0, 0, 0], &sized(&public)[..]].concat();
        for above in [OWNER, parent] {
            let response = bench.ok_auth(0x191, &[above], &params);
            bench.ok(0x165, &[], &response[..4]);
        }
        let (_, primary) = bench.create_primary(OWNER, &public);
        let again = bench.ok_auth(0x191, &[OWNER], &params);
        let mut rest = &again[8..];
        assert!(field(&mut rest).is_empty());
        assert_eq!(field(&mut rest), public_of(&primary));
        bench.ok(0x165, &[], &(FIRST + 1).to_be_bytes());
        bench.ok(0x165, &[], &(FIRST + 2).to_be_bytes());
    }
    // A derivation parent: restricted, decrypts, KEYEDHASH with XOR.
    let deriver = b"\0\x08\0\x0B\0\x03\0\x72\0\0\0\x0A\0\x0B\0\x22\0\0";
    let (deriver, _) = bench.create_primary(OWNER, deriver);
    let mut derived = template(0xA0, DECRYPT, &[0, 0x10, 0, 1], b"label");
    derived[7] = 0x52;
    derived.extend(sized(b"context"));
    let params = [&[0, 4, 0, 0, 0, 0], &sized(&derived)[..]].concat();
    let (rc, _) = bench.run(0x191, &[deriver], &[b""], &params);
    assert_eq!(rc, Rc::TYPE);
}

/// LoadExternal of a seed and a public area that may be known outside.
fn load_external(bench: &mut Bench, alg: u8, seed: &[u8], params: &[u8], key: &[u8]) -> Rc {
    let use_for = if alg == 0xA0 { 2 } else { 4 };
    let mut public = template(alg, use_for, params, key);
    public[7] = 0x40;
    let sensitive = if seed.is_empty() {
        sized(&[])
    } else {
        sized(&[&[0, alg, 0, 0, 0, 0], &sized(seed)[..]].concat())
    };
    let params = [sensitive, sized(&public), NULL.to_be_bytes().to_vec()].concat();
    let (rc, _) = bench.run(0x167, &[], &[], &params);
    if rc == Rc::SUCCESS {
        bench.ok(0x165, &[], &FIRST.to_be_bytes());
    }
    rc
}

#[test]
fn seeds_and_keys_from_outside_must_belong_together() {
    let mut bench = started();
    let kem_key = RustCrypto.kem_public(KemSet::MlKem512, &[3; 64]);
    let dsa_key = RustCrypto.dsa_public(DsaSet::MlDsa44, &[3; 32]);
    let (kem_key, dsa_key) = (kem_key.as_slice(), dsa_key.as_slice());
    let kem = [0, 0x10, 0, 1];
    // The first coefficient is 0xFFF, above the modulus.
    let mut above = kem_key.to_vec();
    above[..2].copy_from_slice(&[0xFF, 0x0F]);
    for (alg, seed, params, key, code) in [
        (0xA0, &[3; 64][..], &kem[..], kem_key, Rc::SUCCESS),
        (0xA0, &[], &kem, kem_key, Rc::SUCCESS),
        (0xA0, &[4; 64], &kem, kem_key, Rc::BINDING),
        (0xA0, &[3; 63], &kem, kem_key, Rc::SIZE.param(1)),
        (0xA0, &[3; 65], &kem, kem_key, Rc::SIZE.param(1)),
        (0xA0, &[], &kem, &kem_key[1..], Rc::KEY.param(2)),
        (0xA0, &[], &kem, &above, Rc::KEY.param(2)),
        (0xA0, &[], &[0, 0x10, 0, 2], kem_key, Rc::KEY.param(2)),
        (0xA1, &[3; 32], &[0, 1, 0], dsa_key, Rc::SUCCESS),
        (0xA1, &[], &[0, 1, 1], dsa_key, Rc::SUCCESS),
        (0xA2, &[3; 32], &[0, 1, 0, 0x0B], dsa_key, Rc::SUCCESS),
        (0xA1, &[2; 32], &[0, 1, 0], dsa_key, Rc::BINDING),
        (0xA1, &[3; 64], &[0, 1, 0], dsa_key, Rc::SIZE.param(1)),
        (0xA1, &[], &[0, 2, 0], dsa_key, Rc::KEY.param(2)),
        (0xA1, &[], &[0, 1, 0], &[], Rc::KEY.param(2)),
    ] {
        let rc = load_external(&mut bench, alg, seed, params, key);
        assert_eq!(rc, code, "{alg:x} {params:?} {}", key.len());
    }
}

#[test]
fn a_key_moves_to_a_parent_with_ml_kem() {
    let mut bench = started();
    let (old, _) = bench.create_primary(OWNER, ECC_STORAGE);
    let (new, _) = bench.create_primary(OWNER, &kem_storage(3));
    // A key that may leave, by a policy that PolicyCommandCode(Duplicate) meets.
    let mut public = template(0xA1, 4, &[0, 1, 0], &[]);
    public.splice(6..10, [0, 0x60, 0, 32]);
    let start = [&[0, 16][..], &[1; 16], b"\0\0\x03\0\x10\0\x0B"].concat();
    bench.ok(0x176, &[NULL, NULL], &start);
    bench.ok(0x16C, &[0x0300_0000], &[0, 0, 1, 0x4B]);
    let digest = bench.ok(0x189, &[0x0300_0000], &[]);
    bench.ok(0x165, &[], &0x0300_0000u32.to_be_bytes());
    public.splice(10..10, digest[2..].iter().copied());
    let (private, public) = create(&mut bench, old, &public);
    assert_eq!(load(&mut bench, old, &private, &public).0, Rc::SUCCESS);

    let start = [&[0, 16][..], &[1; 16], b"\0\0\x01\0\x10\0\x0B"].concat();
    bench.ok(0x176, &[NULL, NULL], &start);
    bench.ok(0x16C, &[0x0300_0000], &[0, 0, 1, 0x4B]);
    let body = [
        &0x14Bu32.to_be_bytes()[..],
        &(FIRST + 2).to_be_bytes(),
        &new.to_be_bytes(),
        &[0, 0, 0, 9],
        b"\x03\0\0\0\0\0\x01\0\0",
        &[0, 0, 0, 0x10],
    ]
    .concat();
    let len = u32::try_from(6 + body.len()).unwrap().to_be_bytes();
    let (rc, response) = bench.raw(0, &[&[0x80, 2], &len[..], &body].concat());
    assert_eq!(rc, Rc::SUCCESS);
    let mut rest = &response[4..];
    assert!(field(&mut rest).is_empty());
    let (duplicate, secret) = (field(&mut rest), field(&mut rest));
    assert_eq!(secret.len(), 1568);

    let import = |secret: &[u8]| {
        let parts = [sized(&[]), sized(&public), sized(duplicate), sized(secret)];
        [&parts.concat()[..], &[0, 0x10]].concat()
    };
    let (rc, response) = bench.run(0x156, &[new], &[b""], &import(secret));
    assert_eq!(rc, Rc::SUCCESS);
    let private = field(&mut &response[4..]);
    bench.ok(0x165, &[], &(FIRST + 2).to_be_bytes());
    assert_eq!(load(&mut bench, new, private, &public).0, Rc::SUCCESS);
    let mut wrong = secret.to_vec();
    wrong[0] ^= 1;
    let (rc, _) = bench.run(0x156, &[new], &[b""], &import(&wrong));
    assert_eq!(rc, Rc::INTEGRITY.param(3));
    let (rc, _) = bench.run(0x156, &[new], &[b""], &import(&secret[1..]));
    assert_eq!(rc, Rc::SIZE.param(4));
}

#[test]
fn keys_stay_over_the_power_for_a_tpm_that_has_them() {
    let shelf = Shelf::default();
    let mut bench = started_with(&shelf, LARGE);
    let (kem_key, _) = bench.create_primary(OWNER, &kem(3));
    let (dsa_key, _) = bench.create_primary(OWNER, &dsa(3, 0));
    bench.ok_auth(0x120, &[OWNER, kem_key], &PERSISTENT.to_be_bytes());
    bench.ok_auth(0x120, &[OWNER, dsa_key], &(PERSISTENT + 1).to_be_bytes());
    let public = bench.ok(0x173, &[PERSISTENT + 1], &[]);

    let mut bench = started_with(&shelf, LARGE);
    assert_eq!(bench.ok(0x173, &[PERSISTENT + 1], &[]), public);
    let response = bench.ok(0x1A7, &[PERSISTENT], &[]);
    let mut rest = &response[..];
    let (secret, ciphertext) = (field(&mut rest), field(&mut rest));
    let back = bench.ok_auth(0x1A8, &[PERSISTENT], &sized(ciphertext));
    assert_eq!(field(&mut &back[4..]), secret);

    // One without, or with buffers that are too small, does not show the keys and keeps them.
    let mut bench = Bench::powered(&shelf);
    bench.ok(0x144, &[], &[0, 0]);
    let (rc, _) = bench.run(0x173, &[PERSISTENT], &[], &[]);
    assert_eq!(rc, Rc::HANDLE.handle(1));
    let mut bench = started_with(&shelf, 4096);
    bench.ok(0x173, &[PERSISTENT], &[]);
    let (rc, _) = bench.run(0x173, &[PERSISTENT + 1], &[], &[]);
    assert_eq!(rc, Rc::HANDLE.handle(1));
    let mut bench = started_with(&shelf, LARGE);
    assert_eq!(bench.ok(0x173, &[PERSISTENT + 1], &[]), public);
}

#[test]
fn contexts_and_the_suspended_state_keep_keys() {
    const KEY: [u8; 32] = [0x5A; 32];
    let shelf = Shelf::default();
    let mut bench = started_with(&shelf, LARGE);
    let (key, _) = bench.create_primary(OWNER, &kem(1));
    let (dsa_key, _) = bench.create_primary(OWNER, &dsa(3, 0));
    let public = bench.ok(0x173, &[dsa_key], &[]);
    let context = bench.ok(0x162, &[dsa_key], &[]);
    bench.ok(0x165, &[], &dsa_key.to_be_bytes());
    bench.ok(0x161, &[], &context);
    assert_eq!(bench.ok(0x173, &[dsa_key], &[]), public);

    let mut blob = std::vec![0; bench.tpm.volatile_max()];
    let len = bench.tpm.save_volatile(&KEY, &mut blob).unwrap();
    blob.truncate(len);
    // A TPM without such keys says so.
    let mut without = Bench::powered(&shelf);
    let refused = without
        .tpm
        .restore_volatile(&KEY, &mut blob, Resume::Exactly);
    let Err(crate::Error::Refused(crate::Refusal::Profile { profile })) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(profile >> 8, 1);
    let mut resumed = Bench::with_lattices(&shelf, LARGE);
    resumed
        .tpm
        .restore_volatile(&KEY, &mut blob, Resume::Exactly)
        .unwrap();
    assert_eq!(resumed.ok(0x173, &[dsa_key], &[]), public);
    assert_eq!(resumed.ok(0x1A7, &[key], &[]), bench.ok(0x1A7, &[key], &[]));
}
