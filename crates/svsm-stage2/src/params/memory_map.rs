//! The memory map: IGVM's `MEMORY_MAP` parameter.

use svsm_platform::addr::{Gpa, GpaRange, PageCount, PageSize};
use svsm_platform::claim::Claim;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::error::{Error, Flaw, Result};
use crate::region::Parameter;

/// Size of an entry.
pub const MAP_ENTRY_BYTES: usize = 24;

/// An entry as deposited (IGVM format, `IGVM_VHS_MEMORY_MAP_ENTRY`). No flag has a meaning yet.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct WireEntry {
    first_page: U64,
    pages: U64,
    kind: U16,
    flags: U16,
    reserved: U32,
}

const _: () = assert!(size_of::<WireEntry>() == MAP_ENTRY_BYTES);

/// What memory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum MemoryKind {
    /// Ordinary memory.
    Memory,
    /// The platform's: tables, firmware, devices.
    Reserved,
    /// Memory that keeps its contents.
    Persistent,
    /// Memory that the loader set aside for a paravisor.
    Protectable,
    /// Of a kind that this code does not know.
    Other(u16),
}

impl MemoryKind {
    const fn of(kind: u16) -> Self {
        match kind {
            0 => Self::Memory,
            1 => Self::Reserved,
            2 => Self::Persistent,
            3 => Self::Protectable,
            other => Self::Other(other),
        }
    }

    /// Whether software may use it as it likes.
    #[must_use]
    pub const fn is_usable(self) -> bool {
        matches!(self, Self::Memory | Self::Protectable)
    }
}

/// A range of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct MemoryRegion {
    /// Whole pages.
    pub range: GpaRange,
    /// What they are for.
    pub kind: MemoryKind,
}

impl MemoryRegion {
    /// A place in a list that holds no region yet.
    pub const NONE: Self = Self {
        range: GpaRange::empty(Gpa::ZERO),
        kind: MemoryKind::Reserved,
    };
}

/// A memory map in ascending order, without overlaps and without empty regions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct MemoryMap<'a> {
    regions: &'a [MemoryRegion],
}

impl<'a> MemoryMap<'a> {
    /// Reads a map into `room`. It ends with an entry of no pages, or with the area.
    ///
    /// The loader's order does not matter: entries are sorted here.
    ///
    /// # Errors
    ///
    /// [`Error::Claim`] with the offset of the entry that is malformed, does not fit into `room`,
    /// or (after sorting) overlaps the one before; if there is no entry at all.
    pub fn parse(area: Claim<&[u8]>, room: &'a mut [MemoryRegion]) -> Result<Self> {
        area.check_with(|bytes| parse(bytes, room))
    }

    /// The regions in ascending order.
    #[must_use]
    pub const fn regions(&self) -> &'a [MemoryRegion] {
        self.regions
    }

    /// Whether all of `range` is memory that software may use.
    #[must_use]
    pub fn is_memory(&self, range: GpaRange) -> bool {
        is_memory(self.regions, range)
    }

    /// How many bytes software may use.
    #[must_use]
    pub fn usable_bytes(&self) -> u64 {
        // No overlaps and 52-bit addresses: the sum cannot wrap.
        self.regions
            .iter()
            .filter(|region| region.kind.is_usable())
            .map(|region| region.range.len_bytes())
            .sum()
    }
}

/// Whether all of `range` is in usable ones of `regions`, whatever their order.
#[must_use]
pub fn is_memory(regions: &[MemoryRegion], range: GpaRange) -> bool {
    let mut rest = range;
    // Every step uses up a region for good, so there are at most as many as regions.
    for _ in 0..regions.len() {
        let home = regions
            .iter()
            .find(|region| region.kind.is_usable() && region.range.contains(rest.start()));
        let Some(home) = home else { break };
        match rest.split_at(home.range.end()) {
            Some((_, after)) if !after.is_empty() => rest = after,
            _ => return true,
        }
    }
    rest.is_empty()
}

fn parse<'a>(bytes: &[u8], room: &'a mut [MemoryRegion]) -> Result<MemoryMap<'a>> {
    let (entries, _) = bytes.as_chunks::<MAP_ENTRY_BYTES>();
    let mut count = 0;
    for (index, entry) in entries.iter().enumerate() {
        let entry: &WireEntry = zerocopy::transmute_ref!(entry);
        if entry.pages.get() == 0 {
            break;
        }
        if entry.reserved.get() != 0 {
            return Err(claim(index, Flaw::Reserved));
        }
        let range = entry_range(entry).ok_or(claim(index, Flaw::Address))?;
        let place = room.get_mut(index).ok_or(claim(index, Flaw::TooMany))?;
        *place = MemoryRegion {
            range,
            kind: MemoryKind::of(entry.kind.get()),
        };
        count += 1;
    }
    let regions = room.get_mut(..count).unwrap_or_default();
    if regions.is_empty() {
        return Err(claim(0, Flaw::Empty));
    }
    regions.sort_unstable_by_key(|region| region.range.start());
    let overlap = regions
        .windows(2)
        .find(|pair| matches!(pair, [below, above] if below.range.overlaps(&above.range)));
    match overlap {
        Some([_, above]) => Err(claim(last_entry_at(entries, above.range), Flaw::Overlap)),
        _ => Ok(MemoryMap { regions }),
    }
}

const fn claim(index: usize, flaw: Flaw) -> Error {
    let offset = index * MAP_ENTRY_BYTES;
    Error::Claim {
        parameter: Parameter::MemoryMap,
        offset,
        flaw,
    }
}

/// The entry that told of `range`; of several, the last.
fn last_entry_at(entries: &[[u8; MAP_ENTRY_BYTES]], range: GpaRange) -> usize {
    let found = entries.iter().rposition(|entry| {
        let entry: &WireEntry = zerocopy::transmute_ref!(entry);
        entry_range(entry) == Some(range)
    });
    found.unwrap_or_default()
}

fn entry_range(entry: &WireEntry) -> Option<GpaRange> {
    let size = PageSize::Size4K;
    let start = PageCount::new(entry.first_page.get()).len_bytes(size)?;
    let len_bytes = PageCount::new(entry.pages.get()).len_bytes(size)?;
    GpaRange::new(Gpa::new(start)?, len_bytes)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use igvm_defs::{IGVM_VHS_MEMORY_MAP_ENTRY, MemoryMapEntryType};
    use proptest::prelude::*;
    use std::vec::Vec;

    fn entry(first_page: u64, pages: u64, kind: u16) -> [u8; MAP_ENTRY_BYTES] {
        let mut bytes = [0; MAP_ENTRY_BYTES];
        bytes[..8].copy_from_slice(&first_page.to_le_bytes());
        bytes[8..16].copy_from_slice(&pages.to_le_bytes());
        bytes[16..18].copy_from_slice(&kind.to_le_bytes());
        bytes
    }

    fn pages(first: u64, count: u64) -> GpaRange {
        GpaRange::new(Gpa::new(first << 12).unwrap(), count << 12).unwrap()
    }

    fn refusal(entries: &[[u8; MAP_ENTRY_BYTES]]) -> (usize, Flaw) {
        let mut room = [MemoryRegion::NONE; 4];
        match MemoryMap::parse(Claim::new(entries.as_flattened()), &mut room) {
            Err(Error::Claim {
                parameter: Parameter::MemoryMap,
                offset,
                flaw,
            }) => (offset, flaw),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn maps_are_sorted_and_end_at_the_first_empty_entry() {
        let bytes = [
            entry(0x100, 0x700, 0),
            entry(0, 0xa0, 0),
            entry(0xa0, 0x60, 1),
            [0; 24],
            [0xff; 24],
        ];
        let mut room = [MemoryRegion::NONE; 4];
        let map = MemoryMap::parse(Claim::new(bytes.as_flattened()), &mut room).unwrap();
        let seen: Vec<_> = map.regions().iter().map(|r| (r.range, r.kind)).collect();
        assert_eq!(
            seen,
            [
                (pages(0, 0xa0), MemoryKind::Memory),
                (pages(0xa0, 0x60), MemoryKind::Reserved),
                (pages(0x100, 0x700), MemoryKind::Memory),
            ]
        );
        assert_eq!(map.usable_bytes(), 0x7a0 << 12);
        assert!(map.is_memory(pages(0x100, 0x700)));
        assert!(!map.is_memory(pages(0x9f, 2)));
    }

    #[test]
    fn hostile_maps_are_refused_where_they_lie() {
        assert_eq!(refusal(&[[0; 24]]), (0, Flaw::Empty));
        assert_eq!(refusal(&[]), (0, Flaw::Empty));
        assert_eq!(
            refusal(&[entry(0, 1, 0), entry(1 << 40, 1, 0)]),
            (24, Flaw::Address)
        );
        assert_eq!(refusal(&[entry((1 << 40) - 1, 1, 0)]), (0, Flaw::Address));
        assert_eq!(refusal(&[entry(u64::MAX, 2, 0)]), (0, Flaw::Address));
        assert_eq!(refusal(&[entry(1, u64::MAX, 0)]), (0, Flaw::Address));
        assert_eq!(
            refusal(&[entry(8, 8, 0), entry(1, 8, 0)]),
            (0, Flaw::Overlap)
        );
        assert_eq!(
            refusal(&[entry(8, 8, 0), entry(8, 8, 0)]),
            (24, Flaw::Overlap)
        );
        let five = [0, 1, 2, 3, 4].map(|page| entry(page, 1, 0));
        assert_eq!(refusal(&five), (96, Flaw::TooMany));
        let mut reserved = entry(0, 1, 0);
        reserved[23] = 1;
        assert_eq!(refusal(&[reserved]), (0, Flaw::Reserved));
    }

    #[test]
    fn the_format_crate_agrees() {
        use zerocopy::IntoBytes;
        let told = IGVM_VHS_MEMORY_MAP_ENTRY {
            starting_gpa_page_number: 0x1234,
            number_of_pages: 0x56,
            entry_type: MemoryMapEntryType::VTL2_PROTECTABLE,
            flags: 7,
            reserved: 0,
        };
        let mut room = [MemoryRegion::NONE; 1];
        let map = MemoryMap::parse(Claim::new(told.as_bytes()), &mut room).unwrap();
        let expected = MemoryRegion {
            range: pages(0x1234, 0x56),
            kind: MemoryKind::Protectable,
        };
        assert_eq!(map.regions(), [expected]);
    }

    proptest! {
        /// The model: a map is the set of its usable pages.
        #[test]
        fn is_memory_agrees_with_a_set(
            told in prop::collection::vec((0..40_u64, 1..12_u64, 0..3_u16), 1..6),
            first in 0..40_u64,
            count in 0..12_u64,
        ) {
            let regions: Vec<_> = told
                .iter()
                .map(|(first, count, kind)| MemoryRegion {
                    range: pages(*first, *count),
                    kind: MemoryKind::of(*kind),
                })
                .collect();
            let in_map = |page: u64| {
                told.iter().any(|(first, n, kind)| *kind == 0 && (*first..first + n).contains(&page))
            };
            let expected = (first..first + count).all(in_map);
            prop_assert_eq!(is_memory(&regions, pages(first, count)), expected);
        }

        #[test]
        fn accepted_maps_are_in_order(
            told in prop::collection::vec((0..100_u64, 0..12_u64, 0..5_u16), 0..10)
        ) {
            let bytes: Vec<_> = told.iter().map(|(f, n, k)| entry(*f, *n, *k)).collect();
            let mut room = [MemoryRegion::NONE; 10];
            if let Ok(map) = MemoryMap::parse(Claim::new(bytes.as_flattened()), &mut room) {
                let regions = map.regions();
                prop_assert!(regions.iter().all(|region| !region.range.is_empty()));
                prop_assert!(
                    regions.windows(2).all(|pair| pair[0].range.end() <= pair[1].range.start())
                );
            }
        }
    }
}
