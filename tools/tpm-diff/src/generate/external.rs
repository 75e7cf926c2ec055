//! Whole parameters of LoadExternal, for keys that everybody knows.

use svsm_vtpm::crypto::{HashAlg, Hashing, RustCrypto};

use super::{
    keys::{RSA_N, RSA_P},
    sized,
};

fn both(kind: u8, attributes: u32, seed: &[u8], secret: &[u8], rest: &[u8]) -> Vec<u8> {
    let sensitive = [&[0, kind, 0, 0][..], &sized(seed), &sized(secret)].concat();
    let public = [
        &[0, kind, 0, 0x0B][..],
        &attributes.to_be_bytes(),
        &[0, 0],
        rest,
    ]
    .concat();
    [sized(&sensitive), sized(&public)].concat()
}

/// A key of HMAC (8) or of a block cipher (0x25).
pub(crate) fn symmetric(kind: u8, parameters: &[u8], secret: &[u8]) -> Vec<u8> {
    let seed = [3; 32];
    let unique = RustCrypto.hash(HashAlg::Sha256, &[&seed, secret]);
    let rest = [parameters, &sized(unique.as_slice())].concat();
    // A cipher decrypts too.
    let attributes = if kind == 8 { 0x0004_0040 } else { 0x0006_0040 };
    both(kind, attributes, &seed, secret, &rest)
}

/// An RSA key that decrypts, under any scheme.
pub(crate) fn rsa_decrypt() -> Vec<u8> {
    let rest = [&b"\0\x10\0\x10\x08\0\0\0\0\0"[..], &sized(&RSA_N)].concat();
    both(1, 0x0002_0040, &[], &RSA_P, &rest)
}
