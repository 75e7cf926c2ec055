//! Page tables of x86-64, four or five levels.
//!
//! A [`PageTable`] owns its tables' frames. It is read through a [`Window`] and changed by an
//! [`Editor`], which also has a [`FrameSource`] for the tables it must add:
//!
//! - [`Editor::map`] and [`Editor::map_fresh`] use the largest pages that fit, and descend once per
//!   table, not once per page.
//! - [`Editor::unmap`], [`Editor::protect`] and [`Editor::set_visibility`] answer with a
//!   [`StaleTlb`]. What was unmapped keeps its frames until the token went through a
//!   [`Shootdown`] and came to [`Editor::reclaim`]: no frame is reused while a processor can
//!   still reach it.
//! - Range operations stop at the first obstacle and say how far they came ([`Stopped`]); what is
//!   done stays done.
//!
//! Whoever loads a page table into CR3 (an unsafe operation of `svsm-platform`) promises that it
//! stays loaded no longer than the [`PageTable`] lives, that stale tokens go through a shootdown
//! that reaches all CPUs which use it, and that the code which edits it keeps what live references
//! need mapped. Tables that no processor uses, such as those of an image builder, need no such promise.

use svsm_platform::addr::{Gpa, GvaRange, PageSize};
use svsm_platform::cpu::cr::Cr3;
use svsm_platform::encryption::{Encryption, Visibility};
pub use svsm_platform::seam::Stopped;

use crate::frame::{Frame, FrameSource, Order, Refused};
use crate::window::{Window, WordIndex};
use crate::{Error, Result};

mod attributes;
mod change;
mod entry;
mod flush;
mod local;
mod map;
mod share;
mod unmap;
mod walk;

pub use attributes::{Attributes, Cache, Rights};
pub use flush::{Flushed, Shootdown, StaleTlb};
#[cfg(target_arch = "x86_64")]
pub use local::Processor;
pub use local::{LocalTlb, OneCpu};
pub use unmap::Unreclaimed;
pub use walk::Leaf;

use entry::{Codec, Entry, LeafFlags, Level};

/// How many levels a page table has: CR4.LA57 decides for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Levels {
    /// 48-bit addresses.
    Four,
    /// 57-bit addresses, of which this crate maps those that four levels have as well.
    Five,
}

/// A page table: the root, and all tables below that are not another's.
#[derive(Debug)]
pub struct PageTable {
    root: Frame,
    levels: Levels,
    codec: Codec,
    /// How often something was unmapped; tells whether a flush came after all of it.
    epoch: u64,
    /// Made in memory that no processor has; see [`Window::SIMULATED`].
    simulated: bool,
}

impl PageTable {
    /// A page table that maps nothing. `root` becomes its root.
    ///
    /// # Errors
    /// The frame and the reason, if it is not a single one, or the window does not show it.
    pub fn new<W: Window>(
        root: Frame,
        encryption: Encryption,
        levels: Levels,
        window: &W,
    ) -> core::result::Result<Self, Refused> {
        if root.order() != Order::SINGLE {
            let error = Error::Misaligned {
                address: root.bytes(),
            };
            return Err(Refused { frame: root, error });
        }
        let table = Self {
            root,
            levels,
            codec: Codec(encryption),
            epoch: 0,
            simulated: W::SIMULATED,
        };
        match clear(window, table.root.base()).and_then(|()| table.cr3()) {
            Ok(_) => Ok(table),
            Err(error) => Err(Refused {
                frame: table.root,
                error,
            }),
        }
    }

    /// The page table that an image builder made with this module, or that an earlier stage used.
    ///
    /// # Safety
    /// `root` is the root of a page table made by this module with the same encryption and levels.
    /// Nobody else changes it or holds any of its frames.
    #[expect(unsafe_code, reason = "the caller vouches for what lies in the frame")]
    pub const unsafe fn adopt(root: Frame, encryption: Encryption, levels: Levels) -> Self {
        Self {
            root,
            levels,
            codec: Codec(encryption),
            epoch: 0,
            simulated: false,
        }
    }

    /// The address of the root.
    #[must_use]
    pub const fn root(&self) -> Gpa {
        self.root.base()
    }

    /// How addresses say private or shared here.
    #[must_use]
    pub const fn encryption(&self) -> Encryption {
        self.codec.0
    }

    /// How many levels there are.
    #[must_use]
    pub const fn levels(&self) -> Levels {
        self.levels
    }

    /// The value for CR3: the root as a private page, no PCID.
    ///
    /// # Errors
    /// [`Error::NotEncodable`] if the root cannot be private, which [`PageTable::new`] refuses.
    pub fn cr3(&self) -> Result<Cr3> {
        let page = self.root();
        let bits = self.encryption().encode(page, Visibility::Private);
        bits.map(Cr3::from_bits).ok_or(Error::NotEncodable { page })
    }

    /// Gives the root's frame back. Unmap and reclaim everything first: frames that are still
    /// mapped or retired are lost.
    pub fn into_root(self) -> Frame {
        self.root
    }

    /// What changes the page table. New tables come from `frames` and are reached by `window`.
    pub const fn editor<'t, F: FrameSource, W: Window>(
        &'t mut self,
        frames: &'t mut F,
        window: &'t W,
    ) -> Editor<'t, F, W> {
        Editor {
            table: self,
            frames,
            window,
        }
    }

    const fn top(&self) -> Level {
        match self.levels {
            Levels::Four => Level(4),
            Levels::Five => Level(5),
        }
    }
}

/// A [`PageTable`] being changed.
#[derive(Debug)]
pub struct Editor<'t, F, W> {
    table: &'t mut PageTable,
    frames: &'t mut F,
    window: &'t W,
}

/// A range that an operation is working through, from its start to its end.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    start: u64,
    at: u64,
    end: u64,
}

impl Cursor {
    /// The range as a cursor at its start.
    fn new(range: GvaRange) -> Result<Self, Stopped<Error>> {
        for bound in [range.start(), range.end()] {
            if !bound.is_aligned(PageSize::Size4K) {
                let address = bound.as_u64();
                return Err(Stopped::at_start(Error::Misaligned { address }));
            }
        }
        let (start, end) = (range.start().as_u64(), range.end().as_u64());
        Ok(Self {
            start,
            at: start,
            end,
        })
    }

    const fn is_done(&self) -> bool {
        self.at >= self.end
    }

    /// Where the part of the range ends that the current entry of `level` covers.
    fn entry_end(&self, level: Level) -> u64 {
        (self.at | (level.entry_bytes() - 1))
            .saturating_add(1)
            .min(self.end)
    }

    /// Whether the range has all that the current entry of `level` covers.
    fn covers_entry(&self, level: Level) -> bool {
        self.at.is_multiple_of(level.entry_bytes()) && self.end - self.at >= level.entry_bytes()
    }

    fn gva(&self) -> Result<svsm_platform::addr::Gva> {
        svsm_platform::addr::Gva::new(self.at).ok_or(Error::Bug)
    }

    /// The answer for an operation that came as far as the cursor.
    fn finish(&self, outcome: Result<()>) -> Result<(), Stopped<Error>> {
        outcome.map_err(|cause| Stopped {
            done_bytes: self.at - self.start,
            doubtful_bytes: 0,
            cause,
        })
    }
}

/// Shows a table, or a page about to be mapped.
///
/// Every caller passes a root, or the target of an entry of this page table that says "table", or
/// a page of a frame that it has just taken from the source.
#[expect(unsafe_code, reason = "the one place where tables are reached")]
fn open<W: Window>(window: &W, table: Gpa) -> Result<W::Mapping<'_>> {
    // SAFETY: the page lies in a frame that the caller holds, or in one that the page table took
    // over when it wrote the entry and gives back only after a flush; whoever borrows the page table
    // may access that. For entries that were there before, `adopt` has its caller promise the same.
    unsafe { window.map(table, Visibility::Private) }
}

/// Makes a frame's page an empty table.
fn clear<W: Window>(window: &W, table: Gpa) -> Result<()> {
    open(window, table)?.clear();
    Ok(())
}

impl<F: FrameSource, W: Window> Editor<'_, F, W> {
    /// Takes a frame for a table, has it filled, and answers with the entry that points to it.
    fn new_table(&mut self, user: bool, fill: impl FnOnce(&W, Gpa) -> Result<()>) -> Result<Entry> {
        let frame = self.frames.take(Order::SINGLE)?;
        let at = frame.base();
        match fill(self.window, at).and_then(|()| self.table.codec.table(at, user)) {
            Ok(entry) => Ok(entry),
            Err(error) => {
                // If the source refuses its own frame, that is not what the caller must hear of.
                let _ = self.frames.give(frame);
                Err(error)
            }
        }
    }

    /// Makes a table out of a large page, so that its parts can differ. Each part keeps all that
    /// the page was, and whether it was shared or private above all.
    fn split(&mut self, page: Entry, level: Level) -> Result<Entry> {
        let below = level.below()?;
        let first = page.first_part(level);
        self.new_table(page.is_user(), |window, table| {
            let table = open(window, table)?;
            for index in WordIndex::all() {
                let offset = u64::from(index.as_u16()) * below.entry_bytes();
                table.store(index, first.moved(offset).0);
            }
            Ok(())
        })
    }
}

/// The entry of a level 1 table that maps the page at `page`, for windows that have such a table.
pub(crate) fn page_entry(encryption: Encryption, page: Gpa, attributes: Attributes) -> Result<u64> {
    let flags = LeafFlags::new(attributes, Level(1), false);
    Codec(encryption).leaf(page, flags).map(|entry| entry.0)
}

/// The entry of a level 2 table that maps the 2 MiB at `page`, for windows that have such an entry.
pub(crate) fn large_entry(
    encryption: Encryption,
    page: Gpa,
    attributes: Attributes,
) -> Result<u64> {
    let flags = LeafFlags::new(attributes, Level(2), false);
    Codec(encryption).leaf(page, flags).map(|entry| entry.0)
}

#[cfg(test)]
mod tests;
