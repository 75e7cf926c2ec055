//! Which memory devices reach: the tables of DMA remapping, and the unit that follows them.
//!
//! On SEV-SNP the reverse map table is checked for what devices write, too. Here a unit for DMA remapping (Intel
//! Virtualization Technology for Directed I/O, revision 4.1, legacy mode) stands between QEMU's devices and memory, and its
//! tables hold what the host has, page by page. A guest without isolation lets devices reach all of its memory. L0's own is
//! in no table at all.

pub mod unit; // its registers

pub use unit::{Refused, Unit, UnitError, Working};

use crate::addr::{Gpa, GpaRange, Hpa, PAGE};
use crate::lock::Lock;
use crate::memory::GuestMap;
use crate::paging::{self, Flags, Levels, MapError, Tables};
use crate::personality::Hardware;
use crate::phys::HostMemory;
use crate::pool::Pool;
use crate::report::RefusedDma;
use core::sync::atomic::{AtomicU64, Ordering};
use svsm_sim::rmp::{PageSize, Rmp, State};

/// The number that the unit knows the guest's memory by.
const DOMAIN: u64 = 1;
/// Tables of four levels, in a context entry.
const FOUR_LEVELS: u64 = 2;
/// How much these map. No device reaches what lies behind.
const WIDTH: u64 = 1 << 48;
/// A device reads and writes.
const REACHED: Flags = Flags::PRESENT.union(Flags::WRITE);

/// The tables that say, for every device alike, which of the guest's addresses it reaches.
///
/// Second-level entries have the bits of nested ones where both have a meaning.
#[derive(Clone, Copy, Debug)]
pub struct Reach {
    root: Hpa,
    tables: Tables,
}

impl Reach {
    /// Tables in which nothing is.
    ///
    /// # Errors
    /// No memory is left for them.
    pub fn new(pool: &mut Pool, memory: &mut impl HostMemory) -> Result<Self, MapError> {
        let tables = Tables::new(Levels::Four, pool, memory)?;
        let present = Flags::PRESENT.bits();
        let context = [tables.root().as_u64() | present, DOMAIN << 8 | FOUR_LEVELS];
        let contexts = table_of(context, pool, memory)?;
        let root = table_of([contexts.as_u64() | present, 0], pool, memory)?;
        Ok(Self { root, tables })
    }

    /// The table that the unit begins with.
    #[must_use]
    pub const fn root(&self) -> Hpa {
        self.root
    }

    /// Lets devices reach all of the guest's memory.
    ///
    /// # Errors
    /// No memory is left for tables.
    pub fn open_all(
        &self,
        map: &GuestMap,
        pool: &mut Pool,
        memory: &mut impl HostMemory,
    ) -> Result<(), MapError> {
        for (range, home) in map.ranges() {
            let start = range.start().as_u64();
            let bytes = range.len_bytes().min(WIDTH.saturating_sub(start));
            self.tables.map(start, home, bytes, REACHED, pool, memory)?;
        }
        Ok(())
    }

    /// Lets devices reach what the host has of a guest's memory.
    ///
    /// # Errors
    /// No memory is left for tables.
    pub fn open_shared(
        &self,
        map: &GuestMap,
        rmp: &Rmp<'_>,
        pool: &mut Pool,
        memory: &mut impl HostMemory,
    ) -> Result<(), MapError> {
        for (range, home) in map.ranges() {
            let start = range.start().as_u64();
            for offset in (0..range.len_bytes()).step_by(4096) {
                let home = Hpa::new(home.as_u64() + offset).ok_or(MapError::Unaligned)?;
                self.open(start + offset, home, PageSize::Size4K, rmp, pool, memory)?;
            }
        }
        Ok(())
    }

    /// Lets devices reach those of a guest's pages that the host has.
    ///
    /// # Errors
    /// No memory is left for tables.
    pub fn open(
        &self,
        gpa: u64,
        home: Hpa,
        size: PageSize,
        rmp: &Rmp<'_>,
        pool: &mut Pool,
        memory: &mut impl HostMemory,
    ) -> Result<(), MapError> {
        for offset in (0..size.bytes()).step_by(4096) {
            let (gpa, home) = (gpa + offset, home.as_u64() + offset);
            let home = Hpa::new(home).ok_or(MapError::Unaligned)?;
            if gpa < WIDTH && is_hosts(rmp, home) {
                self.tables.set(gpa, home, 0, REACHED, pool, memory)?;
            }
        }
        Ok(())
    }

    /// Takes a guest's page out of the tables. Says whether it was there, so that the unit may still know of it.
    ///
    /// # Errors
    /// A table is out of reach.
    pub fn close(
        &self,
        gpa: u64,
        size: PageSize,
        memory: &mut impl HostMemory,
    ) -> Result<bool, MapError> {
        let mut gone = false;
        for offset in (0..size.bytes()).step_by(4096) {
            let gpa = gpa + offset;
            gone |= gpa < WIDTH && self.tables.clear(gpa, 0, memory)?;
        }
        Ok(gone)
    }

    /// Where a device's access to an address goes; `None`: it is refused.
    #[cfg(test)]
    fn home(&self, gpa: u64, memory: &impl HostMemory) -> Result<Option<u64>, MapError> {
        if gpa >= WIDTH {
            return Ok(None);
        }
        let leaf = self.tables.leaf(gpa, memory)?;
        Ok(leaf.map(|(entry, level)| {
            let offset = gpa & ((PAGE << (9 * level)) - 1);
            entry & paging::ADDRESS | offset
        }))
    }
}

fn is_hosts(rmp: &Rmp<'_>, home: Hpa) -> bool {
    rmp.entry(home.as_u64())
        .is_some_and(|entry| entry.state() == State::Hypervisor)
}

/// A table of 256 entries of two words, all alike.
fn table_of(
    entry: [u64; 2],
    pool: &mut Pool,
    memory: &mut impl HostMemory,
) -> Result<Hpa, MapError> {
    let table = paging::new_table(pool, memory)?;
    for (offset, word) in (0..PAGE).step_by(8).zip(entry.into_iter().cycle()) {
        let at = Hpa::new(table.as_u64() + offset).ok_or(MapError::Unaligned)?;
        memory.write_u64(at, word)?;
    }
    Ok(table)
}

/// The unit with its tables.
#[derive(Clone, Copy, Debug)]
pub struct Remapping {
    /// The unit, which was started with them.
    pub unit: Working,
    /// What it follows.
    pub reach: Reach,
}

/// Whoever looks for accesses that were refused: one CPU at a time, now and then.
#[derive(Debug)]
pub struct Watch {
    unit: Unit,
    /// Held for the whole of a look: two at once would take one note for two, and free the place of a newer one.
    looks: Lock<()>,
    due: AtomicU64,
    refused: AtomicU64,
}

impl Watch {
    /// How often to look, in ticks of a nanosecond: reading a register of a device costs a thousandth of that.
    const PAUSE: u64 = 2_000_000;
    /// So many are reported one by one, since a guest can provoke them without end.
    const MOST: u64 = 64;
    /// Who goes on without end waits for the next look.
    const AT_ONCE: u32 = 8;

    /// Nothing was refused yet.
    #[must_use]
    pub const fn new(unit: Unit) -> Self {
        Self {
            unit,
            looks: Lock::new(()),
            due: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Looks, if it is time to.
    pub fn look_at(&self, now: u64, hardware: &mut impl Hardware) {
        if now >= self.due.load(Ordering::Relaxed) {
            let next = now.saturating_add(Self::PAUSE);
            self.due.store(next, Ordering::Relaxed);
            self.look(hardware);
        }
    }

    /// Counts and reports what was refused since somebody last looked, unless another CPU does so now.
    pub fn look(&self, hardware: &mut impl Hardware) {
        let Some(_alone) = self.looks.try_lock() else {
            return;
        };
        for _ in 0..Self::AT_ONCE {
            let Some(refused) = self.unit.refused(hardware) else {
                return;
            };
            if self.refused.fetch_add(1, Ordering::Relaxed) < Self::MOST {
                hardware.report(&RefusedDma(refused));
            }
        }
    }

    /// How many were seen. The unit notes one at a time: there may have been more.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// The window of the unit's registers, in which a guest finds nothing.
#[must_use]
pub fn window(unit: Unit) -> Option<GpaRange> {
    GpaRange::new(Gpa::new(unit.base().as_u64())?, Unit::BYTES)
}

#[cfg(test)]
mod tests;
