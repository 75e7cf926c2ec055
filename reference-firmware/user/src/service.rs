//! Serving a protocol of the guest: one request after the other.

use svsm_syscall::abi::SysError;
use svsm_syscall::handle::Handle;

use crate::KERNEL;

/// The longest request or answer, in bytes.
pub const MESSAGE_BYTES: usize = 4096;

/// A protocol of the guest that this program serves.
#[derive(Debug)]
pub struct Service(Handle);

impl Service {
    /// Serves the protocol of that number.
    ///
    /// # Errors
    /// [`SysError::NOT_FOUND`] if no program can serve it, [`SysError::NOT_ALLOWED`] if another one does: the kernel goes by the
    /// program's name in the archive.
    pub fn new(protocol: u32) -> Result<Self, SysError> {
        KERNEL.serve(protocol).map(Self)
    }

    /// Waits for a request. The guest starts when all services wait for their first one.
    ///
    /// # Errors
    /// [`SysError::FAULT`] if the buffer is shorter than the request, which is lost then.
    pub fn next<'b>(&self, buffer: &'b mut [u8; MESSAGE_BYTES]) -> Result<&'b [u8], SysError> {
        let len = KERNEL.read(self.0, buffer)?;
        buffer.get(..len).ok_or(SysError::FAULT)
    }

    /// Answers the request that came last.
    ///
    /// # Errors
    /// [`SysError::INVALID`] if there is none, or the answer is too long.
    pub fn answer(&self, answer: &[u8]) -> Result<(), SysError> {
        KERNEL.write(self.0, answer).map(drop)
    }

    /// What the guest gets when it has this service attested, from now on.
    ///
    /// # Errors
    /// [`SysError::INVALID`] if it is longer than 2048 bytes.
    pub fn publish(&self, statement: &[u8]) -> Result<(), SysError> {
        KERNEL.publish(self.0, statement)
    }
}
