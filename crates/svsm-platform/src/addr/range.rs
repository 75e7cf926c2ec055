//! Half-open ranges of addresses.

use core::fmt;

use super::{Address, Gpa, Gva, Hpa, PageCount, PageSize};

/// Guest physical memory.
pub type GpaRange = AddrRange<Gpa>;
/// Guest virtual memory.
pub type GvaRange = AddrRange<Gva>;
/// Host physical memory.
pub type HpaRange = AddrRange<Hpa>;

/// The addresses from `start` up to, but not including, `end`; empty if they are equal.
///
/// The end is an address itself. A range therefore neither wraps nor spans the non-canonical hole, and cannot hold the
/// very last byte of an address space.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddrRange<A> {
    start: A,
    end: A, // never before `start`
}

impl<A: Address> AddrRange<A> {
    /// `len_bytes` from `start` on; `None` if that leaves the address space.
    #[must_use]
    pub fn new(start: A, len_bytes: u64) -> Option<Self> {
        let end = start.checked_add(len_bytes)?;
        Some(Self { start, end })
    }

    /// From `start` up to `end`; `None` if `end` lies before `start` or in another half of the address space.
    #[must_use]
    pub fn from_bounds(start: A, end: A) -> Option<Self> {
        Self::new(start, end.as_u64().checked_sub(start.as_u64())?)
    }

    /// Nothing, at `at`.
    #[must_use]
    pub const fn empty(at: A) -> Self {
        Self { start: at, end: at }
    }

    /// The page of `size` that holds `at`.
    #[must_use]
    pub fn page_of(at: A, size: PageSize) -> Option<Self> {
        Self::new(A::new(at.as_u64() & !size.offset_mask())?, size.bytes())
    }

    /// The first address.
    #[must_use]
    pub const fn start(&self) -> A {
        self.start
    }

    /// The address after the last one.
    #[must_use]
    pub const fn end(&self) -> A {
        self.end
    }

    /// How many bytes it holds.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.end.as_u64() - self.start.as_u64()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether `at` lies inside.
    #[must_use]
    pub fn contains(&self, at: A) -> bool {
        self.start <= at && at < self.end
    }

    /// Whether all of `other` lies inside; an empty range does if its place is inside or at the end.
    #[must_use]
    pub fn contains_range(&self, other: &Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// Whether both share at least one byte.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.start.max(other.start) < self.end.min(other.end)
    }

    /// The bytes both share; `None` if there are none.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let start = self.start.max(other.start);
        let end = self.end.min(other.end);
        (start < end).then_some(Self { start, end })
    }

    /// The parts before and from `at` on; `None` if `at` lies outside. At a bound one part is empty.
    #[must_use]
    pub fn split_at(&self, at: A) -> Option<(Self, Self)> {
        (self.start <= at && at <= self.end).then_some((
            Self {
                start: self.start,
                end: at,
            },
            Self {
                start: at,
                end: self.end,
            },
        ))
    }

    /// Whether both bounds are page bounds.
    #[must_use]
    pub fn is_aligned(&self, size: PageSize) -> bool {
        self.start.is_aligned(size) && self.end.is_aligned(size)
    }

    /// The whole pages of `size` inside; `None` if there is none.
    #[must_use]
    pub fn shrink_to(&self, size: PageSize) -> Option<Self> {
        let mask = size.offset_mask();
        let start = A::new(self.start.as_u64().checked_add(mask)? & !mask)?;
        let end = A::new(self.end.as_u64() & !mask)?;
        Self::from_bounds(start, end).filter(|pages| !pages.is_empty())
    }

    /// The pages of `size` that hold a byte of it; `None` if the last one ends the address space.
    #[must_use]
    pub fn grow_to(&self, size: PageSize) -> Option<Self> {
        let mask = size.offset_mask();
        let start = A::new(self.start.as_u64() & !mask)?;
        let end = A::new(self.end.as_u64().checked_add(mask)? & !mask)?;
        Self::from_bounds(start, end)
    }

    /// The starts of its pages of `size`; `None` unless both bounds are page bounds.
    #[must_use]
    pub fn pages(&self, size: PageSize) -> Option<Pages<A>> {
        self.is_aligned(size).then_some(Pages { rest: *self, size })
    }

    /// How many pages of `size` it is; `None` unless both bounds are page bounds.
    #[must_use]
    pub fn page_count(&self, size: PageSize) -> Option<PageCount> {
        self.is_aligned(size)
            .then_some(PageCount::covering(self.len_bytes(), size))
    }
}

impl<A: Address> fmt::Debug for AddrRange<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}..{:?}", self.start, self.end)
    }
}

impl<A: Address> fmt::Display for AddrRange<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

/// The starts of the pages of a range, in order; see [`AddrRange::pages`].
#[derive(Clone, Debug)]
pub struct Pages<A: Address> {
    rest: AddrRange<A>, // both bounds aligned to `size`
    size: PageSize,
}

impl<A: Address> Iterator for Pages<A> {
    type Item = A;

    fn next(&mut self) -> Option<A> {
        if self.rest.is_empty() {
            return None;
        }
        let page = self.rest.start;
        self.rest.start = page.checked_add(self.size.bytes())?;
        Some(page)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let pages = usize::try_from(self.rest.len_bytes() >> self.size.shift());
        (pages.unwrap_or(usize::MAX), pages.ok())
    }
}

impl<A: Address> core::iter::FusedIterator for Pages<A> {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(start: u64, end: u64) -> GpaRange {
        GpaRange::from_bounds(Gpa::new(start).unwrap(), Gpa::new(end).unwrap()).unwrap()
    }

    #[test]
    fn ranges_do_not_wrap() {
        let last = Gpa::new((1 << 52) - 1).unwrap();
        assert!(GpaRange::new(last, 0).is_some());
        assert!(GpaRange::new(last, 1).is_none());
        assert!(GpaRange::new(last, u64::MAX).is_none());
        assert!(GpaRange::from_bounds(last, Gpa::ZERO).is_none());
    }

    #[test]
    fn ranges_do_not_span_the_hole() {
        let low = Gva::new(0x7fff_ffff_f000).unwrap();
        let high = Gva::new(0xffff_8000_0000_0000).unwrap();
        assert!(GvaRange::from_bounds(low, high).is_none());
    }

    #[test]
    fn unaligned_ranges_have_no_pages() {
        assert!(range(0x1000, 0x2800).pages(PageSize::Size4K).is_none());
        assert!(range(0x1000, 0x3000).pages(PageSize::Size2M).is_none());
        let pages = range(0x1000, 0x3000).pages(PageSize::Size4K).unwrap();
        assert!(pages.map(Gpa::as_u64).eq([0x1000, 0x2000]));
    }

    #[test]
    fn rounding_inward_may_leave_nothing() {
        assert_eq!(range(0x1001, 0x2fff).shrink_to(PageSize::Size4K), None);
        assert_eq!(
            range(0x1001, 0x2fff).grow_to(PageSize::Size4K),
            Some(range(0x1000, 0x3000))
        );
    }

    prop_compose! {
        fn small_range()(a in 0_u64..64, b in 0_u64..64) -> GpaRange { range(a.min(b), a.max(b)) }
    }

    proptest! {
        /// The model: a range is the set of numbers it holds.
        #[test]
        fn set_operations_agree_with_sets(a in small_range(), b in small_range(), at in 0_u64..64) {
            let holds = |r: &GpaRange, v: u64| r.contains(Gpa::new(v).unwrap());
            let common = |v: &u64| holds(&a, *v) && holds(&b, *v);
            prop_assert_eq!(a.overlaps(&b), (0..64).any(|v| common(&v)));
            prop_assert_eq!(a.len_bytes(), (0..64).filter(|v| holds(&a, *v)).count() as u64);
            match a.intersection(&b) {
                Some(both) => for v in 0..64 { prop_assert_eq!(holds(&both, v), common(&v)) },
                None => prop_assert!(!a.overlaps(&b)),
            }
            if !b.is_empty() {
                prop_assert_eq!(a.contains_range(&b), (0..64).all(|v| !holds(&b, v) || holds(&a, v)));
            }
            if let Some((before, after)) = a.split_at(Gpa::new(at).unwrap()) {
                prop_assert_eq!(before.len_bytes() + after.len_bytes(), a.len_bytes());
                prop_assert!((0..64).all(|v| holds(&a, v) == (holds(&before, v) || holds(&after, v))));
            } else {
                prop_assert!(!holds(&a, at));
            }
        }
    }
}
