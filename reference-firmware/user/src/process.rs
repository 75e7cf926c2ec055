//! Processes: starting others, waiting for them, and ending.

use svsm_syscall::abi::SysError;
use svsm_syscall::handle::Handle;

use crate::KERNEL;

/// A process that this one has started.
#[derive(Debug)]
pub struct Child(Handle);

/// Starts a program of the archive.
///
/// # Errors
/// [`SysError::NOT_FOUND`] if there is none of that name; others if it cannot be loaded.
pub fn spawn(name: &str) -> Result<Child, SysError> {
    KERNEL.spawn(name).map(Child)
}

impl Child {
    /// Waits until the process has ended, and answers with its exit code.
    ///
    /// # Errors
    /// The kernel no longer knows the process.
    pub fn wait(self) -> Result<u16, SysError> {
        KERNEL.wait(self.0)
    }
}

/// The identity of this process; never 0.
#[must_use]
pub fn id() -> u32 {
    // The call has no way to fail.
    KERNEL.identity().unwrap_or(0)
}

/// The number of the CPU that runs this process right now.
#[must_use]
pub fn cpu() -> u32 {
    KERNEL.cpu().unwrap_or(0)
}

/// Lets others run.
pub fn yield_now() {
    KERNEL.yield_now();
}

/// Ends this process.
pub fn exit(code: u16) -> ! {
    KERNEL.exit(code)
}

/// Says how the whole run went, 0 for well. Only the first process may.
///
/// # Errors
/// [`SysError::NOT_ALLOWED`] for all other processes.
pub fn verdict(code: u32) -> Result<(), SysError> {
    KERNEL.verdict(code)
}
