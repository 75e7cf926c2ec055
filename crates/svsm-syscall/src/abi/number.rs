use core::fmt;

/// The number of a system call.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Number(u64);

const PROCESSES: u32 = 0;
const FILES: u32 = 1;
const PLATFORM: u32 = 3;
const OWN: u32 = 1 << 31;
const OWN_TASKS: u32 = OWN;
const OWN_MEMORY: u32 = OWN | 1;
const OWN_CLOCK: u32 = OWN | 2;
const OWN_LOG: u32 = OWN | 3;
const OWN_SERVICES: u32 = OWN | 4;

// Calls that COCONUT-SVSM has, too. Paths end with a zero byte.
impl Number {
    /// `(code)`: ends the process; of the code 16 bits count.
    pub const EXIT: Self = Self::new(PROCESSES, 0);
    /// `(path, root, flags)`: starts a program whose file system begins at `root`; answers with its
    /// identity.
    pub const EXEC: Self = Self::new(PROCESSES, 4);
    /// `(handle)`: closes a handle; succeeds even if there is none.
    pub const CLOSE: Self = Self::new(PROCESSES, 10);
    /// `(path, modes, flags)`: opens a file; answers with a handle.
    pub const OPEN: Self = Self::new(FILES, 0);
    /// `(handle, buffer, bytes)`: reads on from the position; answers with the number of bytes, 0
    /// at the end.
    pub const READ: Self = Self::new(FILES, 1);
    /// `(handle, buffer, bytes)`: writes on from the position; answers with the number of bytes.
    pub const WRITE: Self = Self::new(FILES, 2);
    /// `(handle, offset, mode)`: moves the position; answers with the new one.
    pub const SEEK: Self = Self::new(FILES, 3);
    /// `(handle, bytes)`: cuts a file; answers with the new length.
    pub const TRUNCATE: Self = Self::new(FILES, 4);
    /// `(path)`: removes a file.
    pub const UNLINK: Self = Self::new(FILES, 5);
    /// `(path)`: opens a directory; answers with a handle.
    pub const OPENDIR: Self = Self::new(FILES, 6);
    /// `(handle, entries, count)`: the next entries of a directory; answers with their number, 0 at
    /// the end.
    pub const READDIR: Self = Self::new(FILES, 7);
    /// `(path)`: makes a directory.
    pub const MKDIR: Self = Self::new(FILES, 8);
    /// `(path)`: removes an empty directory.
    pub const RMDIR: Self = Self::new(FILES, 9);
    /// `(index)`: a fact about the platform; index 0 answers with how many there are, index 1 with
    /// the first.
    pub const CAPABILITIES: Self = Self::new(PLATFORM, 0);
}

// Our own. Texts and buffers come with their length.
impl Number {
    /// `(path, bytes)`: starts a program of the archive; answers with a handle that can be waited
    /// for.
    pub const SPAWN: Self = Self::new(OWN_TASKS, 0);
    /// `(handle)`: waits until a child has ended; answers with its exit code and closes the handle.
    pub const WAIT: Self = Self::new(OWN_TASKS, 1);
    /// `()`: lets others run.
    pub const YIELD: Self = Self::new(OWN_TASKS, 2);
    /// `(nanoseconds)`: sleeps at least that long.
    pub const SLEEP: Self = Self::new(OWN_TASKS, 3);
    /// `()`: the identity of the caller.
    pub const IDENTITY: Self = Self::new(OWN_TASKS, 4);
    /// `()`: the number of the CPU that runs the caller right now.
    pub const CPU: Self = Self::new(OWN_TASKS, 5);
    /// `(bytes, rights)`: zeroed memory; answers with its address.
    pub const MAP: Self = Self::new(OWN_MEMORY, 0);
    /// `(address, bytes)`: gives memory back.
    pub const UNMAP: Self = Self::new(OWN_MEMORY, 1);
    /// `()`: nanoseconds since the start, on a clock that never goes back.
    pub const NOW: Self = Self::new(OWN_CLOCK, 0);
    /// `(class, buffer, bytes)`: one binary log record.
    pub const LOG_RECORD: Self = Self::new(OWN_LOG, 0);
    /// `(code)`: the verdict of the whole run, 0 for passed; only for the first process.
    pub const VERDICT: Self = Self::new(OWN_LOG, 1);
    /// `(protocol)`: serves a protocol of the guest; answers with a handle. A read of it waits for a request, a write answers that.
    pub const SERVE: Self = Self::new(OWN_SERVICES, 0);
    /// `(handle, buffer, bytes)`: what the service says of itself when the guest has it attested.
    pub const PUBLISH: Self = Self::new(OWN_SERVICES, 1);
}

impl Number {
    /// A call of a class.
    #[must_use]
    pub const fn new(class: u32, call: u32) -> Self {
        Self((class as u64) << 32 | call as u64)
    }

    /// What stood in RAX.
    #[must_use]
    pub const fn from_u64(number: u64) -> Self {
        Self(number)
    }

    /// What stands in RAX.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Its class.
    #[must_use]
    pub const fn class(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Its number within the class.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
    pub const fn call(self) -> u32 {
        self.0 as u32
    }

    /// Whether it belongs to us rather than to what COCONUT-SVSM has.
    #[must_use]
    pub const fn is_own(self) -> bool {
        self.class() & OWN != 0
    }
}

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Number({:#x}:{})", self.class(), self.call())
    }
}

#[cfg(test)]
mod tests {
    use super::Number;

    // Read off the published ABI of COCONUT-SVSM; its programs have them compiled in.
    #[test]
    fn the_fourteen_calls_keep_their_numbers() {
        let calls = [
            (Number::EXIT, 0),
            (Number::EXEC, 4),
            (Number::CLOSE, 10),
            (Number::OPEN, 0x1_0000_0000),
            (Number::READ, 0x1_0000_0001),
            (Number::WRITE, 0x1_0000_0002),
            (Number::SEEK, 0x1_0000_0003),
            (Number::TRUNCATE, 0x1_0000_0004),
            (Number::UNLINK, 0x1_0000_0005),
            (Number::OPENDIR, 0x1_0000_0006),
            (Number::READDIR, 0x1_0000_0007),
            (Number::MKDIR, 0x1_0000_0008),
            (Number::RMDIR, 0x1_0000_0009),
            (Number::CAPABILITIES, 0x3_0000_0000),
        ];
        for (number, value) in calls {
            assert_eq!(number.as_u64(), value);
            assert!(!number.is_own());
            assert_eq!(Number::new(number.class(), number.call()), number);
        }
        assert!(Number::SPAWN.is_own() && Number::VERDICT.is_own());
    }
}
