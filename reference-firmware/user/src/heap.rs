//! The heap: memory that the kernel maps, in pieces as they are needed.
#![expect(unsafe_code, reason = "implements the global allocator")]

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};

use svsm_platform::irq::NoIrq;
use svsm_platform::lock::SpinLock;
use svsm_syscall::program::Rights;
use talc::base::Talc;
use talc::base::binning::{Binning, DefaultBinning};
use talc::source::Source;

use crate::KERNEL;

/// The least that is asked of the kernel at a time.
const PIECE_BYTES: usize = 64 << 10;
/// What the allocator's own bookkeeping takes of a piece at most.
const OVERHEAD_BYTES: usize = 4 << 10;

/// Asks the kernel.
#[derive(Debug)]
struct Kernel;

// SAFETY: what it claims is memory that the kernel has just mapped for this process, and nobody else's.
unsafe impl Source for Kernel {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        let wanted = layout
            .size()
            .checked_add(layout.align())
            .and_then(|bytes| bytes.checked_add(OVERHEAD_BYTES));
        let bytes = wanted
            .ok_or(())?
            .max(PIECE_BYTES)
            .checked_next_multiple_of(4096)
            .ok_or(())?;
        let piece = KERNEL.map(bytes, Rights::Write).map_err(drop)?;
        // SAFETY: the kernel has just mapped this memory, zeroed, for this process alone.
        unsafe { talc.claim(piece.as_ptr().cast(), piece.len()) }
            .map(drop)
            .ok_or(())
    }
}

struct Heap(SpinLock<Talc<Kernel, DefaultBinning>, NoIrq>);

#[global_allocator]
static HEAP: Heap = Heap(SpinLock::new(Talc::new(Kernel), NoIrq));

// SAFETY: the allocator behind the lock answers with memory of the layout that nobody else has, or with null.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller asks for more than nothing.
        let memory = unsafe { self.0.lock().allocate(layout) };
        memory.map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller returns what `alloc` gave for this layout.
        unsafe { self.0.lock().deallocate(at, layout) };
    }
}
