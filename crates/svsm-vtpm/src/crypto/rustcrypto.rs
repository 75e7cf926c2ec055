//! The default provider: RustCrypto's primitives, and RSA on its big integers.

mod bn; // the BN curve of 256 bits
mod cipher; // AES and its modes
mod curve; // P-256, P-384, P-521
mod hash; // SHA-1, SHA-2
#[cfg(feature = "pqc")]
mod lattice; // ML-KEM, ML-DSA
mod montgomery; // products and squares modulo a number
mod prime; // a sieve, and rounds of Miller-Rabin
mod rsa; // modular arithmetic with CRT and blinding

/// The primitives of the RustCrypto project, with the TPM's own RSA.
#[derive(Clone, Copy, Debug, Default)]
pub struct RustCrypto;
