//! A few places where any page can be shown for a moment.

use core::cell::Cell;
use core::fmt;
use core::ops::Deref;
use core::ptr::NonNull;

use svsm_platform::addr::{Gpa, Gva};
use svsm_platform::encryption::{Encryption, Visibility};

use super::{PAGE_BYTES, PageCell, Window};
use crate::table::{Attributes, LocalTlb, Rights, page_entry};
use crate::{Error, Result};

/// Shows any page, private or shared, in one of up to 64 slots.
///
/// A slot is a page of virtual memory whose page-table entry the window may write: the image brings
/// the table of these entries, and maps that, too. A page leaves its slot when the answer of
/// [`map`](Window::map) is dropped, and the CPU forgets it then. Nothing else does, so each CPU
/// has slots of its own.
pub struct TempWindow<T: LocalTlb> {
    entries: NonNull<u64>, // `slots` consecutive entries, which no one else writes
    pages: NonNull<u8>,    // what the first of them maps
    slots: u32,
    used: Cell<u64>, // bit n: slot n shows a page
    encryption: Encryption,
    tlb: T,
}

// SAFETY: the entries and pages belong to the window wherever it is, and nothing is shown while it
// moves, since that would borrow it. That the new CPU holds no translation of a slot is what the
// caller of `new` sees to.
unsafe impl<T: LocalTlb + Send> Send for TempWindow<T> {}

impl<T: LocalTlb> TempWindow<T> {
    /// The most slots a window has.
    pub const MAX_SLOTS: u32 = 64;

    /// A window of `slots` pages from `pages` on, whose page-table entries lie from `entries` on.
    ///
    /// # Errors
    /// [`Error::Misaligned`] if `pages` is no page start, and [`Error::OutOfBounds`] for no slots
    /// or more than [`MAX_SLOTS`](Self::MAX_SLOTS).
    ///
    /// # Safety
    /// For as long as the window lives:
    /// - `entries` is mapped readable and writable to consecutive entries of a level 1 table, all of
    ///   them 0 now, and these are what translates the `slots` pages from `pages` on.
    /// - Nobody else writes the entries or accesses the pages.
    /// - Only one CPU uses the window; before another does, that one forgets translations of the
    ///   slots that it may have fetched.
    pub unsafe fn new(
        entries: NonNull<u64>,
        pages: NonNull<u8>,
        slots: u32,
        encryption: Encryption,
        tlb: T,
    ) -> Result<Self> {
        for (pointer, align) in [(pages, PAGE_BYTES), (entries.cast(), 8)] {
            let address = pointer.addr().get() as u64;
            if !address.is_multiple_of(align) {
                return Err(Error::Misaligned { address });
            }
        }
        if slots == 0 || slots > Self::MAX_SLOTS {
            return Err(Error::OutOfBounds {
                offset: 0,
                len_bytes: u64::from(slots),
            });
        }
        Ok(Self {
            entries,
            pages,
            slots,
            used: Cell::new(0),
            encryption,
            tlb,
        })
    }

    /// How many pages it can still show.
    #[must_use]
    pub const fn free_slots(&self) -> u32 {
        self.slots - self.used.get().count_ones()
    }

    fn write_entry(&self, slot: u32, entry: u64) {
        // SAFETY: callers pass slots below `slots`, and so many entries follow `entries`.
        let at = unsafe { self.entries.add(slot as usize) };
        // SAFETY: the entry is the window's to write, by the promise of `new`, and aligned.
        unsafe { at.write_volatile(entry) };
    }

    fn page(&self, slot: u32) -> NonNull<u8> {
        // SAFETY: callers pass slots below `slots`, and so many pages follow `pages`.
        unsafe { self.pages.cast::<[u8; 4096]>().add(slot as usize) }.cast()
    }
}

impl<T: LocalTlb> fmt::Debug for TempWindow<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TempWindow")
            .field("pages", &self.pages)
            .field("slots", &self.slots)
            .field("free_slots", &self.free_slots())
            .finish_non_exhaustive()
    }
}

/// A page shown by a [`TempWindow`]; dropping it takes the page out.
pub struct TempPage<'w, T: LocalTlb> {
    page: PageCell,
    window: &'w TempWindow<T>,
    slot: u32,
}

impl<T: LocalTlb> TempPage<'_, T> {
    /// Where the page is shown as long as this lives, for instructions that take an address.
    #[must_use]
    pub fn gva(&self) -> Gva {
        // The addresses of pointers are canonical: there is no other case.
        Gva::new(self.window.page(self.slot).addr().get() as u64).unwrap_or(Gva::ZERO)
    }
}

impl<T: LocalTlb> Deref for TempPage<'_, T> {
    type Target = PageCell;

    fn deref(&self) -> &PageCell {
        &self.page
    }
}

impl<T: LocalTlb> fmt::Debug for TempPage<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TempPage")
            .field("slot", &self.slot)
            .finish_non_exhaustive()
    }
}

impl<T: LocalTlb> Drop for TempPage<'_, T> {
    fn drop(&mut self) {
        let window = self.window;
        window.write_entry(self.slot, 0);
        window.tlb.forget_page(self.gva());
        window.used.set(window.used.get() & !(1 << self.slot));
    }
}

// SAFETY: the slot's entry maps the page that was asked for, and no translation of the slot is older
// than the entry: the CPU forgot the last one when the slot was freed. The slot is not given away
// before the answer is dropped.
unsafe impl<T: LocalTlb> Window for TempWindow<T> {
    type Mapping<'w>
        = TempPage<'w, T>
    where
        T: 'w;

    unsafe fn map(&self, page: Gpa, visibility: Visibility) -> Result<TempPage<'_, T>> {
        let slot = self.used.get().trailing_ones();
        if slot >= self.slots {
            return Err(Error::WindowFull);
        }
        let rights = Rights::READ_WRITE;
        let attributes = Attributes {
            visibility,
            ..Attributes::private(rights)
        };
        let entry = page_entry(self.encryption, page, attributes)?;
        // SAFETY: the slot is a page, and accessible through the entry that is written next. Until
        // then nobody accesses it.
        let cell = unsafe { PageCell::new(self.page(slot)) }.ok_or(Error::Bug)?;
        self.used.set(self.used.get() | 1 << slot);
        self.write_entry(slot, entry);
        Ok(TempPage {
            page: cell,
            window: self,
            slot,
        })
    }
}

// SAFETY: a slot's entry maps all of the page, as private, and nothing else, while the answer of `map` lives.
#[cfg(feature = "snp")]
unsafe impl<T: LocalTlb> svsm_platform::snp::Reach for &TempWindow<T> {
    fn reaches_large(&self) -> bool {
        false
    }

    fn reach<R>(
        &mut self,
        page: Gpa,
        size: svsm_platform::snp::insn::RmpSize,
        run: impl FnOnce(Gva) -> R,
    ) -> Option<R> {
        if size != svsm_platform::snp::insn::RmpSize::Size4K {
            return None;
        }
        // SAFETY: nothing of the page is accessed through this but by `run`, whose caller has its own reason to.
        let shown = unsafe { self.map(page, Visibility::Private) }.ok()?;
        Some(run(shown.gva()))
    }
}

#[cfg(test)]
mod tests {
    use std::boxed::Box;
    use std::vec::Vec;

    use svsm_platform::encryption::BitPosition;

    use super::*;

    #[derive(Default)]
    struct Log(core::cell::RefCell<Vec<u64>>);

    // SAFETY: nothing translates with the entries of these tests.
    unsafe impl LocalTlb for &Log {
        fn forget_page(&self, page: Gva) {
            self.0.borrow_mut().push(page.as_u64());
        }

        fn forget_all(&self, _global: bool) {}
    }

    #[repr(C, align(4096))]
    #[derive(Clone, Copy)]
    struct Page([u8; 4096]);

    /// Runs `test` on a window of three slots; `entries` says what the table holds.
    fn on_window(
        test: impl for<'l> FnOnce(&TempWindow<&'l Log>, &'l Log, &dyn Fn(usize) -> u64, u64),
    ) {
        let log = Log::default();
        let table: &'static [Cell<u64>; 3] = Box::leak(Box::new([const { Cell::new(0) }; 3]));
        let entries = NonNull::from(table).cast::<u64>();
        let pages = NonNull::from(Box::leak(Box::new([Page([0; 4096]); 3]))).cast::<u8>();
        let encryption = Encryption::CBit(BitPosition::new(51).unwrap());
        // SAFETY: memory of this test alone, which stays for ever; nothing translates with it.
        let window = unsafe { TempWindow::new(entries, pages, 3, encryption, &log) }.unwrap();
        let entry = |slot: usize| table[slot].get();
        test(&window, &log, &entry, pages.addr().get() as u64);
    }

    fn map<'w, T: LocalTlb>(
        window: &'w TempWindow<T>,
        page: u64,
        visibility: Visibility,
    ) -> Result<TempPage<'w, T>> {
        // SAFETY: the slots of these tests are plain memory, whatever their entries say.
        unsafe { window.map(Gpa::new(page).unwrap(), visibility) }
    }

    #[test]
    fn a_page_is_shown_while_borrowed_and_then_forgotten() {
        on_window(|window, log, entry, pages| {
            let private = map(window, 0x1000, Visibility::Private).unwrap();
            let shared = map(window, 0x2000, Visibility::Shared).unwrap();
            // Present, writable, accessed, dirty, not executable; and the C-bit.
            assert_eq!(entry(0), 0x8008_0000_0000_1063);
            assert_eq!(entry(1), 0x8000_0000_0000_2063);
            assert_eq!(private.gva().as_u64(), pages);
            assert_eq!(shared.gva().as_u64(), pages + 4096);
            private.write(0, b"slot").unwrap();
            drop(private);
            assert_eq!(entry(0), 0);
            assert_eq!(*log.0.borrow(), [pages]);
            drop(shared);
            assert_eq!(*log.0.borrow(), [pages, pages + 4096]);
            assert_eq!(window.free_slots(), 3);
        });
    }

    #[test]
    fn slots_run_out_without_harm() {
        on_window(|window, _, entry, _| {
            let held: Vec<_> = (1..4)
                .map(|page| map(window, page << 12, Visibility::Private).unwrap())
                .collect();
            assert_eq!(
                map(window, 0x9000, Visibility::Private).unwrap_err(),
                Error::WindowFull
            );
            drop(held);
            let _again = map(window, 0x9000, Visibility::Shared).unwrap();
            assert_eq!(entry(0) & 0xf000, 0x9000);
        });
    }

    #[cfg(feature = "snp")]
    #[test]
    fn instructions_reach_one_small_page_at_a_time() {
        use svsm_platform::snp::{Reach, insn::RmpSize};
        on_window(|mut window, log, entry, pages| {
            let page = Gpa::new(0x20_0000).unwrap();
            let seen = window.reach(page, RmpSize::Size4K, |at| (at.as_u64(), entry(0)));
            // As private: with the C-bit.
            assert_eq!(seen, Some((pages, 0x8008_0000_0020_0063)));
            assert_eq!((entry(0), log.0.borrow().len()), (0, 1));
            assert!(!window.reaches_large());
            assert_eq!(window.reach(page, RmpSize::Size2M, |_| ()), None);
            let held: Vec<_> = (1..4)
                .map(|page| map(window, page << 12, Visibility::Private).unwrap())
                .collect();
            assert_eq!(window.reach(page, RmpSize::Size4K, |_| ()), None);
            drop(held);
        });
    }

    #[test]
    fn what_cannot_be_said_is_not_shown() {
        on_window(|window, _, entry, _| {
            let page = Gpa::new(1 << 51).unwrap();
            let error = map(window, 1 << 51, Visibility::Private).unwrap_err();
            assert_eq!(error, Error::NotEncodable { page });
            assert!(map(window, 0x1001, Visibility::Private).is_err());
            assert_eq!((entry(0), window.free_slots()), (0, 3));
        });
    }
}
