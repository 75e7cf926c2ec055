//! The heap of Rust objects.
#![expect(unsafe_code, reason = "implements the global allocator")]

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};

use svsm_platform::irq::LocalIrq;
use svsm_platform::lock::SpinLock;
use talc::base::{Talc, binning::DefaultBinning};
use talc::source::Manual;

struct Heap(SpinLock<Talc<Manual, DefaultBinning>, LocalIrq>);

#[global_allocator]
static HEAP: Heap = Heap(SpinLock::new(Talc::new(Manual), LocalIrq));

/// Makes memory part of the heap; called once, with memory that nobody else has.
pub(super) fn lend(at: NonNull<u8>, len_bytes: usize) {
    // SAFETY: `take_over` sets this memory aside from the free part of the linear mapping and tells nobody else.
    let claimed = unsafe { HEAP.0.lock().claim(at.as_ptr(), len_bytes) };
    // Too little to be of use: the first allocation says so.
    let _ = claimed;
}

// SAFETY: the allocator behind the lock answers with memory of the layout that nobody else has, or with null.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() == 0 {
            return ptr::without_provenance_mut(layout.align());
        }
        // SAFETY: the layout is not empty.
        let memory = unsafe { self.0.lock().allocate(layout) };
        memory.map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        if layout.size() > 0 {
            // SAFETY: the caller returns what `alloc` gave for this layout, which was not empty.
            unsafe { self.0.lock().deallocate(at, layout) };
        }
    }
}
