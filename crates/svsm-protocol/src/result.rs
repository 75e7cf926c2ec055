//! What a call answers, in the lower half of RAX.

use core::fmt;

/// A result (58019, "Result Codes"). Protocols define codes of their own, so it is a number with names.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ResultCode(u32);

const FIRST_PROTOCOL_SUCCESS: u32 = 0x1000;
const FIRST_PROTOCOL_FAILURE: u32 = 0x8000_1000;
const NEEDS_MEMORY: u32 = 0x4000_0000;
const FAILURES: u32 = 0x8000_0000;
/// A count of pages has 30 bits.
const MOST_PAGES: u32 = NEEDS_MEMORY - 1;

impl ResultCode {
    /// The code with that number, for those of a protocol's own.
    pub(crate) const fn new(code: u32) -> Self {
        Self(code)
    }

    /// All done.
    pub const SUCCESS: Self = Self(0);
    /// Partly done: the guest repeats the call to go on.
    pub const INCOMPLETE: Self = Self(0x8000_0000);
    /// Nobody here speaks that protocol.
    pub const UNSUPPORTED_PROTOCOL: Self = Self(0x8000_0001);
    /// The protocol has no such call.
    pub const UNSUPPORTED_CALL: Self = Self(0x8000_0002);
    /// An address is not usable, or faulted.
    pub const INVALID_ADDRESS: Self = Self(0x8000_0003);
    /// `SVSM_CALL_PENDING` holds a reserved value.
    pub const INVALID_FORMAT: Self = Self(0x8000_0004);
    /// An argument is wrong; misaligned addresses too.
    pub const INVALID_PARAMETER: Self = Self(0x8000_0005);
    /// This handler cannot do what is asked.
    pub const INVALID_REQUEST: Self = Self(0x8000_0006);
    /// Try again; nothing was changed.
    pub const BUSY: Self = Self(0x8000_0007);

    /// A success that a protocol defines: `offset` counts from the first such code. `None` if there are not so many.
    #[must_use]
    pub const fn protocol_success(offset: u32) -> Option<Self> {
        match offset.checked_add(FIRST_PROTOCOL_SUCCESS) {
            Some(code) if code < NEEDS_MEMORY => Some(Self(code)),
            _ => None,
        }
    }

    /// A failure that a protocol defines: `offset` counts from the first such code. `None` if there are not so many.
    #[must_use]
    pub const fn protocol_failure(offset: u32) -> Option<Self> {
        match offset.checked_add(FIRST_PROTOCOL_FAILURE) {
            Some(code) => Some(Self(code)),
            None => None,
        }
    }

    /// The guest must deposit `pages` pages of 4 KiB, then repeat the call. `None` if the code cannot say so many.
    #[must_use]
    pub const fn needs_memory(pages: u32) -> Option<Self> {
        if pages > MOST_PAGES {
            None
        } else {
            Some(Self(NEEDS_MEMORY | pages))
        }
    }

    /// The pages that the guest must deposit, if that is what the code says.
    #[must_use]
    pub const fn pages_needed(self) -> Option<u32> {
        if self.0 >= NEEDS_MEMORY && self.0 < FAILURES {
            Some(self.0 & MOST_PAGES)
        } else {
            None
        }
    }

    /// Whether the call is done and did what was asked.
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.0 < NEEDS_MEMORY
    }

    /// The plain number.
    #[must_use]
    pub const fn as_u32(self) -> u32 {
        self.0
    }
}

impl From<ResultCode> for u64 {
    fn from(code: ResultCode) -> Self {
        Self::from(code.0)
    }
}

impl fmt::Debug for ResultCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ResultCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            Self::SUCCESS => "SUCCESS",
            Self::INCOMPLETE => "INCOMPLETE",
            Self::UNSUPPORTED_PROTOCOL => "UNSUPPORTED_PROTOCOL",
            Self::UNSUPPORTED_CALL => "UNSUPPORTED_CALL",
            Self::INVALID_ADDRESS => "INVALID_ADDRESS",
            Self::INVALID_FORMAT => "INVALID_FORMAT",
            Self::INVALID_PARAMETER => "INVALID_PARAMETER",
            Self::INVALID_REQUEST => "INVALID_REQUEST",
            Self::BUSY => "BUSY",
            Self(code) => return write!(f, "result {code:#x}"),
        };
        f.write_str(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_do_not_meet(offset in any::<u32>(), pages in any::<u32>()) {
            if let Some(code) = ResultCode::protocol_success(offset) {
                prop_assert!(code.is_success() && code.pages_needed().is_none());
            }
            if let Some(code) = ResultCode::protocol_failure(offset) {
                prop_assert!(!code.is_success() && code.pages_needed().is_none());
            }
            if let Some(code) = ResultCode::needs_memory(pages) {
                prop_assert!(!code.is_success());
                prop_assert_eq!(code.pages_needed(), Some(pages));
            }
        }
    }

    #[test]
    fn the_edges_of_the_ranges_are_those_of_the_specification() {
        assert_eq!(ResultCode::protocol_success(0).unwrap().as_u32(), 0x1000);
        assert_eq!(
            ResultCode::protocol_success(0x3fff_efff).unwrap().as_u32(),
            0x3fff_ffff
        );
        assert_eq!(ResultCode::protocol_success(0x3fff_f000), None);
        assert_eq!(ResultCode::needs_memory(0x4000_0000), None);
        assert_eq!(
            ResultCode::protocol_failure(0x10).unwrap().as_u32(),
            0x8000_1010
        );
    }
}
