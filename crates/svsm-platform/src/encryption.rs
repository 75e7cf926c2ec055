//! How an address in a page-table entry says private or shared.
//!
//! SEV sets a bit for private, TDX sets a bit for shared, vTOM compares with a boundary, an unprotected machine says
//! nothing. The answer is a value that the code which writes page tables is given; nothing here is global.

use crate::addr::{Gpa, PageSize};

/// Who can read a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Visibility {
    /// The guest alone; the processor encrypts it or hides it from the host.
    Private,
    /// The host too.
    Shared,
}

/// The position of a C-bit or shared bit in a page-table entry: 32 to 51.
///
/// Lower positions do not occur, would take addresses that RAM needs, and would be missed by 32-bit code, which patches
/// the upper half of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct BitPosition(u8);

impl BitPosition {
    /// The position, if it can be one.
    #[must_use]
    pub const fn new(bit: u8) -> Option<Self> {
        if bit >= 32 && bit <= 51 {
            Some(Self(bit))
        } else {
            None
        }
    }

    /// The plain number.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        self.0
    }

    /// A word with this bit alone.
    #[must_use]
    pub const fn mask(self) -> u64 {
        1 << self.0
    }
}

/// The address field of a page-table entry: bits 12 to 51 (AMD64 Architecture Programmer's Manual Volume 2, "Long-Mode
/// Page Translation").
pub const ENTRY_ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// The rule of a platform by which an address says private or shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Encryption {
    /// An unprotected machine: one kind of memory, which counts as private.
    None,
    /// SEV: the bit is set in addresses of private pages.
    CBit(BitPosition),
    /// TDX: the bit is set in addresses of shared pages.
    SharedBit(BitPosition),
    /// SEV-SNP with virtual top of memory: a page is shared where its address is raised by this boundary.
    Vtom(Gpa),
}

impl Encryption {
    /// The address bits of an entry that maps the page at `page`.
    ///
    /// `None` if `page` is no page start or cannot be told apart from its alias: a GPA that uses the bit itself or lies
    /// above vTOM would silently become another page, or the same one with the other visibility.
    #[must_use]
    pub const fn encode(self, page: Gpa, visibility: Visibility) -> Option<u64> {
        if !page.is_aligned(PageSize::Size4K) || !self.can_address(page) {
            return None;
        }
        let address = page.as_u64();
        Some(match (self, visibility) {
            (Self::None, _)
            | (Self::CBit(_), Visibility::Shared)
            | (Self::SharedBit(_) | Self::Vtom(_), Visibility::Private) => address,
            (Self::CBit(bit), Visibility::Private) | (Self::SharedBit(bit), Visibility::Shared) => {
                address | bit.mask()
            }
            (Self::Vtom(top), Visibility::Shared) => match page.checked_add(top.as_u64()) {
                Some(alias) if alias.is_aligned(PageSize::Size4K) => alias.as_u64(),
                _ => return None,
            },
        })
    }

    /// The page that an entry maps, and its visibility. Bits outside the address field do not matter.
    #[must_use]
    pub const fn decode(self, entry: u64) -> (Gpa, Visibility) {
        let address = entry & ENTRY_ADDRESS;
        let (address, visibility) = match self {
            Self::None => (address, Visibility::Private),
            Self::CBit(bit) if address & bit.mask() != 0 => {
                (address & !bit.mask(), Visibility::Private)
            }
            Self::CBit(_) => (address, Visibility::Shared),
            Self::SharedBit(bit) if address & bit.mask() != 0 => {
                (address & !bit.mask(), Visibility::Shared)
            }
            Self::SharedBit(_) => (address, Visibility::Private),
            Self::Vtom(top) if address >= top.as_u64() => {
                (address - top.as_u64(), Visibility::Shared)
            }
            Self::Vtom(_) => (address, Visibility::Private),
        };
        (Gpa::from_low_bits(address), visibility)
    }

    /// The bits of an entry that hold the page's address and nothing else.
    #[must_use]
    pub const fn address_mask(self) -> u64 {
        match self {
            Self::None | Self::Vtom(_) => ENTRY_ADDRESS,
            Self::CBit(bit) | Self::SharedBit(bit) => ENTRY_ADDRESS & !bit.mask(),
        }
    }

    /// Whether `at` can be mapped both private and shared.
    #[must_use]
    pub const fn can_address(self, at: Gpa) -> bool {
        match self {
            Self::None => true,
            Self::CBit(bit) | Self::SharedBit(bit) => at.as_u64() & bit.mask() == 0,
            Self::Vtom(top) => at.as_u64() < top.as_u64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bit(position: u8) -> BitPosition {
        BitPosition::new(position).unwrap()
    }

    fn encryptions() -> impl Strategy<Value = Encryption> {
        prop_oneof![
            Just(Encryption::None),
            (32_u8..=51).prop_map(|b| Encryption::CBit(bit(b))),
            (32_u8..=51).prop_map(|b| Encryption::SharedBit(bit(b))),
            (0_u64..1 << 40).prop_map(|page| Encryption::Vtom(Gpa::new(page << 12).unwrap())),
        ]
    }

    fn visibilities() -> impl Strategy<Value = Visibility> {
        prop_oneof![Just(Visibility::Private), Just(Visibility::Shared)]
    }

    #[test]
    fn low_bits_are_no_encryption_bits() {
        assert!(BitPosition::new(31).is_none());
        assert!(BitPosition::new(52).is_none());
    }

    #[test]
    fn encryption_bit_in_the_address_is_refused() {
        let page = Gpa::new(1 << 47).unwrap();
        assert_eq!(
            Encryption::CBit(bit(47)).encode(page, Visibility::Shared),
            None
        );
        assert_eq!(
            Encryption::SharedBit(bit(47)).encode(page, Visibility::Private),
            None
        );
        assert_eq!(
            Encryption::Vtom(page).encode(page, Visibility::Private),
            None
        );
        assert!(
            Encryption::CBit(bit(51))
                .encode(page, Visibility::Shared)
                .is_some()
        );
    }

    #[test]
    fn offsets_never_become_flags() {
        assert_eq!(
            Encryption::None.encode(Gpa::new(0x1001).unwrap(), Visibility::Private),
            None
        );
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(e in encryptions(), page in 0_u64..1 << 40, v in visibilities(), flags in any::<u64>()) {
            let page = Gpa::new(page << 12).unwrap();
            let Some(entry) = e.encode(page, v) else { return Ok(()) };
            prop_assert_eq!(entry & !ENTRY_ADDRESS, 0);
            let seen = if e == Encryption::None { Visibility::Private } else { v };
            prop_assert_eq!(e.decode(entry | (flags & !ENTRY_ADDRESS)), (page, seen));
        }

        #[test]
        fn no_two_pages_share_an_encoding(e in encryptions(), a in 0_u64..1 << 40, b in 0_u64..1 << 40) {
            let encode = |page: u64, v| e.encode(Gpa::new(page << 12).unwrap(), v);
            for (v, w) in [(Visibility::Private, Visibility::Shared), (Visibility::Shared, Visibility::Private)] {
                if let (Some(x), Some(y)) = (encode(a, v), encode(b, w)) {
                    prop_assert!(x != y || (a == b && e == Encryption::None));
                }
            }
        }

        #[test]
        fn entries_survive_decoding(bit_position in 32_u8..=51, entry in any::<u64>()) {
            for e in [Encryption::CBit(bit(bit_position)), Encryption::SharedBit(bit(bit_position))] {
                let (page, v) = e.decode(entry);
                prop_assert_eq!(e.encode(page, v), Some(entry & ENTRY_ADDRESS));
            }
        }
    }
}
