//! Unmapping, and giving frames back once nobody can reach them any more.

use svsm_platform::addr::{Gpa, Gva, GvaRange};

use super::{Cursor, Editor, Entry, Flushed, Level, StaleTlb, Stopped, open};
use crate::frame::{Frame, FrameSource, Order};
use crate::window::{Window, WordIndex};
use crate::{Error, Result};

/// Frames that could not be given back. They stay retired in the page table.
#[derive(Debug)]
pub struct Unreclaimed {
    /// Flush this, and try again with what the flush answers.
    pub stale: StaleTlb,
    /// How far it came, and why it stopped.
    pub stopped: Stopped<Error>,
}

/// What an unmapping has touched: at least the range, and all of each table it has retired.
struct Touched {
    first: u64,
    end: u64,
    global: bool,
}

impl<F: FrameSource, W: Window> Editor<'_, F, W> {
    /// Unmaps whatever is mapped in `range`. Large pages that it cuts are split.
    ///
    /// Nothing is given back yet: frames of the source and tables that became empty stay where
    /// they are until [`reclaim`](Self::reclaim), and nothing can be mapped there until then. The
    /// token's range may be wider than `range`, up to the bounds of tables that became empty.
    ///
    /// # Errors
    /// Beside the token: how far it came, and why it stopped. [`Error::OutOfFrames`] if there is
    /// no frame to split a page with, [`Error::ForeignTable`], [`Error::Misaligned`].
    pub fn unmap(&mut self, range: GvaRange) -> (StaleTlb, Result<(), Stopped<Error>>) {
        let mut touched = Touched {
            first: range.start().as_u64(),
            end: range.end().as_u64(),
            global: false,
        };
        let outcome = Cursor::new(range).and_then(|mut cursor| {
            if cursor.is_done() {
                return Ok(());
            }
            self.table.epoch += 1;
            let (top, root) = (self.table.top(), self.table.root());
            let outcome = self.retire(top, root, &mut cursor, &mut touched);
            cursor.finish(outcome)
        });
        let wide = Gva::new(touched.first).zip(Gva::new(touched.end));
        let wide = wide.and_then(|(first, end)| GvaRange::from_bounds(first, end));
        let range = wide.unwrap_or(range);
        (StaleTlb::new(self.table, range, touched.global), outcome)
    }

    /// Gives back the frames and tables of what was unmapped and then flushed.
    ///
    /// # Errors
    /// A token to flush again and why: [`Error::StaleToken`] if the flush was for another page
    /// table or did not cover the latest unmapping (join tokens, then flush), or why the source
    /// refused a frame, which stays retired.
    pub fn reclaim(&mut self, flushed: Flushed) -> core::result::Result<(), Unreclaimed> {
        let range = flushed.range();
        let (top, root, epoch) = (self.table.top(), self.table.root(), self.table.epoch);
        let outcome = Cursor::new(range).and_then(|mut cursor| {
            flushed.check(root, epoch).map_err(Stopped::at_start)?;
            if cursor.is_done() {
                return Ok(());
            }
            let outcome = self.give_retired(top, root, &mut cursor);
            cursor.finish(outcome)
        });
        outcome.map_err(|stopped| Unreclaimed {
            stale: StaleTlb::new(self.table, range, true),
            stopped,
        })
    }

    /// Unmaps the part of one table that the cursor's range has, and what is below it.
    fn retire(
        &mut self,
        level: Level,
        table: Gpa,
        cursor: &mut Cursor,
        touched: &mut Touched,
    ) -> Result<()> {
        let window = self.window;
        let page = open(window, table)?;
        let mut index = level.index(cursor.at);
        loop {
            let mut entry = Entry(page.load(index));
            let whole = cursor.covers_entry(level);
            if !entry.is_present() {
                cursor.at = cursor.entry_end(level);
            } else if entry.is_leaf(level) && whole {
                touched.global |= entry.is_global();
                let rest = if entry.is_owned() {
                    entry.retired()
                } else {
                    Entry::EMPTY
                };
                page.store(index, rest.0);
                cursor.at = cursor.entry_end(level);
            } else {
                if entry.is_leaf(level) {
                    touched.global |= entry.is_global();
                    entry = self.split(entry, level)?;
                    page.store(index, entry.0);
                } else if !entry.is_owned() {
                    return Err(Error::ForeignTable { at: cursor.gva()? });
                }
                let below = self.table.codec.target(entry, level);
                let stays = entry.is_pinned();
                let first = cursor.at & !(level.entry_bytes() - 1);
                if whole && !stays {
                    cursor.at = cursor.entry_end(level);
                } else {
                    self.retire(level.below()?, below, cursor, touched)?;
                }
                if !stays && (whole || self.is_unused(below)?) {
                    page.store(index, entry.retired().0);
                    // What else was retired in the table goes with it, so that must be flushed too.
                    touched.widen(first, level);
                    touched.global |= !entry.is_user();
                }
            }
            match index.next() {
                Some(next) if !cursor.is_done() => index = next,
                _ => return Ok(()),
            }
        }
    }

    /// Whether a table translates nothing.
    fn is_unused(&self, table: Gpa) -> Result<bool> {
        let page = open(self.window, table)?;
        Ok(WordIndex::all().all(|index| !Entry(page.load(index)).is_present()))
    }

    /// Gives back what is retired in the part of one table that the cursor's range has.
    fn give_retired(&mut self, level: Level, table: Gpa, cursor: &mut Cursor) -> Result<()> {
        let window = self.window;
        let page = open(window, table)?;
        let mut index = level.index(cursor.at);
        loop {
            let entry = Entry(page.load(index));
            if entry.is_retired() {
                self.give_entry(entry, level)?;
                page.store(index, Entry::EMPTY.0);
            }
            if entry.is_present() && !entry.is_leaf(level) && entry.is_owned() {
                let below = self.table.codec.target(entry, level);
                self.give_retired(level.below()?, below, cursor)?;
            } else {
                cursor.at = cursor.entry_end(level);
            }
            match index.next() {
                Some(next) if !cursor.is_done() => index = next,
                _ => return Ok(()),
            }
        }
    }

    /// Gives back what an owned entry points to: a page, or a table with all that is below.
    fn give_entry(&mut self, entry: Entry, level: Level) -> Result<()> {
        let target = self.table.codec.target(entry, level);
        let order = if entry.is_leaf(level) {
            level.order()?
        } else {
            let page = open(self.window, target)?;
            let below = level.below()?;
            for index in WordIndex::all() {
                let entry = Entry(page.load(index));
                if entry.is_owned() {
                    self.give_entry(entry, below)?;
                    // Should the source refuse one that follows, this one is not given again.
                    page.store(index, Entry::EMPTY.0);
                }
            }
            Order::SINGLE
        };
        self.frames
            .give(Frame::trusted(target, order))
            .map_err(|refused| refused.error)
    }
}

impl Touched {
    /// Adds all that the entry of `level` at `first` covers, as far as it can be mapped.
    fn widen(&mut self, first: u64, level: Level) {
        let last = first | (level.entry_bytes() - 1);
        // The end of either half of the address space is no address; its last page is never
        // mapped, because no range has it.
        let end = match last.checked_add(1).and_then(Gva::new) {
            Some(end) => end.as_u64(),
            None => last & !0xfff,
        };
        self.first = self.first.min(first);
        self.end = self.end.max(end);
    }
}
