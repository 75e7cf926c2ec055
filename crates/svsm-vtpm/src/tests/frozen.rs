//! Known answers: a seed and a template give the same primary key for ever. A change of these values loses users' data.

use std::{format, string::String};

use super::bench::{Bench, ECC_STORAGE, OWNER, RSA_STORAGE};
use crate::crypto::{Hashing, RustCrypto};

fn digest(bytes: &[u8]) -> String {
    let hash = RustCrypto.hash(crate::HashAlg::Sha256, &[bytes]);
    hash.as_slice()
        .iter()
        .take(16)
        .map(|b| format!("{b:02x}"))
        .collect()
}

fn public_of(response: &[u8]) -> &[u8] {
    let len = usize::from(u16::from_be_bytes([response[0], response[1]]));
    &response[2..2 + len]
}

fn bench_with_known_seed() -> Bench {
    let mut bench = Bench::started();
    bench.tpm.set_owner_seed_for_test([0x5A; 64]);
    bench
}

#[test]
fn ecc_primary_of_a_known_seed_is_frozen() {
    let (_, response) = bench_with_known_seed().create_primary(OWNER, ECC_STORAGE);
    assert_eq!(
        digest(public_of(&response)),
        "dd335285af68e113dd7fe087c52a5503"
    );
}

#[test]
fn rsa_primary_of_a_known_seed_is_frozen() {
    let (_, response) = bench_with_known_seed().create_primary(OWNER, RSA_STORAGE);
    assert_eq!(
        digest(public_of(&response)),
        "d908c7dc5bcf80ca0c9b376d0c65a206"
    );
}

#[test]
fn unique_field_selects_another_key() {
    let mut bench = bench_with_known_seed();
    let (_, first) = bench.create_primary(OWNER, ECC_STORAGE);
    let mut other = ECC_STORAGE.to_vec();
    other.truncate(other.len() - 4);
    other.extend([0, 1, 7, 0, 0]);
    let (_, second) = bench.create_primary(OWNER, &other);
    assert_ne!(public_of(&first), public_of(&second));
}
