//! A sorted set of address ranges in fixed storage.

use crate::addr::{AddrRange, Address};

/// At most `N` disjoint ranges, sorted; ranges that touch become one.
#[derive(Clone, Copy, Debug)]
pub struct RangeSet<A: Address, const N: usize> {
    ranges: [Option<AddrRange<A>>; N],
    len: usize,
}

/// Why a range could not be taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertError {
    /// Part of it is there already.
    Overlap,
    /// There are too many separate ranges.
    Full,
}

impl<A: Address, const N: usize> RangeSet<A, N> {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            ranges: [None; N],
            len: 0,
        }
    }

    /// The ranges in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = AddrRange<A>> + '_ {
        self.ranges.iter().take(self.len).flatten().copied()
    }

    /// How many bytes the ranges have together.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.iter().map(|range| range.len_bytes()).sum()
    }

    /// Whether some byte of `range` is in the set.
    #[must_use]
    pub fn contains(&self, at: A) -> bool {
        self.iter().any(|range| range.contains(at))
    }

    /// Whether any of the ranges has something in common with `range`.
    #[must_use]
    pub fn overlaps(&self, range: &AddrRange<A>) -> bool {
        self.iter().any(|known| known.intersection(range).is_some())
    }

    /// Adds a range; parts that are there already stay.
    ///
    /// # Errors
    /// [`InsertError::Full`] leaves the set as it was.
    pub fn insert(&mut self, range: AddrRange<A>) -> Result<(), InsertError> {
        if range.is_empty() {
            return Ok(());
        }
        let mut merged = Self::new();
        let (mut start, mut end) = (range.start(), range.end());
        let mut placed = false;
        for known in self.iter() {
            if known.end() < start {
                merged.push(known)?;
            } else if end < known.start() {
                if !placed {
                    merged.push_bounds(start, end)?;
                    placed = true;
                }
                merged.push(known)?;
            } else {
                start = start.min(known.start());
                end = end.max(known.end());
            }
        }
        if !placed {
            merged.push_bounds(start, end)?;
        }
        *self = merged;
        Ok(())
    }

    /// Adds a range of which nothing may be there yet.
    ///
    /// # Errors
    /// Either [`InsertError`] leaves the set as it was.
    pub fn insert_new(&mut self, range: AddrRange<A>) -> Result<(), InsertError> {
        if self.overlaps(&range) {
            return Err(InsertError::Overlap);
        }
        self.insert(range)
    }

    /// The parts of `range` that are not in the set, in ascending order.
    pub fn gaps(&self, range: AddrRange<A>) -> impl Iterator<Item = AddrRange<A>> + '_ {
        let mut from = range.start();
        let mut known = self
            .iter()
            .filter(move |known| known.intersection(&range).is_some());
        let mut done = range.is_empty();
        core::iter::from_fn(move || {
            while !done {
                let (gap, next) = match known.next() {
                    Some(k) => (AddrRange::from_bounds(from, k.start()), k.end()),
                    None => {
                        done = true;
                        (AddrRange::from_bounds(from, range.end()), range.end())
                    }
                };
                from = next;
                if let Some(gap) = gap.filter(|gap| !gap.is_empty()) {
                    return Some(gap);
                }
            }
            None
        })
    }

    fn push_bounds(&mut self, start: A, end: A) -> Result<(), InsertError> {
        AddrRange::from_bounds(start, end).map_or(Ok(()), |range| self.push(range))
    }

    fn push(&mut self, range: AddrRange<A>) -> Result<(), InsertError> {
        *self.ranges.get_mut(self.len).ok_or(InsertError::Full)? = Some(range);
        self.len += 1;
        Ok(())
    }
}

impl<A: Address, const N: usize> Default for RangeSet<A, N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{Gpa, GpaRange};
    use proptest::prelude::*;

    fn range(start: u64, end: u64) -> GpaRange {
        GpaRange::from_u64(start, end).unwrap()
    }

    #[test]
    fn a_full_set_stays_as_it_was() {
        let mut set = RangeSet::<Gpa, 2>::new();
        set.insert(range(0, 1)).unwrap();
        set.insert(range(10, 11)).unwrap();
        assert_eq!(set.insert(range(5, 6)), Err(InsertError::Full));
        assert_eq!(set.iter().collect::<Vec<_>>(), [range(0, 1), range(10, 11)]);
        set.insert(range(1, 10)).unwrap();
        assert_eq!(set.iter().collect::<Vec<_>>(), [range(0, 11)]);
        assert_eq!(set.insert_new(range(10, 12)), Err(InsertError::Overlap));
    }

    proptest! {
        #[test]
        fn a_set_is_a_set_of_numbers(spans in prop::collection::vec((0u64..64, 0u64..16), 0..12)) {
            let mut set = RangeSet::<Gpa, 64>::new();
            let mut model = [false; 96];
            for (start, len) in spans {
                set.insert(range(start, start + len)).unwrap();
                for i in start..start + len {
                    model[usize::try_from(i).unwrap()] = true;
                }
            }
            let listed: Vec<_> = set.iter().collect();
            prop_assert!(listed.windows(2).all(|w| w[0].end() < w[1].start()));
            for (i, known) in model.iter().enumerate() {
                let at = Gpa::new(i as u64).unwrap();
                prop_assert_eq!(listed.iter().any(|r| r.contains(at)), *known);
                let gap = set.gaps(range(3, 90)).any(|r| r.contains(at));
                prop_assert_eq!(gap, (3..90).contains(&i) && !known);
            }
        }
    }
}
