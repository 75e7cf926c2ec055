//! Memory of the SVSM: frames, heap, the kernel's page table, and stacks.
//!
//! The image brings one linear mapping of the private region's free part. Its end becomes the heap of Rust objects, all else
//! becomes frames, which are reached through a window and never hold a Rust object of ours.

mod heap;
mod stack;

use core::mem::ManuallyDrop;
use core::ptr::NonNull;

use svsm_mm::frame::{Buddy, Frame, FrameMeta, FrameSource, Order};
use svsm_mm::table::{Attributes, Levels, PageTable, Rights, StaleTlb};
use svsm_mm::window::DirectWindow;
use svsm_platform::addr::{Gpa, GpaRange, Gva, GvaRange, PageSize};
use svsm_platform::cpu::cr::Cr3;
use svsm_platform::encryption::Visibility;
use svsm_platform::irq::LocalIrq;
use svsm_platform::lock::SpinLock;
use svsm_platform::once::OnceCell;
use svsm_platform::percpu::CpuIndex;
use svsm_stage2::handoff::Handoff;
use svsm_stage2::layout;

use crate::smp::MAX_CPUS;

pub(crate) use stack::{Stack, is_kernel_stack};

/// The share of free memory that becomes the heap: one part in this many.
const HEAP_SHARE: u64 = 4;

/// The heap has no room.
pub(crate) const EXHAUSTED: svsm_mm::Error = svsm_mm::Error::OutOfFrames {
    order: Order::SINGLE,
};

/// Frames of the SVSM, for all CPUs.
pub(crate) type Frames = SpinLock<Buddy<'static>, LocalIrq>;

/// What is set up once and then lent.
pub(crate) struct Memory {
    frames: Frames,
    window: DirectWindow,
    /// The start of the linear mapping.
    shown: (Gpa, Gva),
    kernel: SpinLock<PageTable, LocalIrq>,
    cr3: Cr3,
}

static MEMORY: OnceCell<Memory> = OnceCell::new();

/// Takes over the private region, of which `free` is not in use yet.
///
/// # Errors
/// What about the hand-off's free memory or page tables cannot be used.
pub(crate) fn take_over(
    handoff: &Handoff,
    free: GpaRange,
    encryption: svsm_platform::encryption::Encryption,
) -> svsm_mm::Result<()> {
    let bug = svsm_mm::Error::Bug;
    let page = PageSize::Size4K.bytes();
    // From the end: the heap, and before it the frames' bookkeeping.
    let heap_bytes = free.len_bytes() / HEAP_SHARE / page * page;
    let meta_bytes =
        (Buddy::metadata_len(free) * size_of::<FrameMeta>() as u64).next_multiple_of(page);
    let objects = free.end().checked_sub(heap_bytes + meta_bytes).ok_or(bug)?;
    let frames = GpaRange::from_bounds(free.start(), objects).ok_or(bug)?;
    let shown = GpaRange::from_bounds(handoff.tables.gpa(), objects).ok_or(bug)?;
    let meta_at = linear(handoff, objects).ok_or(bug)?;
    let heap_at = meta_at.checked_add(meta_bytes).ok_or(bug)?;
    let shown_at = linear(handoff, shown.start())
        .and_then(pointer)
        .ok_or(bug)?;

    heap::lend(pointer(heap_at).ok_or(bug)?, heap_bytes as usize);
    let meta = bookkeeping(
        pointer(meta_at).ok_or(bug)?,
        Buddy::metadata_len(frames) as usize,
    );
    let mut buddy = Buddy::new(frames, meta)?;
    // SAFETY: the builder left this memory to the SVSM, which is one of us; the heap and the bookkeeping lie behind it, and
    // no Rust object is in it.
    #[expect(unsafe_code, reason = "free memory becomes frames")]
    unsafe {
        buddy.add(frames)?;
    }
    // SAFETY: the hand-off was checked: tables and free memory are mapped linearly, one behind the other, for good.
    #[expect(unsafe_code, reason = "the linear mapping becomes a window")]
    let window = unsafe { DirectWindow::new(shown, shown_at, Visibility::Private)? };
    // SAFETY: the builder made the tables with `svsm_mm`, and stage2 gave them this encryption. Nobody else has them now.
    #[expect(unsafe_code, reason = "the builder's page table becomes ours")]
    let mut kernel = unsafe {
        let root = Frame::from_raw(handoff.root(), Order::SINGLE).ok_or(bug)?;
        PageTable::adopt(root, encryption, Levels::Four)
    };
    kernel.pin(&window)?;
    let frames = SpinLock::new(buddy, LocalIrq);
    let common = kernel_half().ok_or(bug)?;
    kernel
        .editor(&mut &frames, &window)
        .populate(common)
        .map_err(|stopped| stopped.cause)?;
    let cr3 = kernel.cr3()?;
    let kernel = SpinLock::new(kernel, LocalIrq);
    stack::know_boot_stack(handoff.boot_stack.gva_range());
    MEMORY
        .set(Memory {
            frames,
            window,
            shown: (handoff.tables.gpa(), handoff.tables.gva()),
            kernel,
            cr3,
        })
        .map_err(|_| bug)
}

/// The memory that was taken over.
///
/// # Errors
/// None was.
pub(crate) fn memory() -> svsm_mm::Result<&'static Memory> {
    MEMORY.value().ok_or(svsm_mm::Error::Bug)
}

impl Memory {
    /// The SVSM's free frames.
    pub(crate) const fn frames(&self) -> &Frames {
        &self.frames
    }

    /// The window to them.
    pub(crate) const fn window(&self) -> &DirectWindow {
        &self.window
    }

    /// Maps fresh, cleared frames for the kernel.
    ///
    /// # Errors
    /// Why it did not; nothing is mapped then.
    pub(crate) fn map_kernel(&self, range: GvaRange) -> svsm_mm::Result<()> {
        let attributes = Attributes::private(Rights::READ_WRITE).global();
        let mut kernel = self.kernel.lock();
        let mut frames = &self.frames;
        let mut editor = kernel.editor(&mut frames, &self.window);
        editor
            .map_fresh(range, attributes, PageSize::Size4K)
            .map_err(|stopped| {
                // What was mapped stays mapped and unused: nobody was told of it, so nobody can have it in a TLB, but only
                // a flush could prove that.
                let (stale, _) = editor.unmap(range);
                forget(stale);
                stopped.cause
            })
    }

    /// Makes a page table that has the kernel's half in common with all others.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn new_table(&self) -> svsm_mm::Result<PageTable> {
        let root = (&self.frames).take(Order::SINGLE)?;
        let common = kernel_half().ok_or(svsm_mm::Error::Bug)?;
        let kernel = self.kernel.lock();
        PageTable::new_sharing(root, &kernel, common, &self.window).map_err(|refused| {
            let _ = (&self.frames).give(refused.frame);
            refused.error
        })
    }

    /// Where a CPU sees 2 MiB of anything: the page-table entry, and the place.
    pub(crate) fn large_place(&self, cpu: CpuIndex) -> Option<(NonNull<u64>, Gva)> {
        let large = PageSize::Size2M.bytes();
        // From the end of the SVSM's address space down; stacks come from the other end.
        let below = u64::from(cpu.as_u32()) + 1;
        let end = layout::runtime()?.end().align_down(PageSize::Size2M);
        let place = end.checked_sub(below * large)?;
        let (table, index) = self
            .kernel
            .lock()
            .large_entry_at(&self.window, place)
            .ok()?;
        let entry = self
            .linear(table)?
            .checked_add(u64::from(index.as_u16()) * 8)?;
        Some((pointer(entry)?.cast(), place))
    }

    /// Where the linear mapping shows a page of it.
    fn linear(&self, page: Gpa) -> Option<Gva> {
        let (start, at) = self.shown;
        at.checked_add(page.checked_offset_from(start)?)
    }

    /// Two pages that become the platform's for good: one for any use, and one that may be a save area.
    ///
    /// # Errors
    /// There are none.
    pub(crate) fn platform_pages(&self) -> svsm_mm::Result<(Gpa, Gpa)> {
        // Of two pages that lie side by side, the second never starts 2 MiB.
        let frame =
            ManuallyDrop::new((&self.frames).take(Order::new(1).ok_or(svsm_mm::Error::Bug)?)?);
        let first = frame.base();
        let second = first
            .checked_add(PageSize::Size4K.bytes())
            .ok_or(svsm_mm::Error::Bug)?;
        Ok((first, second))
    }

    /// So many free pages side by side, which are not given back.
    ///
    /// # Errors
    /// There are none.
    pub(crate) fn take_pages(&self, count: usize) -> svsm_mm::Result<Gpa> {
        let order = count.next_power_of_two().trailing_zeros();
        let order = u8::try_from(order).ok().and_then(Order::new);
        let frame = (&self.frames).take(order.ok_or(svsm_mm::Error::Bug)?)?;
        Ok(ManuallyDrop::new(frame).base())
    }

    /// Maps pages that are shared with the host, for good, from the place with that number on; called once for each place.
    ///
    /// # Errors
    /// Why they are not mapped.
    pub(crate) fn map_shared(&self, place: u64, range: GpaRange) -> svsm_mm::Result<GvaRange> {
        let bug = svsm_mm::Error::Bug;
        // Below the places where each CPU sees 2 MiB of anything.
        let large = PageSize::Size2M.bytes();
        let end = layout::runtime()
            .ok_or(bug)?
            .end()
            .align_down(PageSize::Size2M);
        let start = end.checked_sub((MAX_CPUS as u64 + 1) * large).ok_or(bug)?;
        let offset = place.checked_mul(PageSize::Size4K.bytes());
        let start = start.checked_add(offset.ok_or(bug)?).ok_or(bug)?;
        let place = GvaRange::new(start, range.len_bytes()).ok_or(bug)?;
        let attributes = Attributes {
            visibility: Visibility::Shared,
            ..Attributes::private(Rights::READ_WRITE)
        };
        let mut kernel = self.kernel.lock();
        let mut frames = &self.frames;
        kernel
            .editor(&mut frames, &self.window)
            .map_up_to(place, range.start(), attributes, PageSize::Size4K)
            .map_err(|stopped| stopped.cause)?;
        Ok(place)
    }

    /// The value of CR3 for kernel code that belongs to no process.
    pub(crate) const fn kernel_cr3(&self) -> Cr3 {
        self.cr3
    }

    /// How many bytes of frames are free, and how many there are.
    pub(crate) fn free_and_total(&self) -> (u64, u64) {
        let frames = self.frames.lock();
        (
            frames.free_frames() * PageSize::Size4K.bytes(),
            frames.total_frames() * PageSize::Size4K.bytes(),
        )
    }
}

/// Stale translations of memory that stays out of use need no flush.
fn forget(stale: StaleTlb) {
    let _ = stale;
}

/// The part of the address space that all page tables share.
fn kernel_half() -> Option<GvaRange> {
    GvaRange::from_bounds(layout::LINEAR, layout::runtime()?.end())
}

/// Where the linear mapping, which begins with the tables, shows an address of the private region.
fn linear(handoff: &Handoff, at: Gpa) -> Option<Gva> {
    handoff
        .tables
        .gva()
        .checked_add(at.checked_offset_from(handoff.tables.gpa())?)
}

fn pointer(at: Gva) -> Option<NonNull<u8>> {
    NonNull::new(core::ptr::with_exposed_provenance_mut(at.as_u64() as usize))
}

/// The frames' bookkeeping, as objects.
fn bookkeeping(at: NonNull<u8>, count: usize) -> &'static mut [FrameMeta] {
    let start = at.cast::<FrameMeta>();
    #[expect(unsafe_code, reason = "memory of the linear mapping becomes objects")]
    for index in 0..count {
        // SAFETY: `take_over` set room for `count` elements aside from its own free memory, page-aligned.
        unsafe { start.add(index).write(FrameMeta::EMPTY) };
    }
    // SAFETY: all elements were written above, and `take_over` lends this memory once.
    #[expect(unsafe_code, reason = "memory of the linear mapping becomes objects")]
    unsafe {
        core::slice::from_raw_parts_mut(start.as_ptr(), count)
    }
}
