//! Address spaces: a page table, and a list of what is where.

use svsm_platform::addr::{Gpa, Gva, GvaRange, PageSize};

use crate::frame::FrameSource;
use crate::table::{Attributes, PageTable, Rights, Shootdown, StaleTlb, Stopped, Unreclaimed};
use crate::window::Window;
use crate::{Error, Result};

mod access;
mod region;

pub use region::{Backing, Region};

use region::Regions;

/// What it takes to change an address space.
#[derive(Debug)]
pub struct Means<'a, F, W, S> {
    /// Where frames come from and go to.
    pub frames: &'a mut F,
    /// How their contents are reached.
    pub window: &'a W,
    /// How other processors are made to forget.
    pub shootdown: &'a mut S,
}

/// Where a new region goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Place {
    /// Exactly there.
    At(GvaRange),
    /// Wherever there is room.
    Anywhere {
        /// How much is needed; whole pages.
        len_bytes: u64,
        /// What its start has to be a multiple of.
        align: PageSize,
    },
    /// As [`Anywhere`](Self::Anywhere), with a page before and one after that stay unmapped: for
    /// stacks.
    Guarded {
        /// How much is needed between the guards; whole pages.
        len_bytes: u64,
    },
}

/// Whether user mode reaches the mappings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    User,
    Kernel,
}

/// An address space, or a part of the kernel's: the page table, an area of it, and its regions.
///
/// Everything mapped here is a [`Region`]. Memory of the space's own is cleared when it comes and
/// returns to the frame source when it is unmapped, after a shootdown.
#[derive(Debug)]
pub struct AddressSpace {
    table: PageTable,
    area: GvaRange,
    mode: Mode,
    regions: Regions,
    /// What was unmapped but not flushed or not reclaimed, because that failed.
    pending: Option<StaleTlb>,
}

impl AddressSpace {
    /// An address space of a process, whose regions lie in `area` and are user mode's.
    #[must_use]
    pub const fn user(table: PageTable, area: GvaRange) -> Self {
        Self::new(table, area, Mode::User)
    }

    /// An area of the kernel's address space, whose regions are supervisor mode's and global.
    #[must_use]
    pub const fn kernel(table: PageTable, area: GvaRange) -> Self {
        Self::new(table, area, Mode::Kernel)
    }

    const fn new(table: PageTable, area: GvaRange, mode: Mode) -> Self {
        Self {
            table,
            area,
            mode,
            regions: Regions::new(),
            pending: None,
        }
    }

    /// The page table.
    #[must_use]
    pub const fn table(&self) -> &PageTable {
        &self.table
    }

    /// Where regions may lie.
    #[must_use]
    pub const fn area(&self) -> GvaRange {
        self.area
    }

    /// All regions in order.
    pub fn regions(&self) -> impl ExactSizeIterator<Item = &Region> {
        self.regions.iter()
    }

    /// The region that maps `at`, if one does.
    #[must_use]
    pub fn region(&self, at: Gva) -> Option<&Region> {
        self.regions
            .reserving(at)
            .filter(|region| region.range().contains(at))
    }

    /// Makes a region of cleared memory of its own.
    ///
    /// # Errors
    /// Why there is none; nothing has changed then.
    pub fn map_fresh<F: FrameSource, W: Window, S: Shootdown>(
        &mut self,
        means: &mut Means<'_, F, W, S>,
        place: Place,
        rights: Rights,
    ) -> Result<GvaRange> {
        let region = self.place(place, rights, Backing::Fresh)?;
        let attributes = self.attributes(Attributes::private(rights));
        let mut editor = self.table.editor(means.frames, means.window);
        let outcome = editor.map_fresh(region.range(), attributes, PageSize::Size2M);
        self.keep(means, region, outcome)
    }

    /// Makes a region of memory that belongs to someone else: a device's, or a part of an image.
    ///
    /// # Errors
    /// Why there is none; nothing has changed then.
    pub fn map_memory<F: FrameSource, W: Window, S: Shootdown>(
        &mut self,
        means: &mut Means<'_, F, W, S>,
        place: Place,
        to: Gpa,
        attributes: Attributes,
    ) -> Result<GvaRange> {
        let region = self.place(place, attributes.rights, Backing::Memory(to))?;
        let attributes = self.attributes(attributes);
        let mut editor = self.table.editor(means.frames, means.window);
        let outcome = editor.map_up_to(region.range(), to, attributes, PageSize::Size2M);
        self.keep(means, region, outcome)
    }

    /// Makes a region that is never mapped, so that nothing else comes there.
    ///
    /// # Errors
    /// Why there is none.
    pub fn reserve(&mut self, place: Place) -> Result<GvaRange> {
        let region = self.place(place, Rights::READ, Backing::Nothing)?;
        let range = region.range();
        self.regions.insert(region)?;
        Ok(range)
    }

    /// Unmaps whatever is in `range`, and takes it out of the regions, which may cut them.
    ///
    /// # Errors
    /// How far it came, and why it stopped. [`Error::Unflushed`] after all of it means that it is
    /// unmapped, but that frames are not given back before a later call succeeds.
    pub fn unmap<F: FrameSource, W: Window, S: Shootdown>(
        &mut self,
        means: &mut Means<'_, F, W, S>,
        range: GvaRange,
    ) -> Result<(), Stopped<Error>> {
        self.check(range).map_err(Stopped::at_start)?;
        self.regions.make_room().map_err(Stopped::at_start)?;
        let (stale, outcome) = self.table.editor(means.frames, means.window).unmap(range);
        let done_bytes = outcome.map_or_else(|stopped| stopped.done_bytes, |()| range.len_bytes());
        let done = GvaRange::new(range.start(), done_bytes);
        self.regions
            .remove(done.ok_or(Stopped::at_start(Error::Bug))?);
        let settled = self.settle(means, stale);
        outcome.and(settled.map_err(|cause| Stopped {
            done_bytes,
            doubtful_bytes: 0,
            cause,
        }))
    }

    /// Gives all of `range`, which must be mapped, these rights.
    ///
    /// # Errors
    /// How far it came, and why it stopped.
    pub fn protect<F: FrameSource, W: Window, S: Shootdown>(
        &mut self,
        means: &mut Means<'_, F, W, S>,
        range: GvaRange,
        rights: Rights,
    ) -> Result<(), Stopped<Error>> {
        self.check(range).map_err(Stopped::at_start)?;
        self.regions.make_room().map_err(Stopped::at_start)?;
        let new = self.attributes(Attributes::private(rights)).rights;
        let (stale, outcome) = self
            .table
            .editor(means.frames, means.window)
            .protect(range, new);
        let done_bytes = outcome.map_or_else(|stopped| stopped.done_bytes, |()| range.len_bytes());
        let done = GvaRange::new(range.start(), done_bytes);
        self.regions
            .protect(done.ok_or(Stopped::at_start(Error::Bug))?, rights);
        let settled = self.settle(means, stale);
        outcome.and(settled.map_err(|cause| Stopped {
            done_bytes,
            doubtful_bytes: 0,
            cause,
        }))
    }

    /// Unmaps everything. After success the page table maps nothing of the area any more, and
    /// [`into_table`](Self::into_table) leads to its root's frame.
    ///
    /// # Errors
    /// How far it came, and why it stopped.
    pub fn clear<F: FrameSource, W: Window, S: Shootdown>(
        &mut self,
        means: &mut Means<'_, F, W, S>,
    ) -> Result<(), Stopped<Error>> {
        self.unmap(means, self.area)
    }

    /// The page table, with all that is still mapped.
    #[must_use]
    pub fn into_table(self) -> PageTable {
        self.table
    }

    /// Finds a place and checks a wish.
    fn place(&mut self, place: Place, rights: Rights, backing: Backing) -> Result<Region> {
        self.regions.make_room()?;
        let page = PageSize::Size4K.bytes();
        let (range, guard_bytes) = match place {
            Place::At(range) => {
                self.check(range)?;
                if let Some(region) = self.regions.overlapping(range) {
                    return Err(Error::Mapped {
                        at: region.reserved().start().max(range.start()),
                    });
                }
                (range, 0)
            }
            Place::Anywhere { len_bytes, align } => {
                (self.regions.find(self.area, len_bytes, align, 0)?, 0)
            }
            Place::Guarded { len_bytes } => {
                let align = PageSize::Size4K;
                (self.regions.find(self.area, len_bytes, align, page)?, page)
            }
        };
        if range.is_empty() {
            return Err(Error::OutOfBounds {
                offset: range.start().as_u64(),
                len_bytes: 0,
            });
        }
        Region::new(range, guard_bytes, rights, backing)
    }

    /// Keeps a region whose pages were mapped, or undoes what was.
    fn keep<F: FrameSource, W: Window, S: Shootdown>(
        &mut self,
        means: &mut Means<'_, F, W, S>,
        region: Region,
        outcome: Result<(), Stopped<Error>>,
    ) -> Result<GvaRange> {
        let range = region.range();
        let Err(stopped) = outcome else {
            self.regions.insert(region)?;
            return Ok(range);
        };
        // Where frames ran out, a table may have been made for the page that got none.
        let extra = match stopped.cause {
            Error::OutOfFrames { .. } => PageSize::Size4K.bytes(),
            _ => 0,
        };
        let reached = stopped
            .done_bytes
            .saturating_add(extra)
            .min(range.len_bytes());
        let touched = GvaRange::new(range.start(), reached).ok_or(Error::Bug)?;
        let (stale, undone) = self.table.editor(means.frames, means.window).unmap(touched);
        // What cannot be given back now stays retired, and the pending token remembers it.
        let _ = undone
            .map_err(|stopped| stopped.cause)
            .and(self.settle(means, stale));
        Err(stopped.cause)
    }

    /// Flushes, and gives back what that sets free.
    fn settle<F: FrameSource, W: Window, S: Shootdown>(
        &mut self,
        means: &mut Means<'_, F, W, S>,
        stale: StaleTlb,
    ) -> Result<()> {
        let stale = match self.pending.take() {
            None if stale.range().is_empty() => return Ok(()),
            None => stale,
            Some(pending) => pending.join(stale).map_err(|_| Error::Bug)?,
        };
        let flushed = match means.shootdown.flush(stale) {
            Ok(flushed) => flushed,
            Err((stale, _)) => {
                self.pending = Some(stale);
                return Err(Error::Unflushed);
            }
        };
        let reclaimed = self
            .table
            .editor(means.frames, means.window)
            .reclaim(flushed);
        reclaimed.map_err(|Unreclaimed { stale, stopped }| {
            self.pending = Some(stale);
            stopped.cause
        })
    }

    fn check(&self, range: GvaRange) -> Result<()> {
        for bound in [range.start(), range.end()] {
            if !bound.is_aligned(PageSize::Size4K) {
                return Err(Error::Misaligned {
                    address: bound.as_u64(),
                });
            }
        }
        if self.area.contains_range(&range) {
            Ok(())
        } else {
            Err(Error::OutsideArea { range })
        }
    }

    const fn attributes(&self, wanted: Attributes) -> Attributes {
        match self.mode {
            Mode::User => Attributes {
                rights: wanted.rights.user(),
                global: false,
                ..wanted
            },
            Mode::Kernel => Attributes {
                global: true,
                ..wanted
            },
        }
    }
}

#[cfg(test)]
mod tests;
