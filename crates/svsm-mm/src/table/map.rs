//! Mapping.

use svsm_platform::addr::{Gpa, Gva, GvaRange, PageSize};

use super::entry::LeafFlags;
use super::{Attributes, Cursor, Editor, Entry, Level, Stopped, clear, open};
use crate::frame::{Frame, FrameSource, Refused};
use crate::window::{PAGE_BYTES, PageCell, Window, WordIndex};
use crate::{Error, Result};

/// What is put into empty entries.
#[derive(Clone, Copy)]
struct Fill {
    attributes: Attributes,
    largest: Level,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    /// Memory that belongs to someone else; what lies behind the first address mapped, less that
    /// address, all modulo 2^64.
    Linear(u64),
    /// New frames, cleared.
    Fresh,
}

impl Fill {
    /// Whether a page of `level` could start at the cursor.
    fn fits(&self, cursor: &Cursor, level: Level) -> bool {
        let aligned = match self.what {
            What::Linear(distance) => distance % level.entry_bytes() == 0,
            What::Fresh => true,
        };
        level <= self.largest && aligned && cursor.covers_entry(level)
    }
}

impl<F: FrameSource, W: Window> Editor<'_, F, W> {
    /// Maps `range` to the memory that starts at `to`, in the largest pages that fit: those of
    /// 1 GiB, too, which every processor with SEV-SNP or TDX has.
    ///
    /// The memory stays its owner's: unmapping does not give it to the frame source.
    ///
    /// # Errors
    /// How far it came, and why it stopped: [`Error::Mapped`] or [`Error::Retired`] if something
    /// is or was there, [`Error::OutOfFrames`] for tables, [`Error::NotEncodable`],
    /// [`Error::Misaligned`], [`Error::ForeignTable`].
    pub fn map(
        &mut self,
        range: GvaRange,
        to: Gpa,
        attributes: Attributes,
    ) -> Result<(), Stopped<Error>> {
        self.map_up_to(range, to, attributes, PageSize::Size1G)
    }

    /// As [`map`](Self::map), in pages of at most `largest`: where parts will get rights of their
    /// own soon, or the processor has no 1 GiB pages.
    ///
    /// # Errors
    /// As for [`map`](Self::map).
    pub fn map_up_to(
        &mut self,
        range: GvaRange,
        to: Gpa,
        attributes: Attributes,
        largest: PageSize,
    ) -> Result<(), Stopped<Error>> {
        if !to.is_aligned(PageSize::Size4K) {
            return Err(Stopped::at_start(Error::Misaligned {
                address: to.as_u64(),
            }));
        }
        if to.checked_add(range.len_bytes()).is_none() {
            let (offset, len_bytes) = (to.as_u64(), range.len_bytes());
            return Err(Stopped::at_start(Error::OutOfBounds { offset, len_bytes }));
        }
        let what = What::Linear(to.as_u64().wrapping_sub(range.start().as_u64()));
        self.fill_range(
            range,
            Fill {
                attributes,
                largest: level_of(largest),
                what,
            },
        )
    }

    /// Maps `range` to cleared frames from the source, in pages of at most `largest`, smaller where
    /// the source has no larger block. Unmapping and reclaiming gives them back.
    ///
    /// # Errors
    /// As for [`map`](Self::map).
    pub fn map_fresh(
        &mut self,
        range: GvaRange,
        attributes: Attributes,
        largest: PageSize,
    ) -> Result<(), Stopped<Error>> {
        let largest = level_of(largest);
        self.fill_range(
            range,
            Fill {
                attributes,
                largest,
                what: What::Fresh,
            },
        )
    }

    /// Maps the frame at `at`, as it is. Unmapping and reclaiming gives it back to the source, so
    /// it should be one of this source.
    ///
    /// # Errors
    /// The frame, and why it is not mapped: as for [`map`](Self::map), and [`Error::Misaligned`]
    /// unless the frame is a page of some size and `at` fits it.
    pub fn map_frame(
        &mut self,
        at: Gva,
        frame: Frame,
        attributes: Attributes,
    ) -> core::result::Result<(), Refused> {
        match self.put_frame(at, &frame, attributes) {
            Ok(()) => Ok(()),
            Err(error) => Err(Refused { frame, error }),
        }
    }

    fn put_frame(&mut self, at: Gva, frame: &Frame, attributes: Attributes) -> Result<()> {
        let misaligned = Error::Misaligned {
            address: at.as_u64(),
        };
        let size = PageSize::ALL
            .into_iter()
            .find(|size| size.bytes() == frame.bytes());
        let leaf_level = level_of(size.ok_or(misaligned)?);
        let leaf = self
            .table
            .codec
            .leaf(frame.base(), LeafFlags::new(attributes, leaf_level, true))?;
        let range = GvaRange::new(at, frame.bytes()).ok_or(misaligned)?;
        let cursor = Cursor::new(range).map_err(|stopped| stopped.cause)?;
        if !cursor.covers_entry(leaf_level) {
            return Err(misaligned);
        }
        let (mut level, mut table) = (self.table.top(), self.table.root());
        loop {
            let window = self.window;
            let page = open(window, table)?;
            let index = level.index(cursor.at);
            let entry = Entry(page.load(index));
            if level == leaf_level {
                if !entry.is_empty() {
                    return Err(occupied(entry, at));
                }
                page.store(index, leaf.0);
                return Ok(());
            }
            table = self.enter(&page, index, entry, level, at, attributes)?;
            level = level.below()?;
        }
    }

    fn fill_range(&mut self, range: GvaRange, fill: Fill) -> Result<(), Stopped<Error>> {
        let mut cursor = Cursor::new(range)?;
        if cursor.is_done() {
            return Ok(());
        }
        let (top, root) = (self.table.top(), self.table.root());
        let outcome = self.fill(top, root, &mut cursor, &fill);
        cursor.finish(outcome)
    }

    /// Fills the part of one table that the cursor's range has, and what is below it.
    fn fill(&mut self, level: Level, table: Gpa, cursor: &mut Cursor, fill: &Fill) -> Result<()> {
        let window = self.window;
        let page = open(window, table)?;
        let mut index = level.index(cursor.at);
        if let (Level(1), What::Linear(distance)) = (level, fill.what) {
            return self.fill_pages(&page, index, cursor, distance, fill.attributes);
        }
        let flags = LeafFlags::new(fill.attributes, level, matches!(fill.what, What::Fresh));
        loop {
            let entry = Entry(page.load(index));
            let leaf = if entry.is_empty() && fill.fits(cursor, level) {
                self.leaf(level, cursor, fill.what, flags)?
            } else {
                None
            };
            if let Some(leaf) = leaf {
                page.store(index, leaf.0);
                cursor.at += level.entry_bytes();
            } else {
                let at = cursor.gva()?;
                let below = self.enter(&page, index, entry, level, at, fill.attributes)?;
                self.fill(level.below()?, below, cursor, fill)?;
            }
            match index.next() {
                Some(next) if !cursor.is_done() => index = next,
                _ => return Ok(()),
            }
        }
    }

    /// Fills entries of a table of the lowest level: the loop in which mapping spends its time.
    fn fill_pages(
        &self,
        page: &PageCell,
        first: WordIndex,
        cursor: &mut Cursor,
        distance: u64,
        attributes: Attributes,
    ) -> Result<()> {
        let flags = LeafFlags::new(attributes, Level(1), false);
        let room = u64::from(WordIndex::COUNT - first.as_u16());
        let pages = room.min((cursor.end - cursor.at) / PAGE_BYTES);
        let leaf = |at: u64| {
            let page = Gpa::new(at.wrapping_add(distance)).ok_or(Error::Bug)?;
            self.table.codec.leaf(page, flags)
        };
        // Encryption bits lie above bit 31 and boundaries do not come in pairs: two pages less than
        // 4 GiB apart that have the visibility have all between them, in a line.
        let mut entry = leaf(cursor.at)?;
        leaf(cursor.at + (pages - 1) * PAGE_BYTES)?;
        let mut index = Some(first);
        for _ in 0..pages {
            let Some(here) = index else {
                return Err(Error::Bug);
            };
            let old = Entry(page.load(here));
            if !old.is_empty() {
                return Err(occupied(old, cursor.gva()?));
            }
            page.store(here, entry.0);
            entry = entry.next_page();
            cursor.at += PAGE_BYTES;
            index = here.next();
        }
        Ok(())
    }

    /// The entry for the page at the cursor; none if it has to be made of smaller pages.
    fn leaf(
        &mut self,
        level: Level,
        cursor: &Cursor,
        what: What,
        flags: LeafFlags,
    ) -> Result<Option<Entry>> {
        let codec = self.table.codec;
        match what {
            What::Linear(distance) => {
                let page = Gpa::new(cursor.at.wrapping_add(distance)).ok_or(Error::Bug)?;
                match codec.leaf(page, flags) {
                    // An alias that is too little aligned for this size: smaller pages may do.
                    Err(Error::NotEncodable { .. }) if level.0 > 1 => Ok(None),
                    leaf => leaf.map(Some),
                }
            }
            What::Fresh => {
                let frame = match self.frames.take(level.order()?) {
                    Ok(frame) => frame,
                    Err(Error::OutOfFrames { .. }) if level.0 > 1 => return Ok(None),
                    Err(error) => return Err(error),
                };
                let leaf = codec.leaf(frame.base(), flags);
                match leaf.and_then(|leaf| clear_frame(self.window, &frame).map(|()| leaf)) {
                    Ok(leaf) => Ok(Some(leaf)),
                    Err(error) => {
                        // If the source refuses its own frame, the first error matters more.
                        let _ = self.frames.give(frame);
                        Err(error)
                    }
                }
            }
        }
    }

    /// The table below an entry that is not a leaf, made if there is none.
    pub(super) fn enter(
        &mut self,
        page: &PageCell,
        index: WordIndex,
        entry: Entry,
        level: Level,
        at: Gva,
        attributes: Attributes,
    ) -> Result<Gpa> {
        let user = attributes.rights.is_user();
        let table = if entry.is_empty() && level.0 > 1 {
            let table = self.new_table(user, clear)?;
            page.store(index, table.0);
            table
        } else if entry.is_retired() || entry.is_leaf(level) {
            return Err(occupied(entry, at));
        } else if !entry.is_owned() {
            return Err(Error::ForeignTable { at });
        } else {
            if user && !entry.is_user() {
                page.store(index, entry.with_user().0);
            }
            entry
        };
        Ok(self.table.codec.target(table, level))
    }
}

const fn level_of(size: PageSize) -> Level {
    match size {
        PageSize::Size4K => Level(1),
        PageSize::Size2M => Level(2),
        PageSize::Size1G => Level(3),
    }
}

const fn occupied(entry: Entry, at: Gva) -> Error {
    if entry.is_present() {
        Error::Mapped { at }
    } else {
        Error::Retired { at }
    }
}

/// Overwrites a frame with zeroes, whatever its size.
fn clear_frame<W: Window>(window: &W, frame: &Frame) -> Result<()> {
    let mut offset = 0;
    while offset < frame.bytes() {
        clear(window, frame.base().checked_add(offset).ok_or(Error::Bug)?)?;
        offset += PAGE_BYTES;
    }
    Ok(())
}
