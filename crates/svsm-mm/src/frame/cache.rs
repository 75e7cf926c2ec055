//! Frames at hand for one CPU.

use super::{Frame, FrameSource, Order, Refused};
use crate::{Error, Result};

/// A stack of single frames in front of a shared source, owned by one CPU.
///
/// Single frames come from the stack and go to it; the shared source (and its lock) is asked once
/// per half a stack. Larger blocks pass through. A single frame is not judged when it comes back,
/// but when the stack returns it to the source; one that is refused then stays on the stack.
///
/// The owner sees to it that an interrupt handler of the same CPU does not enter it twice;
/// `&mut` says so, and a per-CPU cell enforces it.
#[derive(Debug)]
pub struct FrameCache<S: FrameSource, const N: usize = 64> {
    source: S,
    slots: [Option<Frame>; N],
    len: usize,
}

impl<S: FrameSource, const N: usize> FrameCache<S, N> {
    const HALF: usize = {
        assert!(N >= 2, "a cache of less than two frames caches nothing");
        N / 2
    };

    /// An empty cache in front of `source`.
    #[must_use]
    pub const fn new(source: S) -> Self {
        Self {
            source,
            slots: [const { None }; N],
            len: 0,
        }
    }

    /// How many frames the cache holds.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether the next single frame comes from the source.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Gives all frames back to the source, as before the CPU goes to sleep.
    pub fn drain(&mut self) {
        self.give_back(0);
    }

    /// Gives back what lies above `keep`. What the source refuses is put at the bottom again.
    fn give_back(&mut self, keep: usize) {
        if let Some(surplus) = self.slots.get_mut(keep..self.len) {
            self.source.give_all(surplus);
        }
        let mut kept = keep;
        for at in keep..self.len {
            if self.slots.get(at).is_some_and(Option::is_some) {
                self.slots.swap(at, kept);
                kept += 1;
            }
        }
        self.len = kept;
    }

    #[cold]
    fn refill(&mut self) -> Result<()> {
        let slots = self.slots.get_mut(..Self::HALF).ok_or(Error::Bug)?;
        self.len = self.source.take_singles(slots);
        if self.len == 0 {
            return Err(Error::OutOfFrames {
                order: Order::SINGLE,
            });
        }
        Ok(())
    }
}

impl<S: FrameSource, const N: usize> FrameSource for FrameCache<S, N> {
    fn take(&mut self, order: Order) -> Result<Frame> {
        if order != Order::SINGLE {
            return match self.source.take(order) {
                // Frames at hand may be all that keeps a larger block apart.
                Err(Error::OutOfFrames { .. }) if self.len > 0 => {
                    self.drain();
                    self.source.take(order)
                }
                answer => answer,
            };
        }
        if self.len == 0 {
            self.refill()?;
        }
        self.len -= 1;
        self.slots
            .get_mut(self.len)
            .and_then(Option::take)
            .ok_or(Error::Bug)
    }

    fn give(&mut self, frame: Frame) -> core::result::Result<(), Refused> {
        if frame.order() != Order::SINGLE {
            return self.source.give(frame);
        }
        if self.len == N {
            self.give_back(Self::HALF);
        }
        match self.slots.get_mut(self.len) {
            Some(slot) => {
                *slot = Some(frame);
                self.len += 1;
                Ok(())
            }
            // Only if the source refused everything: then it has to judge this one as well.
            None => self.source.give(frame),
        }
    }
}

impl<S: FrameSource, const N: usize> Drop for FrameCache<S, N> {
    fn drop(&mut self) {
        self.drain();
    }
}
