//! The memory of a process: its program, its stack, and what it asked for since.

use core::convert::Infallible;

use svsm_mm::frame::FrameSource;
use svsm_mm::space::{AddressSpace, Means, Place};
use svsm_mm::table::{Flushed, Rights, Shootdown, StaleTlb};
use svsm_mm::window::{DirectWindow, PAGE_BYTES};
use svsm_platform::addr::{Gva, GvaRange, PageCount, PageSize};
use svsm_platform::cpu::cr::Cr3;
use svsm_platform::cpu::insn;
use svsm_syscall::abi::SysError;
use svsm_syscall::memory::UserSlice;
use svsm_syscall::program::{self, Limits, Program, ProgramError};

use crate::memory::{self, Frames, Memory};

/// The first address of programs.
const START: u64 = 0x40_0000;
/// Where what a process can have ends.
const END: u64 = 0x4000_0000_0000;
/// Bytes of the stack of a program that asks for none.
const STACK_BYTES: u64 = 64 << 10;
/// The most that a program gets.
const MAX_STACK_BYTES: u64 = 1 << 20;
/// The most pages of a program.
const PROGRAM_PAGES: u64 = 1024;

/// Why a process has no memory.
#[derive(Clone, Copy, Debug, defmt::Format)]
pub(crate) enum SpaceError {
    /// The program's file is not in order.
    Program(ProgramError),
    /// There is no memory, or a mapping failed.
    Memory(svsm_mm::Error),
}

impl From<svsm_mm::Error> for SpaceError {
    fn from(error: svsm_mm::Error) -> Self {
        Self::Memory(error)
    }
}

impl From<SpaceError> for SysError {
    fn from(error: SpaceError) -> Self {
        match error {
            SpaceError::Program(_) => Self::INVALID,
            SpaceError::Memory(_) => Self::NO_MEMORY,
        }
    }
}

/// The lower half of a process's address space.
#[derive(Debug)]
pub(crate) struct Space(Option<AddressSpace>);

/// Where a program starts, and the upper end of its stack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    pub(crate) entry: Gva,
    pub(crate) stack: Gva,
}

impl Space {
    /// Memory for the program in `file`, filled, and where that starts.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn load(file: &[u8]) -> Result<(Self, Start), SpaceError> {
        let bug = svsm_mm::Error::Bug;
        let area = Gva::new(START)
            .zip(Gva::new(END))
            .and_then(|(start, end)| GvaRange::from_bounds(start, end));
        let area = area.ok_or(bug)?;
        let limits = Limits {
            space: area,
            pages: PageCount::new(PROGRAM_PAGES),
        };
        let plan = Program::plan(file, &limits).map_err(SpaceError::Program)?;
        let memory = memory::memory()?;
        let mut this = Self(Some(AddressSpace::user(memory.new_table()?, area)));
        let space = this.0.as_mut().ok_or(bug)?;
        for segment in plan.segments() {
            let rights = table_rights(segment.rights());
            space.map_fresh(
                &mut means(memory, &mut memory.frames(), &mut Here),
                Place::At(segment.pages()),
                rights,
            )?;
            for page in segment.pages().pages(PageSize::Size4K).ok_or(bug)? {
                let (lead, bytes) = segment.contents(page);
                let at = page.checked_add(lead as u64).ok_or(bug)?;
                space.write(memory.window(), at, bytes)?;
            }
        }
        let stack = plan.stack_bytes().unwrap_or(STACK_BYTES);
        let place = Place::Guarded {
            len_bytes: stack.min(MAX_STACK_BYTES).next_multiple_of(PAGE_BYTES),
        };
        let stack = space.map_fresh(
            &mut means(memory, &mut memory.frames(), &mut Here),
            place,
            Rights::READ_WRITE,
        )?;
        Ok((
            this,
            Start {
                entry: plan.entry(),
                stack: stack.end(),
            },
        ))
    }

    /// The root of its page table, as the processor wants it.
    ///
    /// # Errors
    /// The space is gone.
    pub(crate) fn cr3(&self) -> svsm_mm::Result<Cr3> {
        self.0.as_ref().ok_or(svsm_mm::Error::Bug)?.table().cr3()
    }

    /// Gives the process zeroed memory.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn ask(&mut self, pages: u64, rights: program::Rights) -> svsm_mm::Result<Gva> {
        let memory = memory::memory()?;
        let len_bytes = pages.checked_mul(PAGE_BYTES).ok_or(memory::EXHAUSTED)?;
        let space = self.0.as_mut().ok_or(svsm_mm::Error::Bug)?;
        let place = Place::Guarded { len_bytes };
        let mut frames = memory.frames();
        Ok(space
            .map_fresh(
                &mut means(memory, &mut frames, &mut Here),
                place,
                table_rights(rights),
            )?
            .start())
    }

    /// Takes memory of the process back, whole pages, and answers how many they were.
    ///
    /// # Errors
    /// Why not all of it was mapped or unmapped.
    pub(crate) fn give_back(&mut self, memory_of: UserSlice) -> svsm_mm::Result<u64> {
        let bug = svsm_mm::Error::Bug;
        let memory = memory::memory()?;
        let space = self.0.as_mut().ok_or(bug)?;
        let start = Gva::new(memory_of.start()).ok_or(bug)?;
        let pages = (memory_of.len_bytes() as u64).div_ceil(PAGE_BYTES);
        let range = GvaRange::new(start, pages * PAGE_BYTES).ok_or(bug)?;
        // Only what it has: the caller counts pages.
        let region = space
            .region(start)
            .filter(|region| region.range().contains_range(&range));
        if region.is_none() || range.is_empty() {
            return Err(svsm_mm::Error::NotMapped { at: start });
        }
        let mut frames = memory.frames();
        space
            .unmap(&mut means(memory, &mut frames, &mut Here), range)
            .map_err(|stopped| stopped.cause)?;
        Ok(pages)
    }
}

impl Drop for Space {
    /// Gives all frames back. By then no CPU uses the page table.
    fn drop(&mut self) {
        let (Ok(memory), Some(mut space)) = (memory::memory(), self.0.take()) else {
            return;
        };
        let mut frames = memory.frames();
        // What cannot be unmapped keeps its frames, and its root with them.
        if space
            .clear(&mut means(memory, &mut frames, &mut Here))
            .is_ok()
        {
            let _ = frames.give(space.into_table().into_root());
        }
    }
}

type SpaceMeans<'a> = Means<'a, &'static Frames, DirectWindow, Here>;

fn means<'a>(
    memory: &'static Memory,
    frames: &'a mut &'static Frames,
    here: &'a mut Here,
) -> SpaceMeans<'a> {
    Means {
        frames,
        window: memory.window(),
        shootdown: here,
    }
}

const fn table_rights(rights: program::Rights) -> Rights {
    match rights {
        program::Rights::Read => Rights::READ,
        program::Rights::Write => Rights::READ_WRITE,
        program::Rights::Execute => Rights::READ_EXECUTE,
    }
}

/// Makes this CPU forget translations of a process: the process runs here or nowhere, and whichever CPU takes it up next loads
/// CR3, which forgets all that is not global.
struct Here;

impl Shootdown for Here {
    type Error = Infallible;

    fn flush(&mut self, stale: StaleTlb) -> Result<Flushed, (StaleTlb, Infallible)> {
        // SAFETY: loads what is loaded already.
        #[expect(unsafe_code, reason = "loads CR3")]
        unsafe {
            insn::write_cr3(insn::read_cr3());
        }
        // SAFETY: no mapping of a process is global, so the load above removed them from this CPU; others loaded another CR3
        // when they left the process.
        #[expect(unsafe_code, reason = "vouches for the flush")]
        Ok(unsafe { stale.assume_flushed() })
    }
}
