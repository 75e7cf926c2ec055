//! A heap for Rust objects.

#![expect(unsafe_code, reason = "an allocator hands out raw memory")]

use core::alloc::{GlobalAlloc, Layout};
use core::fmt;
use core::ptr::{self, NonNull};

use svsm_platform::irq::IrqCtl;
use svsm_platform::lock::SpinLock;
use talc::DefaultBinning;
use talc::base::Talc;
use talc::source::Manual;

use crate::{Error, Result};

mod grow;

pub use grow::{FrameGrowth, Grow, NoGrowth};

/// What a heap holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct HeapUse {
    /// Bytes that were asked for and not given back.
    pub used_bytes: u64,
    /// The most that `used_bytes` ever was.
    pub peak_bytes: u64,
    /// Bytes that the heap has, its own bookkeeping included.
    pub total_bytes: u64,
    /// How many requests it refused.
    pub refused: u64,
}

/// An allocator for objects of any size, which asks for more memory when it has too little.
///
/// The algorithm is that of the crate `talc`; here are growth, figures and errors. Memory that the
/// heap has it keeps.
pub struct Heap<G = NoGrowth> {
    talc: Talc<Manual, DefaultBinning>,
    growth: G,
    usage: HeapUse,
}

impl<G> Heap<G> {
    /// A heap without memory.
    #[must_use]
    pub const fn new(growth: G) -> Self {
        let usage = HeapUse {
            used_bytes: 0,
            peak_bytes: 0,
            total_bytes: 0,
            refused: 0,
        };
        Self {
            talc: Talc::new(Manual),
            growth,
            usage,
        }
    }

    /// Gives the heap memory of its own.
    ///
    /// # Errors
    /// [`Error::HeapPart`] if it is too little to be of use.
    ///
    /// # Safety
    /// The memory is readable and writable and nobody else's, for as long as the heap or anything
    /// that was allocated from it lives.
    pub unsafe fn claim(&mut self, memory: NonNull<[u8]>) -> Result<()> {
        let (base, len_bytes) = (memory.cast::<u8>().as_ptr(), memory.len());
        // SAFETY: the caller's promise is the one asked for.
        let claimed = unsafe { self.talc.claim(base, len_bytes) };
        claimed.ok_or(Error::HeapPart {
            len_bytes: len_bytes as u64,
        })?;
        self.usage.total_bytes += len_bytes as u64;
        Ok(())
    }

    /// What it holds.
    #[must_use]
    pub const fn usage(&self) -> HeapUse {
        self.usage
    }

    /// Where more memory comes from.
    pub const fn growth_mut(&mut self) -> &mut G {
        &mut self.growth
    }
}

impl<G: Grow> Heap<G> {
    /// Memory for an object. For one without size that is an address and no memory.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn allocate(&mut self, layout: Layout) -> Result<NonNull<u8>> {
        if layout.size() == 0 {
            return NonNull::new(ptr::without_provenance_mut(layout.align())).ok_or(Error::Bug);
        }
        // SAFETY: the layout has a size.
        let mut found = unsafe { self.talc.try_allocate(layout) };
        if found.is_none() && self.grow(layout) {
            // SAFETY: the layout has a size.
            found = unsafe { self.talc.try_allocate(layout) };
        }
        let Some(object) = found else {
            self.usage.refused = self.usage.refused.saturating_add(1);
            return Err(Error::OutOfMemory {
                len_bytes: layout.size() as u64,
            });
        };
        self.count(0, layout.size());
        Ok(object)
    }

    /// Takes an object's memory back.
    ///
    /// # Safety
    /// `object` came from this heap for that layout and is not used any more.
    pub unsafe fn deallocate(&mut self, object: NonNull<u8>, layout: Layout) {
        if layout.size() != 0 {
            // SAFETY: the caller's promise is the one asked for; the layout has a size, so the
            // object was allocated by `talc`.
            unsafe { self.talc.deallocate(object.as_ptr(), layout) };
            self.count(layout.size(), 0);
        }
    }

    /// Makes an object's memory larger or smaller; the beginning of its contents stays, its
    /// address may change.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; the object is unchanged then.
    ///
    /// # Safety
    /// `object` came from this heap for `layout`. After success it is used only as answered.
    pub unsafe fn reallocate(
        &mut self,
        object: NonNull<u8>,
        layout: Layout,
        new_size: usize,
    ) -> Result<NonNull<u8>> {
        let out = Error::OutOfMemory {
            len_bytes: new_size as u64,
        };
        if layout.size() != 0 && new_size != 0 {
            let at = object.as_ptr();
            // SAFETY: the caller's promise is the one asked for, and both sizes are not 0.
            if unsafe { self.talc.try_realloc_in_place(at, layout, new_size) } {
                self.count(layout.size(), new_size);
                return Ok(object);
            }
        }
        let larger = Layout::from_size_align(new_size, layout.align()).map_err(|_| out)?;
        let new = self.allocate(larger)?;
        let kept = layout.size().min(new_size);
        // SAFETY: both are allocated, do not overlap, and have at least `kept` bytes.
        unsafe { object.copy_to_nonoverlapping(new, kept) };
        // SAFETY: the caller's promise; what is used from now on is `new`.
        unsafe { self.deallocate(object, layout) };
        Ok(new)
    }

    /// Gets more memory, enough for `layout` however it comes to lie.
    fn grow(&mut self, layout: Layout) -> bool {
        let first = if self.talc.is_metadata_established() {
            0
        } else {
            talc::min_first_heap_size::<DefaultBinning>()
        };
        // Tags at both ends, and room to align.
        let overhead = first + 4 * size_of::<usize>();
        let needed = layout
            .size()
            .checked_add(layout.align())
            .and_then(|n| n.checked_add(overhead));
        let Some(memory) = needed.and_then(|needed| self.growth.grow(needed)) else {
            return false;
        };
        // SAFETY: a `Grow` answers with memory that is the heap's from now on.
        unsafe { self.claim(memory) }.is_ok()
    }

    fn count(&mut self, freed: usize, taken: usize) {
        let used = self.usage.used_bytes + taken as u64;
        self.usage.used_bytes = used.saturating_sub(freed as u64);
        self.usage.peak_bytes = self.usage.peak_bytes.max(self.usage.used_bytes);
    }
}

impl<G> fmt::Debug for Heap<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heap")
            .field("usage", &self.usage)
            .finish_non_exhaustive()
    }
}

/// A [`Heap`] behind a lock, to be the global allocator of a program: the static is the program's.
#[derive(Debug)]
pub struct LockedHeap<I: IrqCtl, G = NoGrowth>(SpinLock<Heap<G>, I>);

impl<I: IrqCtl, G> LockedHeap<I, G> {
    /// A heap without memory; give it some by [`heap`](Self::heap) and [`Heap::claim`].
    #[must_use]
    pub const fn new(growth: G, irq: I) -> Self {
        Self(SpinLock::new(Heap::new(growth), irq))
    }

    /// The heap behind its lock. Nothing may allocate while it is locked.
    pub const fn heap(&self) -> &SpinLock<Heap<G>, I> {
        &self.0
    }
}

// SAFETY: memory comes from a heap, which hands out disjoint parts that it owns, and never moves
// or reuses one before it is given back. A refusal is a null pointer.
unsafe impl<I: IrqCtl, G: Grow> GlobalAlloc for LockedHeap<I, G> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0
            .lock()
            .allocate(layout)
            .map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, object: *mut u8, layout: Layout) {
        if let Some(object) = NonNull::new(object) {
            // SAFETY: the caller's promise is the one asked for.
            unsafe { self.0.lock().deallocate(object, layout) };
        }
    }

    unsafe fn realloc(&self, object: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Some(object) = NonNull::new(object) else {
            return ptr::null_mut();
        };
        // SAFETY: the caller's promise is the one asked for.
        let new = unsafe { self.0.lock().reallocate(object, layout, new_size) };
        new.map_or(ptr::null_mut(), NonNull::as_ptr)
    }
}

#[cfg(test)]
mod tests;
