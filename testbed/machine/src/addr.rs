//! Physical addresses of the guest and of the host, and ranges of them.
//!
//! The two kinds never mix: what turns one into the other is the guest's memory
//! map ([`crate::memory`]), and nothing else.

use core::fmt;

/// Bytes in the smallest page.
pub const PAGE: u64 = 4096;

/// The number of physical address bits that the architecture can ever have.
const BITS: u32 = 52;

mod sealed {
    pub trait Sealed {}
}

/// A physical address of one kind, at most 2^52.
///
/// The value 2^52 itself is allowed, as the end of a range.
pub trait Address: sealed::Sealed + Copy + Ord + fmt::Debug {
    /// The address, if it fits the architecture.
    fn new(value: u64) -> Option<Self>;

    /// The number.
    fn as_u64(self) -> u64;

    /// The address `bytes` further on.
    fn checked_add(self, bytes: u64) -> Option<Self> {
        Self::new(self.as_u64().checked_add(bytes)?)
    }
}

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u64);

        impl $name {
            /// Address zero.
            pub const ZERO: Self = Self(0);

            /// The address, if it fits the architecture.
            #[must_use]
            pub const fn new(value: u64) -> Option<Self> {
                if value <= 1 << BITS { Some(Self(value)) } else { None }
            }

            /// The number.
            #[must_use]
            pub const fn as_u64(self) -> u64 {
                self.0
            }

            /// The first byte of the page that the address is in.
            #[must_use]
            pub const fn page(self) -> Self {
                Self(self.0 & !(PAGE - 1))
            }

            /// Whether the address is a multiple of `bytes` (a power of two).
            #[must_use]
            pub const fn is_aligned(self, bytes: u64) -> bool {
                self.0 & (bytes - 1) == 0
            }
        }

        impl sealed::Sealed for $name {}

        impl Address for $name {
            fn new(value: u64) -> Option<Self> {
                Self::new(value)
            }

            fn as_u64(self) -> u64 {
                self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

address! {
    /// A guest physical address.
    Gpa
}
address! {
    /// A host physical address: of the machine that QEMU shows.
    Hpa
}

/// A half-open range of addresses.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddrRange<A> {
    start: A,
    end: A,
}

/// A range of guest physical addresses.
pub type GpaRange = AddrRange<Gpa>;
/// A range of host physical addresses.
pub type HpaRange = AddrRange<Hpa>;

impl<A: Address> AddrRange<A> {
    /// The range of `bytes` from `start`, if it does not leave the address space.
    #[must_use]
    pub fn new(start: A, bytes: u64) -> Option<Self> {
        Some(Self {
            start,
            end: start.checked_add(bytes)?,
        })
    }

    /// The range between two addresses, if they are in order.
    #[must_use]
    pub fn from_bounds(start: A, end: A) -> Option<Self> {
        (start <= end).then_some(Self { start, end })
    }

    /// The range between two numbers, if they are addresses and in order.
    #[must_use]
    pub fn from_u64(start: u64, end: u64) -> Option<Self> {
        Self::from_bounds(A::new(start)?, A::new(end)?)
    }

    /// The first address.
    #[must_use]
    pub const fn start(&self) -> A {
        self.start
    }

    /// The first address after the range.
    #[must_use]
    pub const fn end(&self) -> A {
        self.end
    }

    /// How many bytes the range has.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.end.as_u64().wrapping_sub(self.start.as_u64())
    }

    /// Whether the range has no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether the address is in the range.
    #[must_use]
    pub fn contains(&self, at: A) -> bool {
        self.start <= at && at < self.end
    }

    /// Whether all of `other` is in the range.
    #[must_use]
    pub fn contains_range(&self, other: &Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// The part that both ranges have, if it is not empty.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let start = self.start.max(other.start);
        let end = self.end.min(other.end);
        (start < end).then_some(Self { start, end })
    }
}

impl<A: Address> fmt::Debug for AddrRange<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl<A: Address> fmt::Display for AddrRange<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start.as_u64(), self.end.as_u64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_end_at_52_bits() {
        assert!(Gpa::new(1 << 52).is_some());
        assert!(Gpa::new((1 << 52) + 1).is_none());
        assert!(GpaRange::new(Gpa::new(1 << 52).unwrap(), 1).is_none());
        assert!(GpaRange::new(Gpa::ZERO, u64::MAX).is_none());
    }

    #[test]
    fn ranges_that_touch_do_not_intersect() {
        let a = GpaRange::from_u64(0, 0x1000).unwrap();
        let b = GpaRange::from_u64(0x1000, 0x3000).unwrap();
        let c = GpaRange::from_u64(0x800, 0x1800).unwrap();
        assert_eq!(a.intersection(&b), None);
        assert_eq!(b.intersection(&c), GpaRange::from_u64(0x1000, 0x1800));
        assert!(!a.contains(Gpa::new(0x1000).unwrap()));
        assert!(GpaRange::from_u64(2, 1).is_none());
    }
}
