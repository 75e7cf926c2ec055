//! A TPM behind the calls by which OpenHCL drives its TPM engine (`ms_tpm_20_ref` and its `TpmEngine`): the engine asks its platform by four
//! callbacks, and is driven by `execute_command`, `reset`, `save_state` and `restore_state`.
//!
//! [`PlatformCallbacks`] has the four callbacks, [`Engine`] the calls. What differs:
//!
//! - Memory is lent, so an [`Engine`] has a lifetime. A process that has one TPM until its end leaks it, as the example `callbacks` does.
//! - The image that `commit_nv_state` gets is this crate's, not the reference implementation's, and its length grows with what it holds.
//! - What `save_state` gives is encrypted and authenticated under a key of the embedder's, since it has the seeds.
//! - Instead of a size, `execute_command` gives the response's length.
//!
//! Commands come at locality 0. The endorsement hierarchy and the platform's are changed by commands (`TPM2_ChangeEPS`,
//! `TPM2_ChangePPS`), as on the other engine.

use core::{fmt, time::Duration};

use crate::{
    Clock, Error, NvStore, Random, Refusal, Resume, SeamError, Storage, Tpm,
    crypto::{
        Crypto,
        seal::{CODE_LEN, Keys, counter_of},
    },
    wire::{Reader, Writer},
};

const MAGIC: [u8; 8] = *b"svsmtpm\x01";
/// Magic, and the length of the permanent state.
const PREFIX_LEN: usize = 8 + 4;
const HEAD_LEN: usize = PREFIX_LEN + CODE_LEN;

/// What the engine asks of its platform.
pub trait PlatformCallbacks: Send {
    /// Takes a new image of the permanent state, before the command that changed it is answered.
    ///
    /// # Errors
    ///
    /// [`SeamError`] if it cannot be kept; the command is then answered with `TPM_RC_NV_UNAVAILABLE`.
    fn commit_nv_state(&mut self, state: &[u8]) -> Result<(), SeamError>;

    /// Fills the front of `buf` with bytes of full entropy and says how many. The engine asks again for the others.
    ///
    /// # Errors
    ///
    /// [`SeamError::NoEntropy`].
    fn get_crypt_random(&mut self, buf: &mut [u8]) -> Result<usize, SeamError>;

    /// The time since some moment; it never goes back.
    fn monotonic_timer(&mut self) -> Duration;

    /// Something that other instances hardly have. It is mixed into the random numbers, and counts as no entropy.
    fn get_unique_value(&self) -> &'static [u8];
}

/// The callbacks, as the seams of a [`Tpm`].
#[derive(Debug)]
pub struct Platform<P>(P);

impl<P: PlatformCallbacks> Platform<P> {
    /// Around the embedder's callbacks.
    pub const fn new(callbacks: P) -> Self {
        Self(callbacks)
    }
}

impl<P: PlatformCallbacks> Random for Platform<P> {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), SeamError> {
        let mut rest = out;
        while !rest.is_empty() {
            let got = self.0.get_crypt_random(rest)?;
            // None, or more than there is room for: then nobody knows which bytes are random.
            let left = rest.get_mut(got..).filter(|_| got != 0);
            rest = left.ok_or(SeamError::NoEntropy)?;
        }
        Ok(())
    }
}

impl<P: PlatformCallbacks> Clock for Platform<P> {
    fn now_ms(&mut self) -> u64 {
        u64::try_from(self.0.monotonic_timer().as_millis()).unwrap_or(u64::MAX)
    }
}

impl<P: PlatformCallbacks> NvStore for Platform<P> {
    /// Nothing: the platform gives an old image by [`Engine::reset`].
    fn load(&mut self, _: &mut [u8]) -> Result<Option<usize>, SeamError> {
        Ok(None)
    }

    fn commit(&mut self, _: u64, image: &[u8]) -> Result<(), SeamError> {
        self.0.commit_nv_state(image)
    }
}

/// A TPM engine.
pub struct Engine<'a> {
    tpm: Tpm<'a>,
    unique: &'static [u8],
}

impl fmt::Debug for Engine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

impl<'a> Engine<'a> {
    /// A TPM that was made anew and has just got its power. An old one comes back by [`Engine::reset`] or [`Engine::restore_state`]; until
    /// the first command nothing is committed.
    ///
    /// # Errors
    ///
    /// [`Error::StorageTooSmall`], or [`Error::Seam`] without entropy.
    pub fn new<P: PlatformCallbacks>(
        crypto: &'a dyn Crypto,
        platform: &'a mut Platform<P>,
        storage: Storage<'a>,
    ) -> Result<Self, Error> {
        let unique = platform.0.get_unique_value();
        let mut engine = Self {
            tpm: Tpm::of_bundle(crypto, platform, storage)?,
            unique,
        };
        engine.reset(None)?;
        Ok(engine)
    }

    /// Runs the command at the front of `command`, as long as its header says, and writes the response into the front of `response`. Gives
    /// the response's length in bytes. 4096 bytes are enough for every response, if [`Storage::response`] has no more.
    ///
    /// # Errors
    ///
    /// - [`Error::CommandTooLong`] if it is longer than [`Storage::command`].
    /// - [`Error::BufferTooSmall`] if the response does not fit; the command was run.
    pub fn execute_command(
        &mut self,
        command: &mut [u8],
        response: &mut [u8],
    ) -> Result<usize, Error> {
        // Bytes behind the command are those of an older one. A size that cannot be is the TPM's to refuse.
        let said = command.get(2..6).and_then(|size| size.first_chunk());
        let said = said.map(|size| u32::from_be_bytes(*size) as usize);
        let command = said.and_then(|len| command.get(..len)).unwrap_or(command);
        let answer = self.tpm.execute(0, command)?;
        response
            .get_mut(..answer.len())
            .ok_or(Error::BufferTooSmall)?
            .copy_from_slice(answer);
        Ok(answer.len())
    }

    /// The power goes and comes: with the permanent state as it is, or with this one, which `commit_nv_state` got at some time.
    ///
    /// # Errors
    ///
    /// After them the TPM is off, until a reset that succeeds.
    ///
    /// - [`Error::ForeignState`] for an image that is none, or of another version.
    /// - [`Error::Seam`] for one that is longer than [`Storage::nv`], or without entropy.
    pub fn reset(&mut self, nv_state: Option<&[u8]>) -> Result<(), Error> {
        match nv_state {
            Some(image) => self.tpm.power_on_with(image)?,
            None => self.tpm.power_on()?,
        }
        self.tpm
            .core
            .stir(self.unique)
            .map_err(|_| Error::Seam(SeamError::NoEntropy))
    }

    /// The greatest length of what [`Engine::save_state`] writes.
    pub const fn state_max(&self) -> usize {
        HEAD_LEN + Storage::NV_HEAD + self.tpm.core.nv.room() + self.tpm.volatile_max()
    }

    /// Writes everything that this TPM is, permanent and volatile, into the front of `out` and says how long it is. It is encrypted and
    /// authenticated under `key`. The TPM goes on unchanged.
    ///
    /// # Errors
    ///
    /// Those of [`Tpm::save_volatile`]; [`Engine::state_max`] bytes are always enough.
    pub fn save_state(&mut self, key: &[u8; 32], out: &mut [u8]) -> Result<usize, Error> {
        // What is not committed yet goes to the platform now, as it is part of the image.
        self.tpm.commit_now()?;
        let image = self.tpm.core.nv.image();
        let (head, rest) = out
            .split_at_mut_checked(HEAD_LEN)
            .ok_or(Error::BufferTooSmall)?;
        let (body, volatile) = rest
            .split_at_mut_checked(image.len())
            .ok_or(Error::BufferTooSmall)?;
        let crypto = self.tpm.core.crypto;
        let keys = keys(crypto, key);
        let mut w = Writer::new(head);
        let written = w
            .bytes(&MAGIC)
            .and_then(|()| w.put(&u32::try_from(image.len()).unwrap_or(u32::MAX)));
        let code = keys.code(crypto, w.written(), image);
        written
            .and_then(|()| w.bytes(&code))
            .map_err(|_| Error::BufferTooSmall)?;
        body.copy_from_slice(image);
        keys.crypt(crypto, &mut counter_of(&code), body);
        let front = HEAD_LEN + body.len();
        Ok(front + self.tpm.save_volatile(key, volatile)?)
    }

    /// Goes on where [`Engine::save_state`] stopped. Only for bytes that are restored once, and whose TPM does not go on elsewhere: both
    /// would draw the same random numbers. The permanent state is committed anew. `blob` is decrypted in place, and is as it was when
    /// this returns.
    ///
    /// # Errors
    ///
    /// - [`Error::Busy`] while a command is under way.
    /// - [`Error::Refused`] with [`Refusal::Foreign`] or [`Refusal::Damaged`]: the TPM is as it was. After other refusals, which
    ///   [`Tpm::restore_volatile`] lists, it has the permanent state and just got its power.
    /// - [`Error::ForeignState`] and [`Error::Seam`] as for [`Engine::reset`]; the TPM is then off.
    pub fn restore_state(&mut self, key: &[u8; 32], blob: &mut [u8]) -> Result<(), Error> {
        self.tpm.idle()?;
        let damaged = Error::Refused(Refusal::Damaged);
        let (head, rest) = blob
            .split_first_chunk_mut::<HEAD_LEN>()
            .ok_or(Error::Refused(Refusal::Foreign))?;
        let (prefix, code) = head.split_at(PREFIX_LEN);
        let code = code.first_chunk().copied().ok_or(damaged)?;
        let mut r = Reader::new(prefix);
        if r.array() != Ok(MAGIC) {
            return Err(Error::Refused(Refusal::Foreign));
        }
        let len = r.read::<u32>().map_err(|_| damaged)? as usize;
        let (body, volatile) = rest.split_at_mut_checked(len).ok_or(damaged)?;
        let crypto = self.tpm.core.crypto;
        let keys = keys(crypto, key);
        keys.crypt(crypto, &mut counter_of(&code), body);
        let result = if keys.matches(crypto, prefix, body, &code) {
            self.tpm.power_on_with(body)
        } else {
            Err(damaged)
        };
        keys.crypt(crypto, &mut counter_of(&code), body);
        result?;
        self.tpm.restore_volatile(key, volatile, Resume::Exactly)
    }

    /// The TPM itself, for what the four calls do not have: certificates, steps, physical presence.
    pub const fn tpm(&mut self) -> &mut Tpm<'a> {
        &mut self.tpm
    }
}

fn keys(crypto: &dyn Crypto, key: &[u8; 32]) -> Keys {
    Keys::new(crypto, key, ["STATE-CODE", "STATE-CIPHER"])
}
