//! Page tables: the builder behind L0's own tables, behind nested ones, and behind those of devices.
//!
//! All have the same format; nested tables demand the user bit everywhere. With
//! LA57 on, nested tables have five levels too, and only then does TCG look at
//! guest physical address bits 48 to 51, where a C-bit may be.

use crate::addr::{Address, Hpa, PAGE};
use crate::phys::{HostMemory, Unreachable};
use crate::pool::Pool;
use bitflags::bitflags;
use core::fmt;

const ENTRIES: u64 = 512;
/// The bits of an entry that are an address.
pub(crate) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

bitflags! {
    /// The bits of a page-table entry beside its address.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Flags: u64 {
        /// The entry is used.
        const PRESENT = 1;
        /// Writes are allowed.
        const WRITE = 1 << 1;
        /// CPL 3 may use it; demanded of every nested entry.
        const USER = 1 << 2;
        /// A leaf above the last level.
        const HUGE = 1 << 7;
        /// No instruction may be fetched.
        const NO_EXECUTE = 1 << 63;
    }
}

impl Flags {
    /// A nested leaf with all rights.
    pub const NESTED: Self = Self::PRESENT.union(Self::WRITE).union(Self::USER);
}

/// How deep a table tree is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Levels {
    /// 48 address bits.
    Four,
    /// 57 address bits.
    Five,
}

impl Levels {
    const fn top(self) -> u32 {
        match self {
            Self::Four => 3,
            Self::Five => 4,
        }
    }
}

/// Why a mapping could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// An address or the length is not a multiple of the page size, or leaves the address space.
    Unaligned,
    /// The address is mapped already.
    Occupied(u64),
    /// No memory is left for tables.
    OutOfMemory,
    /// A table lies in memory that is not there.
    Unreachable(Hpa),
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unaligned => f.write_str("mapping is not made of pages"),
            Self::Occupied(at) => write!(f, "{at:#x} is mapped already"),
            Self::OutOfMemory => f.write_str("no memory is left for page tables"),
            Self::Unreachable(at) => write!(f, "page table at {at} is out of reach"),
        }
    }
}

impl core::error::Error for MapError {}

impl From<Unreachable<Hpa>> for MapError {
    fn from(error: Unreachable<Hpa>) -> Self {
        Self::Unreachable(error.0)
    }
}

/// A tree of page tables.
#[derive(Clone, Copy, Debug)]
pub struct Tables {
    root: Hpa,
    levels: Levels,
}

impl Tables {
    /// An empty tree.
    ///
    /// # Errors
    /// [`MapError::OutOfMemory`] or [`MapError::Unreachable`].
    pub fn new(
        levels: Levels,
        pool: &mut Pool,
        memory: &mut impl HostMemory,
    ) -> Result<Self, MapError> {
        Ok(Self {
            root: new_table(pool, memory)?,
            levels,
        })
    }

    /// The address of the first table, as CR3 and a VMCB's nested CR3 take it.
    #[must_use]
    pub const fn root(&self) -> Hpa {
        self.root
    }

    /// Maps `bytes` at `at` to `to`, in the largest pages that fit.
    ///
    /// # Errors
    /// See [`MapError`]; what was mapped before the error stays mapped.
    pub fn map(
        &self,
        at: u64,
        to: Hpa,
        bytes: u64,
        flags: Flags,
        pool: &mut Pool,
        memory: &mut impl HostMemory,
    ) -> Result<(), MapError> {
        if (at | to.as_u64() | bytes) & (PAGE - 1) != 0 {
            return Err(MapError::Unaligned);
        }
        let (mut at, mut to, mut left) = (at, to.as_u64(), bytes);
        while left > 0 {
            let level = (1..=2)
                .rev()
                .find(|&level| (at | to) & (size(level) - 1) == 0 && left >= size(level))
                .unwrap_or(0);
            let huge = if level > 0 {
                Flags::HUGE
            } else {
                Flags::empty()
            };
            let slot = self.slot(at, level, flags, pool, memory)?;
            if memory.read_u64(slot)? & Flags::PRESENT.bits() != 0 {
                return Err(MapError::Occupied(at));
            }
            memory.write_u64(slot, to | (flags | huge).bits())?;
            left -= size(level);
            if left > 0 {
                at = at.checked_add(size(level)).ok_or(MapError::Unaligned)?;
                to = to.checked_add(size(level)).ok_or(MapError::Unaligned)?;
            }
        }
        Ok(())
    }

    /// Makes one leaf of `level` (0: 4 KiB, 1: 2 MiB) say what it is now to say, whatever it said before.
    ///
    /// A larger leaf in the way gives way to a table that maps nothing else yet. Where smaller ones have a table
    /// already, that stays, and only the 4 KiB around `at` are mapped.
    ///
    /// # Errors
    /// See [`MapError`].
    pub fn set(
        &self,
        at: u64,
        to: Hpa,
        level: u32,
        flags: Flags,
        pool: &mut Pool,
        memory: &mut impl HostMemory,
    ) -> Result<(), MapError> {
        let inner = Flags::PRESENT | Flags::WRITE | (flags & Flags::USER);
        let mut table = self.root;
        for here in (0..=self.levels.top()).rev() {
            let slot = entry_at(table, at, here)?;
            let entry = memory.read_u64(slot)?;
            let is_table =
                here > 0 && entry & Flags::PRESENT.bits() != 0 && entry & Flags::HUGE.bits() == 0;
            if here == 0 || here == level && !is_table {
                let offset = if here < level {
                    at & (size(level) - 1) & !(PAGE - 1)
                } else {
                    0
                };
                let huge = if here > 0 {
                    Flags::HUGE
                } else {
                    Flags::empty()
                };
                let to = to.as_u64() & !(size(here.min(level)) - 1) | offset;
                return Ok(memory.write_u64(slot, to | (flags | huge).bits())?);
            }
            table = if is_table {
                target(entry)?
            } else {
                let new = new_table(pool, memory)?;
                memory.write_u64(slot, new.as_u64() | inner.bits())?;
                new
            };
        }
        Ok(())
    }

    /// Takes away whatever maps part of the page of `level` (0 or 1) at `at`. Says whether anything did.
    ///
    /// # Errors
    /// [`MapError::Unreachable`].
    pub fn clear(
        &self,
        at: u64,
        level: u32,
        memory: &mut impl HostMemory,
    ) -> Result<bool, MapError> {
        let mut table = self.root;
        for here in (0..=self.levels.top()).rev() {
            let slot = entry_at(table, at, here)?;
            let entry = memory.read_u64(slot)?;
            if entry & Flags::PRESENT.bits() == 0 {
                return Ok(false);
            }
            if here == 0 || entry & Flags::HUGE.bits() != 0 {
                memory.write_u64(slot, 0)?;
                return Ok(true);
            }
            table = target(entry)?;
            if here == level {
                memory.zero(table, PAGE)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The leaf that maps `at`, as the entry holds it, and its level (0: 4 KiB, 1: 2 MiB, 2: 1 GiB).
    ///
    /// # Errors
    /// [`MapError::Unreachable`].
    pub fn leaf(&self, at: u64, memory: &impl HostMemory) -> Result<Option<(u64, u32)>, MapError> {
        let mut table = self.root;
        for level in (0..=self.levels.top()).rev() {
            let entry = memory.read_u64(entry_at(table, at, level)?)?;
            if entry & Flags::PRESENT.bits() == 0 {
                return Ok(None);
            }
            if level == 0 || entry & Flags::HUGE.bits() != 0 {
                return Ok(Some((entry, level)));
            }
            table = target(entry)?;
        }
        Ok(None)
    }

    /// The address of the entry for `at` in its table of `level`; tables on the way are made.
    fn slot(
        &self,
        at: u64,
        level: u32,
        flags: Flags,
        pool: &mut Pool,
        memory: &mut impl HostMemory,
    ) -> Result<Hpa, MapError> {
        let inner = Flags::PRESENT | Flags::WRITE | (flags & Flags::USER);
        let mut table = self.root;
        let mut here = self.levels.top();
        while here > level {
            let slot = entry_at(table, at, here)?;
            let entry = memory.read_u64(slot)?;
            table = if entry & Flags::PRESENT.bits() == 0 {
                let new = new_table(pool, memory)?;
                memory.write_u64(slot, new.as_u64() | inner.bits())?;
                new
            } else if entry & Flags::HUGE.bits() != 0 {
                return Err(MapError::Occupied(at));
            } else {
                target(entry)?
            };
            here -= 1;
        }
        entry_at(table, at, level)
    }
}

/// Bytes that one entry of a level maps.
const fn size(level: u32) -> u64 {
    PAGE << (9 * level)
}

fn entry_at(table: Hpa, at: u64, level: u32) -> Result<Hpa, MapError> {
    let index = (at / size(level)) % ENTRIES;
    table
        .checked_add(index * 8)
        .ok_or(MapError::Unreachable(table))
}

fn target(entry: u64) -> Result<Hpa, MapError> {
    Hpa::new(entry & ADDRESS).ok_or(MapError::Unreachable(Hpa::ZERO))
}

/// A page of zeros.
pub(crate) fn new_table(pool: &mut Pool, memory: &mut impl HostMemory) -> Result<Hpa, MapError> {
    let table = pool.take(PAGE, PAGE).ok_or(MapError::OutOfMemory)?.start();
    memory.zero(table, PAGE)?;
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::HpaRange;
    use crate::phys::{Memory, fake::Ram};

    const RW: Flags = Flags::PRESENT.union(Flags::WRITE);

    fn setup(levels: Levels, pages: u64) -> (Tables, Pool, Ram) {
        let mut ram = Ram::new(64 * 4096);
        let own = HpaRange::from_u64(PAGE, (1 + pages) * PAGE).unwrap();
        let mut pool = Pool::new(own, HpaRange::from_u64(0, 0).unwrap());
        let tables = Tables::new(levels, &mut pool, &mut ram).unwrap();
        (tables, pool, ram)
    }

    fn hpa(value: u64) -> Hpa {
        Hpa::new(value).unwrap()
    }

    #[test]
    fn the_largest_pages_that_fit_are_used() {
        let (tables, mut pool, mut ram) = setup(Levels::Five, 16);
        // From one 4 KiB page below 2 MiB up to one above 1 GiB + 2 MiB.
        let (start, bytes) = (0x1f_f000, 0x4020_0000 - 0x1f_f000 + 0x1000);
        tables
            .map(start, hpa(start), bytes, Flags::NESTED, &mut pool, &mut ram)
            .unwrap();
        for (at, level) in [
            (0x1f_f000, 0),
            (0x20_0000, 1),
            (0x3fff_ffff, 1),
            (0x4000_0000, 1),
            (0x4020_0000, 0),
        ] {
            let (entry, found) = tables.leaf(at, &ram).unwrap().unwrap();
            assert_eq!(found, level, "{at:#x}");
            assert_eq!(entry & ADDRESS, at & !(size(level) - 1));
            assert_ne!(entry & Flags::USER.bits(), 0);
        }
        assert_eq!(tables.leaf(0x1f_e000, &ram), Ok(None));
        assert_eq!(tables.leaf(0x4020_1000, &ram), Ok(None));
        tables
            .map(
                1 << 51,
                hpa(1 << 30),
                1 << 30,
                Flags::NESTED,
                &mut pool,
                &mut ram,
            )
            .unwrap();
        assert_eq!(tables.leaf((1 << 51) + 5, &ram).unwrap().unwrap().1, 2);
    }

    #[test]
    fn nothing_is_mapped_twice() {
        let (tables, mut pool, mut ram) = setup(Levels::Four, 16);
        tables
            .map(0x20_0000, hpa(0), 0x20_0000, RW, &mut pool, &mut ram)
            .unwrap();
        assert_eq!(
            tables.map(0x3f_f000, hpa(0), PAGE, RW, &mut pool, &mut ram),
            Err(MapError::Occupied(0x3f_f000))
        );
        assert_eq!(
            tables.map(0x1000, hpa(0x800), PAGE, RW, &mut pool, &mut ram),
            Err(MapError::Unaligned)
        );
    }

    #[test]
    fn leaves_are_set_anew_and_cleared() {
        let (tables, mut pool, mut ram) = setup(Levels::Five, 8);
        let leaf = |ram: &Ram, at| {
            let found = tables.leaf(at, ram).unwrap();
            found.map(|(entry, level)| (entry & ADDRESS, level))
        };
        let at = 1 << 51 | 0x60_0000;
        tables
            .set(at, hpa(0x40_0000), 1, Flags::NESTED, &mut pool, &mut ram)
            .unwrap();
        assert_eq!(leaf(&ram, at + 0x5000), Some((0x40_0000, 1)));
        // A small page in the large one: the rest goes, to be derived again.
        tables
            .set(
                at + 0x5000,
                hpa(0x40_5000),
                0,
                Flags::NESTED,
                &mut pool,
                &mut ram,
            )
            .unwrap();
        assert_eq!(leaf(&ram, at + 0x5000), Some((0x40_5000, 0)));
        assert_eq!(leaf(&ram, at), None);
        // A large page where there is a table: as much of it as one entry maps.
        tables
            .set(
                at + 0x7000,
                hpa(0x40_0000),
                1,
                Flags::NESTED,
                &mut pool,
                &mut ram,
            )
            .unwrap();
        assert_eq!(leaf(&ram, at + 0x7000), Some((0x40_7000, 0)));
        assert_eq!(tables.clear(at + 0x7000, 0, &mut ram), Ok(true));
        assert_eq!(tables.clear(at + 0x7000, 0, &mut ram), Ok(false));
        assert_eq!(tables.clear(at, 1, &mut ram), Ok(true));
        assert_eq!(leaf(&ram, at + 0x5000), None);
        assert_eq!(tables.clear(0, 1, &mut ram), Ok(false));
    }

    #[test]
    fn running_out_of_memory_is_an_error() {
        let (tables, mut pool, mut ram) = setup(Levels::Four, 2);
        assert_eq!(
            tables.map(0, hpa(0), PAGE, RW, &mut pool, &mut ram),
            Err(MapError::OutOfMemory)
        );
    }

    #[test]
    fn kernel_addresses_use_the_last_entries() {
        let (tables, mut pool, mut ram) = setup(Levels::Five, 8);
        let at = 0xffff_ffff_8000_0000;
        tables
            .map(at, hpa(0x10_0000), 2 * PAGE, RW, &mut pool, &mut ram)
            .unwrap();
        assert_eq!(
            tables.leaf(at + PAGE, &ram).unwrap().unwrap().0 & ADDRESS,
            0x10_1000
        );
        let last = ram.read_u64(hpa(tables.root().as_u64() + 511 * 8)).unwrap();
        assert_ne!(last & Flags::PRESENT.bits(), 0);
    }
}
