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

/// Something that gets keys and other secrets from the TPM without anybody between: a service of the paravisor's that encrypts disks, say
/// (Part 3, clause 32 of version 1.83).
///
/// It gets an object by `TPM2_AC_Send`, which needs the object's policy to name that command, and thereby, if the policy wants it, the component
/// and what the TPM has measured. Whoever calls the command gets to see what the component answers, and nothing of the object.
pub trait AttachedComponent: Send {
    /// What it says of itself to everybody: tags (`TPM_AT`) with values, in ascending order. 2 is `TPM_AT_PV1`, and vendors' begin at
    /// 0x8000_0000.
    fn properties(&self) -> &[(u32, u32)];

    /// Takes an object, and says a tag and a value to the caller. 1, `TPM_AT_ERROR`, with 0, `TPM_AE_NONE`, says that all is well.
    fn take(&mut self, object: SentObject<'_>) -> (u32, u32);
}

/// An object that the TPM sends to a component.
#[non_exhaustive]
pub struct SentObject<'a> {
    /// Its public area, `TPMT_PUBLIC`.
    pub public: &'a [u8],
    /// Its secret part, `TPMT_SENSITIVE`. The TPM wipes these bytes afterwards.
    pub sensitive: &'a [u8],
    /// What the caller wants the component to know.
    pub data: &'a [u8],
}

impl fmt::Debug for SentObject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The rest is secret.
        f.debug_struct("SentObject")
            .field("public", &self.public)
            .field("data", &self.data)
            .finish_non_exhaustive()
    }
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
