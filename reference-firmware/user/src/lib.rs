#![doc = include_str!("../README.md")]
#![cfg_attr(target_os = "none", no_std)]

#[cfg(target_os = "none")]
pub mod entropy; // random bytes
#[cfg(target_os = "none")]
mod entry; // from the first instruction to `main`
#[cfg(target_os = "none")]
mod heap; // memory for `alloc`
#[cfg(target_os = "none")]
pub mod log; // records through the kernel
#[cfg(target_os = "none")]
mod panic; // the end of a process that nobody wants
#[cfg(target_os = "none")]
pub mod process; // other programs, and oneself
#[cfg(target_os = "none")]
pub mod service; // protocols of the guest
#[cfg(target_os = "none")]
pub mod time; // the clock

#[cfg(target_os = "none")]
#[doc(hidden)]
pub use entry::start;
#[cfg(target_os = "none")]
pub use svsm_log;
#[cfg(target_os = "none")]
pub use svsm_syscall::{abi, user as calls};

/// The kernel, by the `SYSCALL` instruction.
#[cfg(target_os = "none")]
pub const KERNEL: calls::Calls<calls::gate::Instruction> =
    calls::Calls::new(calls::gate::Instruction);

/// The exit code of a process that panicked.
pub const PANIC: u16 = 101;

#[cfg(target_os = "none")]
svsm_log::define_log_macros!(
    #[macro_export]
    svsm_user::log::Log
);
