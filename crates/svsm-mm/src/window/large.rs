//! A place where any 2 MiB can be shown for a moment.

use core::fmt;
use core::ptr::NonNull;

use svsm_platform::addr::{Gpa, Gva, PageSize};
use svsm_platform::encryption::{Encryption, Visibility};

use crate::table::{Attributes, LocalTlb, Rights, large_entry};
use crate::{Error, Result};

/// Shows any 2 MiB page, for instructions that work on so much at once. Like a [`TempWindow`](super::TempWindow) with one slot:
/// the place is one CPU's, whose window may write the page-table entry.
pub struct LargeWindow<T: LocalTlb> {
    entry: NonNull<u64>,
    place: Gva,
    encryption: Encryption,
    tlb: T,
}

impl<T: LocalTlb> LargeWindow<T> {
    /// A window of the 2 MiB at `place`, whose page-table entry is at `entry`.
    ///
    /// # Errors
    /// [`Error::Misaligned`] if `place` does not start 2 MiB, or `entry` is no place for an entry.
    ///
    /// # Safety
    /// For as long as the window lives:
    /// - `entry` is mapped readable and writable to the entry of a level 2 table, 0 now, that translates the 2 MiB at `place`.
    /// - Nobody else writes the entry or accesses the place.
    /// - Only one CPU uses the window; before another does, that one forgets translations of the place that it may have fetched.
    pub unsafe fn new(
        entry: NonNull<u64>,
        place: Gva,
        encryption: Encryption,
        tlb: T,
    ) -> Result<Self> {
        let address = entry.addr().get() as u64;
        if !place.is_aligned(PageSize::Size2M) || !entry.is_aligned() {
            let address = if entry.is_aligned() {
                place.as_u64()
            } else {
                address
            };
            return Err(Error::Misaligned { address });
        }
        Ok(Self {
            entry,
            place,
            encryption,
            tlb,
        })
    }

    /// Shows the 2 MiB at `page` to `run`, readable and writable. What is there is for `run` to know: no memory is accessed here.
    ///
    /// # Errors
    /// [`Error::Misaligned`] if no such page starts there, or what the encryption says.
    pub fn show<R>(
        &mut self,
        page: Gpa,
        visibility: Visibility,
        run: impl FnOnce(Gva) -> R,
    ) -> Result<R> {
        if !page.is_aligned(PageSize::Size2M) {
            return Err(Error::Misaligned {
                address: page.as_u64(),
            });
        }
        let attributes = Attributes {
            visibility,
            ..Attributes::private(Rights::READ_WRITE)
        };
        self.write(large_entry(self.encryption, page, attributes)?);
        let shown = Shown(self);
        Ok(run(shown.0.place))
    }

    fn write(&self, entry: u64) {
        // SAFETY: the entry is the window's to write, by the promise of `new`, and aligned.
        unsafe { self.entry.write_volatile(entry) };
    }
}

/// Takes the page out, whatever `run` does.
struct Shown<'w, T: LocalTlb>(&'w LargeWindow<T>);

impl<T: LocalTlb> Drop for Shown<'_, T> {
    fn drop(&mut self) {
        self.0.write(0);
        self.0.tlb.forget_page(self.0.place);
    }
}

impl<T: LocalTlb> fmt::Debug for LargeWindow<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LargeWindow")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;

    use svsm_platform::encryption::BitPosition;

    use super::*;

    #[derive(Default)]
    struct Count(Cell<u32>);

    // SAFETY: nothing translates with the entries of these tests.
    unsafe impl LocalTlb for &Count {
        fn forget_page(&self, _: Gva) {
            self.0.set(self.0.get() + 1);
        }

        fn forget_all(&self, _: bool) {}
    }

    #[test]
    fn a_page_is_there_while_it_is_shown_and_no_longer() {
        let count = Count::default();
        let mut entry = 0_u64;
        let at = NonNull::from(&mut entry);
        let place = Gva::new(0xffff_ffff_f000_0000).unwrap();
        let encryption = Encryption::CBit(BitPosition::new(51).unwrap());
        // SAFETY: the entry is this function's, and no processor uses it.
        let mut window = unsafe { LargeWindow::new(at, place, encryption, &count) }.unwrap();
        let page = Gpa::new(0x1234_5620_0000).unwrap();
        let seen = window.show(page, Visibility::Private, |shown| {
            assert_eq!(shown, place);
            // SAFETY: as above.
            unsafe { at.read_volatile() }
        });
        // NX, C, accessed, dirty, large, writable, present.
        assert_eq!(seen.unwrap() & !0x60, 1 << 63 | 1 << 51 | 0x1234_5620_0083);
        assert_eq!((entry, count.0.get()), (0, 1));
        let small = Gpa::new(0x1000).unwrap();
        assert_eq!(
            window.show(small, Visibility::Private, drop),
            Err(Error::Misaligned { address: 0x1000 })
        );
    }
}
