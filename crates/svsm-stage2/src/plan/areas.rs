//! Taking room from a range, one part after the other.

use svsm_platform::addr::{AddrRange, Address, PageCount, PageSize};

use crate::error::{Error, Fault, Result};
use crate::region::Region;

const PAGE: u64 = PageSize::Size4K.bytes();

/// What is left of a range of whole pages.
pub(super) struct Room<A> {
    region: Region,
    rest: AddrRange<A>,
}

impl<A: Address> Room<A> {
    /// All of `range`, which `region` names.
    pub(super) const fn new(region: Region, range: AddrRange<A>) -> Self {
        Self {
            region,
            rest: range,
        }
    }

    /// What is left.
    pub(super) const fn rest(&self) -> AddrRange<A>
    where
        A: Copy,
    {
        self.rest
    }

    /// The next whole pages that hold `len_bytes`, for `part`.
    pub(super) fn take(&mut self, part: Region, len_bytes: u64) -> Result<AddrRange<A>> {
        if len_bytes == 0 {
            return Err(Error::Region {
                region: part,
                fault: Fault::Empty,
            });
        }
        let missing_bytes = len_bytes.saturating_sub(self.rest.len_bytes());
        let no_room = Error::Region {
            region: part,
            fault: Fault::NoRoom {
                region: self.region,
                missing_bytes,
            },
        };
        let pages = PageCount::covering(len_bytes, PageSize::Size4K);
        let end = pages
            .len_bytes(PageSize::Size4K)
            .and_then(|len_bytes| self.rest.start().checked_add(len_bytes));
        let (taken, rest) = end.and_then(|end| self.rest.split_at(end)).ok_or(no_room)?;
        self.rest = rest;
        Ok(taken)
    }

    /// The same with an unmapped page before it.
    pub(super) fn take_guarded(&mut self, part: Region, len_bytes: u64) -> Result<AddrRange<A>> {
        self.take(part, PAGE)?;
        self.take(part, len_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use svsm_platform::addr::{Gpa, GpaRange};

    fn room() -> Room<Gpa> {
        let range = GpaRange::new(Gpa::new(0x1_0000).unwrap(), 0x4000).unwrap();
        Room::new(Region::Stage2, range)
    }

    #[test]
    fn parts_follow_each_other() {
        let mut room = room();
        let first = room.take(Region::Stage2Stack, 1).unwrap();
        let second = room.take_guarded(Region::Handoff, 0x1001).unwrap();
        assert_eq!(first.start().as_u64(), 0x1_0000);
        assert_eq!(second.start().as_u64(), 0x1_2000);
        assert!(room.rest().is_empty());
    }

    #[test]
    fn full_rooms_say_how_much_is_missing() {
        let mut room = room();
        let missing = |missing_bytes| {
            let fault = Fault::NoRoom {
                region: Region::Stage2,
                missing_bytes,
            };
            Err(Error::Region {
                region: Region::Archive,
                fault,
            })
        };
        assert_eq!(room.take(Region::Archive, 0x5000), missing(0x1000));
        assert_eq!(
            room.take(Region::Archive, u64::MAX),
            missing(u64::MAX - 0x4000)
        );
        assert!(room.take(Region::Archive, 0x4000).is_ok());
    }
}
