//! What page tables have in common, and what outlives the code that built them.

use svsm_platform::addr::{Gpa, GvaRange};
use svsm_platform::encryption::Encryption;

use super::{Attributes, Codec, Cursor, Editor, Entry, Level, PageTable, Rights, Stopped, open};
use crate::frame::{Frame, FrameSource, Refused};
use crate::window::{Window, WordIndex};
use crate::{Error, Result};

impl<F: FrameSource, W: Window> Editor<'_, F, W> {
    /// Makes the root's entries for `range` permanent, so that other page tables can copy them:
    /// what is mapped below later then shows in all of them.
    ///
    /// # Errors
    /// How far it came, and why it stopped.
    pub fn populate(&mut self, range: GvaRange) -> Result<(), Stopped<Error>> {
        let mut cursor = Cursor::new(range)?;
        let outcome = self.populate_root(&mut cursor);
        cursor.finish(outcome)
    }

    fn populate_root(&mut self, cursor: &mut Cursor) -> Result<()> {
        let (top, window) = (self.table.top(), self.window);
        let root = open(window, self.table.root())?;
        while !cursor.is_done() {
            let index = top.index(cursor.at);
            let (entry, at) = (Entry(root.load(index)), cursor.gva()?);
            let attributes = Attributes::private(Rights::READ);
            self.enter(&root, index, entry, top, at, attributes)?;
            root.store(index, Entry(root.load(index)).pinned().0);
            cursor.at = cursor.entry_end(top);
        }
        Ok(())
    }
}

impl PageTable {
    /// A page table that shares the `common` part of the address space with `kernel`, whose root
    /// entries for it were [populated](Editor::populate). It can neither edit nor read that part.
    ///
    /// # Errors
    /// The frame and the reason: [`Error::NotMapped`] at a part that was not populated, and as for
    /// [`PageTable::new`].
    pub fn new_sharing<W: Window>(
        root: Frame,
        kernel: &Self,
        common: GvaRange,
        window: &W,
    ) -> core::result::Result<Self, Refused> {
        let new = Self::new(root, kernel.encryption(), kernel.levels, window)?;
        match new.copy_root(kernel, common, window) {
            Ok(()) => Ok(new),
            Err(error) => Err(Refused {
                frame: new.root,
                error,
            }),
        }
    }

    fn copy_root<W: Window>(&self, kernel: &Self, common: GvaRange, window: &W) -> Result<()> {
        let mut cursor = Cursor::new(common).map_err(|stopped| stopped.cause)?;
        let (source, target) = (open(window, kernel.root())?, open(window, self.root())?);
        while !cursor.is_done() {
            let index = self.top().index(cursor.at);
            let entry = Entry(source.load(index));
            if !entry.is_present() || !entry.is_pinned() {
                return Err(Error::NotMapped { at: cursor.gva()? });
            }
            target.store(index, entry.foreign().0);
            cursor.at = cursor.entry_end(self.top());
        }
        Ok(())
    }

    /// Makes all tables permanent: unmapping never retires them. For tables that are part of an
    /// image, whose frames no source would take.
    ///
    /// # Errors
    /// What the window said; the tables before that are permanent.
    pub fn pin<W: Window>(&mut self, window: &W) -> Result<()> {
        self.for_tables(window, &mut |entry, level| {
            Ok(if entry.is_leaf(level) {
                entry
            } else {
                entry.pinned()
            })
        })
    }

    /// Rewrites all entries for a platform with another rule of what is private and what shared.
    ///
    /// An image is built before the position of the C-bit is known; its first code gives the
    /// tables their final form, before any processor uses them. Shared mappings stay shared if the
    /// old rule could say so: build with a shared bit, not with [`Encryption::None`].
    ///
    /// # Errors
    /// [`Error::NotEncodable`] if an address cannot be said under the new rule: nothing has changed
    /// then. Or what the window said, which may be in the middle; use the tables for nothing then.
    pub fn recode<W: Window>(&mut self, window: &W, to: Encryption) -> Result<()> {
        let (from, to) = (self.codec, Codec(to));
        to.table(self.root(), false)?;
        self.for_tables(window, &mut |entry, level| {
            from.recoded(entry, level, to)?;
            Ok(entry)
        })?;
        self.for_tables(window, &mut |entry, level| from.recoded(entry, level, to))?;
        self.codec = to;
        Ok(())
    }

    /// Replaces all present entries by what `change` makes of them; tables after what is in them.
    fn for_tables<W: Window>(
        &self,
        window: &W,
        change: &mut impl FnMut(Entry, Level) -> Result<Entry>,
    ) -> Result<()> {
        self.for_table(window, self.top(), self.root(), change)
    }

    fn for_table<W: Window>(
        &self,
        window: &W,
        level: Level,
        table: Gpa,
        change: &mut impl FnMut(Entry, Level) -> Result<Entry>,
    ) -> Result<()> {
        let page = open(window, table)?;
        for index in WordIndex::all() {
            let entry = Entry(page.load(index));
            if !entry.is_present() {
                continue;
            }
            if !entry.is_leaf(level) && entry.is_owned() {
                self.for_table(
                    window,
                    level.below()?,
                    self.codec.target(entry, level),
                    change,
                )?;
            }
            page.store(index, change(entry, level)?.0);
        }
        Ok(())
    }
}
