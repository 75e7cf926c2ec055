//! The CPUID page: what the security processor has checked of the host's answers (56860, "CPUID Reporting").

use crate::{
    cpu::cpuid::{Cpuid, Registers},
    encryption::BitPosition,
};

const HEADER_BYTES: usize = 16;
const ENTRY_BYTES: usize = 48;
/// The most entries that a page has.
pub const MAX_CPUID_ENTRIES: usize = 64;

/// The leaf that describes memory encryption.
const ENCRYPTION: u32 = 0x8000_001f;
/// The leaf that describes the state that XSAVE saves.
const EXTENDED_STATE: u32 = 0xd;

/// A CPUID page: the only source about the processor for code that must not believe its host.
///
/// What the page does not list is zero. Nothing of it depends on the processor that asks: an APIC id, or the size of the state
/// that XCR0 enables, is answered as the page has it.
#[derive(Clone, Copy, Debug)]
pub struct CpuidPage<'a> {
    entries: &'a [[u8; ENTRY_BYTES]],
}

impl<'a> CpuidPage<'a> {
    /// The page in `bytes`; `None` if it is too short for as many entries as it says, or says more than a page has.
    ///
    /// The memory is private, and nobody writes it.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        let (count, _) = bytes.split_first_chunk::<4>()?;
        let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
        let (entries, _) = bytes.get(HEADER_BYTES..)?.as_chunks::<ENTRY_BYTES>();
        if count > MAX_CPUID_ENTRIES {
            return None;
        }
        Some(Self {
            entries: entries.get(..count)?,
        })
    }

    /// Where page-table entries have the C-bit; `None` if the page does not say so.
    #[must_use]
    pub fn c_bit(&self) -> Option<BitPosition> {
        let leaf = self.raw(ENCRYPTION, 0);
        let sev = leaf.eax & 1 << 1 != 0;
        BitPosition::new((leaf.ebx & 0x3f).to_le_bytes()[0]).filter(|_| sev)
    }

    /// All that the page lists: leaf, subleaf and answer.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32, Registers)> {
        self.entries.iter().map(|entry| {
            let entry = Entry(entry);
            (entry.word(0), entry.word(4), entry.registers())
        })
    }

    /// The entry for a leaf.
    fn find(&self, leaf: u32, subleaf: u32) -> Option<Entry<'a>> {
        self.entries.iter().map(Entry).find(|entry| {
            // The size of the enabled state is listed for one choice of XCR0 and XSS.
            let first_state = leaf == EXTENDED_STATE && subleaf <= 1;
            let choice = !first_state || matches!(entry.word(8), 1 | 3) && entry.word(16) == 0;
            entry.word(0) == leaf && (!is_indexed(leaf) || entry.word(4) == subleaf) && choice
        })
    }
}

impl Cpuid for CpuidPage<'_> {
    fn raw(&self, leaf: u32, subleaf: u32) -> Registers {
        self.find(leaf, subleaf)
            .map_or_else(Registers::default, |entry| entry.registers())
    }
}

/// Whether the answer depends on the subleaf.
const fn is_indexed(leaf: u32) -> bool {
    matches!(
        leaf,
        0x4 | 0x7
            | 0xb
            | 0xd
            | 0xf
            | 0x10
            | 0x12
            | 0x14
            | 0x17
            | 0x18
            | 0x1d
            | 0x1e
            | 0x1f
            | 0x23
            | 0x24
            | 0x8000_001d
            | 0x8000_0020
            | 0x8000_0026
    )
}

struct Entry<'a>(&'a [u8; ENTRY_BYTES]);

impl Entry<'_> {
    fn word(&self, offset: usize) -> u32 {
        let bytes = self.0.get(offset..).and_then(<[u8]>::first_chunk::<4>);
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }

    fn registers(&self) -> Registers {
        Registers {
            eax: self.word(24),
            ebx: self.word(28),
            ecx: self.word(32),
            edx: self.word(36),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;

    fn page(count: u32, entries: &[[u32; 10]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(count.to_le_bytes());
        bytes.extend([0; 12]);
        for entry in entries {
            bytes.extend(entry.iter().flat_map(|word| word.to_le_bytes()));
            bytes.extend([0; 8]);
        }
        bytes.resize(4096, 0);
        bytes
    }

    #[test]
    fn leaves_are_found_by_what_distinguishes_them() {
        let bytes = page(
            4,
            &[
                [0, 7, 0, 0, 0, 0, 0xd, 1, 2, 3],
                [7, 1, 0, 0, 0, 0, 9, 9, 9, 9],
                [7, 0, 0, 0, 0, 0, 4, 5, 6, 7],
                [0xd, 0, 7, 0, 0, 0, 1, 1, 1, 1],
            ],
        );
        let page = CpuidPage::new(&bytes).unwrap();
        // Leaf 0 has no subleaves, whatever the page says.
        assert_eq!(page.raw(0, 0).eax, 0xd);
        assert_eq!(page.raw(7, 0).ebx, 5);
        assert_eq!(page.raw(7, 2), Registers::default());
        // A size for another XCR0 is none for the one that counts.
        assert_eq!(page.raw(0xd, 0), Registers::default());
        assert_eq!(page.iter().count(), 4);
    }

    #[test]
    fn a_c_bit_needs_sev_and_a_place() {
        for (eax, ebx, found) in [
            (2, 51, Some(51)),
            (2, 0x33 | 0xfc0, Some(51)),
            (2, 31, None),
            (2, 52, None),
            (0, 51, None),
        ] {
            let bytes = page(1, &[[0x8000_001f, 0, 0, 0, 0, 0, eax, ebx, 0, 0]]);
            let c_bit = CpuidPage::new(&bytes).unwrap().c_bit();
            assert_eq!(c_bit.map(BitPosition::as_u8), found);
        }
    }

    #[test]
    fn pages_that_cannot_be_are_refused() {
        assert!(CpuidPage::new(&page(65, &[])).is_none());
        assert!(CpuidPage::new(&page(64, &[])).is_some());
        assert!(CpuidPage::new(page(1, &[]).get(..20).unwrap()).is_none());
        assert!(CpuidPage::new(&[]).is_none());
    }
}
