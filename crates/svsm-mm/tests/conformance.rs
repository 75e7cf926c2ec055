//! Every implementation of a seam that this crate has keeps its laws.
#![expect(clippy::unwrap_used, reason = "what fails here is the test")]
#![expect(unsafe_code, reason = "windows to memory of this process")]

use core::ptr::NonNull;

use svsm_mm::dev::{check_frame_source, check_window};
use svsm_mm::frame::{Buddy, Bump, FrameCache, FrameMeta, FrameSource, Order};
use svsm_mm::window::{DirectWindow, HostMemory};
use svsm_platform::addr::{Gpa, GpaRange};
use svsm_platform::encryption::Visibility;
use svsm_platform::irq::NoIrq;
use svsm_platform::lock::SpinLock;

const PAGES: u16 = 1024;

fn range() -> GpaRange {
    GpaRange::new(Gpa::new(0x10_3000).unwrap(), u64::from(PAGES) * 4096).unwrap()
}

fn on_buddy(test: impl FnOnce(Buddy<'_>)) {
    let mut meta = [FrameMeta::EMPTY; PAGES as usize];
    let mut buddy = Buddy::new(range(), &mut meta).unwrap();
    // SAFETY: the frames are never accessed.
    unsafe { buddy.add(range()) }.unwrap();
    test(buddy);
}

#[test]
fn bump_is_a_frame_source() {
    // SAFETY: the frames are never accessed.
    let mut bump = unsafe { Bump::new(range()) }.unwrap();
    assert_eq!(check_frame_source::<100>(&mut bump), Ok(()));
}

#[test]
fn buddy_is_a_frame_source() {
    on_buddy(|mut buddy| {
        assert_eq!(check_frame_source::<100>(&mut buddy), Ok(()));
        assert_eq!(check_frame_source::<2000>(&mut buddy), Ok(()));
        assert_eq!(buddy.free_frames(), u64::from(PAGES));
    });
}

#[test]
fn a_cache_is_a_frame_source_and_keeps_nothing_for_ever() {
    on_buddy(|buddy| {
        let shared = SpinLock::new(buddy, NoIrq);
        let mut cache = FrameCache::<_, 64>::new(&shared);
        assert_eq!(check_frame_source::<2000>(&mut cache), Ok(()));
        let frame = cache.take(Order::SINGLE).unwrap();
        cache.give(frame).unwrap();
        assert_eq!(cache.len(), 32);
        assert_eq!(shared.lock().free_frames(), u64::from(PAGES) - 32);
        drop(cache);
        assert_eq!(shared.lock().free_frames(), u64::from(PAGES));
    });
}

#[test]
fn host_memory_is_a_window() {
    let memory = HostMemory::new(range());
    // SAFETY: memory of this test alone.
    let outcome = unsafe { check_window(&memory, range().start(), Visibility::Private) };
    assert_eq!(outcome, Ok(()));
}

#[test]
fn a_linear_mapping_is_a_window() {
    #[repr(C, align(4096))]
    #[derive(Clone, Copy)]
    struct Page([u8; 4096]);

    let pages = vec![Page([0x5a; 4096]); usize::from(PAGES)].leak();
    let pages = NonNull::from(pages).cast();
    // SAFETY: memory of this test alone, which stays for ever.
    let window = unsafe { DirectWindow::new(range(), pages, Visibility::Shared) }.unwrap();
    let last = range().end().checked_sub(4096).unwrap();
    for page in [range().start(), last] {
        // SAFETY: as above.
        let outcome = unsafe { check_window(&window, page, Visibility::Shared) };
        assert_eq!(outcome, Ok(()));
    }
    for (page, visibility) in [
        (range().end(), Visibility::Shared),
        (last, Visibility::Private),
    ] {
        // SAFETY: as above.
        let outcome = unsafe { check_window(&window, page, visibility) };
        assert!(outcome.is_err());
    }
}
