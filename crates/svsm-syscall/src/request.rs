//! What a program asks for, decoded from a number and five registers.
//!
//! Decoding checks all that can be known without looking at memory or at handles: numbers, flags,
//! ranges. What comes out is typed, so that a kernel matches on [`Request`] and never sees a raw
//! register.

use crate::{
    abi::{
        DirEntry, EXIT_CODE_MASK, FileFlags, FileModes, Number, SeekMode, SysError, log_class,
        map_rights,
    },
    handle::Handle,
    memory::{UserPtr, UserSlice, UserStr},
    program::Rights,
};

/// A system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Request {
    /// Ends the process.
    Exit {
        /// What its parent learns.
        code: u16,
    },
    /// Starts a program whose file system begins at `root`. (Flags are ignored, as they are in
    /// COCONUT-SVSM.)
    Exec {
        /// Its path.
        path: UserStr,
        /// Where its file system begins.
        root: UserStr,
    },
    /// Closes a handle; succeeds whatever the handle is.
    Close(Handle),
    /// Asks an object for something.
    Object(Handle, Operation),
    /// Opens a file.
    Open {
        /// Its path.
        path: UserStr,
        /// What for.
        modes: FileModes,
        /// What else.
        flags: FileFlags,
    },
    /// Opens a directory.
    OpenDirectory(UserStr),
    /// Removes a file.
    Unlink(UserStr),
    /// Makes a directory.
    MakeDirectory(UserStr),
    /// Removes an empty directory.
    RemoveDirectory(UserStr),
    /// Asks for a fact about the platform.
    Capability {
        /// Which; 0 for how many there are.
        index: u32,
    },
    /// Starts a program of the archive.
    Spawn {
        /// Its path.
        path: UserSlice,
    },
    /// Lets others run.
    Yield,
    /// Sleeps.
    Sleep {
        /// At least so long.
        ns: u64,
    },
    /// Asks who it is.
    Identity,
    /// Asks which CPU it is on.
    Cpu,
    /// Asks for memory.
    Map {
        /// How much, at least 1.
        bytes: u64,
        /// What it may do with it.
        rights: Rights,
    },
    /// Gives memory back.
    Unmap(UserSlice),
    /// Asks for the time.
    Now,
    /// Logs one binary record.
    LogRecord {
        /// Whether it may leave the guest.
        public: bool,
        /// The record.
        record: UserSlice,
    },
    /// Says how the whole run went.
    Verdict {
        /// 0 for passed.
        code: u32,
    },
    /// Serves a protocol of the guest.
    Serve {
        /// Its number.
        protocol: u32,
    },
}

/// What an object is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// Read on from the position.
    Read(UserSlice),
    /// Write on from the position.
    Write(UserSlice),
    /// Move the position.
    Seek {
        /// By how much; from the start it counts as unsigned.
        offset: i64,
        /// From where.
        mode: SeekMode,
    },
    /// Cut it.
    Truncate {
        /// To that many bytes.
        bytes: u64,
    },
    /// The next entries of a directory.
    ReadDirectory {
        /// Where to write the first.
        entries: UserPtr<DirEntry>,
        /// How many there is room for.
        count: u64,
    },
    /// Wait until it has ended. The handle is closed if it has.
    Wait,
    /// Say this of itself when it is attested.
    Publish(UserSlice),
}

impl Request {
    /// What a program asks for.
    ///
    /// # Errors
    /// What the program gets instead of an answer: there is no such call, or an argument is out of
    /// range.
    pub fn decode(number: Number, arguments: [u64; 5]) -> Result<Self, SysError> {
        let [a, b, c, ..] = arguments;
        let object = |operation| Ok(Self::Object(Handle::from_u32(low(a)), operation));
        match number {
            Number::EXIT => Ok(Self::Exit { code: exit_code(a) }),
            Number::EXEC => Ok(Self::Exec {
                path: UserStr::new(a)?,
                root: UserStr::new(b)?,
            }),
            Number::CLOSE => Ok(Self::Close(Handle::from_u32(low(a)))),
            Number::OPEN => Ok(Self::Open {
                path: UserStr::new(a)?,
                modes: FileModes::from_bits(b).ok_or(SysError::INVALID)?,
                flags: FileFlags::from_bits(c).ok_or(SysError::INVALID)?,
            }),
            Number::READ => object(Operation::Read(UserSlice::new(b, c)?)),
            Number::WRITE => object(Operation::Write(UserSlice::new(b, c)?)),
            Number::SEEK => object(Operation::Seek {
                offset: b.cast_signed(),
                mode: c.try_into()?,
            }),
            Number::TRUNCATE => object(Operation::Truncate { bytes: b }),
            Number::UNLINK => UserStr::new(a).map(Self::Unlink),
            Number::OPENDIR => UserStr::new(a).map(Self::OpenDirectory),
            Number::READDIR => object(Operation::ReadDirectory {
                entries: UserPtr::new(b)?,
                count: c,
            }),
            Number::MKDIR => UserStr::new(a).map(Self::MakeDirectory),
            Number::RMDIR => UserStr::new(a).map(Self::RemoveDirectory),
            Number::CAPABILITIES => Ok(Self::Capability { index: low(a) }),
            Number::SPAWN => Ok(Self::Spawn {
                path: UserSlice::new(a, b)?,
            }),
            Number::WAIT => object(Operation::Wait),
            Number::YIELD => Ok(Self::Yield),
            Number::SLEEP => Ok(Self::Sleep { ns: a }),
            Number::IDENTITY => Ok(Self::Identity),
            Number::CPU => Ok(Self::Cpu),
            Number::MAP => match a {
                0 => Err(SysError::INVALID),
                bytes => Ok(Self::Map {
                    bytes,
                    rights: rights(b)?,
                }),
            },
            Number::UNMAP => UserSlice::new(a, b).map(Self::Unmap),
            Number::NOW => Ok(Self::Now),
            Number::LOG_RECORD => Ok(Self::LogRecord {
                public: match a {
                    log_class::PUBLIC => true,
                    log_class::LOCAL => false,
                    _ => return Err(SysError::INVALID),
                },
                record: UserSlice::new(b, c)?,
            }),
            Number::VERDICT => Ok(Self::Verdict { code: low(a) }),
            Number::SERVE => Ok(Self::Serve { protocol: low(a) }),
            Number::PUBLISH => object(Operation::Publish(UserSlice::new(b, c)?)),
            _ => Err(SysError::NO_CALL),
        }
    }
}

/// Of a register that holds 32 bits, those; programs leave anything in the upper half.
#[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
const fn low(register: u64) -> u32 {
    register as u32
}

const fn exit_code(register: u64) -> u16 {
    (low(register) & EXIT_CODE_MASK) as u16
}

const fn rights(bits: u64) -> Result<Rights, SysError> {
    match bits {
        0 => Ok(Rights::Read),
        map_rights::WRITE => Ok(Rights::Write),
        map_rights::EXECUTE => Ok(Rights::Execute),
        _ => Err(SysError::INVALID),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::memory::USER_END;

    fn decode(number: Number, arguments: [u64; 5]) -> Result<Request, SysError> {
        Request::decode(number, arguments)
    }

    #[test]
    fn registers_become_what_they_mean() {
        let handle = Handle::from_u32(3);
        let slice = UserSlice::new(0x1000, 8).unwrap();
        assert_eq!(
            decode(Number::EXIT, [0x1_2345, 0, 0, 0, 0]),
            Ok(Request::Exit { code: 0x2345 })
        );
        assert_eq!(
            decode(Number::WRITE, [0xffff_0000_0000_0003, 0x1000, 8, 0, 0]),
            Ok(Request::Object(handle, Operation::Write(slice)))
        );
        assert_eq!(
            decode(Number::SEEK, [3, u64::MAX, 2, 0, 0]),
            Ok(Request::Object(
                handle,
                Operation::Seek {
                    offset: -1,
                    mode: SeekMode::End
                }
            ))
        );
        assert_eq!(
            decode(Number::MAP, [1, 1, 0, 0, 0]),
            Ok(Request::Map {
                bytes: 1,
                rights: Rights::Write
            })
        );
    }

    #[test]
    fn arguments_that_make_no_sense_are_refused() {
        let refused = [
            (Number::OPEN, [0x1000, 1 << 4, 0, 0, 0], SysError::INVALID),
            (Number::OPEN, [0x1000, 1, 2, 0, 0], SysError::INVALID),
            (Number::OPEN, [USER_END, 1, 0, 0, 0], SysError::FAULT),
            (Number::READ, [0, USER_END - 1, 2, 0, 0], SysError::FAULT),
            (Number::WRITE, [0, u64::MAX, 2, 0, 0], SysError::FAULT),
            (Number::SEEK, [0, 0, 3, 0, 0], SysError::INVALID),
            (Number::MAP, [0, 0, 0, 0, 0], SysError::INVALID),
            (Number::MAP, [1, 3, 0, 0, 0], SysError::INVALID),
            (Number::LOG_RECORD, [2, 0x1000, 1, 0, 0], SysError::INVALID),
            (Number::new(2, 0), [0; 5], SysError::NO_CALL),
            (Number::from_u64(u64::MAX), [0; 5], SysError::NO_CALL),
        ];
        for (number, arguments, error) in refused {
            assert_eq!(decode(number, arguments), Err(error), "{number:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_decoded_lies_in_the_user_half(class in 0..5_u32, own: bool, call in 0..12_u32, arguments: [u64; 5]) {
            let class = if own { class | 1 << 31 } else { class };
            let slice = match decode(Number::new(class, call), arguments) {
                Ok(Request::Object(_, Operation::Read(slice) | Operation::Write(slice) | Operation::Publish(slice))) => slice,
                Ok(Request::Spawn { path: slice } | Request::Unmap(slice)) => slice,
                Ok(Request::LogRecord { record, .. }) => record,
                _ => return Ok(()),
            };
            prop_assert!(slice.start() + slice.len_bytes() as u64 <= USER_END);
        }
    }
}
