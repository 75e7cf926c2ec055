use super::{
    super::bench::OWNER, RESTRICTED, SIGN, field, holds, public_of, sized, started, started_with,
    template, unique_of,
};
use crate::{
    HashAlg, Rc,
    crypto::{DsaSet, Hashing as _, RustCrypto},
};

const SELECTION: &[u8] = b"\0\0\0\x01\0\x0B\x03\xFF\xFF\xFF";

#[test]
fn a_quote_is_signed_by_ml_dsa() {
    for (n, set) in (1..).zip(DsaSet::ALL) {
        let mut bench = started();
        let public = template(0xA1, SIGN | RESTRICTED, &[0, n, 0], &[]);
        let (key, response) = bench.create_primary(OWNER, &public);
        let public = unique_of(public_of(&response), set.public_len()).to_vec();
        // The key's own scheme, asked for or not.
        for scheme in [&[0, 0x10][..], &[0, 0xA1]] {
            let params = [&sized(b"nonce")[..], scheme, SELECTION].concat();
            let quoted = bench.ok_auth(0x158, &[key], &params);
            let mut rest = &quoted[4..];
            let attest = field(&mut rest);
            assert_eq!(attest[..6], *b"\xFFTCG\x80\x18");
            assert_eq!(rest[..2], [0, 0xA1]);
            rest = &rest[2..];
            let signature = field(&mut rest);
            assert!(holds(set, None, &public, b"", attest, signature));
            // PCRs are hashed as the key's name is.
            let pcrs = RustCrypto.hash(HashAlg::Sha256, &[&pcr_values()]);
            assert!(attest.ends_with(pcrs.as_slice()));
        }
        let params = [&sized(b"nonce")[..], &[0, 0xA2], SELECTION].concat();
        let (rc, _) = bench.run(0x158, &[key], &[b""], &params);
        assert_eq!(rc, Rc::SCHEME.param(2));
    }
}

/// PCRs 0 to 23 of a TPM that was just started.
fn pcr_values() -> [u8; 24 * 32] {
    core::array::from_fn(|n| {
        if (17..23).contains(&(n / 32)) {
            0xFF
        } else {
            0
        }
    })
}

#[test]
fn a_certificate_is_signed_by_ml_dsa_of_hashes() {
    let mut bench = started();
    let public = template(0xA2, SIGN | RESTRICTED, &[0, 2, 0, 0x0D], &[]);
    let (key, response) = bench.create_primary(OWNER, &public);
    let public = unique_of(public_of(&response), 1952).to_vec();
    let (rc, certified) = bench.run(0x148, &[key, key], &[b"", b""], &[0, 0, 0, 0x10]);
    assert_eq!(rc, Rc::SUCCESS);
    let mut rest = &certified[4..];
    let attest = field(&mut rest);
    assert_eq!(rest[..4], [0, 0xA2, 0, 0x0D]);
    rest = &rest[4..];
    let signature = field(&mut rest);
    let hash = Some(HashAlg::Sha512);
    assert!(holds(
        DsaSet::MlDsa65,
        hash,
        &public,
        b"",
        attest,
        signature
    ));
    assert!(!holds(
        DsaSet::MlDsa65,
        None,
        &public,
        b"",
        attest,
        signature
    ));
}

#[test]
fn commands_of_digests_take_no_ml_dsa() {
    let mut bench = started();
    for public in [super::dsa(1, 1), super::hash_dsa(1, 0x0B)] {
        let (key, _) = bench.create_primary(OWNER, &public);
        let alg = public[1];
        let ticket = [0x80, 0x24, 0x40, 0, 0, 7, 0, 0];
        for scheme in [[0, 0x10], [0, alg]] {
            let params = [&sized(&[7; 32])[..], &scheme, &ticket].concat();
            let (rc, _) = bench.run(0x15D, &[key], &[b""], &params);
            assert_eq!(rc, Rc::SCHEME.param(2));
        }
        let hash: &[u8] = if alg == 0xA2 { &[0, 0x0B] } else { &[] };
        let signature = [&[0, alg], hash, &sized(&[0; 2420])].concat();
        let params = [&sized(&[7; 32])[..], &signature].concat();
        let (rc, _) = bench.run(0x177, &[key], &[], &params);
        assert_eq!(rc, Rc::SCHEME.param(2));
        // X.509 certificates are completed for the algorithms of RFC 3279 and its successors.
        bench.ok(0x165, &[], &key.to_be_bytes());
    }
}

#[test]
fn the_longest_quote_fits_the_buffers_of_a_guest() {
    // A page, less the head of the SVSM's request.
    let mut bench = started_with(&super::Shelf::default(), 4087);
    let public = template(0xA1, SIGN | RESTRICTED, &[0, 2, 0], &[]);
    let (key, _) = bench.create_primary(OWNER, &public);
    let extra = [7; 66];
    let banks = b"\0\0\0\x04\0\x04\x03\xFF\xFF\xFF\0\x0B\x03\xFF\xFF\xFF\0\x0C\x03\xFF\xFF\xFF\0\x0D\x03\xFF\xFF\xFF";
    let params = [&sized(&extra)[..], &[0, 0x10], banks].concat();
    bench.ok_auth(0x158, &[key], &params);
}

#[test]
fn commands_of_other_keys_take_none_of_these() {
    let mut bench = started();
    let keys: [(u16, usize, &[u8]); 10] = [
        (0x174, 0, &[0, 1, 7, 0, 0x10, 0, 0]),
        (0x159, 1, &[0, 1, 7, 0, 0x10, 0, 0]),
        (0x163, 0, &[]),
        (0x154, 1, &[0, 4, 0, 0, 0, 0]),
        (
            0x18D,
            1,
            &[0, 4, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0x19, 0, 1],
        ),
        (0x18B, 1, &[0, 0, 0, 0, 0, 0]),
        (0x199, 0, &[0, 1, 7, 0, 0x10]),
        (0x19A, 1, &[0, 4, 0, 0, 0, 0, 0, 1, 7, 0, 0, 0, 0x10]),
        (0x164, 1, &[0, 0, 0x10, 0, 0, 0, 1, 7]),
        (0x193, 1, &[0, 1, 7, 0, 0, 0x10, 0, 0]),
    ];
    let types: [(u16, usize, &[u8]); 4] = [
        (0x155, 1, &[0, 1, 7, 0, 0x10]),
        (0x15B, 1, &[0, 0, 0, 0x10]),
        (0x15E, 1, &[]),
        (0x168, 0, &[0, 1, 7, 0, 2, 0, 0x0B]),
    ];
    for public in [super::kem(1), super::dsa(1, 1), super::hash_dsa(1, 0x0B)] {
        let (key, _) = bench.create_primary(OWNER, &public);
        for (commands, refused) in [
            (&keys[..], Rc::KEY.handle(1)),
            (&types[..], Rc::TYPE.handle(1)),
        ] {
            for (code, auths, params) in commands {
                let (rc, _) = bench.run(*code, &[key], &std::vec![&b""[..]; *auths], params);
                assert_eq!(rc, refused, "{code:#X}");
            }
        }
        bench.ok(0x165, &[], &key.to_be_bytes());
    }
    // What does not sign attests nothing.
    let (key, _) = bench.create_primary(OWNER, &super::kem(1));
    let quote = [0, 0, 0, 0x10, 0, 0, 0, 0];
    let (rc, _) = bench.run(0x158, &[key], &[b""], &quote);
    assert_eq!(rc, Rc::KEY.handle(1));
    let digest = [
        &sized(&[7; 32])[..],
        &[0, 0x10, 0x80, 0x24, 0x40, 0, 0, 7, 0, 0],
    ]
    .concat();
    let (rc, _) = bench.run(0x15D, &[key], &[b""], &digest);
    assert_eq!(rc, Rc::KEY.handle(1));
}
