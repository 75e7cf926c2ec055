//! Suspending a TPM and resuming it, here or elsewhere: the volatile state as sealed bytes.

use core::fmt;

use zeroize::Zeroize;

use super::{Error, Storage, Tpm};
use crate::{
    crypto::seal::{CODE_LEN, Code, Keys, counter_of},
    rc::Rc,
    seam::SeamError,
    state::{
        Core,
        volatile::{Misfit, body_max},
    },
    wire::{Reader, Writer},
};

const MAGIC: [u8; 8] = *b"svsmvola";
/// The layout; raised when it changes.
const FORMAT: u16 = 2;
/// The algorithms, commands and structures that a state may speak of; raised when one is added.
const PROFILE: u16 = 3;
/// Added to the profile of a TPM with post-quantum keys.
const LATTICES: u16 = 1 << 8;
/// Magic, format, profile, length of what follows the code.
const PREFIX_LEN: usize = 8 + 2 + 2 + 4;
const HEAD_LEN: usize = PREFIX_LEN + CODE_LEN;

/// How a resumed TPM goes on with its random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// With those that the suspended one would have drawn. Only for bytes that are resumed once: two TPMs that go on alike sign with the
    /// same nonces, which gives their keys away.
    Exactly,
    /// With fresh entropy mixed in: for a snapshot that may be resumed again.
    Reseeded,
}

/// Why a volatile state was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// It is no volatile state of a TPM of this crate.
    Foreign,
    /// A newer version wrote it, in a layout of this number.
    Newer {
        /// The layout.
        format: u16,
    },
    /// An older version wrote it, in a layout of this number, which this version does not read.
    Older {
        /// The layout.
        format: u16,
    },
    /// It may speak of algorithms or commands that this version does not have.
    Profile {
        /// The profile.
        profile: u16,
    },
    /// It is cut or changed, or was sealed under another key.
    Damaged,
    /// It comes from a TPM with other buffers, or another number of slots.
    Capacity,
    /// Another provider of cryptographic primitives made it.
    Provider,
    /// It belongs to another permanent state than the one that was loaded, or was resumed from already.
    OtherPermanent,
    /// Commands were run since the power came.
    Started,
    /// An algorithm that passed its self-test before does not pass it here. The TPM is in failure mode.
    SelfTest,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => f.write_str("no volatile state of a tpm"),
            Self::Newer { format } => write!(f, "volatile state in the newer format {format}"),
            Self::Older { format } => write!(f, "volatile state in the older format {format}"),
            Self::Profile { profile } => write!(f, "volatile state of profile {profile}"),
            Self::Damaged => f.write_str("volatile state damaged or under another key"),
            Self::Capacity => f.write_str("volatile state of a tpm of another size"),
            Self::Provider => f.write_str("volatile state made with another crypto provider"),
            Self::OtherPermanent => f.write_str("volatile state of another permanent state"),
            Self::Started => f.write_str("the tpm was started already"),
            Self::SelfTest => f.write_str("a self-test failed after the volatile state was read"),
        }
    }
}

impl core::error::Error for Refusal {}

impl Storage<'_> {
    /// The greatest length of the volatile state of a TPM with so many object slots (with [`Storage::EXTRA_OBJECTS`]) and session slots,
    /// and so many bytes of NV memory (with [`Storage::NV_HEAD`]).
    pub const fn volatile_max(objects: usize, sessions: usize, nv: usize) -> usize {
        let objects = objects.saturating_sub(Self::EXTRA_OBJECTS);
        HEAD_LEN + body_max(objects, sessions, nv.saturating_sub(Self::NV_HEAD))
    }
}

impl Tpm<'_> {
    /// The greatest length of this TPM's volatile state, whatever it holds.
    pub const fn volatile_max(&self) -> usize {
        let core = &self.core;
        let [objects, sessions] = [core.objects.capacity(), core.sessions.slots()];
        HEAD_LEN + body_max(objects, sessions, core.nv.room())
    }

    /// Writes the volatile state into the front of `out` and says how long it is.
    ///
    /// It is everything that decides later answers and is not in the permanent state: PCRs, sessions, loaded objects and sequences, what
    /// Startup made or Shutdown would save (Part 4's "state clear" and "state reset" data), the data of orderly indices, time, and the
    /// random bit generator. It is not the response to the last command. The bytes are encrypted and authenticated under `key`, as
    /// [`Slots`](crate::slots::Slots) does it with an image, and are worth nothing without the permanent state, which has been committed
    /// when this returns. The TPM goes on unchanged; time that passes until the state is resumed does not count.
    ///
    /// # Errors
    ///
    /// - [`Error::Busy`] while a command is under way, and [`Error::Off`] before the power came.
    /// - [`Error::BufferTooSmall`]; [`Tpm::volatile_max`] bytes are always enough.
    /// - [`Error::Seam`] if the permanent state cannot be committed.
    pub fn save_volatile(&mut self, key: &[u8; 32], out: &mut [u8]) -> Result<usize, Error> {
        if self.frame.is_running() {
            return Err(Error::Busy);
        }
        if !self.core.is_loaded() {
            return Err(Error::Off);
        }
        self.core
            .commit()
            .map_err(|_| Error::Seam(SeamError::StoreUnavailable))?;
        let (head, room) = out
            .split_at_mut_checked(HEAD_LEN)
            .ok_or(Error::BufferTooSmall)?;
        let mut w = Writer::new(room);
        let written = self.core.write_volatile(&mut w);
        let len = w.len();
        if written.is_err() {
            room.zeroize();
            return Err(Error::BufferTooSmall);
        }
        let body = room.get_mut(..len).unwrap_or_default();
        let keys = self.volatile_keys(key);
        let sealed = put_head(head, profile(&self.core), len, |prefix| {
            keys.code(self.core.crypto, prefix, body)
        });
        let Ok(code) = sealed else {
            body.zeroize();
            return Err(Error::BufferTooSmall);
        };
        keys.crypt(self.core.crypto, &mut counter_of(&code), body);
        Ok(HEAD_LEN + len)
    }

    /// Goes on where [`Tpm::save_volatile`] stopped. The TPM has power, its store gave it the permanent state that was committed then, and
    /// it was not started since.
    ///
    /// Commits the permanent state under a new generation, so that the same bytes do not fit it a second time: as far as the store tells an
    /// old image from the newest one, a TPM resumes from them once. Algorithms that had passed their self-tests are tested again.
    /// `blob` is decrypted in place, and is as it was when this returns.
    ///
    /// # Errors
    ///
    /// After all of them but [`Refusal::SelfTest`] the TPM is as it was.
    ///
    /// - [`Error::Busy`] while a command is under way, and [`Error::Off`] before the power came.
    /// - [`Error::Refused`] with the reason.
    /// - [`Error::Seam`] without entropy for [`Resume::Reseeded`], or if the permanent state cannot be committed.
    pub fn restore_volatile(
        &mut self,
        key: &[u8; 32],
        blob: &mut [u8],
        resume: Resume,
    ) -> Result<(), Error> {
        if self.frame.is_running() {
            return Err(Error::Busy);
        }
        if !self.core.is_loaded() {
            return Err(Error::Off);
        }
        if self.core.started {
            return Err(Error::Refused(Refusal::Started));
        }
        let profile = profile(&self.core);
        let (prefix, code) = read_head(blob, profile).map_err(Error::Refused)?;
        let body = blob.get_mut(HEAD_LEN..).unwrap_or_default();
        let keys = self.volatile_keys(key);
        let crypto = self.core.crypto;
        keys.crypt(crypto, &mut counter_of(&code), body);
        let result = if keys.matches(crypto, &prefix, body, &code) {
            self.core
                .restore_volatile(body, resume == Resume::Reseeded)
                .map_err(refused)
        } else {
            Err(Error::Refused(Refusal::Damaged))
        };
        // The same stream again: nobody gets to see the plain bytes, and who has to try again still has the sealed ones.
        keys.crypt(crypto, &mut counter_of(&code), body);
        if result.is_ok() {
            self.frame = super::Frame::new();
        }
        result
    }

    fn volatile_keys(&self, key: &[u8; 32]) -> Keys {
        Keys::new(self.core.crypto, key, ["VOLATILE-CODE", "VOLATILE-CIPHER"])
    }
}

fn refused(misfit: Misfit) -> Error {
    Error::Refused(match misfit {
        Misfit::Seam(seam) => return Error::Seam(seam),
        Misfit::Capacity => Refusal::Capacity,
        Misfit::Provider => Refusal::Provider,
        Misfit::Permanent => Refusal::OtherPermanent,
        Misfit::SelfTest => Refusal::SelfTest,
        Misfit::Content => Refusal::Damaged,
    })
}

/// The profile of a TPM.
const fn profile(core: &Core<'_>) -> u16 {
    if core.has_lattices() {
        PROFILE | LATTICES
    } else {
        PROFILE
    }
}

/// Writes prefix and code, and gives the code.
fn put_head(
    head: &mut [u8],
    profile: u16,
    len: usize,
    code: impl FnOnce(&[u8]) -> Code,
) -> Result<Code, Rc> {
    let mut w = Writer::new(head);
    w.bytes(&MAGIC)?;
    w.put(&FORMAT)?;
    w.put(&profile)?;
    w.put(&u32::try_from(len).map_err(|_| Rc::SIZE)?)?;
    let code = code(w.written());
    w.bytes(&code)?;
    Ok(code)
}

fn read_head(blob: &[u8], own: u16) -> Result<([u8; PREFIX_LEN], Code), Refusal> {
    let cut = |_| Refusal::Damaged;
    let mut r = Reader::new(blob);
    let front = blob.get(..MAGIC.len()).unwrap_or(blob);
    if !MAGIC.starts_with(front) {
        return Err(Refusal::Foreign);
    }
    r.take(MAGIC.len()).map_err(cut)?;
    let format: u16 = r.read().map_err(cut)?;
    let profile: u16 = r.read().map_err(cut)?;
    match format {
        FORMAT => {}
        newer if newer > FORMAT => return Err(Refusal::Newer { format }),
        _ => return Err(Refusal::Older { format }),
    }
    if profile != own {
        return Err(Refusal::Profile { profile });
    }
    let len: u32 = r.read().map_err(cut)?;
    let code = r.array().map_err(cut)?;
    if usize::try_from(len).ok() != Some(r.rest().len()) {
        return Err(Refusal::Damaged);
    }
    let prefix = blob.first_chunk().copied().ok_or(Refusal::Damaged)?;
    Ok((prefix, code))
}
