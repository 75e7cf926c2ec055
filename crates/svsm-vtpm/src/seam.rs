//! What an embedder plugs in: entropy, time, and a place for the permanent state.

use core::fmt;

/// A seam that could not do its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SeamError {
    /// No entropy is to be had now.
    NoEntropy,
    /// The store cannot be read or written now.
    StoreUnavailable,
    /// The store holds more than there is room for, or has less room than is needed.
    StoreSize,
    /// The store was written by a newer version. It is left untouched.
    StoreNewer,
    /// No image in the store is whole and from this TPM. It is left untouched.
    StoreBroken,
    /// The newest image is older than one that was confirmed: somebody put an old one back.
    StoreRolledBack,
}

impl fmt::Display for SeamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoEntropy => "no entropy available",
            Self::StoreUnavailable => "store of the permanent state not available",
            Self::StoreSize => "store of the permanent state has the wrong size",
            Self::StoreNewer => "store of the permanent state written by a newer version",
            Self::StoreBroken => "no whole image of this tpm in the store",
            Self::StoreRolledBack => "image in the store older than one that was confirmed",
        })
    }
}

impl core::error::Error for SeamError {}

/// Entropy for the TPM's own random bit generator (SP 800-90A), which never hands it out as it is.
pub trait Random: Send {
    /// Fills `out` with bytes of full entropy.
    ///
    /// # Errors
    ///
    /// [`SeamError::NoEntropy`]; the TPM then fails the command and asks again at the next one.
    fn fill(&mut self, out: &mut [u8]) -> Result<(), SeamError>;
}

/// The time since some moment, as the TPM's clock, timeouts and lockout need it.
pub trait Clock: Send {
    /// Milliseconds since an arbitrary moment; never goes back while the TPM is powered.
    fn now_ms(&mut self) -> u64;
}

/// Where the permanent state lives while the TPM is off.
///
/// The TPM commits a whole image before it answers the command that changed it. A store must make a commit atomic: after
/// a power cut, [`NvStore::load`] gives either the old image or the new one.
pub trait NvStore: Send {
    /// Reads the newest image into the front of `into` and says how long it is; `None` in an empty store.
    ///
    /// # Errors
    ///
    /// [`SeamError`] if it cannot be read or does not fit.
    fn load(&mut self, into: &mut [u8]) -> Result<Option<usize>, SeamError>;

    /// Replaces the image. `generation` grows with every commit and is part of the image: a store that can keep a
    /// number where nobody can wind it back refuses an older one in `load`.
    ///
    /// # Errors
    ///
    /// [`SeamError`]; the TPM then answers `TPM_RC_NV_UNAVAILABLE` and tries again with the next command.
    fn commit(&mut self, generation: u64, image: &[u8]) -> Result<(), SeamError>;
}

/// A store that forgets: for a TPM that is made anew at every boot.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ephemeral;

impl NvStore for Ephemeral {
    fn load(&mut self, _: &mut [u8]) -> Result<Option<usize>, SeamError> {
        Ok(None)
    }

    fn commit(&mut self, _: u64, _: &[u8]) -> Result<(), SeamError> {
        Ok(())
    }
}
