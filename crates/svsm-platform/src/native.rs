//! The back end for an unprotected PC: the hardware itself, or a machine that behaves like it.
//!
//! Whoever runs such a machine sees and changes everything; nothing here protects against them. What it offers are the
//! same seams as the confidential platforms, so that everything above runs on any machine.

mod clock;
mod entropy;
#[cfg(target_arch = "x86_64")]
mod host;
mod memory;
mod power;

#[cfg(target_arch = "x86_64")]
pub use clock::Tsc;
pub use clock::{Counter, CounterClock, calibrate};
#[cfg(target_arch = "x86_64")]
pub use entropy::RandomInsn;
pub use entropy::{ProcessorEntropy, RandomWords};
#[cfg(target_arch = "x86_64")]
pub use host::{Host, MmioWindow};
pub use memory::Unprotected;
pub use power::{Power, SleepControl};
