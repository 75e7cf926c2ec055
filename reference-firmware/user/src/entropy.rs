//! Random bytes from the processor.

use svsm_platform::Error;
use svsm_platform::cpu::cpuid::{Features, Processor};
use svsm_platform::native::{ProcessorEntropy, RandomInsn};
use svsm_platform::seam::Entropy;

/// A source of random bytes: RDSEED where the processor has it, else RDRAND.
#[derive(Clone, Copy, Debug)]
pub struct Random(ProcessorEntropy<RandomInsn>);

impl Random {
    /// What this processor has.
    #[must_use]
    pub fn new() -> Self {
        let features = Features::of(&Processor);
        Self(ProcessorEntropy::new(RandomInsn::new(features)))
    }

    /// Fills `bytes`.
    ///
    /// # Errors
    /// The processor has no source, or it is broken.
    pub fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.0.fill(bytes)
    }
}

impl Default for Random {
    fn default() -> Self {
        Self::new()
    }
}
