//! Changing what mappings allow.

use svsm_platform::addr::{Gpa, GvaRange};
use svsm_platform::encryption::Visibility;

use super::{Attributes, Cursor, Editor, Entry, Level, Rights, StaleTlb, Stopped, open};
use crate::frame::FrameSource;
use crate::window::Window;
use crate::{Error, Result};

/// What is new about a mapping.
#[derive(Clone, Copy)]
struct Change {
    rights: Option<Rights>,
    visibility: Option<Visibility>,
}

impl Change {
    fn apply(self, old: Attributes) -> Attributes {
        Attributes {
            rights: self.rights.unwrap_or(old.rights),
            visibility: self.visibility.unwrap_or(old.visibility),
            ..old
        }
    }
}

impl<F: FrameSource, W: Window> Editor<'_, F, W> {
    /// Gives all that is mapped in `range` these rights. Large pages that the range cuts are split.
    ///
    /// # Errors
    /// Beside the token: how far it came, and why it stopped. [`Error::NotMapped`] at a hole,
    /// [`Error::OutOfFrames`] if there is no frame to split a page with, [`Error::ForeignTable`],
    /// [`Error::Misaligned`].
    pub fn protect(
        &mut self,
        range: GvaRange,
        rights: Rights,
    ) -> (StaleTlb, Result<(), Stopped<Error>>) {
        self.change(
            range,
            Change {
                rights: Some(rights),
                visibility: None,
            },
        )
    }

    /// Makes the mappings in `range` private or shared. This is the processor's side alone: the
    /// pages themselves are changed by [`PageState`](svsm_platform::seam::PageState).
    ///
    /// # Errors
    /// As for [`protect`](Self::protect), and [`Error::NotEncodable`].
    pub fn set_visibility(
        &mut self,
        range: GvaRange,
        visibility: Visibility,
    ) -> (StaleTlb, Result<(), Stopped<Error>>) {
        self.change(
            range,
            Change {
                rights: None,
                visibility: Some(visibility),
            },
        )
    }

    fn change(&mut self, range: GvaRange, new: Change) -> (StaleTlb, Result<(), Stopped<Error>>) {
        let mut global = false;
        let outcome = Cursor::new(range).and_then(|mut cursor| {
            if cursor.is_done() {
                return Ok(());
            }
            let (top, root) = (self.table.top(), self.table.root());
            let outcome = self.change_table(top, root, &mut cursor, new, &mut global);
            cursor.finish(outcome)
        });
        (StaleTlb::new(self.table, range, global), outcome)
    }

    /// Changes the part of one table that the cursor's range has, and what is below it.
    fn change_table(
        &mut self,
        level: Level,
        table: Gpa,
        cursor: &mut Cursor,
        new: Change,
        global: &mut bool,
    ) -> Result<()> {
        let window = self.window;
        let codec = self.table.codec;
        let page = open(window, table)?;
        let mut index = level.index(cursor.at);
        loop {
            let entry = Entry(page.load(index));
            if !entry.is_present() {
                return Err(Error::NotMapped { at: cursor.gva()? });
            }
            let mut table = entry;
            if entry.is_leaf(level) {
                let old = codec.attributes(entry, level);
                let changed = codec.changed(entry, new.apply(old), level);
                let whole = cursor.covers_entry(level);
                if changed == Ok(entry) || whole && changed.is_ok() {
                    let changed = changed?;
                    *global |= changed != entry && (entry.is_global() || changed.is_global());
                    page.store(index, changed.0);
                    cursor.at = cursor.entry_end(level);
                } else if level.0 == 1 {
                    changed?;
                } else {
                    // Cut by the range, or too large a page for its new address.
                    *global |= entry.is_global();
                    table = self.split(entry, level)?;
                    page.store(index, table.0);
                }
            } else if !entry.is_owned() {
                return Err(Error::ForeignTable { at: cursor.gva()? });
            }
            if !table.is_leaf(level) {
                if new.rights.is_some_and(Rights::is_user) && !table.is_user() {
                    page.store(index, table.with_user().0);
                }
                self.change_table(
                    level.below()?,
                    codec.target(table, level),
                    cursor,
                    new,
                    global,
                )?;
            }
            match index.next() {
                Some(next) if !cursor.is_done() => index = next,
                _ => return Ok(()),
            }
        }
    }
}
