use std::vec::Vec;

use super::{
    super::bench::{Bench, ECC_STORAGE, OWNER},
    DECRYPT, FIRST, HmacSession, NULL, field, kem, kem_storage, public_of, sized, started,
    template, unique_of,
};
use crate::{
    HashAlg, Rc,
    crypto::{KemMath as _, KemSet, RustCrypto, kdf},
};

/// Encapsulate: the secret and the ciphertext.
fn encapsulate(bench: &mut Bench, key: u32) -> (Vec<u8>, Vec<u8>) {
    let response = bench.ok(0x1A7, &[key], &[]);
    let mut rest = &response[..];
    let both = (field(&mut rest).to_vec(), field(&mut rest).to_vec());
    assert!(rest.is_empty());
    both
}

fn decapsulate(bench: &mut Bench, key: u32, ciphertext: &[u8]) -> (Rc, Vec<u8>) {
    let (rc, response) = bench.run(0x1A8, &[key], &[b""], &sized(ciphertext));
    (rc, response.get(6..38).unwrap_or_default().to_vec())
}

#[test]
fn the_holder_of_a_key_gets_the_secret_and_nobody_is_told_of_a_wrong_ciphertext() {
    for (n, set) in (1..).zip(KemSet::ALL) {
        let mut bench = started();
        let (key, _) = bench.create_primary(OWNER, &kem(n));
        let (secret, mut ciphertext) = encapsulate(&mut bench, key);
        assert_eq!((secret.len(), ciphertext.len()), (32, set.ciphertext_len()));
        assert_eq!(
            decapsulate(&mut bench, key, &ciphertext),
            (Rc::SUCCESS, secret.clone())
        );
        assert_ne!(encapsulate(&mut bench, key).0, secret);
        ciphertext[17] ^= 4;
        let (rc, other) = decapsulate(&mut bench, key, &ciphertext);
        assert_eq!((rc, other == secret, other.len()), (Rc::SUCCESS, false, 32));
        let (rc, _) = decapsulate(&mut bench, key, &ciphertext[1..]);
        assert_eq!(rc, Rc::SIZE.param(1));
        let (rc, _) = bench.run(0x1A8, &[key], &[], &sized(&ciphertext));
        assert_eq!(rc, Rc::AUTH_MISSING);
    }
}

#[test]
fn a_public_area_alone_encapsulates() {
    let mut bench = started();
    let (key, response) = bench.create_primary(OWNER, &kem(2));
    let mut public = public_of(&response).to_vec();
    // Of a key outside, nothing is fixed.
    public[7] = 0x40;
    let params = [&[0, 0], &sized(&public)[..], &NULL.to_be_bytes()].concat();
    bench.ok(0x167, &[], &params);
    let (secret, ciphertext) = encapsulate(&mut bench, FIRST + 1);
    assert_eq!(
        decapsulate(&mut bench, key, &ciphertext),
        (Rc::SUCCESS, secret)
    );
    let (rc, _) = decapsulate(&mut bench, FIRST + 1, &ciphertext);
    assert_eq!(rc, Rc::AUTH_UNAVAILABLE);
}

#[test]
fn only_unrestricted_kem_keys_encapsulate() {
    let mut bench = started();
    for (public, code) in [
        (kem_storage(1), Rc::ATTRIBUTES.handle(1)),
        (ECC_STORAGE.to_vec(), Rc::KEY.handle(1)),
        (super::dsa(1, 0), Rc::KEY.handle(1)),
    ] {
        let (key, _) = bench.create_primary(OWNER, &public);
        assert_eq!(bench.run(0x1A7, &[key], &[], &[]).0, code);
        let (rc, _) = decapsulate(&mut bench, key, &[0; 768]);
        assert_eq!(rc, code);
        bench.ok(0x165, &[], &key.to_be_bytes());
    }
}

#[test]
fn no_random_numbers_are_drawn_for_a_key_that_cannot_encapsulate() {
    let draw = |asked: bool| {
        let mut bench = started();
        let (key, _) = bench.create_primary(OWNER, ECC_STORAGE);
        if asked {
            assert_eq!(bench.run(0x1A7, &[key], &[], &[]).0, Rc::KEY.handle(1));
        }
        bench.ok(0x17B, &[], &[0, 16])
    };
    assert_eq!(draw(true), draw(false));
}

/// What a secret that somebody sends to a key is (version 1.85, Part 1, clause 47.4).
fn labeled(public: &[u8], label: &str) -> (Vec<u8>, Vec<u8>) {
    let (shared, ciphertext) = RustCrypto
        .encapsulate(KemSet::MlKem768, public, &[0x77; 32])
        .unwrap();
    let mut secret = [0; 32];
    kdf::kdfa(
        &RustCrypto,
        HashAlg::Sha256,
        &shared,
        label,
        [ciphertext.as_slice(), public],
        256,
        &mut secret,
    );
    (secret.to_vec(), ciphertext.as_slice().to_vec())
}

#[test]
fn a_session_is_salted_by_ml_kem() {
    for public in [kem(2), kem_storage(2)] {
        let mut bench = started();
        let (key, response) = bench.create_primary(OWNER, &public);
        let public = public_of(&response);
        let (salt, encrypted) = labeled(unique_of(public, 1184), "SECRET");
        let mut session = HmacSession::start(&mut bench, key, &encrypted, &salt);
        // Two uses: the second one shows that the response came with the right nonce.
        for _ in 0..2 {
            let name = OWNER.to_be_bytes();
            let (rc, _) = session.run(&mut bench, 0x130, &[(OWNER, &name)], 1, b"", &[0]);
            assert_eq!(rc, Rc::SUCCESS);
        }
        let params = [
            &sized(&[7; 16])[..],
            &sized(&encrypted[1..]),
            &[0, 0, 0x10, 0, 0x0B],
        ];
        let (rc, _) = bench.run(0x176, &[key, NULL], &[], &params.concat());
        assert_eq!(rc, Rc::VALUE.param(2));
    }
}

#[test]
fn a_credential_is_sent_to_a_kem_key() {
    let mut bench = started();
    let (ek, _) = bench.create_primary(OWNER, &kem_storage(3));
    let (object, response) = bench.create_primary(OWNER, &super::dsa(1, 0));
    let name = super::name_of(public_of(&response));
    let params = [sized(b"credential"), sized(&name)].concat();
    let made = bench.ok(0x168, &[ek], &params);
    let (rc, response) = bench.run(0x147, &[object, ek], &[b"", b""], &made);
    assert_eq!(rc, Rc::SUCCESS);
    assert_eq!(field(&mut &response[4..]), b"credential");
    // An unrestricted key takes no credentials.
    let (key, _) = bench.create_primary(OWNER, &template(0xA0, DECRYPT, &[0, 0x10, 0, 1], &[]));
    assert_eq!(bench.run(0x168, &[key], &[], &params).0, Rc::TYPE.handle(1));
}
