//! Memory of the guest: whose it is, and how each CPU reaches it.
#![expect(
    unsafe_code,
    reason = "reaches memory that a guest and a host can change"
)]

use core::ptr::{NonNull, with_exposed_provenance_mut};
use core::sync::atomic::{AtomicU64, Ordering};

use svsm_mm::table::Processor as Tlb;
use svsm_mm::window::{LargeWindow, TempWindow, Window, fallible};
use svsm_platform::addr::{Gpa, GpaRange, Gva, PageSize};
use svsm_platform::cpu::cr::Efer;
use svsm_platform::encryption::Visibility;
use svsm_platform::level::Vmpl;
use svsm_platform::seam::{GuestAccess, GuestMap, Owner, PageState, Rights, Stopped};
use svsm_platform::snp::insn::{Insn, Processor, RmpSize};
use svsm_platform::snp::vmsa::{Field, VintrCtrl};
use svsm_platform::snp::{Error, Failure, Pages, Reach};
use svsm_protocol::seam::{GuestMemory, GuestPages, PageError, SaveAreas, Unreachable};
use svsm_stage2::params::MemoryRegion;

use crate::machine::snp;
use crate::memory;

/// Ranges of memory in a machine's map.
pub(super) const MAX_REGIONS: usize = 32;

/// Whose memory is whose, from the loader's map, which is the host's word: memory that is not there faults, and faults are
/// handled.
#[derive(Debug)]
pub(super) struct Map {
    regions: [MemoryRegion; MAX_REGIONS],
    svsm: GpaRange,
    /// Where the guest's firmware lies, if it has one: the image asks for memory there, and no map shows it.
    firmware: Option<GpaRange>,
}

impl Map {
    /// The machine's memory without the SVSM's, and with that of the guest's firmware.
    pub(super) fn new(
        regions: &[MemoryRegion],
        svsm: GpaRange,
        firmware: Option<GpaRange>,
    ) -> Self {
        let mut kept = [MemoryRegion::NONE; MAX_REGIONS];
        for (to, from) in kept.iter_mut().zip(regions) {
            *to = *from;
        }
        Self {
            regions: kept,
            svsm,
            firmware,
        }
    }

    /// The guest's memory, in ascending order.
    pub(super) fn ranges(&self) -> impl Iterator<Item = GpaRange> {
        self.regions
            .iter()
            .filter(|region| region.kind.is_usable() && !region.range.is_empty())
            .map(|region| region.range)
            .filter(|range| !range.overlaps(&self.svsm))
    }
}

impl GuestMap for Map {
    fn owner(&self, range: GpaRange) -> Option<Owner> {
        if self.svsm.contains_range(&range) {
            return Some(Owner::Svsm);
        }
        let mut ranges = self.ranges().chain(self.firmware);
        let guests = ranges.any(|ram| ram.contains_range(&range));
        (guests && !range.overlaps(&self.svsm)).then_some(Owner::Guest)
    }
}

/// The windows of one CPU. Made anew for each use; a CPU does one thing at a time.
pub(super) struct Reached {
    small: TempWindow<Tlb>,
    large: LargeWindow<Tlb>,
}

impl Reached {
    /// The windows of the CPU that asks.
    pub(super) fn here() -> Option<Self> {
        let (entry, place) = memory::memory().ok()?.large_place(crate::cpu::index())?;
        // SAFETY: the place is this CPU's own, and the entry is what translates it.
        let large = unsafe { LargeWindow::new(entry, place, snp::encryption()?, Tlb) }.ok()?;
        Some(Self {
            small: snp::own_window()?,
            large,
        })
    }

    /// Runs `run` with the place where a page is shown.
    fn small<R>(&self, page: Gpa, run: impl FnOnce(NonNull<u8>) -> R) -> Option<R> {
        // SAFETY: the page is not accessed through the answer; what `run` does, its caller vouches for.
        let _shown = unsafe { self.small.map(page, Visibility::Private) }.ok()?;
        let at = snp::own_slot()?;
        let place = with_exposed_provenance_mut::<u8>(at.as_u64() as usize);
        Some(run(NonNull::new(place)?))
    }
}

// SAFETY: both windows map what they are asked for, as private, while the function runs.
unsafe impl Reach for Reached {
    fn reaches_large(&self) -> bool {
        true
    }

    fn reach<R>(&mut self, page: Gpa, size: RmpSize, run: impl FnOnce(Gva) -> R) -> Option<R> {
        match size {
            RmpSize::Size2M => self.large.show(page, Visibility::Private, run).ok(),
            RmpSize::Size4K => {
                let at = snp::own_slot()?;
                self.small(page, |_| run(at))
            }
        }
    }
}

/// What one CPU does to the guest's memory.
pub(super) struct Machine(Pages<'static, Processor, Reached>);

impl Machine {
    /// For the CPU that asks.
    pub(super) fn here() -> Option<Self> {
        // SAFETY: only pages of the guest are changed through this, and no Rust object lies in those.
        Some(Self(unsafe {
            Pages::new(Processor, snp::ghcb(), Reached::here()?)
        }))
    }

    /// Takes a range into use for `level` and those below it: from the host, if it has not given it yet.
    pub(super) fn prepare(&mut self, range: GpaRange, level: Vmpl) -> Result<(), Stopped<Error>> {
        self.0.make_private(range)?;
        self.hand_over(range, level)
    }

    /// The same for a page that may be in use already, because it came with the image.
    pub(super) fn prepare_loaded(&mut self, page: Gpa, level: Vmpl) -> Result<(), Stopped<Error>> {
        let range =
            GpaRange::page_of(page, PageSize::Size4K).ok_or(Stopped::at_start(Error::Unaligned))?;
        match self.0.validate(page, RmpSize::Size4K, true) {
            Ok(())
            | Err(Error::Instruction {
                failure: Failure::Unchanged,
                ..
            }) => {}
            Err(_) => self.0.make_private(range)?,
        }
        self.hand_over(range, level)
    }

    /// Gives a page that came with the image up, cleared: it is as memory that nobody has taken into use yet. One that is not in
    /// use stays as it is.
    pub(super) fn give_up(&mut self, page: Gpa) -> Result<(), Error> {
        if self.clear(page, PageSize::Size4K).is_err() {
            return Ok(());
        }
        self.0.validate(page, RmpSize::Size4K, false)
    }

    /// Clears a range, and gives it to `level` and those below it.
    fn hand_over(&mut self, range: GpaRange, level: Vmpl) -> Result<(), Stopped<Error>> {
        let mut at = range.start();
        while at < range.end() {
            let rest = range.end().checked_offset_from(at).unwrap_or(0);
            let large = at.is_aligned(PageSize::Size2M) && rest >= PageSize::Size2M.bytes();
            let size = if large {
                PageSize::Size2M
            } else {
                PageSize::Size4K
            };
            let gone = Stopped::at_start(Error::NotMapped { page: at });
            self.clear(at, size).map_err(|Unreachable| gone)?;
            at = at.checked_add(size.bytes()).ok_or(gone)?;
        }
        for below in [Vmpl::Vmpl1, Vmpl::Vmpl2, Vmpl::Vmpl3] {
            if below == level || level.is_above(below) {
                self.0.grant(range, below, ALL)?;
            }
        }
        Ok(())
    }

    /// How much was done.
    pub(super) const fn counts(&self) -> svsm_platform::snp::Counts {
        self.0.counts()
    }

    /// Makes a page of the SVSM's own the save area of a level.
    pub(super) fn make_save_area(&mut self, page: Gpa, level: Vmpl) -> Result<(), Error> {
        self.0
            .adjust(page, RmpSize::Size4K, level, Rights::empty(), true)
    }

    /// Runs `run` with a word of a page, which nobody of the guest can write.
    pub(super) fn word<R>(
        &mut self,
        page: Gpa,
        field: Field,
        run: impl FnOnce(&AtomicU64) -> R,
    ) -> Result<R, Unreachable> {
        let reach = self.0.reach();
        let word = |place: NonNull<u8>| {
            // SAFETY: the field lies in the page.
            let at = unsafe { place.add(field.offset().into()) }.cast::<AtomicU64>();
            // SAFETY: the page is shown as long as this runs, and the word is aligned.
            run(unsafe { at.as_ref() })
        };
        reach.small(page, word).ok_or(Unreachable)
    }
}

/// What a guest may do with its memory.
const ALL: Rights = Rights::READ
    .union(Rights::WRITE)
    .union(Rights::USER_EXECUTE)
    .union(Rights::SUPERVISOR_EXECUTE);

impl GuestMemory for Machine {
    fn read(&mut self, at: Gpa, to: &mut [u8]) -> Result<(), Unreachable> {
        self.part(at, to.len(), |place| {
            // SAFETY: the bytes lie in one page, which holds no Rust object.
            unsafe { fallible::try_read(place, to) }
        })
    }

    fn write(&mut self, at: Gpa, from: &[u8]) -> Result<(), Unreachable> {
        self.part(at, from.len(), |place| {
            // SAFETY: as above.
            unsafe { fallible::try_write(place, from) }
        })
    }

    fn clear(&mut self, page: Gpa, size: PageSize) -> Result<(), Unreachable> {
        let (size, words) = match size {
            PageSize::Size4K => (RmpSize::Size4K, 512),
            PageSize::Size2M => (RmpSize::Size2M, 512 * 512),
            PageSize::Size1G => return Err(Unreachable),
        };
        let clear = |at: Gva| {
            let place = with_exposed_provenance_mut::<u64>(at.as_u64() as usize);
            // SAFETY: the page is shown, and holds no Rust object.
            NonNull::new(place).is_some_and(|place| unsafe { fallible::try_clear(place, words) })
        };
        match self.0.reach().reach(page, size, clear) {
            Some(true) => Ok(()),
            _ => Err(Unreachable),
        }
    }
}

impl Machine {
    /// Runs `run` with the place of `len` bytes from `at` on, if they lie in one page.
    fn part(
        &mut self,
        at: Gpa,
        len: usize,
        run: impl FnOnce(NonNull<u8>) -> bool,
    ) -> Result<(), Unreachable> {
        let page = at.align_down(PageSize::Size4K);
        let offset = at.page_offset(PageSize::Size4K);
        if offset + len as u64 > PageSize::Size4K.bytes() {
            return Err(Unreachable);
        }
        let run = |place: NonNull<u8>| {
            // SAFETY: the offset lies in the page.
            run(unsafe { place.add(offset as usize) })
        };
        match self.0.reach().small(page, run) {
            Some(true) => Ok(()),
            _ => Err(Unreachable),
        }
    }
}

fn size_of_page(size: PageSize) -> Result<RmpSize, PageError> {
    match size {
        PageSize::Size4K => Ok(RmpSize::Size4K),
        PageSize::Size2M => Ok(RmpSize::Size2M),
        PageSize::Size1G => Err(PageError::Faulted),
    }
}

/// What the guest is told of an instruction.
fn told(error: Error) -> PageError {
    match error {
        Error::Instruction { failure, .. } => match failure {
            Failure::Input => PageError::Code(1),
            Failure::Permission => PageError::Code(2),
            Failure::SizeMismatch => PageError::Code(6),
            Failure::Unknown(code) => PageError::Code(code),
            Failure::Unchanged => PageError::Unchanged,
            Failure::Faulted => PageError::Faulted,
        },
        _ => PageError::Faulted,
    }
}

impl GuestPages for Machine {
    fn validate(&mut self, page: Gpa, size: PageSize, valid: bool) -> Result<(), PageError> {
        let size = size_of_page(size)?;
        self.0.validate(page, size, valid).map_err(told)
    }

    fn adjust(
        &mut self,
        page: Gpa,
        size: PageSize,
        level: Vmpl,
        rights: Rights,
        is_save_area: bool,
    ) -> Result<(), PageError> {
        self.0
            .adjust(page, size_of_page(size)?, level, rights, is_save_area)
            .map_err(told)
    }

    fn flush(&mut self) {
        Processor.flush_all();
    }
}

impl SaveAreas for Machine {
    fn stop(&mut self, area: Gpa) -> Result<bool, Unreachable> {
        self.word(area, Field::EFER, |efer| {
            efer.fetch_and(!Efer::SVME.bits(), Ordering::AcqRel)
        })?;
        let control = self.word(area, Field::VINTR_CTRL, |word| word.load(Ordering::Acquire))?;
        Ok(!VintrCtrl::from_bits_retain(control).contains(VintrCtrl::BUSY))
    }

    fn resume(&mut self, area: Gpa) -> Result<(), Unreachable> {
        self.word(area, Field::EFER, |efer| {
            efer.fetch_or(Efer::SVME.bits(), Ordering::AcqRel)
        })
        .map(drop)
    }
}
