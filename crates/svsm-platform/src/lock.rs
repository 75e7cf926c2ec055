//! Locks that spin, and keep interrupts away while they are held.
//!
//! An interrupt handler that waits for a lock which the interrupted code holds waits for ever. A lock here therefore takes
//! an [`IrqCtl`](crate::irq::IrqCtl): it masks interrupts before it starts to wait and brings back the former state after it
//! is free again. Exceptions that cannot be masked (NMI, #VC, #HV, #MC) must use `try_` methods only.
//!
//! Guards restore what they found: drop them in reverse order, or interrupts come back too early. They cannot leave the CPU
//! (they are not `Send`), and nothing that holds one may switch to another task.

mod rw;
mod spin;

pub use rw::{ReadGuard, RwLock, WriteGuard};
pub use spin::{SpinGuard, SpinLock};
