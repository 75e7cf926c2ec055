//! L0's own memory: handed out once, never taken back.

use crate::addr::{AddrRange, Hpa, HpaRange, PAGE};

/// A bump allocator over L0's part of RAM that steps around one occupied range.
///
/// Everything L0 needs is known before the guest starts, so nothing is ever given back.
#[derive(Debug)]
pub struct Pool {
    next: Hpa,
    end: Hpa,
    occupied: HpaRange,
}

impl Pool {
    /// All of `own`, without what overlaps `occupied` (the image file, which may lie in it).
    #[must_use]
    pub const fn new(own: HpaRange, occupied: HpaRange) -> Self {
        Self {
            next: own.start(),
            end: own.end(),
            occupied,
        }
    }

    /// Takes `bytes`, rounded up to pages, aligned to `align` (a power of two, a page at least).
    ///
    /// The memory holds whatever was there. `None`: not enough is left.
    pub fn take(&mut self, bytes: u64, align: u64) -> Option<HpaRange> {
        let bytes = bytes.checked_next_multiple_of(PAGE)?;
        let align = align.max(PAGE);
        let mut from = self.next;
        for _ in 0..2 {
            let start = Hpa::new(from.as_u64().checked_next_multiple_of(align)?)?;
            let range = AddrRange::new(start, bytes)?;
            if range.end() > self.end {
                return None;
            }
            if range.intersection(&self.occupied).is_none() {
                self.next = range.end();
                return Some(range);
            }
            from = self.occupied.end();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64) -> HpaRange {
        HpaRange::from_u64(start, end).unwrap()
    }

    #[test]
    fn the_pool_steps_around_the_image_file() {
        let mut pool = Pool::new(range(0x10_0000, 0x20_0000), range(0x10_2800, 0x10_4800));
        assert_eq!(pool.take(0x1001, PAGE), Some(range(0x10_0000, 0x10_2000)));
        assert_eq!(pool.take(0x1000, PAGE), Some(range(0x10_5000, 0x10_6000)));
        assert_eq!(
            pool.take(0x1000, 0x8_0000),
            Some(range(0x18_0000, 0x18_1000))
        );
        assert_eq!(pool.take(0x8_0000, PAGE), None);
        assert_eq!(pool.take(u64::MAX, PAGE), None);
        assert_eq!(pool.take(0x7_f000, PAGE), Some(range(0x18_1000, 0x20_0000)));
        assert_eq!(pool.take(1, PAGE), None);
    }
}
