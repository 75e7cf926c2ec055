//! A window for temporary mappings: a few slots of one page table.
//!
//! Stage2 reaches the SVSM's tables through one, and so can the SVSM, until it has better. The
//! hand-off says where it is.

#![expect(
    unsafe_code,
    reason = "this is where virtual addresses come to mean physical pages"
)]

use core::cell::Cell;
use core::fmt;
use core::ops::Deref;
use core::ptr::NonNull;

use svsm_mm::window::{PAGE_BYTES, PageCell, Window, WordIndex};
use svsm_mm::{Error, Result};
use svsm_platform::addr::{Gpa, Gva};
use svsm_platform::encryption::{Encryption, Visibility};

use crate::layout::WINDOW_SLOTS;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const NO_EXECUTE: u64 = 1 << 63;

/// How many slots are used at most: a walk holds one per level, and someone else one more.
const MAX_OPEN: u16 = 16;

/// Shows any page that it is asked for, a few at a time, in one CPU's address space.
///
/// A slot is empty whenever nobody looks through it, so no page stays in reach longer than needed.
/// The window belongs to one CPU: it is not `Sync`, and flushes no translations but this CPU's.
pub struct SlotWindow {
    base: NonNull<u8>,
    table: PageCell,
    slots: u16,
    encryption: Encryption,
    flush: fn(Gva),
    in_use: Cell<u16>, // a bit for each of the first slots
}

impl SlotWindow {
    /// The window at `base` behind the page table that is mapped at `table`, whose first `slots`
    /// entries it edits. `flush` makes this CPU forget the translation of a page:
    /// [`invlpg`](svsm_platform::cpu::insn::invlpg).
    ///
    /// # Errors
    ///
    /// [`Error::Misaligned`] if one of the addresses is no page start, [`Error::WindowFull`] if
    /// there is no slot, or more than a window has.
    ///
    /// # Safety
    ///
    /// - `table` is mapped writable to the page table that translates `base`, whose first entry
    ///   is that of `base`, and `encryption` is how its entries say private or shared.
    /// - As long as the value lives, nobody else writes these entries or accesses these pages, and
    ///   only the CPU that uses the value translates with them.
    /// - The entries are empty.
    /// - `flush` does what it is for.
    pub unsafe fn new(
        base: NonNull<u8>,
        table: NonNull<u8>,
        slots: u16,
        encryption: Encryption,
        flush: fn(Gva),
    ) -> Result<Self> {
        let misaligned = |at: NonNull<u8>| Error::Misaligned {
            address: at.addr().get() as u64,
        };
        // SAFETY: the table is writable for as long as the value lives, by the caller's promise,
        // and page tables hold no Rust object.
        let cell = unsafe { PageCell::new(table) };
        let table = cell.ok_or(misaligned(table))?;
        if !(base.addr().get() as u64).is_multiple_of(PAGE_BYTES) {
            return Err(misaligned(base));
        }
        if slots == 0 || slots > WINDOW_SLOTS {
            return Err(Error::WindowFull);
        }
        let slots = slots.min(MAX_OPEN);
        Ok(Self {
            base,
            table,
            slots,
            encryption,
            flush,
            in_use: Cell::new(0),
        })
    }

    /// The first slot that is free.
    fn free_slot(&self) -> Option<Slot> {
        let number = u16::try_from(self.in_use.get().trailing_ones()).ok()?;
        if number >= self.slots {
            return None;
        }
        Some(Slot {
            number,
            index: WordIndex::new(number)?,
        })
    }

    fn address(&self, slot: Slot) -> NonNull<u8> {
        // SAFETY: the window has that slot, so the address is inside of what is set aside for it.
        unsafe { self.base.add(usize::from(slot.number) * 4096) }
    }
}

impl fmt::Debug for SlotWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotWindow")
            .field("base", &self.base)
            .field("slots", &self.slots)
            .field("in_use", &self.in_use)
            .finish_non_exhaustive()
    }
}

/// A slot of the window, below its `slots`.
#[derive(Clone, Copy, Debug)]
struct Slot {
    number: u16,
    index: WordIndex,
}

/// A page in a slot; dropping it empties the slot.
#[derive(Debug)]
pub struct SlotPage<'w> {
    page: PageCell,
    slot: Slot,
    window: &'w SlotWindow,
}

impl Deref for SlotPage<'_> {
    type Target = PageCell;

    fn deref(&self) -> &PageCell {
        &self.page
    }
}

impl Drop for SlotPage<'_> {
    fn drop(&mut self) {
        let window = self.window;
        window.table.store(self.slot.index, 0);
        if let Some(at) = Gva::new(window.address(self.slot).addr().get() as u64) {
            (window.flush)(at);
        }
        window
            .in_use
            .set(window.in_use.get() & !(1 << self.slot.number));
    }
}

// SAFETY: the slot's entry, which by the promise of `new` is the one that translates its address,
// names the page from before the `PageCell` exists until after it is gone; the entry was empty and
// flushed before, so no older translation exists; and `in_use` keeps others out of the slot.
unsafe impl Window for SlotWindow {
    type Mapping<'w> = SlotPage<'w>;

    unsafe fn map(&self, page: Gpa, visibility: Visibility) -> Result<SlotPage<'_>> {
        let address = self
            .encryption
            .encode(page, visibility)
            .ok_or(Error::NotEncodable { page })?;
        let slot = self.free_slot().ok_or(Error::WindowFull)?;
        let entry = address | PRESENT | WRITABLE | ACCESSED | DIRTY | NO_EXECUTE;
        self.table.store(slot.index, entry);
        self.in_use.set(self.in_use.get() | 1 << slot.number);
        // SAFETY: the slot translates to the page now, until the guard's drop; the caller promises
        // that it may be accessed.
        let cell = unsafe { PageCell::new(self.address(slot)) }.ok_or(Error::Bug)?;
        Ok(SlotPage {
            page: cell,
            slot,
            window: self,
        })
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use core::cell::UnsafeCell;
    use std::boxed::Box;
    use std::vec::Vec;
    use svsm_platform::encryption::BitPosition;

    std::thread_local! {
        static FLUSHED: Cell<u64> = const { Cell::new(0) };
    }

    #[repr(C, align(4096))]
    struct Page(UnsafeCell<[u64; 512]>);

    /// Slots that translate to themselves, and their table.
    struct Memory {
        pages: Box<[Page]>,
    }

    impl Memory {
        fn new(slots: usize) -> Self {
            Self {
                pages: (0..=slots)
                    .map(|_| Page(UnsafeCell::new([0; 512])))
                    .collect(),
            }
        }

        fn window(&self, slots: u16) -> SlotWindow {
            let table = NonNull::new(self.pages.last().unwrap().0.get().cast()).unwrap();
            let base = NonNull::new(self.pages[0].0.get().cast()).unwrap();
            let bit = Encryption::CBit(BitPosition::new(51).unwrap());
            let note = |at: Gva| FLUSHED.set(at.as_u64());
            // SAFETY: the memory outlives the window in every test, nobody else accesses it, it is
            // zero, and no processor translates with it.
            unsafe { SlotWindow::new(base, table, slots, bit, note) }.unwrap()
        }

        fn entries(&self) -> Vec<u64> {
            // SAFETY: windows access the table by volatile accesses only, and none runs now.
            unsafe { (*self.pages.last().unwrap().0.get()).to_vec() }
        }
    }

    fn open(window: &SlotWindow, page: u64) -> Result<SlotPage<'_>> {
        // SAFETY: any page of the test's memory may be accessed.
        unsafe { window.map(Gpa::new(page).unwrap(), Visibility::Private) }
    }

    #[test]
    fn slots_are_set_used_and_emptied() {
        let memory = Memory::new(3);
        let window = memory.window(3);
        let first = open(&window, 0x7000).unwrap();
        let second = open(&window, 0x9000).unwrap();
        let bits = 1 << 63 | 1 << 51 | 0x63;
        assert_eq!(memory.entries()[..3], [0x7000 | bits, 0x9000 | bits, 0]);
        second.store(WordIndex::from_low_bits(1), 5);
        assert_eq!(second.load(WordIndex::from_low_bits(1)), 5);
        assert_eq!(first.load(WordIndex::from_low_bits(1)), 0);
        drop(first);
        assert_eq!(memory.entries()[..3], [0, 0x9000 | bits, 0]);
        assert_eq!(FLUSHED.get(), memory.pages[0].0.get() as u64);
        let third = open(&window, 0xa000).unwrap();
        assert_eq!(memory.entries()[0], 0xa000 | bits);
        drop((second, third));
        assert!(memory.entries().iter().all(|entry| *entry == 0));
    }

    #[test]
    fn full_windows_say_so() {
        let memory = Memory::new(2);
        let window = memory.window(2);
        let _first = open(&window, 0x1000).unwrap();
        let second = open(&window, 0x2000).unwrap();
        assert_eq!(open(&window, 0x3000).unwrap_err(), Error::WindowFull);
        drop(second);
        assert!(open(&window, 0x3000).is_ok());
    }

    #[test]
    fn pages_without_an_encoding_are_refused() {
        let memory = Memory::new(1);
        let window = memory.window(1);
        for page in [0x1001, 1 << 51] {
            let page_gpa = Gpa::new(page).unwrap();
            assert_eq!(
                open(&window, page).unwrap_err(),
                Error::NotEncodable { page: page_gpa }
            );
        }
    }
}
