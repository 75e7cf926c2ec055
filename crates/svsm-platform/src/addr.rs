//! Addresses that say which address space they belong to, page sizes, and ranges of both.
//!
//! There is no way from one kind of address to another here: a GVA becomes a GPA by a page table or a window, never by
//! adding a constant. Arithmetic is checked; what leaves the address space is `None`.
//!
//! ```
//! use svsm_platform::addr::{Gpa, GpaRange, PageSize};
//!
//! let start = Gpa::new(0x20_1000).ok_or("not an address")?;
//! assert_eq!(start.page_offset(PageSize::Size2M), 0x1000);
//! assert_eq!(start.checked_add(u64::MAX), None);
//!
//! let range = GpaRange::new(start, 0x3000).ok_or("leaves the address space")?;
//! let pages = range.pages(PageSize::Size4K).ok_or("not whole pages")?;
//! assert!(pages.map(Gpa::as_u64).eq([0x20_1000, 0x20_2000, 0x20_3000]));
//! # Ok::<(), &str>(())
//! ```
//!
//! Kinds of address do not mix:
//!
//! ```compile_fail,E0308
//! use svsm_platform::addr::{Gpa, Gva, GpaRange};
//!
//! let range = GpaRange::from_bounds(Gpa::ZERO, Gva::ZERO);
//! ```

use core::fmt;

mod range;

pub use range::{AddrRange, GpaRange, GvaRange, HpaRange, Pages};

mod sealed {
    pub trait Sealed {}
}

/// A page that the processor can map with one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum PageSize {
    /// 4 KiB, mapped by the lowest level.
    Size4K,
    /// 2 MiB, mapped by the second level.
    Size2M,
    /// 1 GiB, mapped by the third level.
    Size1G,
}

impl PageSize {
    /// All sizes, smallest first.
    pub const ALL: [Self; 3] = [Self::Size4K, Self::Size2M, Self::Size1G];

    /// Binary logarithm of the size.
    #[must_use]
    pub const fn shift(self) -> u32 {
        match self {
            Self::Size4K => 12,
            Self::Size2M => 21,
            Self::Size1G => 30,
        }
    }

    /// Size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        1 << self.shift()
    }

    /// The bits of an address that lie inside a page of this size.
    #[must_use]
    pub const fn offset_mask(self) -> u64 {
        self.bytes() - 1
    }

    /// The next smaller size; none below 4 KiB.
    #[must_use]
    pub const fn smaller(self) -> Option<Self> {
        match self {
            Self::Size4K => None,
            Self::Size2M => Some(Self::Size4K),
            Self::Size1G => Some(Self::Size2M),
        }
    }
}

/// A number of pages; their size is said where it is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct PageCount(u64);

impl PageCount {
    /// No pages.
    pub const ZERO: Self = Self(0);

    /// That many pages.
    #[must_use]
    pub const fn new(pages: u64) -> Self {
        Self(pages)
    }

    /// The pages needed to hold `len_bytes`; the last one may be partly used.
    #[must_use]
    pub const fn covering(len_bytes: u64, size: PageSize) -> Self {
        Self(len_bytes.div_ceil(size.bytes()))
    }

    /// The plain number.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The bytes that so many pages of `size` hold; `None` past 64 bits.
    #[must_use]
    pub const fn len_bytes(self, size: PageSize) -> Option<u64> {
        self.0.checked_mul(size.bytes())
    }

    /// Both together.
    #[must_use]
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(pages) => Some(Self(pages)),
            None => None,
        }
    }

    /// What remains after taking `other` away.
    #[must_use]
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(pages) => Some(Self(pages)),
            None => None,
        }
    }
}

impl fmt::Display for PageCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What all kinds of address have in common, for code that is generic over them ([`AddrRange`]).
///
/// Sealed: ranges rely on addresses of a kind being ordered like their numbers.
pub trait Address: Copy + Ord + fmt::Debug + fmt::Display + sealed::Sealed {
    /// The address, if this kind of address can be `value`.
    fn new(value: u64) -> Option<Self>;

    /// The plain number.
    fn as_u64(self) -> u64;

    /// The address `bytes` further on; `None` if that leaves the address space.
    fn checked_add(self, bytes: u64) -> Option<Self>;

    /// Whether a page of `size` starts here.
    fn is_aligned(self, size: PageSize) -> bool {
        self.as_u64() & size.offset_mask() == 0
    }
}

/// The 12 low bits and 40 more: what a page-table entry can hold.
const PHYSICAL_LIMIT: u64 = 1 << 52;

const fn physical(value: u64) -> bool {
    value < PHYSICAL_LIMIT
}

/// Bits 63 to 47 are equal: canonical under four-level paging, hence under five-level paging too.
const fn canonical(value: u64) -> bool {
    let upper = value >> 47;
    upper == 0 || upper == 0x1_ffff
}

macro_rules! address {
    ($(#[$doc:meta])* $name:ident, $valid:ident, $label:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u64);

        impl $name {
            /// Address zero.
            pub const ZERO: Self = Self(0);

            /// The address, if this kind of address can be `value`.
            #[must_use]
            pub const fn new(value: u64) -> Option<Self> {
                if $valid(value) { Some(Self(value)) } else { None }
            }

            /// The plain number.
            #[must_use]
            pub const fn as_u64(self) -> u64 {
                self.0
            }

            /// The address `bytes` further on; `None` if that leaves the address space.
            ///
            /// A step across the non-canonical hole leaves it too, even if it would land on a canonical number.
            #[must_use]
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(value) if same_half(self.0, value) => Self::new(value),
                    _ => None,
                }
            }

            /// The address `bytes` before; `None` if that leaves the address space.
            #[must_use]
            pub const fn checked_sub(self, bytes: u64) -> Option<Self> {
                match self.0.checked_sub(bytes) {
                    Some(value) if same_half(self.0, value) => Self::new(value),
                    _ => None,
                }
            }

            /// How many bytes this address lies behind `origin`; `None` if it lies before it.
            #[must_use]
            pub const fn checked_offset_from(self, origin: Self) -> Option<u64> {
                self.0.checked_sub(origin.0)
            }

            /// The start of the page of `size` that holds this address.
            #[must_use]
            pub const fn align_down(self, size: PageSize) -> Self {
                Self(self.0 & !size.offset_mask())
            }

            /// This address if a page of `size` starts here, else the start of the next one.
            #[must_use]
            pub const fn align_up(self, size: PageSize) -> Option<Self> {
                match self.page_offset(size) {
                    0 => Some(self),
                    offset => self.checked_add(size.bytes() - offset),
                }
            }

            /// Whether a page of `size` starts here.
            #[must_use]
            pub const fn is_aligned(self, size: PageSize) -> bool {
                self.page_offset(size) == 0
            }

            /// How far into its page of `size` this address lies.
            #[must_use]
            pub const fn page_offset(self, size: PageSize) -> u64 {
                self.0 & size.offset_mask()
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

            fn checked_add(self, bytes: u64) -> Option<Self> {
                Self::checked_add(self, bytes)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($label, "({:#x})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl fmt::LowerHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }

        impl TryFrom<u64> for $name {
            type Error = crate::Error;

            fn try_from(value: u64) -> Result<Self, crate::Error> {
                Self::new(value).ok_or(crate::Error::NoSuchAddress { value })
            }
        }

        impl From<$name> for u64 {
            fn from(address: $name) -> Self {
                address.0
            }
        }
    };
}

/// Bit 63 tells the two canonical halves apart; physical addresses never have it.
const fn same_half(from: u64, to: u64) -> bool {
    (from ^ to) >> 63 == 0
}

address!(
    /// A guest physical address: at most 52 bits, without C-bit, shared bit or vTOM alias
    /// (those are [`Encryption`](crate::encryption::Encryption)'s).
    Gpa,
    physical,
    "Gpa"
);

impl Gpa {
    /// The address that the low 52 bits of `value` make: for fields that have no more.
    pub(crate) const fn from_low_bits(value: u64) -> Self {
        Self(value & (PHYSICAL_LIMIT - 1))
    }
}

address!(
    /// A guest virtual address, canonical under four-level paging (bits 63 to 47 equal).
    ///
    /// Five-level paging knows more addresses; an SVSM needs none of them, and every address here is canonical there too.
    Gva,
    canonical,
    "Gva"
);

address!(
    /// A host physical address: at most 52 bits. Only a hypervisor has these.
    Hpa,
    physical,
    "Hpa"
);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn physical_addresses_end_at_52_bits() {
        assert!(Gpa::new((1 << 52) - 1).is_some());
        assert!(Gpa::new(1 << 52).is_none());
        assert!(Hpa::new(u64::MAX).is_none());
    }

    #[test]
    fn non_canonical_addresses_do_not_exist() {
        assert!(Gva::new(0x7fff_ffff_ffff).is_some());
        assert!(Gva::new(0x8000_0000_0000).is_none());
        assert!(Gva::new(0xffff_7fff_ffff_ffff).is_none());
        assert!(Gva::new(0xffff_8000_0000_0000).is_some());
    }

    #[test]
    fn no_step_crosses_the_hole() {
        let low = Gva::new(0x7fff_ffff_f000).unwrap();
        let high = Gva::new(0xffff_8000_0000_0000).unwrap();
        let distance = high.checked_offset_from(low).unwrap();
        assert_eq!(low.checked_add(distance), None);
        assert_eq!(high.checked_sub(distance), None);
        assert_eq!(low.align_up(PageSize::Size2M), None);
    }

    #[test]
    fn last_page_aligns_down_but_not_up() {
        let last = Gva::new(u64::MAX).unwrap();
        assert_eq!(last.align_down(PageSize::Size4K).as_u64(), u64::MAX - 0xfff);
        assert_eq!(last.align_up(PageSize::Size4K), None);
    }

    fn sizes() -> impl Strategy<Value = PageSize> {
        prop::sample::select(PageSize::ALL.as_slice())
    }

    proptest! {
        #[test]
        fn alignment_brackets_the_address(value in 0..PHYSICAL_LIMIT, size in sizes()) {
            let gpa = Gpa::new(value).unwrap();
            let down = gpa.align_down(size);
            prop_assert!(down <= gpa && down.is_aligned(size));
            prop_assert_eq!(down.as_u64() + gpa.page_offset(size), value);
            match gpa.align_up(size) {
                Some(up) => {
                    prop_assert!(up >= gpa && up.is_aligned(size));
                    prop_assert!(up.as_u64() - value < size.bytes());
                }
                None => prop_assert!(value.div_ceil(size.bytes()) * size.bytes() >= PHYSICAL_LIMIT),
            }
        }

        #[test]
        fn addition_agrees_with_wide_arithmetic(value in any::<u64>(), bytes in any::<u64>()) {
            let Some(gva) = Gva::new(value) else { return Ok(()) };
            // In the signed view the canonical addresses are one interval around zero, and
            // a step is legal unless it goes from one half to the other.
            let sum = u128::from(value) + u128::from(bytes);
            let limit = if value >> 63 == 0 { 1_u128 << 47 } else { 1_u128 << 64 };
            prop_assert_eq!(gva.checked_add(bytes).is_some(), sum < limit);
            if let Some(there) = gva.checked_add(bytes) {
                prop_assert_eq!(there.checked_sub(bytes), Some(gva));
                prop_assert_eq!(there.checked_offset_from(gva), Some(bytes));
            }
        }
    }
}
