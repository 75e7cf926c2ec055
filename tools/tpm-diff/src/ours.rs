//! Our TPM, with libtpms' capacities.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

use anyhow::Result;
use svsm_vtpm::{
    AttachedComponent, Clock, NvStore, ObjectSlot, Random, Resume, SeamError, Seams, SentObject,
    SessionSlot, Storage, Tpm,
    crypto::{Crypto, RustCrypto},
};

use crate::{compare::code_of, peer::Peer, rng::Rng, storm::ROOM};

/// Numbers that begin anew when somebody says so.
struct Entropy(&'static Mutex<Rng>);

impl Random for Entropy {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), SeamError> {
        let mut rng = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for byte in out {
            *byte = rng.next().to_be_bytes()[0];
        }
        Ok(())
    }
}

/// The time since then, if it is the real one that counts, and what somebody adds to it.
struct Uptime(Option<Instant>, &'static AtomicU64);

impl Clock for Uptime {
    fn now_ms(&mut self) -> u64 {
        let real = self.0.map_or(0, |start| start.elapsed().as_millis());
        let real = u64::try_from(real).unwrap_or(u64::MAX);
        real.saturating_add(self.1.load(Ordering::Relaxed))
    }
}

/// A store that keeps how long the last image was, and nothing else.
struct Ruler(&'static AtomicUsize);

impl NvStore for Ruler {
    fn load(&mut self, _: &mut [u8]) -> Result<Option<usize>, SeamError> {
        Ok(None)
    }

    fn commit(&mut self, _: u64, image: &[u8]) -> Result<(), SeamError> {
        self.0.store(image.len(), Ordering::Relaxed);
        Ok(())
    }
}

/// Countdown timers of a reproducible TPM.
pub(crate) const TIMERS: u8 = 2;

/// A component that takes everything.
struct Hole;

impl AttachedComponent for Hole {
    fn properties(&self) -> &[(u32, u32)] {
        &[(2, 0)]
    }

    fn take(&mut self, object: SentObject<'_>) -> (u32, u32) {
        let len = object.sensitive.len() + object.public.len() + object.data.len();
        (1, u32::from(len == 0))
    }
}

/// Our TPM, and what it reaches outside.
pub(crate) struct Ours {
    tpm: Tpm<'static>,
    image_len: &'static AtomicUsize,
    entropy: &'static Mutex<Rng>,
    ahead: &'static AtomicU64,
}

impl Ours {
    pub(crate) fn new() -> Result<Self> {
        Self::with_crypto(&RustCrypto)
    }

    /// With other primitives.
    pub(crate) fn with_crypto(crypto: &'static dyn Crypto) -> Result<Self> {
        Self::made_of(crypto, Some(Instant::now()), 4096)
    }

    /// One whose time passes only by [`Ours::wait`], and that has what libtpms has not: countdown timers, something
    /// attached, and with the feature `pqc` post-quantum keys.
    pub(crate) fn reproducible() -> Result<Self> {
        let mut it = Self::made_of(&RustCrypto, None, ROOM)?;
        #[cfg(feature = "pqc")]
        it.tpm.set_lattices(&RustCrypto);
        it.tpm.set_timers(TIMERS);
        let all: [&mut dyn AttachedComponent; 1] = [Box::leak(Box::new(Hole))];
        it.tpm.attach(Box::leak(Box::new(all)));
        Ok(it)
    }

    fn made_of(
        crypto: &'static dyn Crypto,
        start: Option<Instant>,
        buffers: usize,
    ) -> Result<Self> {
        let image_len = Box::leak(Box::new(AtomicUsize::new(0)));
        let entropy = Box::leak(Box::new(Mutex::new(Rng::new(1))));
        let ahead = Box::leak(Box::new(AtomicU64::new(0)));
        let tpm = Tpm::new(
            Seams {
                crypto,
                random: Box::leak(Box::new(Entropy(entropy))),
                clock: Box::leak(Box::new(Uptime(start, ahead))),
                store: Box::leak(Box::new(Ruler(image_len))),
            },
            Storage {
                command: vec![0; buffers].leak(),
                response: vec![0; buffers].leak(),
                objects: (0..3 + Storage::EXTRA_OBJECTS)
                    .map(|_| ObjectSlot::EMPTY)
                    .collect::<Vec<_>>()
                    .leak(),
                sessions: (0..3)
                    .map(|_| SessionSlot::EMPTY)
                    .collect::<Vec<_>>()
                    .leak(),
                nv: vec![0; Storage::NV_HEAD + 64 * 1024].leak(),
            },
        )?;
        Ok(Self {
            tpm,
            image_len,
            entropy,
            ahead,
        })
    }

    /// The code of the answer to a command, and nothing that takes time beside.
    pub(crate) fn answer(&mut self, command: &[u8]) -> Result<u32> {
        Ok(code_of(self.tpm.execute(0, command)?))
    }

    /// What it answers to a command from a locality.
    pub(crate) fn execute_from(&mut self, locality: u8, command: &[u8]) -> Result<&[u8]> {
        Ok(self.tpm.execute(locality, command)?)
    }

    /// Makes it anew, so that everything which follows depends on the seed alone.
    pub(crate) fn begin(&mut self, seed: u64) -> Result<()> {
        *self.entropy.lock().unwrap_or_else(PoisonError::into_inner) = Rng::new(seed);
        // Its own generator is made anew by the power, before a manufacture draws from it.
        self.tpm.power_on()?;
        Ok(self.tpm.manufacture()?)
    }

    /// Resets the platform without a loss of power.
    pub(crate) fn reset_platform(&mut self) -> Result<()> {
        Ok(self.tpm.reset()?)
    }

    /// Suspends it, takes the power, and resumes it.
    pub(crate) fn suspend_and_resume(&mut self, resume: Resume) -> Result<()> {
        const KEY: [u8; 32] = [9; 32];
        let mut state = vec![0; self.tpm.volatile_max()];
        let len = self.tpm.save_volatile(&KEY, &mut state)?;
        state.truncate(len);
        self.tpm.power_on()?;
        Ok(self.tpm.restore_volatile(&KEY, &mut state, resume)?)
    }

    /// Lets time pass, and gives the timers that have signaled by then.
    pub(crate) fn wait(&mut self, milliseconds: u64) -> u16 {
        self.ahead.fetch_add(milliseconds, Ordering::Relaxed);
        self.tpm.timers().signaled
    }

    /// `_TPM_Hash_Start`, `_TPM_Hash_Data` and `_TPM_Hash_End`.
    pub(crate) fn launch(&mut self, data: &[u8]) {
        self.tpm.hash_start();
        self.tpm.hash_data(data);
        self.tpm.hash_end();
    }

    pub(crate) const fn set_physical_presence(&mut self, asserted: bool) {
        self.tpm.set_physical_presence(asserted);
    }

    /// The bytes of the permanent state, as the store got it last.
    pub(crate) fn state_len(&self) -> usize {
        self.image_len.load(Ordering::Relaxed)
    }
}

impl Peer for Ours {
    fn reset(&mut self) -> Result<()> {
        Ok(self.tpm.manufacture()?)
    }

    fn power_cycle(&mut self) -> Result<()> {
        Ok(self.tpm.power_on()?)
    }

    fn execute(&mut self, command: &[u8]) -> Result<Vec<u8>> {
        Ok(self.tpm.execute(0, command)?.to_vec())
    }
}
