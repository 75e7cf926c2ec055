//! What the TPM asks of its surroundings.

use alloc::vec::Vec;

use svsm_user::entropy::Random;
use svsm_user::time;
use svsm_vtpm::{Clock, NvStore, SeamError};

/// Entropy of the processor, which a host cannot choose.
pub(super) struct Processor(Random);

impl Processor {
    pub(super) fn new() -> Self {
        Self(Random::new())
    }
}

impl svsm_vtpm::Random for Processor {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), SeamError> {
        self.0.fill(out).map_err(|_| SeamError::NoEntropy)
    }
}

/// The kernel's clock.
pub(super) struct Uptime;

impl Clock for Uptime {
    fn now_ms(&mut self) -> u64 {
        u64::try_from(time::now().as_millis()).unwrap_or(u64::MAX)
    }
}

/// A store for as long as this process lives.
#[derive(Default)]
pub(super) struct Kept(Vec<u8>);

impl NvStore for Kept {
    fn load(&mut self, into: &mut [u8]) -> Result<Option<usize>, SeamError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        into.get_mut(..self.0.len())
            .ok_or(SeamError::StoreSize)?
            .copy_from_slice(&self.0);
        Ok(Some(self.0.len()))
    }

    fn commit(&mut self, _: u64, image: &[u8]) -> Result<(), SeamError> {
        self.0.clear();
        self.0.extend_from_slice(image);
        Ok(())
    }
}
