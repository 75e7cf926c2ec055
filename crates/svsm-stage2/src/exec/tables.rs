//! The SVSM's prebuilt page tables: checked entry by entry, and told how their machine says
//! "private".
//!
//! Every table lies above the one that points to it (see `plan::AddressSpace`).
//! So one pass upwards meets each table after its parent: the work is bounded by the number of
//! tables, a loop or a shared table cannot hide, and one slot of the window is enough.

#![expect(unsafe_code, reason = "page tables are reached through a window")]

use svsm_mm::window::{Window, WordIndex};
use svsm_platform::addr::{Gpa, GpaRange, PageSize};
use svsm_platform::encryption::{ENTRY_ADDRESS, Encryption, Visibility};

use crate::error::{Error, Result, TableFault};
use crate::handoff::Handoff;
use crate::layout::MAX_TABLES;
use crate::region::Rights;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
/// The processor ignores these; `svsm-mm` keeps there whom a page belongs to.
const SOFTWARE: u64 = 0b111 << 9;
const NO_EXECUTE: u64 = 1 << 63;

const TABLE_BITS: u64 = PRESENT | WRITABLE | ACCESSED | DIRTY | SOFTWARE | ENTRY_ADDRESS;
const PAGE_BITS: u64 = TABLE_BITS | GLOBAL | LARGE | NO_EXECUTE;

const ROOT: u8 = 4;

/// Checks all tables and sets the encryption bit in all entries.
pub(super) fn finish<W: Window>(
    handoff: &Handoff,
    encryption: Encryption,
    window: &W,
) -> Result<()> {
    let tables = handoff.tables.gpa_range();
    let mut pass = Pass {
        handoff,
        encryption,
        levels: [0; MAX_TABLES],
    };
    *pass.levels.first_mut().ok_or(Error::Bug)? = ROOT;
    let pages = tables.pages(PageSize::Size4K).ok_or(Error::Bug)?;
    for (number, table) in pages.enumerate() {
        pass.table(number, table, window)?;
    }
    Ok(())
}

struct Pass<'h> {
    handoff: &'h Handoff,
    encryption: Encryption,
    /// The level of each table, from its parent's entry; zero until that was seen.
    levels: [u8; MAX_TABLES],
}

impl Pass<'_> {
    fn table<W: Window>(&mut self, number: usize, table: Gpa, window: &W) -> Result<()> {
        let fault = |index, fault| Error::Table {
            table,
            index,
            fault,
        };
        let level = self.levels.get(number).copied().unwrap_or_default();
        if level == 0 {
            return Err(fault(0, TableFault::Orphan));
        }
        // SAFETY: the page is one of the SVSM's tables, by the hand-off; stage2 owns them until it
        // jumps, and has no reference into them.
        let mapping = unsafe { window.map(table, Visibility::Private) };
        let page = mapping.map_err(|_| fault(0, TableFault::Unreachable))?;
        for index in WordIndex::all() {
            let entry = page.load(index);
            let finished = match entry & PRESENT {
                0 if entry == 0 => continue,
                0 => Err(TableFault::Bits),
                _ if level > 1 && entry & LARGE == 0 => self.check_table(number, level, entry),
                _ => self.check_page(level, entry),
            };
            let finished = finished
                .and_then(|target| self.encode(entry, target))
                .map_err(|kind| fault(index.as_u16(), kind))?;
            if finished != entry {
                page.store(index, finished);
            }
        }
        Ok(())
    }

    fn encode(&self, entry: u64, target: Gpa) -> Result<u64, TableFault> {
        let address = self.encryption.encode(target, Visibility::Private);
        Ok(entry & !ENTRY_ADDRESS | address.ok_or(TableFault::Encryption)?)
    }

    /// Checks an entry of the table with that number that points to another table.
    fn check_table(&mut self, number: usize, level: u8, entry: u64) -> Result<Gpa, TableFault> {
        if entry & USER != 0 {
            return Err(TableFault::User);
        }
        if entry & !TABLE_BITS != 0 {
            return Err(TableFault::Bits);
        }
        let target = Gpa::new(entry & ENTRY_ADDRESS).ok_or(TableFault::Outside)?;
        let tables = self.handoff.tables.gpa_range();
        let offset = target
            .checked_offset_from(tables.start())
            .ok_or(TableFault::Outside)?;
        let child = usize::try_from(offset >> PageSize::Size4K.shift()).unwrap_or(usize::MAX);
        if !tables.contains(target) || child <= number {
            return Err(TableFault::Outside);
        }
        match self.levels.get_mut(child) {
            Some(seen) if *seen == 0 => *seen = level - 1,
            Some(_) => return Err(TableFault::Shared),
            None => return Err(TableFault::Outside),
        }
        Ok(target)
    }

    /// Checks an entry that maps a page.
    fn check_page(&self, level: u8, entry: u64) -> Result<Gpa, TableFault> {
        if entry & USER != 0 {
            return Err(TableFault::User);
        }
        let size = match level {
            1 => PageSize::Size4K,
            2 => PageSize::Size2M,
            3 => PageSize::Size1G,
            _ => return Err(TableFault::Bits),
        };
        // In a page table the bit means a cache type.
        let unexpected = if level == 1 {
            !(PAGE_BITS & !LARGE)
        } else {
            !PAGE_BITS
        };
        let target = Gpa::new(entry & ENTRY_ADDRESS).ok_or(TableFault::Bits)?;
        if entry & unexpected != 0 || !target.is_aligned(size) {
            return Err(TableFault::Bits);
        }
        let writable = entry & WRITABLE != 0;
        let executable = entry & NO_EXECUTE == 0;
        if writable && executable {
            return Err(TableFault::WriteExecute);
        }
        let page = GpaRange::new(target, size.bytes()).ok_or(TableFault::Foreign)?;
        self.check_rights(page, writable, executable)?;
        Ok(target)
    }

    /// Checks that the SVSM may have that page, with those rights, whatever the address.
    fn check_rights(
        &self,
        page: GpaRange,
        writable: bool,
        executable: bool,
    ) -> Result<(), TableFault> {
        let handoff = self.handoff;
        let mut may_execute = page.start() == handoff.trampoline;
        let mut may_write = true;
        let low = [Some(handoff.handoff), handoff.cpuid].into_iter().flatten();
        if low.clone().any(|area| area.gpa_range() == page) || may_execute {
            may_write = false;
        } else if !handoff.svsm.contains_range(&page) && handoff.mailbox.gpa_range() != page {
            return Err(TableFault::Foreign);
        }
        for segment in handoff.segments.iter() {
            if segment.area.gpa_range().overlaps(&page) {
                may_write &= segment.rights.is_writable();
                may_execute |= segment.rights == Rights::ReadExecute;
            }
        }
        if writable && !may_write || executable && !may_execute {
            return Err(TableFault::Rights);
        }
        Ok(())
    }
}
