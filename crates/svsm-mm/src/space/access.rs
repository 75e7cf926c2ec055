//! Reading and writing what an address space maps, without being in it.

#![expect(unsafe_code, reason = "frames of the address space are accessed")]

use svsm_platform::addr::{Gpa, Gva, GvaRange, PageSize};
use svsm_platform::encryption::Visibility;

use super::{AddressSpace, Backing, Means, Place};
use crate::frame::FrameSource;
use crate::table::{Rights, Shootdown};
use crate::window::{PAGE_BYTES, PageCell, Window};
use crate::{Error, Result};

impl AddressSpace {
    /// Makes a region of memory of its own that starts with `contents` and is cleared behind: a
    /// segment of a program. That the region is read-only later does not matter.
    ///
    /// # Errors
    /// Why there is none; nothing has changed then.
    pub fn map_filled<F: FrameSource, W: Window, S: Shootdown>(
        &mut self,
        means: &mut Means<'_, F, W, S>,
        place: Place,
        offset: u64,
        contents: &[u8],
        rights: Rights,
    ) -> Result<GvaRange> {
        let range = self.map_fresh(means, place, rights)?;
        let end = offset.checked_add(contents.len() as u64);
        let written = match range.start().checked_add(offset) {
            Some(at) if end.is_some_and(|end| end <= range.len_bytes()) => {
                self.write(means.window, at, contents)
            }
            _ => Err(Error::OutOfBounds {
                offset,
                len_bytes: contents.len() as u64,
            }),
        };
        match written {
            Ok(()) => Ok(range),
            Err(error) => {
                // If even that fails, the frames stay with the space, which is not what to report.
                let _ = self.unmap(means, range);
                Err(error)
            }
        }
    }

    /// Copies out of regions that have memory of their own, whatever their rights.
    ///
    /// # Errors
    /// [`Error::NotMapped`] where there is no such region; or what the window says.
    pub fn read<W: Window>(&self, window: &W, at: Gva, bytes: &mut [u8]) -> Result<()> {
        let mut rest = bytes;
        self.for_parts(window, at, rest.len() as u64, |cell, offset, len| {
            cell.read(offset, rest.split_off_mut(..len).ok_or(Error::Bug)?)
        })
    }

    /// Copies into regions that have memory of their own, whatever their rights.
    ///
    /// # Errors
    /// As for [`read`](Self::read); what lies before the failure is written.
    pub fn write<W: Window>(&mut self, window: &W, at: Gva, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        self.for_parts(window, at, rest.len() as u64, |cell, offset, len| {
            cell.write(offset, rest.split_off(..len).ok_or(Error::Bug)?)
        })
    }

    fn for_parts<W: Window>(
        &self,
        window: &W,
        at: Gva,
        len_bytes: u64,
        mut copy: impl FnMut(&PageCell, u64, usize) -> Result<()>,
    ) -> Result<()> {
        let range = GvaRange::new(at, len_bytes).ok_or(Error::OutOfBounds {
            offset: at.as_u64(),
            len_bytes,
        })?;
        let mut at = range.start();
        while at < range.end() {
            let offset = at.page_offset(PageSize::Size4K);
            let left = range.end().checked_offset_from(at).ok_or(Error::Bug)?;
            let len = left.min(PAGE_BYTES - offset);
            let page = self.own_page(window, at)?;
            // SAFETY: `own_page` answers only with pages of frames that this space's page table
            // owns; whoever borrows the space may access them.
            let cell = unsafe { window.map(page, Visibility::Private) }?;
            copy(&cell, offset, usize::try_from(len).map_err(|_| Error::Bug)?)?;
            drop(cell);
            at = at.checked_add(len).ok_or(Error::Bug)?;
        }
        Ok(())
    }

    /// The page behind `at`, if the space owns it.
    fn own_page<W: Window>(&self, window: &W, at: Gva) -> Result<Gpa> {
        let region = self
            .region(at)
            .filter(|region| region.backing() == Backing::Fresh);
        region.ok_or(Error::NotMapped { at })?;
        let page = self
            .table
            .translate(window, at)?
            .ok_or(Error::NotMapped { at })?;
        Ok(page.align_down(PageSize::Size4K))
    }
}
