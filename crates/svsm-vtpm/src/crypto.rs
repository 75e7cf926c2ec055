//! Cryptography: the seam through which the TPM reaches primitives, and what it builds on them.
//!
//! Primitives (hashes, block ciphers, arithmetic of curves and of RSA) come through the traits here; `RustCrypto`
//! (feature `rustcrypto`) implements them. Everything that the TPM specification defines on top (key
//! derivation, padding, schemes) is ours and the same with every provider.

pub(crate) mod cmac; // the block cipher as a message authentication code
pub(crate) mod drbg; // CTR_DRBG: all random numbers, and the keys that come from a seed
pub(crate) mod kdf; // KDFa, KDFe, MGF1
pub(crate) mod keygen; // the search for RSA keys, one exponentiation a step
#[cfg(feature = "pqc")]
mod lattice; // what ML-KEM and ML-DSA need
pub(crate) mod padding; // OAEP, PKCS #1 v1.5, PSS
#[cfg(feature = "rustcrypto")]
mod rustcrypto;
pub(crate) mod seal; // bytes for a place that is not trusted
#[cfg(feature = "pqc")]
pub(crate) mod shake; // SHAKE256, and what ML-DSA signs of a message
pub(crate) mod sign; // ECDSA, EC-Schnorr, ECDAA

#[cfg(feature = "pqc")]
pub use lattice::{
    DSA_SEED_LEN, DsaMath, DsaSet, DsaSignature, KEM_SEED_LEN, KemCiphertext, KemMath, KemSet,
    LatticeKey, Lattices, MU_LEN, Permutation, SHARED_SECRET_LEN,
};
#[cfg(feature = "rustcrypto")]
pub use rustcrypto::RustCrypto;

pub use crate::{
    alg::{Curve, HashAlg, Mode},
    bytes::Bytes,
    structures::public::{Digest, EccNumber, Point, RsaNumber},
};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Half of an RSA number: a prime or what is reduced by one.
pub type RsaHalf = Bytes<256>;

/// A hash in progress, in a form that can be kept and moved. Only the provider that made it understands it.
#[derive(Clone, Debug)]
pub struct HashState {
    /// The algorithm.
    pub alg: HashAlg,
    /// The provider's own representation.
    pub state: Bytes<232>,
}

/// Hash functions and the code built of them.
pub trait Hashing {
    /// The hash of all `parts`, one after another.
    fn hash(&self, alg: HashAlg, parts: &[&[u8]]) -> Digest;

    /// The HMAC of all `parts`, one after another.
    fn hmac(&self, alg: HashAlg, key: &[u8], parts: &[&[u8]]) -> Digest;

    /// Begins a hash that goes on over several commands.
    fn start(&self, alg: HashAlg) -> HashState;

    /// Hashes `data`, too.
    fn update(&self, state: &mut HashState, data: &[u8]);

    /// The hash of everything that `state` has seen.
    fn finish(&self, state: &HashState) -> Digest;
}

/// AES with keys of 16, 24 or 32 bytes.
pub trait Ciphering {
    /// Encrypts `data` in place and leaves in `iv` what a following part needs.
    ///
    /// In CBC and ECB mode `data` is whole blocks; otherwise a partial last block is allowed.
    fn encrypt(&self, mode: Mode, key: &[u8], iv: &mut [u8; 16], data: &mut [u8]);

    /// The reverse of [`Ciphering::encrypt`].
    fn decrypt(&self, mode: Mode, key: &[u8], iv: &mut [u8; 16], data: &mut [u8]);
}

/// Arithmetic of elliptic curves. Numbers are big-endian and have the curve's length; scalars are secret unless said
/// otherwise.
pub trait Curves {
    /// `bytes` (at most the curve's length of them) modulo the order.
    fn reduce(&self, curve: Curve, bytes: &[u8]) -> EccNumber;

    /// `a * b + c` modulo the order.
    fn mul_add(&self, curve: Curve, a: &EccNumber, b: &EccNumber, c: &EccNumber) -> EccNumber;

    /// `-a` modulo the order.
    fn negate(&self, curve: Curve, a: &EccNumber) -> EccNumber;

    /// `1 / a` modulo the order; `None` for zero.
    fn invert(&self, curve: Curve, a: &EccNumber) -> Option<EccNumber>;

    /// `k` times `point`, or times the generator; `None` if that is the point at infinity or `point` is not on the curve.
    fn mul(&self, curve: Curve, k: &EccNumber, point: Option<&Point>) -> Option<Point>;

    /// `a` times the generator plus `b` times `point`, all of them public.
    fn mul_sum(&self, curve: Curve, a: &EccNumber, b: &EccNumber, point: &Point) -> Option<Point>;

    /// The sum of two points.
    fn add(&self, curve: Curve, a: &Point, b: &Point) -> Option<Point>;

    /// Whether the point is on the curve (and not at infinity).
    fn contains(&self, curve: Curve, point: &Point) -> bool;
}

/// An RSA private key, ready for use.
#[derive(Clone, Debug, Default, Zeroize, ZeroizeOnDrop)]
#[expect(missing_docs, reason = "the names of PKCS #1")]
pub struct RsaKey {
    pub bits: u16,
    pub e: u32,
    pub n: RsaNumber,
    pub p: RsaHalf,
    pub q: RsaHalf,
    pub dp: RsaHalf,
    pub dq: RsaHalf,
    pub qinv: RsaHalf,
}

/// Arithmetic of RSA with moduli of 1024, 2048, 3072 and 4096 bits.
pub trait RsaMath {
    /// `x` to the power `e` modulo `n`; `None` unless `x < n`.
    fn public(&self, n: &[u8], e: u32, x: &[u8]) -> Option<RsaNumber>;

    /// The private operation on `x < n`, blinded by `random` and checked before it is given away.
    fn private(&self, key: &RsaKey, x: &[u8], random: &mut dyn Stream) -> Option<RsaNumber>;

    /// The key of modulus `n` with the prime `p`; `None` if they do not belong together.
    fn complete(&self, n: &[u8], e: u32, p: &[u8]) -> Option<RsaKey>;

    /// The key of two primes.
    fn combine(&self, e: u32, p: &[u8], q: &[u8]) -> Option<RsaKey>;

    /// For each odd number in `start, start + 2, …`, a bit in `sieve`: set if it has a small factor or is one more than
    /// a multiple of `e`.
    fn sieve(&self, start: &[u8], e: u32, sieve: &mut [u64]);

    /// Whether `start + 2 * index` passes a Miller-Rabin round to this base.
    fn miller_rabin(&self, start: &[u8], index: u32, base: u32) -> bool;

    /// `start + 2 * index`; `None` if that is longer than `start`.
    fn candidate(&self, start: &[u8], index: u32) -> Option<RsaHalf>;
}

/// All primitives of the TPM.
pub trait Crypto: Hashing + Ciphering + Curves + RsaMath + Sync {}

impl<T: Hashing + Ciphering + Curves + RsaMath + Sync> Crypto for T {}

/// An endless stream of bits: a random generator, or the one that a seed determines.
pub trait Stream {
    /// The next bytes.
    fn fill(&mut self, out: &mut [u8]);
}

/// A random scalar, not zero, by drawing until one is below the order.
pub(crate) fn draw_scalar(crypto: &dyn Crypto, curve: Curve, from: &mut dyn Stream) -> EccNumber {
    let mut k = EccNumber::zeroed(curve.bytes());
    // Half of the draws fail at most; the bound is for a source that is broken.
    for _ in 0..256 {
        from.fill(k.as_mut_slice());
        if curve == Curve::P521
            && let Some(first) = k.as_mut_slice().first_mut()
        {
            *first &= 1;
        }
        if is_scalar(crypto, curve, &k) {
            break;
        }
    }
    k
}

/// Whether `k` is in 1..order.
pub(crate) fn is_scalar(crypto: &dyn Crypto, curve: Curve, k: &EccNumber) -> bool {
    k.len() == curve.bytes()
        && k.as_slice().iter().any(|b| *b != 0)
        && crypto.reduce(curve, k.as_slice()) == *k
}
