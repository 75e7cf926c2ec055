//! Certificates that the TPM completes and signs.

use std::{vec, vec::Vec};

use super::bench::{Bench, ECC_SIGNING, ECC_STORAGE, OWNER, RSA_SIGNING};
use crate::{
    Rc,
    crypto::{Hashing, RustCrypto},
    structures::der,
};

/// A name with one common name.
fn name(value: &[u8]) -> Vec<u8> {
    let attribute = [&b"\x06\x03\x55\x04\x03"[..], &tlv(0x0C, value)].concat();
    tlv(0x30, &tlv(0x31, &tlv(0x30, &attribute)))
}

fn tlv(tag: u8, contents: &[u8]) -> Vec<u8> {
    let mut it = vec![tag];
    match contents.len() {
        len @ 0..=0x7F => it.push(u8::try_from(len).unwrap()),
        len @ 0x80..=0xFF => it.extend([0x81, u8::try_from(len).unwrap()]),
        len => {
            it.push(0x82);
            it.extend(u16::try_from(len).unwrap().to_be_bytes());
        }
    }
    it.extend(contents);
    it
}

/// Issuer, validity, subject, and key usage as extension.
fn fields(usage: u8) -> [Vec<u8>; 4] {
    let times = [tlv(0x17, b"260101000000Z"), tlv(0x17, b"360101000000Z")].concat();
    let bits = tlv(4, &[3, 2, 0, usage]);
    let usage = [der::oid::KEY_USAGE, &[1, 1, 0xFF], &bits].concat();
    [
        name(b"issuer"),
        tlv(0x30, &times),
        name(b"subject"),
        tlv(0xA3, &tlv(0x30, &tlv(0x30, &usage))),
    ]
}

fn certify(bench: &mut Bench, keys: [u32; 2], partial: &[u8]) -> (Rc, Vec<u8>) {
    let mut params = vec![0, 0, 0, 0x10];
    params.extend(u16::try_from(partial.len()).unwrap().to_be_bytes());
    params.extend(partial);
    bench.run(0x197, &keys, &[&[], &[]], &params)
}

fn take<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let len = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
    let it = &rest[2..2 + len];
    *rest = &rest[2 + len..];
    it
}

/// The certificate, put together from both parts, has the digest that was signed.
fn check(template: &[u8]) {
    let mut bench = Bench::started();
    let (key, _) = bench.create_primary(OWNER, template);
    let [issuer, validity, subject, extensions] = fields(0x80);
    let partial = tlv(0x30, &[&*issuer, &validity, &subject, &extensions].concat());
    let (rc, response) = certify(&mut bench, [key, key], &partial);
    assert_eq!(rc, Rc::SUCCESS, "{rc}");
    let mut rest = &response[4..];
    let (added, digest) = (take(&mut rest), take(&mut rest));
    let signature = &rest[..rest.len() - 10];

    let outer = der::next(&mut &*added).unwrap();
    assert_eq!(outer.whole.len(), added.len());
    let mut rest = outer.contents;
    let [version, serial, algorithm, public] = [(); 4].map(|()| der::next(&mut rest).unwrap());
    assert!(rest.is_empty());
    assert_eq!(version.whole, [0xA0, 3, 2, 1, 2]);
    assert!(serial.contents[0] < 0x80 && serial.contents.len() <= 20);
    let parts = [
        version.whole,
        serial.whole,
        algorithm.whole,
        &issuer,
        &validity,
        &subject,
    ];
    let tbs = tlv(0x30, &[&parts.concat(), public.whole, &extensions].concat());
    let hash = RustCrypto.hash(crate::HashAlg::Sha256, &[&tbs]);
    assert_eq!(hash.as_slice(), digest);

    let mut verify = vec![0, 32];
    verify.extend(digest);
    verify.extend(signature);
    bench.ok(0x177, &[key], &verify);
    verify[5] ^= 1;
    assert_ne!(bench.run(0x177, &[key], &[], &verify).0, Rc::SUCCESS);
}

#[test]
fn certificate_of_an_ecc_key_is_whole_and_signed() {
    check(ECC_SIGNING);
}

#[test]
fn certificate_of_an_rsa_key_is_whole_and_signed() {
    check(RSA_SIGNING);
}

#[test]
fn certificate_says_nothing_untrue_of_the_key() {
    let mut bench = Bench::started();
    let (key, _) = bench.create_primary(OWNER, ECC_SIGNING);
    let (storage, _) = bench.create_primary(OWNER, ECC_STORAGE);
    let partial = |usage| tlv(0x30, &fields(usage).concat());
    let code = |bench: &mut Bench, keys, partial: &[u8]| certify(bench, keys, partial).0;
    // The key does not encipher; a storage key does not sign.
    let wrong_usage = code(&mut bench, [key, key], &partial(0x20));
    assert_eq!(wrong_usage, Rc::ATTRIBUTES.handle(1));
    let unsigned = code(&mut bench, [storage, key], &partial(0x80));
    assert_eq!(unsigned, Rc::ATTRIBUTES.handle(1));
    let signer = code(&mut bench, [key, storage], &partial(0x80));
    assert_eq!(signer, Rc::KEY.handle(2));
    // Whatever is cut off, what is left is refused.
    let whole = partial(0x80);
    for len in 0..whole.len() {
        let rc = code(&mut bench, [key, key], &whole[..len]);
        assert_eq!(rc, Rc::SIZE.param(3), "{len}: {rc}");
    }
    let [issuer, validity, subject, _] = fields(0x80);
    let without = tlv(0x30, &[issuer, validity, subject].concat());
    assert_eq!(code(&mut bench, [key, key], &without), Rc::VALUE.param(3));
}
