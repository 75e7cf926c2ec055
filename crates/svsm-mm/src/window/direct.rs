//! A range of memory that is mapped as a whole.

use core::fmt;
use core::marker::PhantomData;
use core::ops::Deref;
use core::ptr::NonNull;

use svsm_platform::addr::{Gpa, GpaRange};
use svsm_platform::encryption::Visibility;

use super::{PAGE_BYTES, PageCell, Window};
use crate::frame::{Frame, Refused};
use crate::{Error, Result};

/// Shows a range of physical memory through one linear mapping of it.
///
/// The range is what the firmware decided to map: the SVSM's own free memory, say. It is not all
/// memory, and never a guest's.
pub struct DirectWindow {
    range: GpaRange,
    base: NonNull<u8>, // page-aligned; `range.len_bytes()` accessible bytes
    visibility: Visibility,
}

// SAFETY: the window hands out only `PageCell`s, whose accesses are volatile and to memory that
// by the promise of `new` holds no Rust object; which CPU holds the window does not matter.
unsafe impl Send for DirectWindow {}

// SAFETY: as for `Send`; the window itself never changes.
unsafe impl Sync for DirectWindow {}

impl DirectWindow {
    /// A window over `range`, which is mapped from `base` on with that visibility.
    ///
    /// # Errors
    /// [`Error::Misaligned`] if a bound of the range or `base` is not a page's.
    ///
    /// # Safety
    /// - `base` is mapped readable and writable to the first byte of `range`, and on linearly, for
    ///   as long as the window lives.
    /// - Frames of the range come only from sources over this same memory, not from a simulation
    ///   that invents addresses.
    pub unsafe fn new(range: GpaRange, base: NonNull<u8>, visibility: Visibility) -> Result<Self> {
        let base_address = base.addr().get() as u64;
        for address in [range.start().as_u64(), range.end().as_u64(), base_address] {
            if address % PAGE_BYTES != 0 {
                return Err(Error::Misaligned { address });
            }
        }
        Ok(Self {
            range,
            base,
            visibility,
        })
    }

    /// What the window shows.
    #[must_use]
    pub const fn range(&self) -> GpaRange {
        self.range
    }
}

impl DirectWindow {
    /// A frame's memory as bytes for Rust objects: the frame is used up, so no window shows it
    /// again. What the bytes are is unspecified, and how long they stay mapped is what the caller
    /// of [`DirectWindow::new`] knows.
    ///
    /// # Errors
    /// The frame, if the window does not show all of it as private memory.
    pub fn memory(&self, frame: Frame) -> core::result::Result<NonNull<[u8]>, Refused> {
        let error = Error::Unreachable { page: frame.base() };
        let private = self.visibility == Visibility::Private;
        let shown = frame
            .range()
            .is_ok_and(|range| self.range.contains_range(&range));
        let offset = frame.base().checked_offset_from(self.range.start());
        let place = offset.zip(Some(frame.bytes())).filter(|_| private && shown);
        let place = place.and_then(|(offset, bytes)| {
            usize::try_from(offset)
                .ok()
                .zip(usize::try_from(bytes).ok())
        });
        let Some((offset, bytes)) = place else {
            return Err(Refused { frame, error });
        };
        // SAFETY: the frame is inside of the range, and the mapping is as long as the range.
        let at = unsafe { self.base.add(offset) };
        Ok(NonNull::slice_from_raw_parts(at, bytes))
    }
}

impl fmt::Debug for DirectWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectWindow")
            .field("range", &self.range)
            .field("base", &self.base)
            .field("visibility", &self.visibility)
            .finish()
    }
}

/// A page shown by a [`DirectWindow`].
#[derive(Debug)]
pub struct DirectPage<'w> {
    page: PageCell,
    window: PhantomData<&'w DirectWindow>,
}

impl Deref for DirectPage<'_> {
    type Target = PageCell;

    fn deref(&self) -> &PageCell {
        &self.page
    }
}

// SAFETY: the page at offset n of the range lies at offset n of the mapping, by `new`'s promise,
// and stays there while the window is borrowed.
unsafe impl Window for DirectWindow {
    type Mapping<'w> = DirectPage<'w>;

    unsafe fn map(&self, page: Gpa, visibility: Visibility) -> Result<DirectPage<'_>> {
        let unreachable = Error::Unreachable { page };
        if visibility != self.visibility || !self.range.contains(page) {
            return Err(unreachable);
        }
        let offset = page
            .checked_offset_from(self.range.start())
            .ok_or(unreachable)?;
        let offset = usize::try_from(offset).map_err(|_| unreachable)?;
        // SAFETY: the offset is inside of the range, and the mapping is as long as the range.
        let at = unsafe { self.base.add(offset) };
        // SAFETY: the whole page is mapped, since the range ends at a page bound; that the memory
        // may be accessed is promised by the caller.
        let page = unsafe { PageCell::new(at) }.ok_or(unreachable)?;
        Ok(DirectPage {
            page,
            window: PhantomData,
        })
    }
}
