use core::fmt;

/// Why a system call failed, as programs see it: a small negative number.
///
/// Programs may meet numbers that they don't know; those are errors like any other.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SysError(u16);

// Codes that COCONUT-SVSM has, too.
impl SysError {
    /// An argument makes no sense.
    pub const INVALID: Self = Self(1);
    /// There is no such call.
    pub const NO_CALL: Self = Self(2);
    /// There is no memory left, or no room in a table.
    pub const NO_MEMORY: Self = Self(3);
    /// The caller may not do that.
    pub const NOT_ALLOWED: Self = Self(4);
    /// An address is not the caller's memory.
    pub const FAULT: Self = Self(5);
    /// It is in use.
    pub const BUSY: Self = Self(6);
    /// There is no such thing, or no such handle.
    pub const NOT_FOUND: Self = Self(7);
    /// The object does not do that.
    pub const NOT_SUPPORTED: Self = Self(8);
    /// There is one already.
    pub const EXISTS: Self = Self(9);
    /// It was opened for reading only.
    pub const READ_ONLY: Self = Self(10);
    /// It was opened for writing only.
    pub const WRITE_ONLY: Self = Self(11);
}

// Our own.
impl SysError {
    /// The caller has used up what it was given.
    pub const QUOTA: Self = Self(64);
    /// The time is over.
    pub const TIMED_OUT: Self = Self(65);
}

/// What RAX holds after a call: a value, or an error in the last 65,535 numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Status(u64);

impl Status {
    /// What a call's result looks like in RAX.
    #[must_use]
    pub const fn new(result: Result<u64, SysError>) -> Self {
        match result {
            // A value that looked like an error would be one. No call of ours has such values;
            // should one slip through, the program is told that the call is at fault.
            Ok(value) if Self(value).is_error() => Self::new(Err(SysError::NOT_SUPPORTED)),
            Ok(value) => Self(value),
            Err(error) => Self((error.0 as u64).wrapping_neg()),
        }
    }

    /// What stood in RAX.
    #[must_use]
    pub const fn from_u64(rax: u64) -> Self {
        Self(rax)
    }

    /// What stands in RAX.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The value, or the error.
    ///
    /// # Errors
    /// What the kernel answered.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "errors have 16 bits, as was just checked"
    )]
    pub const fn result(self) -> Result<u64, SysError> {
        if self.is_error() {
            Err(SysError(self.0.wrapping_neg() as u16))
        } else {
            Ok(self.0)
        }
    }

    const fn is_error(self) -> bool {
        self.0 > u64::MAX - u16::MAX as u64
    }
}

impl SysError {
    /// The error of that number, which is positive here. 0 is none.
    #[must_use]
    pub const fn from_u16(number: u16) -> Option<Self> {
        if number == 0 {
            None
        } else {
            Some(Self(number))
        }
    }

    /// Its number, positive.
    #[must_use]
    pub const fn as_u16(self) -> u16 {
        self.0
    }

    const fn words(self) -> Option<&'static str> {
        Some(match self {
            Self::INVALID => "an argument makes no sense",
            Self::NO_CALL => "no such system call",
            Self::NO_MEMORY => "no memory left",
            Self::NOT_ALLOWED => "not allowed",
            Self::FAULT => "bad address",
            Self::BUSY => "in use",
            Self::NOT_FOUND => "not found",
            Self::NOT_SUPPORTED => "not supported",
            Self::EXISTS => "exists already",
            Self::READ_ONLY => "read only",
            Self::WRITE_ONLY => "write only",
            Self::QUOTA => "quota used up",
            Self::TIMED_OUT => "timed out",
            _ => return None,
        })
    }
}

impl fmt::Debug for SysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SysError(-{})", self.0)
    }
}

impl fmt::Display for SysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.words() {
            Some(words) => f.write_str(words),
            None => write!(f, "system call error -{}", self.0),
        }
    }
}

impl core::error::Error for SysError {}

#[cfg(test)]
mod tests {
    use super::{Status, SysError};

    #[test]
    fn errors_are_the_numbers_that_programs_have_compiled_in() {
        let expected = [
            (SysError::INVALID, -1_i64),
            (SysError::NO_CALL, -2),
            (SysError::NO_MEMORY, -3),
            (SysError::NOT_ALLOWED, -4),
            (SysError::FAULT, -5),
            (SysError::BUSY, -6),
            (SysError::NOT_FOUND, -7),
            (SysError::NOT_SUPPORTED, -8),
            (SysError::EXISTS, -9),
            (SysError::READ_ONLY, -10),
            (SysError::WRITE_ONLY, -11),
        ];
        for (error, rax) in expected {
            assert_eq!(Status::new(Err(error)).as_u64().cast_signed(), rax);
        }
    }

    #[test]
    fn results_survive_the_register() {
        for number in 1..=u16::MAX {
            let error = SysError::from_u16(number).unwrap();
            let status = Status::from_u64(Status::new(Err(error)).as_u64());
            assert_eq!(status.result(), Err(error));
        }
        for value in [0, 1, 1 << 47, u64::MAX - 0xffff] {
            assert_eq!(Status::new(Ok(value)).result(), Ok(value));
        }
    }

    #[test]
    fn a_value_never_becomes_another_error() {
        assert_eq!(
            Status::new(Ok(u64::MAX)).result(),
            Err(SysError::NOT_SUPPORTED)
        );
    }
}
