//! A source for early boot: a line that moves up.

use svsm_platform::addr::{Gpa, GpaRange};

use super::{Frame, FrameSource, Order, Refused};
use crate::{Error, Result};

/// Hands out a range from its start and needs no metadata.
///
/// It takes back only the block it handed out last. When boot is over, [`Bump::into_rest`] gives
/// what is left to a [`Buddy`](super::Buddy).
#[derive(Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Bump {
    start: Gpa,
    next: Gpa,
    end: Gpa,
}

impl Bump {
    /// A source over `range`, cut down to whole 4 KiB frames by the range's own alignment.
    ///
    /// # Errors
    /// [`Error::Misaligned`] if a bound of the range is not a frame's.
    ///
    /// # Safety
    /// - The caller owns the memory in `range`, and no other source hands out any of it.
    /// - No Rust object lives in it, except through frames of this source.
    #[expect(unsafe_code, reason = "the caller vouches for the memory")]
    pub unsafe fn new(range: GpaRange) -> Result<Self> {
        Self::over(range)
    }

    /// As [`Bump::new`], for callers in the crate that account for the memory themselves.
    pub(crate) fn over(range: GpaRange) -> Result<Self> {
        for bound in [range.start(), range.end()] {
            if bound.as_u64() % Order::SINGLE.bytes() != 0 {
                return Err(Error::Misaligned {
                    address: bound.as_u64(),
                });
            }
        }
        Ok(Self {
            start: range.start(),
            next: range.start(),
            end: range.end(),
        })
    }

    /// How many bytes are left, not counting alignment.
    #[must_use]
    pub fn remaining_bytes(&self) -> u64 {
        self.end.as_u64().saturating_sub(self.next.as_u64())
    }

    /// What was not handed out.
    ///
    /// # Errors
    /// [`Error::Bug`] if the bounds have crossed, which they never do.
    pub fn into_rest(self) -> Result<GpaRange> {
        GpaRange::from_bounds(self.next, self.end).ok_or(Error::Bug)
    }
}

impl FrameSource for Bump {
    fn take(&mut self, order: Order) -> Result<Frame> {
        let out = Error::OutOfFrames { order };
        let mask = order.bytes() - 1;
        let base = self.next.as_u64().checked_add(mask).ok_or(out)? & !mask;
        let base = Gpa::new(base).ok_or(out)?;
        let next = base.checked_add(order.bytes()).ok_or(out)?;
        if next > self.end {
            return Err(out);
        }
        self.next = next;
        Ok(Frame::trusted(base, order))
    }

    fn give(&mut self, frame: Frame) -> core::result::Result<(), Refused> {
        let base = frame.base();
        let end = base.checked_add(frame.bytes());
        if base < self.start || end.is_none_or(|end| end > self.end) {
            return Err(Refused {
                frame,
                error: Error::ForeignFrame { base },
            });
        }
        if end != Some(self.next) {
            return Err(Refused {
                frame,
                error: Error::OutOfTurn { base },
            });
        }
        self.next = base;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bump(start: u64, len: u64) -> Bump {
        Bump::over(GpaRange::new(Gpa::new(start).unwrap(), len).unwrap()).unwrap()
    }

    #[test]
    fn blocks_are_aligned_to_their_size() {
        let mut bump = bump(0x1000, 0x40_0000);
        let small = bump.take(Order::SINGLE).unwrap();
        let large = bump.take(Order::LARGE).unwrap();
        assert_eq!(small.base().as_u64(), 0x1000);
        assert_eq!(large.base().as_u64(), 0x20_0000);
        assert_eq!(bump.remaining_bytes(), 0x1000);
        assert_eq!(
            bump.take(Order::LARGE),
            Err(Error::OutOfFrames {
                order: Order::LARGE
            })
        );
    }

    #[test]
    fn only_the_last_block_goes_back() {
        let mut bump = bump(0x1000, 0x3000);
        let first = bump.take(Order::SINGLE).unwrap();
        let second = bump.take(Order::SINGLE).unwrap();
        let refused = bump.give(first).unwrap_err();
        assert!(matches!(refused.error, Error::OutOfTurn { .. }));
        bump.give(second).unwrap();
        bump.give(refused.frame).unwrap();
        let foreign = Frame::trusted(Gpa::new(0x9000).unwrap(), Order::SINGLE);
        let refused = bump.give(foreign).unwrap_err();
        assert!(matches!(refused.error, Error::ForeignFrame { .. }));
        assert_eq!(bump.into_rest().unwrap().len_bytes(), 0x3000);
    }

    #[test]
    fn a_ragged_range_is_refused() {
        let range = GpaRange::new(Gpa::new(0x1000).unwrap(), 0x1800).unwrap();
        assert_eq!(
            Bump::over(range).unwrap_err(),
            Error::Misaligned { address: 0x2800 }
        );
    }
}
