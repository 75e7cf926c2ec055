use std::boxed::Box;
use std::collections::BTreeMap;
use std::vec::Vec;

use proptest::prelude::*;
use svsm_platform::addr::{Gpa, GpaRange};
use svsm_platform::encryption::Visibility;
use svsm_platform::irq::NoIrq;

use super::*;
use crate::frame::{Bump, Order};
use crate::window::DirectWindow;

const FRAMES: usize = 64;

#[repr(C, align(4096))]
#[derive(Clone, Copy)]
struct Page([u8; 4096]);

/// A heap that grows by frames of its own, out of memory that is never freed.
fn heap() -> Heap<FrameGrowth<'static, Bump>> {
    let memory = NonNull::from(std::vec![Page([0; 4096]); FRAMES].leak()).cast::<u8>();
    let range = GpaRange::new(Gpa::new(0x10_0000).unwrap(), FRAMES as u64 * 4096).unwrap();
    // SAFETY: memory of this heap alone, which stays for ever.
    let window = unsafe { DirectWindow::new(range, memory, Visibility::Private) }.unwrap();
    let window = Box::leak(Box::new(window));
    Heap::new(FrameGrowth::new(
        Bump::over(range).unwrap(),
        window,
        Order::new(2).unwrap(),
    ))
}

#[test]
fn a_heap_grows_until_its_source_is_empty() {
    let mut heap = heap();
    let layout = Layout::from_size_align(1000, 8).unwrap();
    let mut objects = Vec::new();
    let error = loop {
        match heap.allocate(layout) {
            Ok(object) => objects.push(object),
            Err(error) => break error,
        }
    };
    assert_eq!(error, Error::OutOfMemory { len_bytes: 1000 });
    let full = heap.usage();
    assert_eq!(full.total_bytes, FRAMES as u64 * 4096);
    assert_eq!(
        (full.used_bytes, full.refused),
        (objects.len() as u64 * 1000, 1)
    );
    assert!(full.used_bytes > full.total_bytes * 9 / 10);
    for object in objects {
        // SAFETY: allocated above with that layout.
        unsafe { heap.deallocate(object, layout) };
    }
    assert_eq!(heap.usage().used_bytes, 0);
    assert_eq!(heap.usage().peak_bytes, full.used_bytes);
}

#[test]
fn what_can_never_fit_is_refused() {
    let mut heap = heap();
    for (size, align) in [(usize::MAX / 2, 1), (64, 1 << 40), (FRAMES * 4096, 1)] {
        let layout = Layout::from_size_align(size, align).unwrap();
        assert_eq!(
            heap.allocate(layout),
            Err(Error::OutOfMemory {
                len_bytes: size as u64
            })
        );
    }
    let mut fixed = Heap::new(NoGrowth);
    assert!(fixed.allocate(Layout::new::<u64>()).is_err());
    assert!(fixed.allocate(Layout::new::<()>()).is_ok());
    let few = NonNull::from(Box::leak(Box::new([0_u8; 16])));
    // SAFETY: memory of this test alone, which stays for ever.
    let claimed = unsafe { fixed.claim(few) };
    assert_eq!(claimed, Err(Error::HeapPart { len_bytes: 16 }));
}

#[test]
fn a_locked_heap_is_a_global_allocator() {
    let memory: &'static mut [u8] = Box::leak(Box::new([0_u8; 1 << 16]));
    let heap = LockedHeap::new(NoGrowth, NoIrq);
    // SAFETY: memory of this test alone, which stays for ever.
    unsafe { heap.heap().lock().claim(NonNull::from(memory)) }.unwrap();
    let layout = Layout::from_size_align(100, 64).unwrap();
    // SAFETY: the layout has a size.
    let object = unsafe { heap.alloc(layout) };
    assert!(!object.is_null() && object.addr() % 64 == 0);
    // SAFETY: allocated just now with that layout.
    let object = unsafe { heap.realloc(object, layout, 200) };
    // SAFETY: 200 bytes of that alignment are what it has become.
    unsafe { heap.dealloc(object, Layout::from_size_align(200, 64).unwrap()) };
    assert_eq!(heap.heap().lock().usage().used_bytes, 0);
}

#[derive(Clone, Debug)]
enum Step {
    Allocate(usize, u32),
    Free(prop::sample::Index),
    Resize(prop::sample::Index, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = || prop_oneof![0_usize..64, 0_usize..5000, Just(40_000_usize)];
    let step = prop_oneof![
        3 => (size(), 0_u32..8).prop_map(|(size, align)| Step::Allocate(size, align)),
        1 => any::<prop::sample::Index>().prop_map(Step::Free),
        1 => (any::<prop::sample::Index>(), size()).prop_map(|(at, size)| Step::Resize(at, size)),
    ];
    prop::collection::vec(step, 1..120)
}

/// Fills an object with a colour of its own.
fn paint(object: NonNull<u8>, len: usize, colour: u8) {
    // SAFETY: the object has that many bytes.
    unsafe { object.write_bytes(colour, len) };
}

fn is_painted(object: NonNull<u8>, len: usize, colour: u8) -> bool {
    // SAFETY: the object has that many bytes, all written by `paint`, and nobody writes them now.
    let bytes = unsafe { core::slice::from_raw_parts(object.as_ptr(), len) };
    bytes.iter().all(|byte| *byte == colour)
}

proptest! {
    /// The model: objects keep their colours, whatever happens to others.
    #[test]
    fn objects_do_not_touch_each_other(steps in steps()) {
        let mut heap = heap();
        let mut objects: BTreeMap<usize, (NonNull<u8>, Layout, u8)> = BTreeMap::new();
        let mut used = 0;
        for (colour, step) in (0_u8..).zip(steps) {
            let number = usize::from(colour);
            let pick = |at: prop::sample::Index, objects: &BTreeMap<usize, _>| {
                (!objects.is_empty()).then(|| *objects.keys().nth(at.index(objects.len())).unwrap())
            };
            match step {
                Step::Allocate(size, align) => {
                    let layout = Layout::from_size_align(size, 1 << align).unwrap();
                    let Ok(object) = heap.allocate(layout) else { continue };
                    prop_assert_eq!(object.addr().get() % layout.align(), 0);
                    paint(object, size, colour);
                    objects.insert(number, (object, layout, colour));
                    used += size;
                }
                Step::Free(at) => {
                    let Some(key) = pick(at, &objects) else { continue };
                    let (object, layout, colour) = objects.remove(&key).unwrap();
                    prop_assert!(is_painted(object, layout.size(), colour));
                    // SAFETY: allocated with that layout and forgotten here.
                    unsafe { heap.deallocate(object, layout) };
                    used -= layout.size();
                }
                Step::Resize(at, size) => {
                    let Some(key) = pick(at, &objects) else { continue };
                    let (object, layout, colour) = objects[&key];
                    // SAFETY: allocated with that layout; used as answered from here on.
                    let Ok(new) = (unsafe { heap.reallocate(object, layout, size) }) else { continue };
                    prop_assert!(is_painted(new, size.min(layout.size()), colour));
                    paint(new, size, colour);
                    used = used - layout.size() + size;
                    let layout = Layout::from_size_align(size, layout.align()).unwrap();
                    objects.insert(key, (new, layout, colour));
                }
            }
            prop_assert_eq!(heap.usage().used_bytes, used as u64);
        }
        for (object, layout, colour) in objects.into_values() {
            prop_assert!(is_painted(object, layout.size(), colour));
        }
    }
}
