//! System calls as a program makes them.
//!
//! [`Calls`] has one function for each call, typed. It reaches the kernel through a [`Gate`], which
//! is one of two instructions ([`gate::Interrupt`] or [`gate::Instruction`]), or in tests a kernel
//! that is not one.
//!
//! ```no_run
//! use svsm_syscall::{abi::{LOG_HANDLE, SysError}, handle::Handle, user::{Calls, gate}};
//!
//! fn main() -> Result<(), SysError> {
//!     let kernel = Calls::new(gate::Interrupt);
//!     kernel.write(Handle::from_u32(LOG_HANDLE), b"hello\n")?;
//!     let child = kernel.spawn("sbin/vtpm")?;
//!     let code = kernel.wait(child)?;
//!     kernel.exit(code)
//! }
//! ```

#![expect(unsafe_code, reason = "passes addresses to the kernel")]

pub mod gate;

use core::{ffi::CStr, ptr::NonNull, time::Duration};

pub use gate::Gate;

use crate::{
    abi::{DirEntry, FileFlags, FileModes, Number, SeekMode, SysError, log_class, map_rights},
    handle::Handle,
    program::Rights,
};

/// The kernel behind a gate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Calls<G>(G);

impl<G: Gate> Calls<G> {
    /// The kernel behind that gate.
    pub const fn new(gate: G) -> Self {
        Self(gate)
    }

    /// Arguments that are addresses come from references whose borrow lasts as long as this call,
    /// with the length of what they refer to: the functions below are all that there are.
    fn call(&self, number: Number, arguments: [u64; 5]) -> Result<u64, SysError> {
        // SAFETY: the kernel reads and writes what the arguments name and nothing else; that is
        // borrowed for the call, exclusively where the kernel writes, as the functions below see
        // to.
        unsafe { self.0.call(number, arguments) }.result()
    }

    /// Ends the process.
    pub fn exit(&self, code: u16) -> ! {
        loop {
            // It does not come back; should a kernel let it, the process still does nothing else.
            let _ = self.call(Number::EXIT, [code.into(), 0, 0, 0, 0]);
        }
    }

    /// Starts a program whose file system begins at `root`, and answers with its identity.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn exec(&self, path: &CStr, root: &CStr) -> Result<u32, SysError> {
        self.call(Number::EXEC, [text(path), text(root), 0, 0, 0])
            .map(low)
    }

    /// Closes a handle, if there is one.
    pub fn close(&self, handle: Handle) {
        // The call never fails.
        let _ = self.call(Number::CLOSE, [handle.as_u32().into(), 0, 0, 0, 0]);
    }

    /// Opens a file.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open(
        &self,
        path: &CStr,
        modes: FileModes,
        flags: FileFlags,
    ) -> Result<Handle, SysError> {
        self.call(Number::OPEN, [text(path), modes.bits(), flags.bits(), 0, 0])
            .map(handle)
    }

    /// Reads on from the position, and answers with how many bytes; 0 at the end.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn read(&self, from: Handle, to: &mut [u8]) -> Result<usize, SysError> {
        let arguments = [
            from.as_u32().into(),
            address(to.as_mut_ptr()),
            to.len() as u64,
            0,
            0,
        ];
        self.call(Number::READ, arguments)
            .map(|bytes| at_most(bytes, to.len()))
    }

    /// Writes on from the position, and answers with how many bytes.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn write(&self, to: Handle, from: &[u8]) -> Result<usize, SysError> {
        let arguments = [
            to.as_u32().into(),
            address(from.as_ptr()),
            from.len() as u64,
            0,
            0,
        ];
        self.call(Number::WRITE, arguments)
            .map(|bytes| at_most(bytes, from.len()))
    }

    /// Moves the position, and answers with the new one.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn seek(&self, handle: Handle, offset: i64, mode: SeekMode) -> Result<u64, SysError> {
        let arguments = [
            handle.as_u32().into(),
            offset.cast_unsigned(),
            mode as u64,
            0,
            0,
        ];
        self.call(Number::SEEK, arguments)
    }

    /// Cuts a file to that many bytes.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn truncate(&self, handle: Handle, bytes: u64) -> Result<u64, SysError> {
        self.call(Number::TRUNCATE, [handle.as_u32().into(), bytes, 0, 0, 0])
    }

    /// Removes a file.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn unlink(&self, path: &CStr) -> Result<(), SysError> {
        self.call(Number::UNLINK, [text(path), 0, 0, 0, 0])
            .map(drop)
    }

    /// Opens a directory.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open_directory(&self, path: &CStr) -> Result<Handle, SysError> {
        self.call(Number::OPENDIR, [text(path), 0, 0, 0, 0])
            .map(handle)
    }

    /// Reads the next entries of a directory, and answers with those; none at the end.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn read_directory<'e>(
        &self,
        from: Handle,
        entries: &'e mut [DirEntry],
    ) -> Result<&'e [DirEntry], SysError> {
        let room = entries.len();
        let arguments = [
            from.as_u32().into(),
            address(entries.as_mut_ptr()),
            room as u64,
            0,
            0,
        ];
        let count = self.call(Number::READDIR, arguments)?;
        Ok(entries.get(..at_most(count, room)).unwrap_or_default())
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn make_directory(&self, path: &CStr) -> Result<(), SysError> {
        self.call(Number::MKDIR, [text(path), 0, 0, 0, 0]).map(drop)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove_directory(&self, path: &CStr) -> Result<(), SysError> {
        self.call(Number::RMDIR, [text(path), 0, 0, 0, 0]).map(drop)
    }

    /// A fact about the platform; 0 for how many there are.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn capability(&self, index: u32) -> Result<u64, SysError> {
        self.call(Number::CAPABILITIES, [index.into(), 0, 0, 0, 0])
    }

    /// Starts a program of the archive.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn spawn(&self, path: &str) -> Result<Handle, SysError> {
        let arguments = [address(path.as_ptr()), path.len() as u64, 0, 0, 0];
        self.call(Number::SPAWN, arguments).map(handle)
    }

    /// Waits until a child has ended, closes its handle and answers with its exit code.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn wait(&self, child: Handle) -> Result<u16, SysError> {
        let code = self.call(Number::WAIT, [child.as_u32().into(), 0, 0, 0, 0])?;
        u16::try_from(code).map_err(|_| SysError::INVALID)
    }

    /// Lets others run.
    pub fn yield_now(&self) {
        // The call never fails.
        let _ = self.call(Number::YIELD, [0; 5]);
    }

    /// Sleeps at least that long, or 584 years.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn sleep(&self, time: Duration) -> Result<(), SysError> {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.call(Number::SLEEP, [ns, 0, 0, 0, 0]).map(drop)
    }

    /// Who this is.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn identity(&self) -> Result<u32, SysError> {
        self.call(Number::IDENTITY, [0; 5]).map(low)
    }

    /// The number of the CPU that answered.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn cpu(&self) -> Result<u32, SysError> {
        self.call(Number::CPU, [0; 5]).map(low)
    }

    /// Zeroed memory, from the start of a page on.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn map(&self, bytes: usize, rights: Rights) -> Result<NonNull<[u8]>, SysError> {
        let rights = match rights {
            Rights::Read => 0,
            Rights::Write => map_rights::WRITE,
            Rights::Execute => map_rights::EXECUTE,
        };
        let at = self.call(Number::MAP, [bytes as u64, rights, 0, 0, 0])?;
        let at = usize::try_from(at).map_err(|_| SysError::FAULT)?;
        let at = NonNull::new(core::ptr::with_exposed_provenance_mut(at)).ok_or(SysError::FAULT)?;
        Ok(NonNull::slice_from_raw_parts(at, bytes))
    }

    /// Gives memory back.
    ///
    /// # Safety
    /// It came from [`map`](Self::map), and nobody uses it any more.
    ///
    /// # Errors
    /// What the kernel says.
    pub unsafe fn unmap(&self, memory: NonNull<[u8]>) -> Result<(), SysError> {
        let arguments = [
            address(memory.as_ptr().cast::<u8>()),
            memory.len() as u64,
            0,
            0,
            0,
        ];
        self.call(Number::UNMAP, arguments).map(drop)
    }

    /// The time since the start, on a clock that never goes back.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn now(&self) -> Result<Duration, SysError> {
        self.call(Number::NOW, [0; 5]).map(Duration::from_nanos)
    }

    /// Logs one binary record, which leaves the guest only if it is `public`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn log_record(&self, public: bool, record: &[u8]) -> Result<(), SysError> {
        let class = if public {
            log_class::PUBLIC
        } else {
            log_class::LOCAL
        };
        let arguments = [class, address(record.as_ptr()), record.len() as u64, 0, 0];
        self.call(Number::LOG_RECORD, arguments).map(drop)
    }

    /// Says how the whole run went: 0 for passed.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn verdict(&self, code: u32) -> Result<(), SysError> {
        self.call(Number::VERDICT, [code.into(), 0, 0, 0, 0])
            .map(drop)
    }

    /// Serves a protocol of the guest: a read of the handle waits for a request, and a write answers it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn serve(&self, protocol: u32) -> Result<Handle, SysError> {
        self.call(Number::SERVE, [protocol.into(), 0, 0, 0, 0])
            .map(handle)
    }

    /// Says this of the service behind `of` when the guest has it attested, until it says something else.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn publish(&self, of: Handle, statement: &[u8]) -> Result<(), SysError> {
        let arguments = [
            of.as_u32().into(),
            address(statement.as_ptr()),
            statement.len() as u64,
            0,
            0,
        ];
        self.call(Number::PUBLISH, arguments).map(drop)
    }
}

/// The kernel reads and writes there: the pointer's provenance is exposed to it.
fn address<T>(pointer: *const T) -> u64 {
    pointer.expose_provenance() as u64
}

fn text(text: &CStr) -> u64 {
    address(text.as_ptr())
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the call answers with 32 bits"
)]
const fn low(value: u64) -> u32 {
    value as u32
}

const fn handle(value: u64) -> Handle {
    Handle::from_u32(low(value))
}

/// A count that a kernel answered, and never more than there is room for.
fn at_most(count: u64, room: usize) -> usize {
    usize::try_from(count).map_or(room, |count| count.min(room))
}
