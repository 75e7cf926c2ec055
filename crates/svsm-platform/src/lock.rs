//! Locks that spin, and keep interrupts away while they are held.
//!
//! An interrupt handler that waits for a lock which the interrupted code holds waits for ever. A lock here therefore takes
//! an [`IrqCtl`](crate::irq::IrqCtl): it masks interrupts before it starts to wait and brings back the former state after it
//! is free again. Exceptions that cannot be masked (NMI, #VC, #HV, #MC) must use `try_` methods only.
//!
//! Guards restore what they found: drop them in reverse order, or interrupts come back too early. They cannot leave the CPU
//! (they are not `Send`), and nothing that holds one may switch to another task.
//!
//! ```
//! use svsm_platform::{irq::NoIrq, lock::SpinLock};
//!
//! // On the bare machine this would be `irq::LocalIrq`.
//! let pages_left = SpinLock::new(8_u32, NoIrq);
//! *pages_left.lock() -= 1;
//! assert_eq!(*pages_left.lock(), 7);
//! ```
//!
//! ```compile_fail,E0277
//! use svsm_platform::{irq::NoIrq, lock::SpinLock};
//!
//! let lock = SpinLock::new(0, NoIrq);
//! let guard = lock.lock();
//! std::thread::scope(|scope| { scope.spawn(move || drop(guard)); });
//! ```

mod rw;
mod spin;

pub use rw::{ReadGuard, RwLock, WriteGuard};
pub use spin::{SpinGuard, SpinLock};
