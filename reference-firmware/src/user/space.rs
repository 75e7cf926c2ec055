//! The memory of a process: its program, its stack, and what it asked for since.

use alloc::vec::Vec;

use svsm_mm::frame::FrameSource;
use svsm_mm::table::{Attributes, PageTable, Rights, StaleTlb};
use svsm_mm::window::{PAGE_BYTES, Window};
use svsm_platform::addr::{Gva, GvaRange, PageCount, PageSize};
use svsm_platform::cpu::cr::Cr3;
use svsm_platform::cpu::insn;
use svsm_platform::encryption::Visibility;
use svsm_syscall::abi::map_rights;
use svsm_syscall::program::{self, Limits, Program, ProgramError};

use crate::memory::{self, Memory};

/// Where programs may lie, as numbers: from here…
const PROGRAMS: u64 = 0x40_0000;
/// …to here.
const PROGRAMS_END: u64 = 0x4000_0000;
/// Where memory that a process asks for goes.
const ASKED: u64 = 0x10_0000_0000;
/// Where that ends.
const ASKED_END: u64 = 0x20_0000_0000;
/// The upper end of the stack.
const STACK_END: u64 = 0x7000_0000_0000;
/// Bytes of the stack; what lies on both sides of it is unmapped.
const STACK_BYTES: u64 = 64 << 10;
/// The most pages that a process can have, its program included.
const MAX_PAGES: u64 = 1024;

/// Why a process has no memory.
#[derive(Clone, Copy, Debug, defmt::Format)]
pub(crate) enum SpaceError {
    /// The program's file is not in order.
    Program(ProgramError),
    /// There is no memory, or a mapping failed.
    Memory(svsm_mm::Error),
    /// The process has had its share.
    Quota,
    /// The arguments name no memory that the process could have.
    Invalid,
}

impl From<svsm_mm::Error> for SpaceError {
    fn from(error: svsm_mm::Error) -> Self {
        Self::Memory(error)
    }
}

/// The lower half of a process's address space.
#[derive(Debug)]
pub(crate) struct Space {
    table: Option<PageTable>,
    cr3: Cr3,
    mapped: Vec<GvaRange>,
    asked: Gva,
    pages: u64,
}

/// Where a program starts, and the upper end of its stack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    pub(crate) entry: Gva,
    pub(crate) stack: Gva,
}

impl Space {
    /// Memory for the program in `file`, filled.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn load(file: &[u8]) -> Result<(Self, Start), SpaceError> {
        let limits = Limits {
            space: range(PROGRAMS, PROGRAMS_END)?,
            pages: PageCount::new(MAX_PAGES),
        };
        let plan = Program::plan(file, &limits).map_err(SpaceError::Program)?;
        let memory = memory::memory()?;
        let table = memory.new_table()?;
        let cr3 = table.cr3()?;
        let mut space = Self {
            table: Some(table),
            cr3,
            mapped: Vec::new(),
            asked: gva(ASKED)?,
            pages: 0,
        };
        for segment in plan.segments() {
            let rights = match segment.rights() {
                program::Rights::Read => Rights::READ,
                program::Rights::Write => Rights::READ_WRITE,
                program::Rights::Execute => Rights::READ_EXECUTE,
            };
            space.map(memory, segment.pages(), rights)?;
            for page in segment
                .pages()
                .pages(PageSize::Size4K)
                .ok_or(SpaceError::Invalid)?
            {
                let (lead, bytes) = segment.contents(page);
                space.fill(memory, page, lead as u64, bytes)?;
            }
        }
        let stack = range(STACK_END - STACK_BYTES, STACK_END)?;
        space.map(memory, stack, Rights::READ_WRITE)?;
        Ok((
            space,
            Start {
                entry: plan.entry(),
                stack: stack.end(),
            },
        ))
    }

    /// The root of its page table, as the processor wants it.
    pub(crate) const fn cr3(&self) -> Cr3 {
        self.cr3
    }

    /// Gives the process zeroed memory.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn ask(&mut self, len_bytes: u64, rights: u64) -> Result<Gva, SpaceError> {
        let known = map_rights::WRITE | map_rights::EXECUTE;
        let pages = len_bytes.div_ceil(PAGE_BYTES);
        if rights & !known != 0 || pages == 0 {
            return Err(SpaceError::Invalid);
        }
        let (write, execute) = (
            rights & map_rights::WRITE != 0,
            rights & map_rights::EXECUTE != 0,
        );
        let rights = Rights::new(write, execute).map_err(|_| SpaceError::Invalid)?;
        let bytes = pages.checked_mul(PAGE_BYTES).ok_or(SpaceError::Quota)?;
        let range = GvaRange::new(self.asked, bytes).ok_or(SpaceError::Quota)?;
        if range.end() > gva(ASKED_END)? {
            return Err(SpaceError::Quota);
        }
        self.map(memory::memory()?, range, rights)?;
        // A page between two of them stays unmapped.
        self.asked = range
            .end()
            .checked_add(PAGE_BYTES)
            .ok_or(SpaceError::Quota)?;
        Ok(range.start())
    }

    /// Takes back memory that [`ask`](Self::ask) gave, all of one piece.
    ///
    /// The process runs on this CPU or on none, so no other can remember its translations.
    ///
    /// # Errors
    /// There is no such piece.
    pub(crate) fn give_back(&mut self, at: u64, len_bytes: u64) -> Result<(), SpaceError> {
        let pages = len_bytes.div_ceil(PAGE_BYTES);
        let piece = |range: &GvaRange| {
            range.start().as_u64() == at && range.len_bytes() / PAGE_BYTES == pages
        };
        let given = |range: &GvaRange| (ASKED..ASKED_END).contains(&range.start().as_u64());
        let place = self
            .mapped
            .iter()
            .position(|range| given(range) && piece(range))
            .ok_or(SpaceError::Invalid)?;
        let range = self.mapped.swap_remove(place);
        self.pages -= pages;
        self.unmap(memory::memory()?, range)
    }

    fn map(&mut self, memory: &Memory, range: GvaRange, rights: Rights) -> Result<(), SpaceError> {
        let pages = range.len_bytes() / PAGE_BYTES;
        let total = self
            .pages
            .checked_add(pages)
            .filter(|total| *total <= MAX_PAGES)
            .ok_or(SpaceError::Quota)?;
        self.mapped.try_reserve(1).map_err(|_| memory::EXHAUSTED)?;
        let table = self.table.as_mut().ok_or(svsm_mm::Error::Bug)?;
        let mut frames = memory.frames();
        let mut editor = table.editor(&mut frames, memory.window());
        let outcome = editor.map_fresh(range, Attributes::private(rights.user()), PageSize::Size4K);
        // Mapped in part or whole: all of it is to be unmapped in the end.
        self.mapped.push(range);
        match outcome {
            Ok(()) => {
                self.pages = total;
                Ok(())
            }
            Err(stopped) => {
                self.mapped.pop();
                self.unmap(memory, range)?;
                Err(SpaceError::Memory(stopped.cause))
            }
        }
    }

    fn unmap(&mut self, memory: &Memory, range: GvaRange) -> Result<(), SpaceError> {
        let table = self.table.as_mut().ok_or(svsm_mm::Error::Bug)?;
        let mut frames = memory.frames();
        let (stale, outcome) = table.editor(&mut frames, memory.window()).unmap(range);
        let flushed = flush(stale);
        table
            .editor(&mut frames, memory.window())
            .reclaim(flushed)
            .map_err(|left| SpaceError::Memory(left.stopped.cause))?;
        outcome.map_err(|stopped| SpaceError::Memory(stopped.cause))
    }

    /// Writes the first contents of a page.
    fn fill(
        &self,
        memory: &Memory,
        page: Gva,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), SpaceError> {
        let table = self.table.as_ref().ok_or(svsm_mm::Error::Bug)?;
        let frame = table
            .translate(memory.window(), page)?
            .ok_or(svsm_mm::Error::NotMapped { at: page })?;
        // SAFETY: the frame was taken for this page when it was mapped, and the process does not run yet.
        #[expect(unsafe_code, reason = "fills a page of a process")]
        let mapping = unsafe { memory.window().map(frame, Visibility::Private)? };
        Ok(mapping.write(offset, bytes)?)
    }
}

impl Drop for Space {
    /// Gives all frames back. By then no CPU uses the page table.
    fn drop(&mut self) {
        let Ok(memory) = memory::memory() else { return };
        let mapped = core::mem::take(&mut self.mapped);
        let emptied = mapped
            .into_iter()
            .map(|range| self.unmap(memory, range))
            .fold(true, |all, one| all && one.is_ok());
        if let Some(table) = self.table.take()
            && emptied
        {
            // The source refuses only what is not its own, and the root is.
            let _ = memory.frames().give(table.into_root());
        }
    }
}

/// Forgets translations of a process. It runs on this CPU or on none, and whichever CPU takes it up next loads CR3.
fn flush(stale: StaleTlb) -> svsm_mm::table::Flushed {
    // SAFETY: reloads what is loaded already.
    #[expect(unsafe_code, reason = "loads CR3")]
    unsafe {
        insn::write_cr3(insn::read_cr3());
    }
    // SAFETY: no mapping of a process is global, so the load above has removed them from this CPU; others have loaded another
    // CR3 when they left the process.
    #[expect(unsafe_code, reason = "vouches for the flush")]
    unsafe {
        stale.assume_flushed()
    }
}

fn gva(address: u64) -> Result<Gva, SpaceError> {
    Gva::new(address).ok_or(SpaceError::Invalid)
}

fn range(start: u64, end: u64) -> Result<GvaRange, SpaceError> {
    GvaRange::from_bounds(gva(start)?, gva(end)?).ok_or(SpaceError::Invalid)
}
