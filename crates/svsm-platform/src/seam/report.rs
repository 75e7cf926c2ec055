use core::fmt;

/// Proves to others what runs here, and derives keys that only this can have.
pub trait Report {
    /// What the key depends on besides the platform: fields, levels, versions.
    type KeyRequest;
    /// Why there is no report or key.
    type Error: Copy + fmt::Debug;

    /// Writes a signed report over `nonce` to the start of `buffer` and answers with that part.
    ///
    /// # Errors
    /// Why there is none; also if `buffer` is too small.
    fn report<'b>(
        &mut self,
        nonce: &[u8; 64],
        buffer: &'b mut [u8],
    ) -> Result<&'b [u8], Self::Error>;

    /// Derives a key.
    ///
    /// # Errors
    /// Why there is none; `key` then holds nothing of use.
    fn derive_key(
        &mut self,
        request: &Self::KeyRequest,
        key: &mut [u8; 32],
    ) -> Result<(), Self::Error>;
}

/// Random bytes that the host can neither know nor choose.
pub trait Entropy {
    /// Why there are none.
    type Error: Copy + fmt::Debug;

    /// Fills all of `bytes`.
    ///
    /// # Errors
    /// Why they are not all random. None of them may then be used.
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error>;
}
