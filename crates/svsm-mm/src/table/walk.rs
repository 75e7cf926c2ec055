//! Reading page tables.

use core::ops::ControlFlow;

use svsm_platform::addr::{Gpa, Gva, GvaRange, PageSize};

use super::{Attributes, Cursor, Entry, Level, PageTable, Stopped, open};
use crate::window::{Window, WordIndex};
use crate::{Error, Result};

/// A page that is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Leaf {
    /// Its first virtual address.
    pub at: Gva,
    /// Its first physical address.
    pub page: Gpa,
    /// Its size.
    pub size: PageSize,
    /// What is allowed there.
    pub attributes: Attributes,
}

impl Leaf {
    /// The physical address of a virtual one in the page, or `None` outside of it.
    #[must_use]
    pub fn translate(&self, at: Gva) -> Option<Gpa> {
        let offset = at
            .checked_offset_from(self.at)
            .filter(|offset| *offset < self.size.bytes())?;
        self.page.checked_add(offset)
    }
}

impl PageTable {
    /// The page that is mapped at `at`, if one is.
    ///
    /// # Errors
    /// [`Error::ForeignTable`] where the answer is another page table's, and what the window says.
    pub fn lookup<W: Window>(&self, window: &W, at: Gva) -> Result<Option<Leaf>> {
        let (mut level, mut table) = (self.top(), self.root());
        loop {
            let entry = Entry(open(window, table)?.load(level.index(at.as_u64())));
            if !entry.is_present() {
                return Ok(None);
            }
            if entry.is_leaf(level) {
                return self.leaf(entry, level, at).map(Some);
            }
            if !entry.is_owned() {
                return Err(Error::ForeignTable { at });
            }
            table = self.codec.target(entry, level);
            level = level.below()?;
        }
    }

    /// Where the entry is that would map the 2 MiB at `at`: its table, and its index there.
    ///
    /// # Errors
    /// [`Error::NotMapped`] if there is no such table, [`Error::ForeignTable`] if it is another page table's, and what the window
    /// says.
    pub fn large_entry_at<W: Window>(&self, window: &W, at: Gva) -> Result<(Gpa, WordIndex)> {
        let (mut level, mut table) = (self.top(), self.root());
        while level != Level(2) {
            let entry = Entry(open(window, table)?.load(level.index(at.as_u64())));
            if !entry.is_present() || entry.is_leaf(level) {
                return Err(Error::NotMapped { at });
            }
            if !entry.is_owned() {
                return Err(Error::ForeignTable { at });
            }
            table = self.codec.target(entry, level);
            level = level.below()?;
        }
        Ok((table, level.index(at.as_u64())))
    }

    /// The physical address behind `at`, if something is mapped there.
    ///
    /// # Errors
    /// As for [`lookup`](Self::lookup).
    pub fn translate<W: Window>(&self, window: &W, at: Gva) -> Result<Option<Gpa>> {
        Ok(self.lookup(window, at)?.and_then(|leaf| leaf.translate(at)))
    }

    /// Shows `visit` all mapped pages that have a part in `range`, in order, until it breaks off.
    /// What belongs to other page tables is left out.
    ///
    /// # Errors
    /// How far it came, and what the window said.
    pub fn walk<W: Window>(
        &self,
        window: &W,
        range: GvaRange,
        mut visit: impl FnMut(Leaf) -> ControlFlow<()>,
    ) -> Result<(), Stopped<Error>> {
        let mut cursor = Cursor::new(range)?;
        if cursor.is_done() {
            return Ok(());
        }
        let outcome = self.walk_table(window, self.top(), self.root(), &mut cursor, &mut visit);
        cursor.finish(outcome.map(|_| ()))
    }

    fn walk_table<W: Window>(
        &self,
        window: &W,
        level: Level,
        table: Gpa,
        cursor: &mut Cursor,
        visit: &mut impl FnMut(Leaf) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let page = open(window, table)?;
        let mut index = level.index(cursor.at);
        loop {
            let entry = Entry(page.load(index));
            if entry.is_present() && !entry.is_leaf(level) && entry.is_owned() {
                let below = self.codec.target(entry, level);
                if self
                    .walk_table(window, level.below()?, below, cursor, visit)?
                    .is_break()
                {
                    return Ok(ControlFlow::Break(()));
                }
            } else {
                if entry.is_present()
                    && entry.is_leaf(level)
                    && visit(self.leaf(entry, level, cursor.gva()?)?).is_break()
                {
                    return Ok(ControlFlow::Break(()));
                }
                cursor.at = cursor.entry_end(level);
            }
            match index.next() {
                Some(next) if !cursor.is_done() => index = next,
                _ => return Ok(ControlFlow::Continue(())),
            }
        }
    }

    fn leaf(&self, entry: Entry, level: Level, at: Gva) -> Result<Leaf> {
        let size = level.page_size().ok_or(Error::Bug)?;
        Ok(Leaf {
            at: at.align_down(size),
            page: self.codec.target(entry, level),
            size,
            attributes: self.codec.attributes(entry, level),
        })
    }
}
