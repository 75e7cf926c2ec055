//! A source that several CPUs share.

use svsm_platform::irq::IrqCtl;
use svsm_platform::lock::{SpinGuard, SpinLock};

use super::{Frame, FrameSource, Order, Refused};
use crate::Result;

/// How often a CPU looks for a free lock before it queues for it.
const TRIES: u32 = 1 << 16;

/// Takes the lock, without a place in its queue at first.
///
/// The queue is fair, but a CPU in it that the host does not schedule holds up all behind it. With
/// caches in front, sources are asked so rarely that fairness seldom matters, and interrupts stay
/// open between tries.
fn lock<S, I: IrqCtl>(source: &SpinLock<S, I>) -> SpinGuard<'_, S, I> {
    for _ in 0..TRIES {
        if let Some(guard) = source.try_lock() {
            return guard;
        }
        core::hint::spin_loop();
    }
    source.lock()
}

impl<S: FrameSource, I: IrqCtl> FrameSource for &SpinLock<S, I> {
    fn take(&mut self, order: Order) -> Result<Frame> {
        lock(self).take(order)
    }

    fn give(&mut self, frame: Frame) -> core::result::Result<(), Refused> {
        lock(self).give(frame)
    }

    fn take_singles(&mut self, slots: &mut [Option<Frame>]) -> usize {
        lock(self).take_singles(slots)
    }

    fn give_all(&mut self, slots: &mut [Option<Frame>]) -> usize {
        lock(self).give_all(slots)
    }
}
