/// Seals and opens messages: AES-256-GCM with nonces of 12 bytes and tags of 16 (NIST SP 800-38D).
pub trait Aead {
    /// Encrypts `text` in place and answers with the tag over it and `associated`.
    ///
    /// # Errors
    /// The cipher does not work; `text` is then not used.
    fn seal(
        &self,
        key: &[u8; 32],
        nonce: &[u8; 12],
        associated: &[u8],
        text: &mut [u8],
    ) -> Result<[u8; 16], AeadError>;

    /// Decrypts `text` in place, if `tag` is that over it and `associated`.
    ///
    /// # Errors
    /// It is not; `text` is then not used.
    fn open(
        &self,
        key: &[u8; 32],
        nonce: &[u8; 12],
        associated: &[u8],
        text: &mut [u8],
        tag: &[u8; 16],
    ) -> Result<(), AeadError>;
}

impl<A: Aead + ?Sized> Aead for &A {
    fn seal(
        &self,
        key: &[u8; 32],
        nonce: &[u8; 12],
        associated: &[u8],
        text: &mut [u8],
    ) -> Result<[u8; 16], AeadError> {
        A::seal(self, key, nonce, associated, text)
    }

    fn open(
        &self,
        key: &[u8; 32],
        nonce: &[u8; 12],
        associated: &[u8],
        text: &mut [u8],
        tag: &[u8; 16],
    ) -> Result<(), AeadError> {
        A::open(self, key, nonce, associated, text, tag)
    }
}

/// A message was not sealed, or is not what was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AeadError;

/// The cipher of the `aes-gcm` crate.
#[cfg(feature = "aes-gcm")]
#[derive(Clone, Copy, Debug, Default)]
pub struct AesGcm;

#[cfg(feature = "aes-gcm")]
impl Aead for AesGcm {
    fn seal(
        &self,
        key: &[u8; 32],
        nonce: &[u8; 12],
        associated: &[u8],
        text: &mut [u8],
    ) -> Result<[u8; 16], AeadError> {
        use aes_gcm::{Aes256Gcm, KeyInit, aead::AeadInOut};

        Aes256Gcm::new(key.into())
            .encrypt_inout_detached(nonce.into(), associated, text.into())
            .map(Into::into)
            .map_err(|_| AeadError)
    }

    fn open(
        &self,
        key: &[u8; 32],
        nonce: &[u8; 12],
        associated: &[u8],
        text: &mut [u8],
        tag: &[u8; 16],
    ) -> Result<(), AeadError> {
        use aes_gcm::{Aes256Gcm, KeyInit, aead::AeadInOut};

        Aes256Gcm::new(key.into())
            .decrypt_inout_detached(nonce.into(), associated, text.into(), tag.into())
            .map_err(|_| AeadError)
    }
}
