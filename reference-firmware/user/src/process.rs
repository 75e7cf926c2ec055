//! Processes: starting others, waiting for them, and ending.

use svsm_syscall::abi::{Number, SysError};

use crate::calls;

/// A process that this one has started.
#[derive(Debug)]
pub struct Child {
    handle: u64,
}

/// Starts a program of the archive.
///
/// # Errors
/// [`SysError::NOT_FOUND`] if there is none of that name; others if it cannot be loaded.
pub fn spawn(name: &str) -> Result<Child, SysError> {
    let handle = calls::call2(
        Number::SPAWN,
        name.as_ptr().addr() as u64,
        name.len() as u64,
    )?;
    Ok(Child { handle })
}

impl Child {
    /// Waits until the process has ended, and answers with its exit code.
    ///
    /// # Errors
    /// The kernel no longer knows the process.
    pub fn wait(self) -> Result<u32, SysError> {
        let code = calls::call1(Number::WAIT, self.handle)?;
        u32::try_from(code).map_err(|_| SysError::INVALID)
    }
}

/// The identity of this process.
#[must_use]
pub fn id() -> u64 {
    // The call has no way to fail.
    calls::call0(Number::IDENTITY).unwrap_or(0)
}

/// The number of the CPU that runs this process right now.
#[must_use]
pub fn cpu() -> u64 {
    calls::call0(Number::CPU).unwrap_or(0)
}

/// Lets others run.
pub fn yield_now() {
    let _ = calls::call0(Number::YIELD);
}

/// Ends this process.
pub fn exit(code: u32) -> ! {
    loop {
        let _ = calls::call1(Number::EXIT, code.into());
    }
}

/// Says how the whole run went, 0 for well. Only the first process may.
///
/// # Errors
/// [`SysError::NOT_ALLOWED`] for all other processes.
pub fn verdict(code: u32) -> Result<(), SysError> {
    calls::call1(Number::VERDICT, code.into()).map(drop)
}
