//! Memory that exists only in a program: for image builders, tests and benches.

use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use core::cell::{RefCell, UnsafeCell};
use core::fmt;
use core::marker::PhantomData;
use core::ops::Deref;
use core::ptr::NonNull;

use svsm_platform::addr::{Gpa, GpaRange, PageSize};
use svsm_platform::encryption::Visibility;

use super::{PageCell, Window};
use crate::table::{Flushed, Shootdown, StaleTlb};
use crate::{Error, Result};

/// Physical memory as a map from page to contents, filled with zeroes as it is touched.
///
/// An image builder lays out final page tables in it with the same code that edits them at run
/// time, and then asks for [`HostMemory::pages`]. Frames come from a source of their own, such as
/// [`HostMemory::frames`].
pub struct HostMemory {
    range: GpaRange,
    // An `Rc`'s memory stays where it is when the map grows (a `Box` would claim to be its only
    // way in), and none is ever shared: a clone would keep `get_mut` from working.
    pages: RefCell<BTreeMap<Gpa, Rc<Contents>>>,
}

#[repr(C, align(4096))]
struct Contents(UnsafeCell<[u8; 4096]>);

impl HostMemory {
    /// Memory at `range`.
    #[must_use]
    pub const fn new(range: GpaRange) -> Self {
        Self {
            range,
            pages: RefCell::new(BTreeMap::new()),
        }
    }

    /// The memory that there is.
    #[must_use]
    pub const fn range(&self) -> GpaRange {
        self.range
    }

    /// A source that hands out the whole memory from its start on.
    ///
    /// Two sources of one memory hand out the same frames, with no worse effect than wrong
    /// contents: the frames name nothing but pages of this value.
    ///
    /// # Errors
    /// [`Error::Misaligned`] if a bound of the memory is not a page's.
    pub fn frames(&self) -> Result<crate::frame::Bump> {
        crate::frame::Bump::over(self.range)
    }

    /// All pages that were touched, in order of address.
    pub fn pages(&mut self) -> impl Iterator<Item = (Gpa, &[u8; 4096])> {
        let pages = self.pages.get_mut().iter_mut();
        pages.filter_map(|(at, page)| Some((*at, &*Rc::get_mut(page)?.0.get_mut())))
    }

    /// Puts `contents` at `page`, as a builder does with a page it has laid out.
    ///
    /// # Errors
    /// [`Error::Unreachable`] if the memory has no such page.
    pub fn put(&mut self, page: Gpa, contents: [u8; 4096]) -> Result<()> {
        self.check(page)?;
        let contents = Rc::new(Contents(UnsafeCell::new(contents)));
        self.pages.get_mut().insert(page, contents);
        Ok(())
    }

    fn check(&self, page: Gpa) -> Result<()> {
        if self.range.contains(page) && page.is_aligned(PageSize::Size4K) {
            Ok(())
        } else {
            Err(Error::Unreachable { page })
        }
    }
}

impl fmt::Debug for HostMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostMemory")
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

/// A page of [`HostMemory`].
#[derive(Debug)]
pub struct HostPage<'w> {
    page: PageCell,
    memory: PhantomData<&'w HostMemory>,
}

impl Deref for HostPage<'_> {
    type Target = PageCell;

    fn deref(&self) -> &PageCell {
        &self.page
    }
}

// SAFETY: the answer is the memory of that page. It neither moves nor goes while the
// memory is borrowed: `put`, which replaces one, and dropping need it exclusively.
unsafe impl Window for HostMemory {
    const SIMULATED: bool = true;

    type Mapping<'w> = HostPage<'w>;

    unsafe fn map(&self, page: Gpa, _visibility: Visibility) -> Result<HostPage<'_>> {
        self.check(page)?;
        let mut pages = self.pages.borrow_mut();
        let contents = pages
            .entry(page)
            .or_insert_with(|| Rc::new(Contents(UnsafeCell::new([0; 4096]))));
        let base = NonNull::new(contents.0.get().cast::<u8>()).ok_or(Error::Bug)?;
        // SAFETY: `Contents` is 4096 bytes in an `UnsafeCell`, aligned to as many.
        let page = unsafe { PageCell::new(base) }.ok_or(Error::Bug)?;
        Ok(HostPage {
            page,
            memory: PhantomData,
        })
    }
}

/// The shootdown of page tables that were made in simulated memory: there is nothing to flush.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProcessor;

impl Shootdown for NoProcessor {
    type Error = Error;

    /// Answers at once; with [`Error::StaleToken`] if the page table is a processor's after all.
    fn flush(&mut self, stale: StaleTlb) -> core::result::Result<Flushed, (StaleTlb, Error)> {
        stale
            .into_flushed_if_simulated()
            .map_err(|stale| (stale, Error::StaleToken))
    }
}
