//! What leaves the TPM for a place that is not trusted: encrypted and authenticated by a synthetic initialization vector.
//!
//! The construction is that of RFC 5297, with HMAC and AES-CTR: the code is HMAC-SHA-256 over a prefix in the clear and the
//! plain bytes, and its first half is the counter of AES-256. No number has to be used once, so none can be used twice.

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{Ciphering, HashAlg, Hashing, Mode, kdf};

/// Bytes of a code.
pub(crate) const CODE_LEN: usize = 32;

/// A code over a prefix and plain bytes.
pub(crate) type Code = [u8; CODE_LEN];

/// The two keys that come from one of the embedder's.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct Keys {
    code: [u8; 32],
    cipher: [u8; 32],
}

impl Keys {
    /// The keys of what the labels say: for the code, and for the cipher.
    pub(crate) fn new(crypto: &(impl Hashing + ?Sized), key: &[u8; 32], labels: [&str; 2]) -> Self {
        let mut keys = Self {
            code: [0; 32],
            cipher: [0; 32],
        };
        for (label, out) in labels.into_iter().zip([&mut keys.code, &mut keys.cipher]) {
            kdf::kdfa(crypto, HashAlg::Sha256, key, label, [&[], &[]], 256, out);
        }
        keys
    }

    /// The code over a prefix and plain bytes.
    pub(crate) fn code(
        &self,
        crypto: &(impl Hashing + ?Sized),
        prefix: &[u8],
        plain: &[u8],
    ) -> Code {
        let mac = crypto.hmac(HashAlg::Sha256, &self.code, &[prefix, plain]);
        let mut code = [0; CODE_LEN];
        code.iter_mut()
            .zip(mac.as_slice())
            .for_each(|(to, from)| *to = *from);
        code
    }

    /// Whether that is the code, in constant time.
    pub(crate) fn matches(
        &self,
        crypto: &(impl Hashing + ?Sized),
        prefix: &[u8],
        plain: &[u8],
        code: &Code,
    ) -> bool {
        bool::from(self.code(crypto, prefix, plain).ct_eq(code))
    }

    /// Encrypts bytes, or decrypts them: whole blocks, or the last ones. `counter` begins as [`counter_of`] the code.
    pub(crate) fn crypt(
        &self,
        crypto: &(impl Ciphering + ?Sized),
        counter: &mut [u8; 16],
        data: &mut [u8],
    ) {
        crypto.encrypt(Mode::Ctr, &self.cipher, counter, data);
    }
}

/// Where the cipher begins.
pub(crate) fn counter_of(code: &Code) -> [u8; 16] {
    code.first_chunk().copied().unwrap_or_default()
}
