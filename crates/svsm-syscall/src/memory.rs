//! The memory of a user program: what it says of it is a claim, and every access can fault.
//!
//! [`UserSlice`] is a claim bounded to the user half of the address space, which is all one can
//! know without looking. [`UserMemory`] is the seam that looks: it copies once, so that what was
//! judged is what is used, and says how far it got. [`CurrentProcess`] implements it for the
//! address space in force.

mod copy;

use core::{fmt, marker::PhantomData};

use svsm_platform::frame::TrapFrame;
use zerocopy::{FromBytes, Immutable, IntoBytes};

pub use copy::CurrentProcess;

use crate::abi::SysError;

/// First address that belongs to no program.
///
/// The last page of the lower half is left out: an instruction that ended there would leave an
/// address behind that is not canonical, and copies would run into the hole.
pub const USER_END: u64 = TrapFrame::USER_END - 0x1000;

/// Bytes that a program says are its own. They lie in the user half; whether anything is there, a
/// copy finds out.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct UserSlice {
    start: u64,
    bytes: usize,
}

impl UserSlice {
    /// The bytes from `start` on.
    ///
    /// # Errors
    /// [`SysError::FAULT`] if they leave the user half.
    pub fn new(start: u64, bytes: u64) -> Result<Self, SysError> {
        let inside = start.checked_add(bytes).is_some_and(|end| end <= USER_END);
        match usize::try_from(bytes) {
            Ok(bytes) if inside => Ok(Self { start, bytes }),
            _ => Err(SysError::FAULT),
        }
    }

    /// Where they start.
    #[must_use]
    pub const fn start(self) -> u64 {
        self.start
    }

    /// How many they are.
    #[must_use]
    pub const fn len_bytes(self) -> usize {
        self.bytes
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.bytes == 0
    }

    /// The first `bytes` of them and the rest; all and nothing if there are fewer.
    #[must_use]
    pub fn split_at(self, bytes: usize) -> (Self, Self) {
        let bytes = bytes.min(self.bytes);
        let rest = Self {
            start: self.start + bytes as u64,
            bytes: self.bytes - bytes,
        };
        (
            Self {
                start: self.start,
                bytes,
            },
            rest,
        )
    }
}

impl fmt::Debug for UserSlice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserSlice({:#x}, {} bytes)", self.start, self.bytes)
    }
}

/// A value of a wire type, or several, that a program says lie at that address.
pub struct UserPtr<T> {
    at: u64,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for UserPtr<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for UserPtr<T> {}

impl<T> PartialEq for UserPtr<T> {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl<T> Eq for UserPtr<T> {}

impl<T> fmt::Debug for UserPtr<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserPtr({:#x})", self.at)
    }
}

#[cfg(feature = "defmt")]
impl<T> defmt::Format for UserPtr<T> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "UserPtr({=u64:#x})", self.at);
    }
}

impl<T> UserPtr<T> {
    /// The value at that address; it need not be aligned.
    ///
    /// # Errors
    /// [`SysError::FAULT`] if it is outside the user half.
    pub fn new(at: u64) -> Result<Self, SysError> {
        UserSlice::new(at, size_of::<T>() as u64).map(|_| Self {
            at,
            of: PhantomData,
        })
    }

    /// The bytes of the value that is `index` further.
    ///
    /// # Errors
    /// [`SysError::FAULT`] if it is outside the user half.
    pub fn slice(self, index: u64) -> Result<UserSlice, SysError> {
        let bytes = size_of::<T>() as u64;
        let at = index
            .checked_mul(bytes)
            .and_then(|offset| self.at.checked_add(offset));
        UserSlice::new(at.ok_or(SysError::FAULT)?, bytes)
    }
}

/// Text that a program says begins at that address and ends with a zero byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct UserStr(u64);

impl UserStr {
    /// The text at that address.
    ///
    /// # Errors
    /// [`SysError::FAULT`] if it begins outside the user half.
    pub fn new(at: u64) -> Result<Self, SysError> {
        UserSlice::new(at, 1).map(|_| Self(at))
    }
}

/// Reaches the memory of one program.
///
/// Copies stop at the first byte that is not there or not the program's to read or write. They
/// never hand out references: the program's other threads may write the same bytes meanwhile.
pub trait UserMemory {
    /// Copies from the program and answers with how many bytes were copied: fewer than both sides
    /// have if it faulted.
    #[must_use = "fewer bytes than wanted are a fault"]
    fn read(&self, from: UserSlice, to: &mut [u8]) -> usize;

    /// Copies to the program and answers with how many bytes were copied: fewer than both sides
    /// have if it faulted.
    #[must_use = "fewer bytes than wanted are a fault"]
    fn write(&self, to: UserSlice, from: &[u8]) -> usize;
}

impl<M: UserMemory + ?Sized> UserMemory for &M {
    fn read(&self, from: UserSlice, to: &mut [u8]) -> usize {
        M::read(self, from, to)
    }

    fn write(&self, to: UserSlice, from: &[u8]) -> usize {
        M::write(self, to, from)
    }
}

/// Fills all of `to` with the first bytes of `from`.
///
/// # Errors
/// [`SysError::FAULT`] if there are fewer, or not all could be read. What `to` holds then is not to
/// be used.
pub fn read_exact(
    memory: &impl UserMemory,
    from: UserSlice,
    to: &mut [u8],
) -> Result<(), SysError> {
    if memory.read(from, to) == to.len() {
        Ok(())
    } else {
        Err(SysError::FAULT)
    }
}

/// Writes all of `from` to the first bytes of `to`.
///
/// # Errors
/// [`SysError::FAULT`] if there are fewer, or not all could be written; some may have been.
pub fn write_all(memory: &impl UserMemory, to: UserSlice, from: &[u8]) -> Result<(), SysError> {
    if memory.write(to, from) == from.len() {
        Ok(())
    } else {
        Err(SysError::FAULT)
    }
}

/// Reads the value that is `index` behind `from`.
///
/// # Errors
/// [`SysError::FAULT`] if it could not be read.
pub fn read_value<T: FromBytes + IntoBytes>(
    memory: &impl UserMemory,
    from: UserPtr<T>,
    index: u64,
) -> Result<T, SysError> {
    let mut value = T::new_zeroed();
    read_exact(memory, from.slice(index)?, value.as_mut_bytes())?;
    Ok(value)
}

/// Writes the value that is `index` behind `to`.
///
/// # Errors
/// [`SysError::FAULT`] if it could not be written.
pub fn write_value<T: IntoBytes + Immutable>(
    memory: &impl UserMemory,
    to: UserPtr<T>,
    index: u64,
    value: &T,
) -> Result<(), SysError> {
    write_all(memory, to.slice(index)?, value.as_bytes())
}

/// Reads text up to its zero byte, into `buffer`.
///
/// # Errors
/// [`SysError::FAULT`] if memory ends before the text, [`SysError::INVALID`] if the buffer does or
/// if it is not UTF-8.
pub fn read_str<'b>(
    memory: &impl UserMemory,
    from: UserStr,
    buffer: &'b mut [u8],
) -> Result<&'b str, SysError> {
    // Not beyond the user half: what is there may be anything's.
    let room = (buffer.len() as u64).min(USER_END - from.0);
    let wanted = UserSlice::new(from.0, room)?;
    let read = memory.read(wanted, buffer);
    let buffer = buffer.get(..read).ok_or(SysError::FAULT)?;
    match buffer
        .iter()
        .position(|byte| *byte == 0)
        .and_then(|end| buffer.get(..end))
    {
        Some(text) => core::str::from_utf8(text).map_err(|_| SysError::INVALID),
        None if read == wanted.len_bytes() && wanted.start() + room < USER_END => {
            Err(SysError::INVALID)
        }
        None => Err(SysError::FAULT),
    }
}

#[cfg(test)]
pub(crate) mod tests;
