//! The calling area: one page of each guest processor, of which the SVSM uses the first bytes.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The part of the calling area that has a meaning (58019, "Calling Area").
///
/// The guest can write it at any time: copy it once, judge the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(C)]
pub struct CallingArea {
    /// `SVSM_CALL_PENDING`: see [`CallingArea::pending`].
    pub call_pending: u8,
    /// `SVSM_MEM_AVAILABLE`: nonzero if the guest can withdraw memory.
    pub mem_available: u8,
    /// Reserved; the SVSM need not check it.
    pub reserved: [u8; 6],
}

const _: () = assert!(size_of::<CallingArea>() == 8);

impl CallingArea {
    /// No call is pending and no memory can be withdrawn: what the SVSM writes when it takes an area into use.
    pub const IDLE: Self = Self {
        call_pending: 0,
        mem_available: 0,
        reserved: [0; 6],
    };

    /// Where a guest may put parameters of its own, in bytes from the start of the page.
    pub const PARAMETERS: u64 = 8;

    /// What the guest asks for.
    #[must_use]
    pub const fn pending(&self) -> CallPending {
        match self.call_pending {
            0 => CallPending::None,
            1 => CallPending::Call,
            value => CallPending::Reserved(value),
        }
    }
}

/// What `SVSM_CALL_PENDING` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum CallPending {
    /// The SVSM runs for another reason; the guest did not call.
    None,
    /// The registers hold a call.
    Call,
    /// A value without a meaning; the answer is [`INVALID_FORMAT`](crate::ResultCode::INVALID_FORMAT).
    Reserved(u8),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_is_a_call() {
        let area = |call_pending| CallingArea {
            call_pending,
            ..CallingArea::IDLE
        };
        assert_eq!(area(0).pending(), CallPending::None);
        assert_eq!(area(1).pending(), CallPending::Call);
        for value in 2..=u8::MAX {
            assert_eq!(area(value).pending(), CallPending::Reserved(value));
        }
    }

    #[test]
    fn the_pending_byte_is_the_first() {
        let area = CallingArea::read_from_bytes(&[1, 2, 0, 0, 0, 0, 0, 0]).unwrap();
        assert_eq!((area.call_pending, area.mem_available), (1, 2));
    }
}
