//! RSASSA-PSS with 4096 bits and SHA-384 (RFC 8017, 8.1.2): how AMD signs certificates. Only checking is here, of what
//! everybody may know, so nothing has to be constant in time.

use super::certificate::Unusable;
use crate::curve::sha384;
use crate::der::read::Reader;
use crate::der::tag;
use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{Odd, U64, U4096};
use sha2::{Digest, Sha384};

/// The length of a number.
const NUMBER: usize = 512;
/// The length of a hash, and of the salt.
const HASH: usize = 48;
/// The length of what is masked.
const MASKED: usize = NUMBER - HASH - 1;
/// Zeros before the salt, and the one between.
const PADDING: usize = MASKED - HASH;

/// A signature.
pub(super) type Signature = [u8; NUMBER];

/// A public key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    modulus: Odd<U4096>,
    exponent: U64,
}

impl Key {
    /// Reads `RSAPublicKey` (RFC 8017, A.1.1). The modulus has 4096 bits, and not one less.
    pub(super) fn parse(der: &[u8]) -> Result<Self, Unusable> {
        let mut outer = Reader::new(der);
        let mut numbers = outer.inside(tag::SEQUENCE).ok_or(Unusable::Malformed)?;
        let modulus = numbers.number::<NUMBER>().ok_or(Unusable::Algorithm)?;
        let exponent = numbers.number::<8>().ok_or(Unusable::Algorithm)?;
        if !outer.is_empty() || !numbers.is_empty() {
            return Err(Unusable::Malformed);
        }
        let exponent = u64::from_be_bytes(exponent);
        let is_long = modulus.first().is_some_and(|byte| byte & 0x80 != 0);
        if !is_long || exponent < 3 || exponent.is_multiple_of(2) {
            return Err(Unusable::Algorithm);
        }
        let modulus = Odd::new(U4096::from_be_slice(&modulus)).into_option();
        Ok(Self {
            modulus: modulus.ok_or(Unusable::Malformed)?,
            exponent: U64::from_u64(exponent),
        })
    }

    /// Whether it is this key's signature of `message`.
    pub(super) fn verifies(&self, message: &[u8], signature: &Signature) -> bool {
        let number = U4096::from_be_slice(signature);
        if number >= *self.modulus.as_ref() {
            return false;
        }
        let params = FixedMontyParams::new_vartime(self.modulus);
        let encoded = FixedMontyForm::new(&number, &params)
            .pow_vartime(&self.exponent)
            .retrieve();
        let mut bytes = [0; NUMBER];
        for (to, from) in bytes.iter_mut().zip(encoded.to_be_bytes().as_ref()) {
            *to = *from;
        }
        is_encoding_of(&bytes, message)
    }
}

/// Whether `encoded` is an encoding of `message` (RFC 8017, 9.1.2).
fn is_encoding_of(encoded: &[u8; NUMBER], message: &[u8]) -> bool {
    const TRAILER: u8 = 0xbc;
    let Some((masked, rest)) = encoded.split_first_chunk::<MASKED>() else {
        return false;
    };
    let Some((hash, &[TRAILER])) = rest.split_first_chunk::<HASH>() else {
        return false;
    };
    let mut block = *masked;
    // There is one bit more in the number than in what is encoded.
    match block.first_mut() {
        Some(first) if *first & 0x80 == 0 => {}
        _ => return false,
    }
    for (counter, piece) in (0_u32..).zip(block.chunks_mut(HASH)) {
        let mask = Sha384::new()
            .chain_update(hash)
            .chain_update(counter.to_be_bytes())
            .finalize();
        for (byte, mask) in piece.iter_mut().zip(mask) {
            *byte ^= mask;
        }
    }
    if let Some(first) = block.first_mut() {
        *first &= 0x7f;
    }
    let (padding, salt) = block.split_at(PADDING);
    let Some((1, zeros)) = padding.split_last() else {
        return false;
    };
    let again = Sha384::new()
        .chain_update([0; 8])
        .chain_update(sha384(message))
        .chain_update(salt)
        .finalize();
    zeros.iter().all(|byte| *byte == 0) && *hash == <[u8; HASH]>::from(again)
}
