//! Known answers of ML-KEM and ML-DSA: one parameter set each, since all run the same code.
//!
//! An independent implementation has the same public keys for the seeds, gets the secret out of the ciphertext, and takes the signature.

use super::Tests;
use crate::{
    HashAlg,
    crypto::{Crypto, DsaSet, KemSet, Lattices, shake::Shake},
};

/// Of the public key of ML-KEM-768 with the seed of bytes 0 to 63, SHA-256.
const KEM_PUBLIC: &[u8] = b"\
      \x0b\x79\x34\xc8\x31\x25\xc7\x88\x99\x5e\x2b\xa6\xbd\x76\x1e\x33\x04\x6b\x3e\x40\x57\x1b\xe5\x3e\
      \x02\x33\x09\xa2\x9f\x39\x8c\xc9";
/// Of the ciphertext for that key, from 32 bytes 0x5A, SHA-256.
const KEM_CIPHERTEXT: &[u8] = b"\
      \xfd\xa1\xac\x52\x9e\x59\x76\x0e\xce\x5a\xba\x81\xb8\xb1\x6b\x84\x28\xf0\x09\x11\xaf\xa8\x9b\xe3\
      \x2e\xa0\x79\x35\x1f\x71\x90\xe5";
/// The secret that this ciphertext stands for.
const KEM_SECRET: &[u8] = b"\
      \x13\x45\xff\xad\x81\x76\xa5\x9e\x2c\x87\xa2\xf2\x11\x8c\x73\x13\xa6\xe0\x4d\xdd\x06\xca\x85\x75\
      \x55\xf6\x15\x6d\x4c\x9f\x4d\x95";
/// Of the public key of ML-DSA-44 with the seed of bytes 0 to 31, SHA-256.
const DSA_PUBLIC: &[u8] = b"\
      \x9f\x10\x76\x44\xc1\x08\x45\x26\xaf\x3b\xc8\x09\x86\x80\xb0\x54\x99\xa2\x32\x5a\x64\x4e\x38\x8f\
      \xb4\xf9\x70\xe0\x58\xd1\x9d\x46";
/// Of its signature of "abc" without a context, with 32 random bytes 0, SHA-256.
const DSA_SIGNATURE: &[u8] = b"\
      \x9c\x2a\xfc\x5d\xb0\xe1\x5c\x19\x99\x77\xbe\x79\xea\xee\x52\xca\x0b\x53\x8a\x1b\x6f\x80\x39\xdc\
      \xac\x03\x2a\x06\x12\x0c\xfa\x87";

fn counting<const N: usize>() -> [u8; N] {
    core::array::from_fn(|n| u8::try_from(n).unwrap_or(0))
}

/// Whether the provider gives the known answers.
pub(super) fn passes(crypto: &dyn Crypto, lattices: &dyn Lattices, test: Tests) -> bool {
    let hash = |bytes: &[u8]| crypto.hash(HashAlg::Sha256, &[bytes]);
    match test {
        Tests::MLKEM => kem(lattices, &hash),
        Tests::MLDSA => dsa(lattices, &hash),
        _ => None,
    }
    .unwrap_or(false)
}

type Hash<'h> = &'h dyn Fn(&[u8]) -> crate::crypto::Digest;

fn kem(lattices: &dyn Lattices, hash: Hash<'_>) -> Option<bool> {
    let (set, seed) = (KemSet::MlKem768, counting());
    let public = lattices.kem_public(set, &seed);
    let (secret, ciphertext) = lattices.encapsulate(set, public.as_slice(), &[0x5A; 32])?;
    let back = lattices.decapsulate(set, &seed, ciphertext.as_slice())?;
    // A ciphertext of somebody else's gives another secret.
    let mut wrong = ciphertext.clone();
    *wrong.as_mut_slice().first_mut()? ^= 1;
    let rejected = lattices.decapsulate(set, &seed, wrong.as_slice())?;
    Some(
        hash(public.as_slice()).as_slice() == KEM_PUBLIC
            && hash(ciphertext.as_slice()).as_slice() == KEM_CIPHERTEXT
            && secret == KEM_SECRET
            && back == secret
            && rejected != secret,
    )
}

fn dsa(lattices: &dyn Lattices, hash: Hash<'_>) -> Option<bool> {
    let (set, seed) = (DsaSet::MlDsa44, counting());
    let public = lattices.dsa_public(set, &seed);
    let mut sponge = Shake::of_message(lattices, public.as_slice(), None, &[]);
    sponge.absorb(lattices, b"abc");
    let mut mu = sponge.finish(lattices);
    let signature = lattices.dsa_sign(set, &seed, &mu, &[0; 32])?;
    let right = lattices.dsa_verify(set, public.as_slice(), &mu, signature.as_slice());
    *mu.first_mut()? ^= 1;
    let wrong = lattices.dsa_verify(set, public.as_slice(), &mu, signature.as_slice());
    Some(
        hash(public.as_slice()).as_slice() == DSA_PUBLIC
            && hash(signature.as_slice()).as_slice() == DSA_SIGNATURE
            && right
            && !wrong,
    )
}
