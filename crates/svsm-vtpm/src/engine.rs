//! The engine: takes a command, goes through it step by step, and gives the response.

mod audit; // what sessions and the TPM remember of commands
mod auth; // authorization: passwords, HMACs, policies
mod crypt; // encrypted parameters
mod dispatch; // from header to handler, and back
mod endorse; // endorsement keys and their certificates
mod frame; // a command between two steps
mod suspend; // the volatile state, sealed

use core::fmt;

#[cfg(feature = "callbacks")]
use crate::state::Bundle;
use crate::{
    crypto::Crypto,
    rc::Rc,
    seam::{AttachedComponent, Clock, NvStore, Random, SeamError},
    state::{
        Core, Outside, Parts,
        image::LoadError,
        object::{EVICT_SLOTS, ObjectSlot},
        session::SessionSlot,
        timer::TIMERS_MAX,
    },
};
pub use endorse::EndorsementMark;
use frame::Frame;
pub use suspend::{Refusal, Resume};

/// The memory of a TPM, lent by the embedder. Its sizes are the TPM's capacities.
#[derive(Debug)]
pub struct Storage<'a> {
    /// Holds a command: 4096 bytes, or less where transport is tighter.
    pub command: &'a mut [u8],
    /// Holds a response, of the same size.
    pub response: &'a mut [u8],
    /// Slots of loaded objects: three at least, and [`Storage::EXTRA_OBJECTS`] more.
    pub objects: &'a mut [ObjectSlot],
    /// Slots of loaded sessions: three at least.
    pub sessions: &'a mut [SessionSlot],
    /// The NV memory: [`Storage::NV_HEAD`] and what indices and persistent objects shall have.
    pub nv: &'a mut [u8],
}

impl Storage<'_> {
    /// Object slots beyond those that hold transient objects.
    pub const EXTRA_OBJECTS: usize = EVICT_SLOTS;
    /// Bytes of NV memory that the TPM takes for itself.
    pub const NV_HEAD: usize = crate::state::nv::FIRST;
}

/// The embedder's seams.
#[expect(missing_debug_implementations, reason = "the seams need not have one")]
pub struct Seams<'a> {
    /// Cryptographic primitives: `RustCrypto`, or others.
    pub crypto: &'a dyn Crypto,
    /// Entropy.
    pub random: &'a mut dyn Random,
    /// Time.
    pub clock: &'a mut dyn Clock,
    /// Where the permanent state lives.
    pub store: &'a mut dyn NvStore,
}

/// What a TPM says of itself (`TPM_PT_MANUFACTURER` and its neighbours).
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Four letters of the TCG's vendor registry.
    pub manufacturer: [u8; 4],
    /// Up to 16 letters.
    pub vendor: [u8; 16],
    /// The firmware's version.
    pub firmware: [u32; 2],
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            manufacturer: *b"SVSM",
            vendor: *b"svsm-vtpm\0\0\0\0\0\0\0",
            firmware: [0x0000_0001, 0],
        }
    }
}

/// Why the TPM could not be powered on or a command could not be submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The embedder's storage is smaller than a TPM needs.
    StorageTooSmall,
    /// The store failed.
    Seam(SeamError),
    /// The store has a state that this version cannot read. It is left untouched.
    ForeignState,
    /// A command is in progress.
    Busy,
    /// The command is longer than the buffer.
    CommandTooLong,
    /// The TPM has no power yet.
    Off,
    /// The volatile state is longer than the buffer.
    BufferTooSmall,
    /// The volatile state is not one that this TPM can go on with.
    Refused(Refusal),
    /// A command that asked for this would be answered with this code.
    Response(Rc),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StorageTooSmall => f.write_str("storage smaller than a TPM needs"),
            Self::Seam(error) => error.fmt(f),
            Self::ForeignState => f.write_str("permanent state of another kind or version"),
            Self::Busy => f.write_str("a command is in progress"),
            Self::CommandTooLong => f.write_str("command longer than the buffer"),
            Self::Off => f.write_str("the tpm has no power"),
            Self::BufferTooSmall => f.write_str("volatile state longer than the buffer"),
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Response(code) => code.fmt(f),
        }
    }
}

impl core::error::Error for Error {}

/// Authenticated countdown timers, as somebody outside sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timers {
    /// The timers that have signaled, one bit each from `TPM_RH_ACT_0` on. A bit stays until a command sets the timer anew, or until the
    /// TPM is reset.
    pub signaled: u16,
    /// In how many milliseconds the next timer signals, unless a command changes it.
    pub next_ms: Option<u64>,
}

/// Whether a command is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a pending command needs further steps"]
pub enum Progress {
    /// There is more to do.
    Pending,
    /// The response is there.
    Done,
}

/// A TPM 2.0.
#[derive(Debug)]
pub struct Tpm<'a> {
    pub(crate) core: Core<'a>,
    command: &'a mut [u8],
    response: &'a mut [u8],
    frame: Frame,
}

impl<'a> Tpm<'a> {
    /// A TPM without power.
    ///
    /// # Errors
    ///
    /// [`Error::StorageTooSmall`].
    pub fn new(seams: Seams<'a>, storage: Storage<'a>) -> Result<Self, Error> {
        let outside = Outside::Apart {
            entropy: seams.random,
            clock: seams.clock,
            store: seams.store,
        };
        Self::of(seams.crypto, outside, storage)
    }

    /// A TPM of which all seams are one thing.
    #[cfg(feature = "callbacks")]
    pub(crate) fn of_bundle(
        crypto: &'a dyn Crypto,
        bundle: &'a mut dyn Bundle,
        storage: Storage<'a>,
    ) -> Result<Self, Error> {
        Self::of(crypto, Outside::Bundle(bundle), storage)
    }

    fn of(
        crypto: &'a dyn Crypto,
        outside: Outside<'a>,
        storage: Storage<'a>,
    ) -> Result<Self, Error> {
        let enough = storage.objects.len() >= 3 + Storage::EXTRA_OBJECTS
            && storage.sessions.len() >= 3
            && storage.nv.len() >= Storage::NV_HEAD + 1024
            && storage.command.len().min(storage.response.len()) >= 1024;
        if !enough {
            return Err(Error::StorageTooSmall);
        }
        let mut core = Core::new(Parts {
            crypto,
            outside,
            objects: storage.objects,
            sessions: storage.sessions,
            nv: storage.nv,
        });
        core.command_max = storage.command.len();
        core.response_max = storage.response.len();
        Ok(Self {
            core,
            command: storage.command,
            response: storage.response,
            frame: Frame::new(),
        })
    }

    /// Sets what the TPM says of itself.
    pub const fn set_identity(&mut self, identity: Identity) {
        self.core.identity = identity;
    }

    /// Gives the TPM post-quantum keys, and the commands for them, by this provider. Without one it is as if the feature were not
    /// there, and keys of that kind in the permanent state do not show. To be called before [`Tpm::power_on`].
    ///
    /// Parameter sets of which a signature or a key does not fit into the buffers are not offered: ML-DSA-87 wants buffers of 5,363
    /// bytes, everything else fits into 4,087. `RustCrypto` wants stack: with optimization 80 KiB for ML-KEM, and for ML-DSA-44, 65
    /// and 87 about 210, 310 and 460 KiB.
    #[cfg(feature = "pqc")]
    pub const fn set_lattices(&mut self, lattices: &'a dyn crate::crypto::Lattices) {
        self.core.lattices = Some(lattices);
    }

    /// `_TPM_Init`: the power comes, or comes back. What was not saved is lost. An empty store is manufactured.
    ///
    /// # Errors
    ///
    /// [`Error::Seam`] or [`Error::ForeignState`]; the TPM is then off.
    pub fn power_on(&mut self) -> Result<(), Error> {
        self.frame = Frame::new();
        self.core.power_on().map_err(not_loaded)
    }

    /// `_TPM_Init` without a loss of power: the platform is reset. It is as [`Tpm::power_on`], except that the TPM tells afterwards which
    /// countdown timers had signaled, and may have been why.
    ///
    /// # Errors
    ///
    /// As for [`Tpm::power_on`].
    pub fn reset(&mut self) -> Result<(), Error> {
        self.frame = Frame::new();
        self.core.reset().map_err(not_loaded)
    }

    /// Sets how many authenticated countdown timers there are: up to 8, and none by default. A timer is worth something if somebody
    /// outside acts when it signals, which [`Tpm::timers`] tells. A TPM without timers has no `TPM2_ACT_SetTimeout`. Has to be set before
    /// the power comes, and to the same number each time; once the power came it changes nothing.
    pub fn set_timers(&mut self, count: u8) {
        if !self.core.is_loaded() {
            self.core.timers.forget();
            self.core.timers.count = count.min(TIMERS_MAX);
        }
    }

    /// Attaches components: the first is called 0x9000_0000, and the others follow. A TPM with none, as it is by default, has no
    /// `TPM2_AC_GetCapability` and `TPM2_AC_Send`. Has to be done before the power comes; afterwards it changes nothing.
    pub fn attach(&mut self, components: &'a mut [&'a mut dyn AttachedComponent]) {
        if !self.core.is_loaded() {
            self.core.components = components;
        }
    }

    /// Which countdown timers have signaled by now, and when to ask again. Between a reset and the next startup none does.
    pub fn timers(&mut self) -> Timers {
        if !self.core.started {
            return Timers::default();
        }
        self.core.tick();
        let now = self.core.time.time;
        Timers {
            signaled: self.core.timers.signaled(),
            next_ms: self.core.timers.next().map(|then| then.saturating_sub(now)),
        }
    }

    /// As [`Tpm::power_on`], but with this permanent state.
    #[cfg(feature = "callbacks")]
    pub(crate) fn power_on_with(&mut self, image: &[u8]) -> Result<(), Error> {
        self.frame = Frame::new();
        self.core.power_on_with(image).map_err(not_loaded)
    }

    /// As [`Tpm::power_on`], but with the permanent state that the store has now: for an image that was put there from elsewhere. Whatever this
    /// TPM did not commit is lost.
    ///
    /// # Errors
    ///
    /// [`Error::Seam`] or [`Error::ForeignState`]; the TPM is then off.
    pub fn power_on_anew(&mut self) -> Result<(), Error> {
        self.core.unload();
        self.power_on()
    }

    /// Takes a command, which comes from this locality. Nothing is done with it before the first [`Tpm::step`].
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] or [`Error::CommandTooLong`].
    pub fn submit(&mut self, locality: u8, command: &[u8]) -> Result<(), Error> {
        if self.frame.is_running() {
            return Err(Error::Busy);
        }
        let room = self
            .command
            .get_mut(..command.len())
            .ok_or(Error::CommandTooLong)?;
        room.copy_from_slice(command);
        self.frame.submit(locality, command.len());
        Ok(())
    }

    /// Goes on with the command. A step takes about one modular exponentiation at most.
    pub fn step(&mut self) -> Progress {
        if self.frame.is_running() {
            self.frame.step(&mut self.core, self.command, self.response)
        } else {
            Progress::Done
        }
    }

    /// Ends the command in progress with `TPM_RC_CANCELED`, if it has long work before it; a command without is not stopped.
    pub fn cancel(&mut self) {
        self.frame.cancel(&mut self.core, self.response);
    }

    /// The response to the last command, once it is done.
    pub fn response(&self) -> Option<&[u8]> {
        self.response.get(..self.frame.response_len()?)
    }

    /// Submits a command, and steps until the response is there.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] or [`Error::CommandTooLong`].
    pub fn execute(&mut self, locality: u8, command: &[u8]) -> Result<&[u8], Error> {
        self.submit(locality, command)?;
        while self.step() == Progress::Pending {}
        Ok(self.response().unwrap_or_default())
    }

    /// Asserts physical presence, or withdraws it.
    pub const fn set_physical_presence(&mut self, asserted: bool) {
        self.core.physical_presence = asserted;
    }

    /// `_TPM_Hash_Start`: the processor begins a dynamic launch, or the early measurement before startup.
    pub fn hash_start(&mut self) {
        self.core.hash_start();
    }

    /// `_TPM_Hash_Data`.
    pub fn hash_data(&mut self, data: &[u8]) {
        self.core.hash_data(data);
    }

    /// `_TPM_Hash_End`.
    pub fn hash_end(&mut self) {
        self.core.hash_end();
    }

    /// Makes the TPM anew, as if the store were empty: other seeds, no NV. It needs power and a startup afterwards.
    ///
    /// # Errors
    ///
    /// [`Error::Seam`].
    pub fn manufacture(&mut self) -> Result<(), Error> {
        self.core
            .manufacture()
            .and_then(|()| self.core.commit())
            .map_err(|_| Error::Seam(SeamError::StoreUnavailable))?;
        self.power_on()
    }

    /// Which self-tests were passed.
    #[cfg(all(test, feature = "rustcrypto"))]
    pub(crate) const fn tested_for_test(&self) -> crate::state::selftest::Tests {
        self.core.tested
    }

    /// Gives the owner hierarchy a seed that a test knows.
    #[cfg(all(test, feature = "rustcrypto"))]
    pub(crate) const fn set_owner_seed_for_test(&mut self, seed: [u8; 64]) {
        self.core.permanent.sp_seed = seed;
    }

    /// The response of a TPM that cannot work: for transports that have to answer something.
    pub const fn failure() -> [u8; 10] {
        let [c0, c1, c2, c3] = Rc::FAILURE.as_u32().to_be_bytes();
        [0x80, 0x01, 0, 0, 0, 10, c0, c1, c2, c3]
    }
}

fn not_loaded(error: LoadError) -> Error {
    match error {
        LoadError::Store(seam) => Error::Seam(seam),
        LoadError::Foreign => Error::ForeignState,
    }
}
