//! Windows: how software reaches a physical page.
//!
//! Nothing here turns a physical address into a pointer by adding a constant. Code that needs the
//! contents of a page asks a [`Window`] for it, and has it for as long as it holds the answer.
//! Contents are copied in and out by volatile accesses; there is never a Rust reference to them,
//! because the processor (page tables), the host or a guest may write them at any time.

#![expect(
    unsafe_code,
    reason = "memory outside of Rust's objects is accessed here"
)]

use core::ops::Deref;
use core::ptr::NonNull;

use svsm_platform::addr::Gpa;
use svsm_platform::encryption::Visibility;

use crate::{Error, Result};

mod direct;
pub mod fallible; // accesses that may fault
#[cfg(any(test, feature = "alloc"))]
mod host;
mod large;
mod temp;

pub use direct::{DirectPage, DirectWindow};
#[cfg(any(test, feature = "alloc"))]
pub use host::{HostMemory, HostPage, NoProcessor};
pub use large::LargeWindow;
pub use temp::{TempPage, TempWindow};

/// Bytes of a page as windows show it.
pub const PAGE_BYTES: u64 = 4096;

/// Shows physical pages.
///
/// All windows of a program agree on what a GPA names, and a window shows only memory that holds
/// no Rust object.
///
/// # Safety
/// - [`map`](Self::map) answers with the page that was asked for, readable and writable through the
///   [`PageCell`] for as long as the answer lives, or with an error.
/// - [`SIMULATED`](Self::SIMULATED) is true only of memory that no processor has at these addresses.
pub unsafe trait Window {
    /// Whether the memory is a program's model of memory: page tables in it translate nothing, and
    /// need no flush.
    const SIMULATED: bool = false;

    /// Holds the page in the window. Dropping it may take the page out.
    type Mapping<'w>: Deref<Target = PageCell>
    where
        Self: 'w;

    /// Shows the 4 KiB page at `page`.
    ///
    /// # Errors
    /// - [`Error::Unreachable`] if the window does not show that page with that visibility.
    /// - [`Error::WindowFull`] if it shows too many others.
    ///
    /// # Safety
    /// The caller may access the page: it holds the [`Frame`](crate::frame::Frame) that the page
    /// is in, or the page is of a table it owns, or it is shared with others who expect accesses
    /// at any time.
    unsafe fn map(&self, page: Gpa, visibility: Visibility) -> Result<Self::Mapping<'_>>;
}

// SAFETY: the answer is that of the window behind the reference.
unsafe impl<W: Window + ?Sized> Window for &W {
    const SIMULATED: bool = W::SIMULATED;

    type Mapping<'w>
        = W::Mapping<'w>
    where
        Self: 'w;

    unsafe fn map(&self, page: Gpa, visibility: Visibility) -> Result<Self::Mapping<'_>> {
        // SAFETY: the caller's promise is passed on.
        unsafe { (**self).map(page, visibility) }
    }
}

/// The index of a 64-bit word in a page, hence of an entry in a page table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WordIndex(u16);

impl WordIndex {
    /// How many words a page has.
    pub const COUNT: u16 = 512;

    /// The index, if a page has that word.
    #[must_use]
    pub const fn new(index: u16) -> Option<Self> {
        if index < Self::COUNT {
            Some(Self(index))
        } else {
            None
        }
    }

    /// The index of the low nine bits of `value`.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "nine bits are left")]
    pub const fn from_low_bits(value: u64) -> Self {
        Self((value % Self::COUNT as u64) as u16)
    }

    /// The plain number.
    #[must_use]
    pub const fn as_u16(self) -> u16 {
        self.0
    }

    /// The index after this one.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        Self::new(self.0 + 1)
    }

    /// All indices in order.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> {
        (0..Self::COUNT).map(Self)
    }
}

/// A page that can be accessed now. Every access is volatile.
#[derive(Debug)]
pub struct PageCell {
    base: NonNull<u64>, // page-aligned; 4096 bytes from here are accessible while `self` lives
}

impl PageCell {
    /// The page at `base`, or `None` if no page starts there.
    ///
    /// # Safety
    /// The 4096 bytes from `base` on are readable and writable for as long as the value lives, and
    /// no Rust object lives in them other than in an [`UnsafeCell`](core::cell::UnsafeCell) or
    /// behind the raw pointer that `base` was made from.
    #[must_use]
    pub unsafe fn new(base: NonNull<u8>) -> Option<Self> {
        (base.addr().get() as u64)
            .is_multiple_of(PAGE_BYTES)
            .then_some(Self { base: base.cast() })
    }

    /// Reads a word.
    #[must_use]
    #[inline]
    pub fn load(&self, index: WordIndex) -> u64 {
        // SAFETY: a `WordIndex` is below 512, so the word is in the page.
        let word = unsafe { self.base.add(usize::from(index.0)) };
        // SAFETY: the page is readable while `self` lives, and the word aligned because it is.
        unsafe { word.read_volatile() }
    }

    /// Writes a word.
    #[inline]
    pub fn store(&self, index: WordIndex, value: u64) {
        // SAFETY: a `WordIndex` is below 512, so the word is in the page.
        let word = unsafe { self.base.add(usize::from(index.0)) };
        // SAFETY: the page is writable while `self` lives, and the word aligned because it is.
        unsafe { word.write_volatile(value) }
    }

    /// Overwrites the page with zeroes.
    pub fn clear(&self) {
        for index in WordIndex::all() {
            self.store(index, 0);
        }
    }

    /// Copies bytes out of the page: each is read once, in any order and width.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] if the bytes are not all in the page.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        let mut source = self.bytes_at(offset, bytes.len())?;
        for chunk in bytes.chunks_mut(size_of::<u64>()) {
            if let Ok(word) = <&mut [u8; 8]>::try_from(&mut *chunk)
                && source.cast::<u64>().is_aligned()
            {
                // SAFETY: eight bytes from `source` on are in the page and aligned.
                *word = unsafe { source.cast::<u64>().read_volatile() }.to_ne_bytes();
                // SAFETY: at most one past the last byte, which is at most the page's end.
                source = unsafe { source.add(8) };
                continue;
            }
            for byte in chunk {
                // SAFETY: `bytes_at` saw that as many bytes as `bytes` has are in the page.
                *byte = unsafe { source.read_volatile() };
                // SAFETY: at most one past the last byte, which is at most the page's end.
                source = unsafe { source.add(1) };
            }
        }
        Ok(())
    }

    /// Copies bytes into the page.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] if the bytes do not all fit; none is written then.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut target = self.bytes_at(offset, bytes.len())?;
        for chunk in bytes.chunks(size_of::<u64>()) {
            if let Ok(word) = <[u8; 8]>::try_from(chunk)
                && target.cast::<u64>().is_aligned()
            {
                // SAFETY: eight bytes from `target` on are in the page and aligned.
                unsafe {
                    target
                        .cast::<u64>()
                        .write_volatile(u64::from_ne_bytes(word))
                };
                // SAFETY: at most one past the last byte, which is at most the page's end.
                target = unsafe { target.add(8) };
                continue;
            }
            for byte in chunk {
                // SAFETY: `bytes_at` saw that as many bytes as `bytes` has are in the page.
                unsafe { target.write_volatile(*byte) };
                // SAFETY: at most one past the last byte, which is at most the page's end.
                target = unsafe { target.add(1) };
            }
        }
        Ok(())
    }

    /// Where `len` bytes from `offset` on lie, if they are all in the page.
    fn bytes_at(&self, offset: u64, len: usize) -> Result<NonNull<u8>> {
        let error = Error::OutOfBounds {
            offset,
            len_bytes: len as u64,
        };
        let end = offset.checked_add(len as u64).ok_or(error)?;
        if end > PAGE_BYTES {
            return Err(error);
        }
        let offset = usize::try_from(offset).map_err(|_| error)?;
        // SAFETY: `offset` is at most the page's size.
        Ok(unsafe { self.base.cast::<u8>().add(offset) })
    }
}
