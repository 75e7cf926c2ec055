//! Single frames on one and two threads, side by side with `buddy_system_allocator`'s frame
//! allocator behind its lock.
//!
//! Each thread holds up to 256 frames and takes or gives bursts of random length, as page faults
//! and dying processes do. The sequence is the same for all allocators.
#![expect(
    clippy::unwrap_used,
    reason = "a bench that cannot run has nothing to measure"
)]
#![expect(unsafe_code, reason = "a span of memory that is never touched")]

use core::time::Duration;
use std::sync::Barrier;
use std::time::Instant;

use buddy_system_allocator::LockedFrameAllocator;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use svsm_mm::frame::{Buddy, Frame, FrameCache, FrameMeta, FrameSource, Order};
use svsm_platform::addr::{Gpa, GpaRange};
use svsm_platform::irq::NoIrq;
use svsm_platform::lock::SpinLock;

const FRAMES: usize = 1 << 16;
const HELD: usize = 256;
const BATCH: u64 = 1 << 16;

/// Takes and gives back `BATCH` frames, `iterations` times.
fn churn<T>(iterations: u64, mut take: impl FnMut() -> T, mut give: impl FnMut(T)) {
    let mut held = Vec::with_capacity(HELD);
    for _ in 0..iterations {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut taken = 0;
        while taken < BATCH {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let burst = (random % 16) as usize;
            if random & 0x100 == 0 {
                for _ in 0..burst.min(HELD - held.len()) {
                    held.push(take());
                    taken += 1;
                }
            } else {
                for _ in 0..burst.min(held.len()) {
                    let at = (random >> 32) as usize % held.len();
                    give(held.swap_remove(at));
                }
            }
        }
        held.drain(..).for_each(&mut give);
    }
}

/// Runs `work` on as many threads, and answers how long all of them took together.
fn on_threads(threads: usize, work: impl Fn() + Sync) -> Duration {
    let barrier = Barrier::new(threads + 1);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    work();
                })
            })
            .collect();
        barrier.wait();
        let start = Instant::now();
        for worker in workers {
            worker.join().unwrap();
        }
        start.elapsed()
    })
}

fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("take and give single frames");
    for threads in [1, 2] {
        group
            .throughput(Throughput::Elements(BATCH * threads as u64))
            .sample_size(20);

        let span = GpaRange::new(Gpa::new(0).unwrap(), FRAMES as u64 * 4096).unwrap();
        let mut meta = vec![FrameMeta::EMPTY; FRAMES];
        let mut buddy = Buddy::new(span, &mut meta).unwrap();
        // SAFETY: the frames are never accessed.
        unsafe { buddy.add(span) }.unwrap();
        let shared = SpinLock::new(buddy, NoIrq);

        group.bench_function(
            BenchmarkId::new("svsm-mm, per-CPU cache", threads),
            |bencher| {
                bencher.iter_custom(|iterations| {
                    on_threads(threads, || {
                        let cache = core::cell::RefCell::new(FrameCache::<_, 64>::new(&shared));
                        let take = || cache.borrow_mut().take(Order::SINGLE).unwrap();
                        churn(iterations, take, |frame| {
                            cache.borrow_mut().give(frame).unwrap()
                        });
                    })
                });
            },
        );
        group.bench_function(
            BenchmarkId::new("svsm-mm, lock alone", threads),
            |bencher| {
                bencher.iter_custom(|iterations| {
                    on_threads(threads, || {
                        let take = || (&shared).take(Order::SINGLE).unwrap();
                        churn(iterations, take, |frame: Frame| {
                            (&shared).give(frame).unwrap()
                        });
                    })
                });
            },
        );

        let theirs = LockedFrameAllocator::<33>::new();
        theirs.lock().add_frame(0, FRAMES);
        group.bench_function(
            BenchmarkId::new("buddy_system_allocator", threads),
            |bencher| {
                bencher.iter_custom(|iterations| {
                    on_threads(threads, || {
                        let take = || theirs.lock().alloc(1).unwrap();
                        churn(iterations, take, |frame| theirs.lock().dealloc(frame, 1));
                    })
                });
            },
        );
    }
    group.finish();
}

criterion_group!(benches, frames);
criterion_main!(benches);
