//! The guest's memory: which guest physical address is which of the machine's.

use crate::addr::{Address, Gpa, GpaRange, Hpa, HpaRange, PAGE};
use crate::dma::{self, Unit};
use crate::layout::{GuestRam, Layout};
use crate::loader::Backed;
use crate::paging::{Flags, Levels, MapError, Tables};
use crate::phys::{HostMemory, Memory, Unreachable};
use crate::pool::Pool;
use crate::range_set::{InsertError, RangeSet};

const FOUR_GIB: u64 = 1 << 32;
const LARGE: u64 = 2 << 20;
/// The local APIC's window: CPUs are in x2APIC mode, so nothing answers there.
const LOCAL_APIC: (u64, u64) = (0xfee0_0000, 0xfee0_1000);
/// Video memory and firmware below 1 MiB.
const LEGACY: (u64, u64) = (0xa_0000, 0x10_0000);

/// Where the guest's memory lies: RAM at its own address, the rest in L0's part.
#[derive(Clone, Copy, Debug)]
pub struct GuestMap {
    ram: GuestRam,
    pieces: [Option<(GpaRange, Hpa)>; 64],
    low_end: u64,
}

/// What an image needs is more than L0 has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory(
    /// The guest address that could not be backed.
    pub Gpa,
);

impl GuestMap {
    /// Finds memory for all that is not RAM, and clears it.
    ///
    /// # Errors
    /// L0's part is too small.
    pub fn new(
        layout: &Layout,
        backed: &Backed,
        pool: &mut Pool,
        memory: &mut impl HostMemory,
    ) -> Result<Self, NoMemory> {
        let mut pieces = [None; 64];
        for (piece, range) in pieces.iter_mut().zip(backed.iter()) {
            let error = NoMemory(range.start());
            // Large pages need both addresses to be multiples of their size.
            let large = range.start().is_aligned(LARGE) && range.len_bytes() >= LARGE;
            let align = if large { LARGE } else { PAGE };
            let home = pool.take(range.len_bytes(), align).ok_or(error)?;
            memory
                .zero(home.start(), home.len_bytes())
                .map_err(|_| error)?;
            *piece = Some((range, home.start()));
        }
        Ok(Self {
            ram: layout.guest,
            pieces,
            low_end: layout.low_end,
        })
    }

    /// The machine's address of a guest address, and how many bytes go on from there.
    #[must_use]
    pub fn resolve(&self, at: Gpa) -> Option<(Hpa, u64)> {
        let ram = self.ram.iter().map(|range| (range, range.start().as_u64()));
        let pieces = self
            .pieces
            .iter()
            .flatten()
            .map(|(range, home)| (*range, home.as_u64()));
        ram.chain(pieces)
            .find(|(range, _)| range.contains(at))
            .and_then(|(range, home)| {
                let offset = at.as_u64() - range.start().as_u64();
                Some((Hpa::new(home + offset)?, range.len_bytes() - offset))
            })
    }

    /// All of the guest's memory: the guest's ranges, and where each begins in the machine's.
    pub fn ranges(&self) -> impl Iterator<Item = (GpaRange, Hpa)> {
        let ram = self
            .ram
            .iter()
            .filter_map(|range| Some((range, Hpa::new(range.start().as_u64())?)));
        ram.chain(self.pieces.iter().flatten().copied())
    }

    /// Builds the nested page tables: memory, and the devices below 4 GiB at their places, without the unit that is L0's.
    ///
    /// # Errors
    /// L0's part is too small.
    pub fn nested(
        &self,
        levels: Levels,
        own: &HpaRange,
        unit: Option<Unit>,
        pool: &mut Pool,
        memory: &mut impl HostMemory,
    ) -> Result<Tables, MapError> {
        let tables = Tables::new(levels, pool, memory)?;
        let mut taken = RangeSet::<Gpa, 73>::new();
        let ram = self.ram.iter().map(|range| (range, range.start().as_u64()));
        let pieces = self
            .pieces
            .iter()
            .flatten()
            .map(|(range, home)| (*range, home.as_u64()));
        for (range, home) in ram.chain(pieces) {
            let home = Hpa::new(home).ok_or(MapError::Unaligned)?;
            let start = range.start().as_u64();
            tables.map(start, home, range.len_bytes(), Flags::NESTED, pool, memory)?;
            taken.insert(range).map_err(full)?;
        }
        let hidden = [LOCAL_APIC, (own.start().as_u64(), own.end().as_u64())];
        for (start, end) in hidden {
            let range = GpaRange::from_u64(start, end).ok_or(MapError::Unaligned)?;
            taken.insert(range).map_err(full)?;
        }
        if let Some(window) = unit.and_then(dma::window) {
            taken.insert(window).map_err(full)?;
        }
        for (start, end) in [LEGACY, (self.low_end, FOUR_GIB)] {
            let Some(window) = GpaRange::from_u64(start, end) else {
                continue;
            };
            for gap in taken.gaps(window) {
                let start = gap.start().as_u64();
                let home = Hpa::new(start).ok_or(MapError::Unaligned)?;
                tables.map(start, home, gap.len_bytes(), Flags::NESTED, pool, memory)?;
            }
        }
        Ok(tables)
    }
}

fn full(_: InsertError) -> MapError {
    MapError::OutOfMemory
}

/// The guest's memory as something to read and write.
#[derive(Debug)]
pub struct Guest<'a, M> {
    map: &'a GuestMap,
    memory: &'a mut M,
}

impl<'a, M: HostMemory> Guest<'a, M> {
    /// The guest's memory in the machine's.
    pub const fn new(map: &'a GuestMap, memory: &'a mut M) -> Self {
        Self { map, memory }
    }

    /// The piece of an access of `bytes` that lies in one part: its home and length.
    fn part(&self, at: Gpa, done: u64, bytes: u64) -> Result<(Hpa, u64), Unreachable<Gpa>> {
        let error = Unreachable(at);
        let here = at.checked_add(done).ok_or(error)?;
        let (home, left) = self.map.resolve(here).ok_or(error)?;
        Ok((home, left.min(bytes - done)))
    }
}

impl<M: HostMemory> Memory<Gpa> for Guest<'_, M> {
    fn read(&self, at: Gpa, into: &mut [u8]) -> Result<(), Unreachable<Gpa>> {
        let (mut done, bytes) = (0, into.len() as u64);
        while done < bytes {
            let (home, count) = self.part(at, done, bytes)?;
            let piece = into.get_mut(span(done, count)).ok_or(Unreachable(at))?;
            self.memory.read(home, piece).map_err(|_| Unreachable(at))?;
            done += count;
        }
        Ok(())
    }

    fn write(&mut self, at: Gpa, from: &[u8]) -> Result<(), Unreachable<Gpa>> {
        let (mut done, bytes) = (0, from.len() as u64);
        while done < bytes {
            let (home, count) = self.part(at, done, bytes)?;
            let piece = from.get(span(done, count)).ok_or(Unreachable(at))?;
            self.memory
                .write(home, piece)
                .map_err(|_| Unreachable(at))?;
            done += count;
        }
        Ok(())
    }

    fn zero(&mut self, at: Gpa, bytes: u64) -> Result<(), Unreachable<Gpa>> {
        let mut done = 0;
        while done < bytes {
            let (home, count) = self.part(at, done, bytes)?;
            self.memory.zero(home, count).map_err(|_| Unreachable(at))?;
            done += count;
        }
        Ok(())
    }
}

/// A part of a buffer that is as long as memory: its numbers fit an index.
fn span(start: u64, bytes: u64) -> core::ops::Range<usize> {
    let index = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    index(start)..index(start + bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::MapEntry;
    use crate::phys::fake::Ram;

    #[test]
    fn memory_beside_ram_comes_from_l0s_part() {
        let map = [MapEntry {
            start: 0,
            bytes: 48 << 20,
            kind: 1,
        }];
        let layout = Layout::new(&map, Some(32 << 20)).unwrap();
        let mut ram = Ram::new(48 << 20);
        let mut pool = Pool::new(layout.own, HpaRange::from_u64(0, 0).unwrap());
        let mut backed = Backed::new();
        let high = GpaRange::from_u64(1 << 39, (1 << 39) + (4 << 20)).unwrap();
        let rom = GpaRange::from_u64(0xffff_f000, 1 << 32).unwrap();
        backed.insert(high).unwrap();
        backed.insert(rom).unwrap();
        let guest_map = GuestMap::new(&layout, &backed, &mut pool, &mut ram).unwrap();

        let (home, left) = guest_map.resolve(high.start()).unwrap();
        assert!(home.is_aligned(LARGE) && left == 4 << 20);
        assert_eq!(
            guest_map
                .resolve(Gpa::new(0x5000).unwrap())
                .unwrap()
                .0
                .as_u64(),
            0x5000
        );
        assert_eq!(guest_map.resolve(Gpa::new(0xa_0000).unwrap()), None);

        let mut guest = Guest::new(&guest_map, &mut ram);
        let last = Gpa::new(high.end().as_u64() - 4).unwrap();
        guest.write(last, &[1, 2, 3, 4]).unwrap();
        assert!(guest.write(last, &[1, 2, 3, 4, 5]).is_err());
        assert_eq!(
            ram.0[usize::try_from(home.as_u64()).unwrap() + (4 << 20) - 4..][..4],
            [1, 2, 3, 4]
        );

        let unit = Unit::new(Hpa::new(0xfed9_0000).unwrap());
        let nested = guest_map
            .nested(Levels::Five, &layout.own, Some(unit), &mut pool, &mut ram)
            .unwrap();
        let leaf = |at: u64| {
            nested
                .leaf(at, &ram)
                .unwrap()
                .map(|(e, l)| (e & 0xff_ffff_f000, l))
        };
        assert_eq!(leaf(1 << 39).unwrap(), (home.as_u64(), 1));
        assert_eq!(leaf(0xa_0000).unwrap(), (0xa_0000, 0));
        assert_eq!(leaf(0xfe80_0000).unwrap().1, 1);
        assert_ne!(leaf(0xffff_f000).unwrap().0, 0xffff_f000);
        assert_eq!(leaf(LOCAL_APIC.0), None);
        assert_eq!(leaf(0xfed9_0000), None);
        assert_eq!(leaf(0xfed9_1000).unwrap().0, 0xfed9_1000);
        assert_eq!(leaf(layout.own.start().as_u64()), None);
        assert_eq!(leaf(1 << 40), None);

        let huge = GpaRange::from_u64(1 << 40, (1 << 40) + (64 << 20)).unwrap();
        backed.insert(huge).unwrap();
        assert_eq!(
            GuestMap::new(&layout, &backed, &mut pool, &mut ram).unwrap_err(),
            NoMemory(huge.start())
        );
    }
}
