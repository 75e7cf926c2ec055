//! Our TPM, with libtpms' capacities.

use core::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::Result;
use svsm_vtpm::{
    Clock, NvStore, ObjectSlot, Random, SeamError, Seams, SessionSlot, Storage, Tpm,
    crypto::{Crypto, RustCrypto},
};

use crate::{compare::code_of, peer::Peer, rng::Rng};

struct Entropy(Rng);

impl Random for Entropy {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), SeamError> {
        for byte in out {
            *byte = self.0.next().to_be_bytes()[0];
        }
        Ok(())
    }
}

struct Uptime(Instant);

impl Clock for Uptime {
    fn now_ms(&mut self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
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

/// Our TPM.
pub(crate) struct Ours(Tpm<'static>, &'static AtomicUsize);

impl Ours {
    pub(crate) fn new() -> Result<Self> {
        Self::with_crypto(&RustCrypto)
    }

    /// With other primitives.
    pub(crate) fn with_crypto(crypto: &'static dyn Crypto) -> Result<Self> {
        let len = Box::leak(Box::new(AtomicUsize::new(0)));
        let tpm = Tpm::new(
            Seams {
                crypto,
                random: Box::leak(Box::new(Entropy(Rng::new(1)))),
                clock: Box::leak(Box::new(Uptime(Instant::now()))),
                store: Box::leak(Box::new(Ruler(len))),
            },
            Storage {
                command: vec![0; 4096].leak(),
                response: vec![0; 4096].leak(),
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
        Ok(Self(tpm, len))
    }

    /// The code of the answer to a command, and nothing that takes time beside.
    pub(crate) fn answer(&mut self, command: &[u8]) -> Result<u32> {
        Ok(code_of(self.0.execute(0, command)?))
    }

    /// What it answers to a command from a locality.
    pub(crate) fn execute_from(&mut self, locality: u8, command: &[u8]) -> Result<&[u8]> {
        Ok(self.0.execute(locality, command)?)
    }

    /// Gives it countdown timers, which libtpms has not.
    pub(crate) fn set_timers(&mut self, count: u8) {
        self.0.set_timers(count);
    }

    /// The bytes of the permanent state, as the store got it last.
    pub(crate) fn state_len(&self) -> usize {
        self.1.load(Ordering::Relaxed)
    }
}

impl Peer for Ours {
    fn reset(&mut self) -> Result<()> {
        Ok(self.0.manufacture()?)
    }

    fn power_cycle(&mut self) -> Result<()> {
        Ok(self.0.power_on()?)
    }

    fn execute(&mut self, command: &[u8]) -> Result<Vec<u8>> {
        Ok(self.0.execute(0, command)?.to_vec())
    }
}
