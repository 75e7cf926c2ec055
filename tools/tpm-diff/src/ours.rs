//! Our TPM, with libtpms' capacities.

use std::time::Instant;

use anyhow::Result;
use svsm_vtpm::{
    Clock, Ephemeral, ObjectSlot, Random, SeamError, Seams, SessionSlot, Storage, Tpm,
    crypto::RustCrypto,
};

use crate::{peer::Peer, rng::Rng};

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

pub(crate) struct Ours(Tpm<'static>);

impl Ours {
    pub(crate) fn new() -> Result<Self> {
        let tpm = Tpm::new(
            Seams {
                crypto: &RustCrypto,
                random: Box::leak(Box::new(Entropy(Rng::new(1)))),
                clock: Box::leak(Box::new(Uptime(Instant::now()))),
                store: Box::leak(Box::new(Ephemeral)),
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
        Ok(Self(tpm))
    }
}

impl Peer for Ours {
    fn reset(&mut self) -> Result<()> {
        Ok(self.0.manufacture()?)
    }

    fn execute(&mut self, command: &[u8]) -> Result<Vec<u8>> {
        Ok(self.0.execute(0, command)?.to_vec())
    }
}
