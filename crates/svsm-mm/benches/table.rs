//! Mapping and unmapping 1 GiB in 4 KiB pages, side by side with the `x86_64` crate's
//! `OffsetPageTable`. Both reach their tables through a linear mapping and flush nothing.
#![expect(
    clippy::unwrap_used,
    reason = "a bench that cannot run has nothing to measure"
)]
#![expect(unsafe_code, reason = "page tables in plain memory of this process")]

use core::ptr::NonNull;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use svsm_mm::frame::{Buddy, FrameMeta, FrameSource, Order};
use svsm_mm::table::{Attributes, Levels, PageTable, Rights};
use svsm_mm::window::DirectWindow;
use svsm_platform::addr::{Gpa, GpaRange, Gva, GvaRange, PageSize};
use svsm_platform::encryption::{Encryption, Visibility};
use x86_64::structures::paging as theirs;
use x86_64::structures::paging::mapper::{CleanUp, Mapper};
use x86_64::structures::paging::{FrameAllocator, FrameDeallocator};

const GIB: u64 = 1 << 30;
const TABLES: u16 = 1024;
const AT: u64 = 0xffff_ff00_0000_0000;
const TO: u64 = 0x40_0000_0000;

#[repr(C, align(4096))]
#[derive(Clone, Copy)]
struct Page([u8; 4096]);

/// Memory for tables; it lives as long as the process.
fn memory() -> NonNull<u8> {
    NonNull::from(vec![Page([0; 4096]); usize::from(TABLES)].leak()).cast()
}

fn ours(criterion: &mut Criterion) {
    let span = GpaRange::new(Gpa::new(0).unwrap(), u64::from(TABLES) * 4096).unwrap();
    let mut meta = vec![FrameMeta::EMPTY; usize::from(TABLES)];
    let mut frames = Buddy::new(span, &mut meta).unwrap();
    // SAFETY: the span names the memory below, which nobody else knows.
    unsafe { frames.add(span) }.unwrap();
    // SAFETY: the memory is as long as the span and is accessed by this window alone.
    let window = unsafe { DirectWindow::new(span, memory(), Visibility::Private) }.unwrap();
    let root = frames.take(Order::SINGLE).unwrap();
    let mut table = PageTable::new(root, Encryption::None, Levels::Four, &window).unwrap();
    let range = GvaRange::new(Gva::new(AT).unwrap(), GIB).unwrap();
    let (to, attributes) = (
        Gpa::new(TO).unwrap(),
        Attributes::private(Rights::READ_WRITE),
    );

    let mut group = criterion.benchmark_group("map and unmap 1 GiB in 4 KiB pages");
    group
        .throughput(Throughput::Elements(GIB / 4096))
        .sample_size(20);
    group.bench_function("svsm-mm", |bencher| {
        bencher.iter(|| {
            let mut editor = table.editor(&mut frames, &window);
            editor
                .map_up_to(range, to, attributes, PageSize::Size4K)
                .unwrap();
            let (stale, outcome) = editor.unmap(range);
            outcome.unwrap();
            // SAFETY: no processor translates with this table.
            let flushed = unsafe { stale.assume_flushed() };
            editor.reclaim(flushed).unwrap();
        });
    });
    group.finish();
}

/// What `OffsetPageTable` takes tables from, and gives them back to: as cheap as can be.
struct Stack(Vec<theirs::PhysFrame>);

// SAFETY: every frame is on the stack once, or handed out.
unsafe impl FrameAllocator<theirs::Size4KiB> for Stack {
    fn allocate_frame(&mut self) -> Option<theirs::PhysFrame> {
        self.0.pop()
    }
}

impl FrameDeallocator<theirs::Size4KiB> for Stack {
    unsafe fn deallocate_frame(&mut self, frame: theirs::PhysFrame) {
        self.0.push(frame);
    }
}

fn offset_page_table(criterion: &mut Criterion) {
    let memory = memory();
    let frame =
        |number: u64| theirs::PhysFrame::containing_address(x86_64::PhysAddr::new(number * 4096));
    let mut frames = Stack((1..u64::from(TABLES)).map(frame).collect());
    let offset = x86_64::VirtAddr::new(memory.addr().get() as u64);
    // SAFETY: the first page is zeroed, as a table is, and nobody else knows it.
    let root = unsafe { memory.cast::<theirs::PageTable>().as_mut() };
    // SAFETY: physical addresses of the stack's frames lie at that offset.
    let mut table = unsafe { theirs::OffsetPageTable::new(root, offset) };
    let pages = || {
        let page = |at| theirs::Page::containing_address(x86_64::VirtAddr::new(at));
        theirs::Page::range(page(AT), page(AT + GIB))
    };
    let flags = theirs::PageTableFlags::PRESENT
        | theirs::PageTableFlags::WRITABLE
        | theirs::PageTableFlags::NO_EXECUTE;

    let mut group = criterion.benchmark_group("map and unmap 1 GiB in 4 KiB pages");
    group
        .throughput(Throughput::Elements(GIB / 4096))
        .sample_size(20);
    group.bench_function("x86_64 OffsetPageTable, tables kept", |bencher| {
        bencher.iter(|| {
            map(&mut table, &mut frames, pages(), flags);
            unmap(&mut table, pages());
        });
    });
    group.bench_function("x86_64 OffsetPageTable, tables given back", |bencher| {
        bencher.iter(|| {
            map(&mut table, &mut frames, pages(), flags);
            unmap(&mut table, pages());
            // SAFETY: no processor translates with this table.
            unsafe { table.clean_up(&mut frames) };
        });
    });
    group.finish();
}

fn map(
    table: &mut theirs::OffsetPageTable<'_>,
    frames: &mut Stack,
    pages: theirs::page::PageRange,
    flags: theirs::PageTableFlags,
) {
    for (number, page) in (0..).zip(pages) {
        let to = x86_64::PhysAddr::new(TO + number * 4096);
        let to = theirs::PhysFrame::containing_address(to);
        // SAFETY: no processor translates with this table.
        unsafe { table.map_to(page, to, flags, frames) }
            .unwrap()
            .ignore();
    }
}

fn unmap(table: &mut theirs::OffsetPageTable<'_>, pages: theirs::page::PageRange) {
    for page in pages {
        table.unmap(page).unwrap().1.ignore();
    }
}

criterion_group!(benches, ours, offset_page_table);
criterion_main!(benches);
