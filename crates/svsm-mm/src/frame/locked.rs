//! A source that several CPUs share.

use svsm_platform::irq::IrqCtl;
use svsm_platform::lock::SpinLock;

use super::{Frame, FrameSource, Order, Refused};
use crate::Result;

impl<S: FrameSource, I: IrqCtl> FrameSource for &SpinLock<S, I> {
    fn take(&mut self, order: Order) -> Result<Frame> {
        self.lock().take(order)
    }

    fn give(&mut self, frame: Frame) -> core::result::Result<(), Refused> {
        self.lock().give(frame)
    }

    fn take_singles(&mut self, slots: &mut [Option<Frame>]) -> usize {
        self.lock().take_singles(slots)
    }

    fn give_all(&mut self, slots: &mut [Option<Frame>]) -> usize {
        self.lock().give_all(slots)
    }
}
