//! Where a heap's memory comes from.

use core::ptr::NonNull;

use crate::frame::{Frame, FrameSource, Order};
use crate::window::DirectWindow;

/// Gets memory for a [`Heap`](super::Heap).
///
/// # Safety
/// What [`grow`](Self::grow) answers is readable and writable memory of at least the size that was
/// asked for, and nobody else's from then on.
pub unsafe trait Grow {
    /// Memory of at least `len_bytes`, or `None` if there is not as much. It must not allocate
    /// from the heap that asks.
    fn grow(&mut self, len_bytes: usize) -> Option<NonNull<[u8]>>;
}

/// No growth: a heap has what it was given.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoGrowth;

// SAFETY: there is no answer that could be wrong.
unsafe impl Grow for NoGrowth {
    fn grow(&mut self, _len_bytes: usize) -> Option<NonNull<[u8]>> {
        None
    }
}

/// Blocks of frames that a window shows.
#[derive(Debug)]
pub struct FrameGrowth<'w, F> {
    frames: F,
    window: &'w DirectWindow,
    step: Order,
}

impl<'w, F: FrameSource> FrameGrowth<'w, F> {
    /// Growth by at least `step` at a time, by frames of `frames`, all of which `window` shows.
    pub const fn new(frames: F, window: &'w DirectWindow, step: Order) -> Self {
        Self {
            frames,
            window,
            step,
        }
    }
}

// SAFETY: the frame was the source's, and from now on it is the heap's: it is never given back. The
// window vouches for the memory of a frame that it turns into bytes.
unsafe impl<F: FrameSource> Grow for FrameGrowth<'_, F> {
    fn grow(&mut self, len_bytes: usize) -> Option<NonNull<[u8]>> {
        let order = Order::holding(len_bytes as u64)?.max(self.step);
        let frame: Frame = self.frames.take(order).ok()?;
        match self.window.memory(frame) {
            Ok(memory) => Some(memory),
            Err(refused) => {
                // A frame that the window does not show is no use; its source takes it back.
                let _ = self.frames.give(refused.frame);
                None
            }
        }
    }
}

// The growth of a heap that is made before there is any.
// SAFETY: the answer is that of the growth inside.
unsafe impl<G: Grow> Grow for Option<G> {
    fn grow(&mut self, len_bytes: usize) -> Option<NonNull<[u8]>> {
        self.as_mut()?.grow(len_bytes)
    }
}
