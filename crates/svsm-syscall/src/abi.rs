//! What kernel and user mode agree on: numbers, results and the bytes of what they exchange.
//!
//! A call is a 64-bit number in RAX, a class in its upper half and a call of that class in the
//! lower. Arguments are in RDI, RSI, R8, R9 and R10 (RDX is not one), the result comes back in RAX,
//! and all other registers are kept but RCX and R11. A program enters by `int 0x80` or, where the
//! firmware offers it, by `syscall`.
//!
//! Classes 0, 1 and 3 hold the 14 calls of COCONUT-SVSM, so that its user programs run unmodified.
//! Our own classes have the top bit set and stay out of the way of what it may add.

mod file;
mod number;
mod status;

pub use file::{DirEntry, FileFlags, FileKind, FileModes, NAME_BYTES, PATH_BYTES, SeekMode};
pub use number::Number;
pub use status::{Status, SysError};

/// The handle that a new process has open: what it writes there goes to the log.
pub const LOG_HANDLE: u32 = 0;

/// Bits of an exit code that count.
pub const EXIT_CODE_MASK: u32 = 0xffff;

/// Who may read a log record, as [`Number::LOG_RECORD`] takes it.
pub mod log_class {
    /// It may leave the guest.
    pub const PUBLIC: u64 = 0;
    /// It stays inside.
    pub const LOCAL: u64 = 1;
}

/// Rights of memory, as [`Number::MAP`] takes them. Memory is always readable; never both of these.
pub mod map_rights {
    /// It may be written.
    pub const WRITE: u64 = 1 << 0;
    /// Its contents may be executed.
    pub const EXECUTE: u64 = 1 << 1;
}
