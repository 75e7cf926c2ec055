//! ECDSA over P-384 with SHA-384, and how the security processor writes keys and signatures: numbers are little-endian,
//! 72 bytes each (56860, "ECC Keys and Signatures").

use p384::ecdsa::signature::{Signer, Verifier};
use p384::ecdsa::{Signature, SigningKey, VerifyingKey};
use sha2::{Digest, Sha384};
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The length of a number of P-384.
const NUMBER: usize = 48;

/// The number that stands for P-384 in a key.
pub const CURVE_P384: u32 = 2;
/// The number that stands for ECDSA over P-384 with SHA-384.
pub const ALGORITHM_P384_SHA384: u32 = 1;

/// A number of a key or a signature.
type Number = [u8; 72];

/// The hash of everything here.
pub(crate) fn sha384(bytes: &[u8]) -> [u8; 48] {
    Sha384::digest(bytes).into()
}

fn little_endian(big_endian: &[u8]) -> Number {
    let mut number = [0; 72];
    for (to, from) in number.iter_mut().zip(big_endian.iter().rev()) {
        *to = *from;
    }
    number
}

/// `None` if it is too large for the curve.
fn big_endian(number: &Number) -> Option<[u8; NUMBER]> {
    let (low, high) = number.split_first_chunk::<NUMBER>()?;
    if high.iter().any(|byte| *byte != 0) {
        return None;
    }
    let mut bytes = *low;
    bytes.reverse();
    Some(bytes)
}

/// A signature on the wire.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct WireSignature {
    /// R, little-endian.
    pub r: Number,
    /// S, little-endian.
    pub s: Number,
    /// Zero.
    pub reserved: [u8; 368],
}
const _: () = assert!(size_of::<WireSignature>() == 512);

impl WireSignature {
    /// Signs `message`; the same message and key make the same signature (RFC 6979).
    #[must_use]
    pub fn sign(key: &SigningKey, message: &[u8]) -> Self {
        let signature: Signature = key.sign(message);
        let (r, s) = signature.split_bytes();
        let mut wire: Self = FromZeros::new_zeroed();
        wire.r = little_endian(&r);
        wire.s = little_endian(&s);
        wire
    }

    /// Whether it is `key`'s signature of `message`.
    #[must_use]
    pub fn verifies(&self, key: &VerifyingKey, message: &[u8]) -> bool {
        let numbers = big_endian(&self.r).zip(big_endian(&self.s));
        numbers
            .and_then(|(r, s)| Signature::from_scalars(r, s).ok())
            .is_some_and(|signature| key.verify(message, &signature).is_ok())
    }
}

/// A public key on the wire.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct WireKey {
    /// [`CURVE_P384`].
    pub curve: U32,
    /// X, little-endian.
    pub x: Number,
    /// Y, little-endian.
    pub y: Number,
    /// Zero.
    pub reserved: [u8; 880],
}
const _: () = assert!(size_of::<WireKey>() == 1028);

impl WireKey {
    /// The public half of `key`.
    #[must_use]
    pub fn of(key: &SigningKey) -> Self {
        let point = key.verifying_key().to_sec1_point(false);
        let mut wire: Self = FromZeros::new_zeroed();
        wire.curve = U32::new(CURVE_P384);
        if let (Some(x), Some(y)) = (point.x(), point.y()) {
            wire.x = little_endian(x);
            wire.y = little_endian(y);
        }
        wire
    }

    /// The key, if it is a point of the curve.
    #[must_use]
    pub fn key(&self) -> Option<VerifyingKey> {
        if self.curve.get() != CURVE_P384 {
            return None;
        }
        let mut point = [4; 1 + 2 * NUMBER];
        let (x, y) = point.get_mut(1..)?.split_at_mut(NUMBER);
        x.copy_from_slice(&big_endian(&self.x)?);
        y.copy_from_slice(&big_endian(&self.y)?);
        VerifyingKey::from_sec1_bytes(&point).ok()
    }

    /// What reports call the digest of the key: that of its whole structure.
    #[must_use]
    pub fn digest(&self) -> [u8; 48] {
        sha384(self.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> SigningKey {
        SigningKey::from_slice(&[byte; 48]).unwrap()
    }

    #[test]
    fn a_signature_holds_for_its_message_and_key_alone() {
        let signature = WireSignature::sign(&key(1), b"report");
        let public = WireKey::of(&key(1)).key().unwrap();
        assert!(signature.verifies(&public, b"report"));
        assert!(!signature.verifies(&public, b"Report"));
        assert!(!signature.verifies(key(2).verifying_key(), b"report"));
        let mut zero = signature;
        zero.r = [0; 72];
        assert!(!zero.verifies(&public, b"report"));
        let mut large = signature;
        large.s[48] = 1;
        assert!(!large.verifies(&public, b"report"));
    }

    #[test]
    fn a_point_that_is_not_on_the_curve_is_no_key() {
        let mut wire = WireKey::of(&key(1));
        wire.y[0] ^= 1;
        assert!(wire.key().is_none());
        let mut other = WireKey::of(&key(1));
        other.curve = U32::new(1);
        assert!(other.key().is_none());
    }
}
