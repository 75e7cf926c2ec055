//! Interrupt masking, as far as locks need to know of it.

#[cfg(target_arch = "x86_64")]
use crate::cpu::{cr::RFlags, insn};

/// Masks interrupts on this CPU and restores what was before.
///
/// A lock that an interrupt handler takes too must not be interrupted while it is held, or the CPU waits for itself.
/// Implementations nest: `restore` with the state of the outermost `mask` ends the masking, inner ones change nothing.
pub trait IrqCtl {
    /// What `mask` found; given back to `restore`.
    type State: Copy;

    /// Masks interrupts and says whether they were.
    #[must_use = "without the state, interrupts stay masked"]
    fn mask(&self) -> Self::State;

    /// Brings back what [`mask`](Self::mask) found.
    fn restore(&self, state: Self::State);
}

/// Masks nothing: for hosts, and for data that no interrupt handler touches.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoIrq;

impl IrqCtl for NoIrq {
    type State = ();

    fn mask(&self) {}

    fn restore(&self, (): ()) {}
}

/// Masks interrupts on this CPU by CLI and STI: for ring 0.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalIrq;

#[cfg(target_arch = "x86_64")]
impl IrqCtl for LocalIrq {
    /// Whether interrupts were accepted.
    type State = bool;

    fn mask(&self) -> bool {
        let accepted = insn::read_rflags().contains(RFlags::IF);
        insn::cli();
        accepted
    }

    fn restore(&self, accepted: bool) {
        if accepted {
            insn::sti();
        }
    }
}

#[cfg(all(test, not(loom)))]
pub(crate) mod tests {
    use core::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Counts how often interrupts are masked; checks that restoring is the reverse of masking.
    #[derive(Debug, Default)]
    pub(crate) struct CountingIrq(AtomicU32);

    impl CountingIrq {
        pub(crate) fn depth(&self) -> u32 {
            self.0.load(Ordering::Relaxed)
        }
    }

    impl IrqCtl for CountingIrq {
        type State = u32;

        fn mask(&self) -> u32 {
            self.0.fetch_add(1, Ordering::Relaxed)
        }

        fn restore(&self, before: u32) {
            assert_eq!(self.0.swap(before, Ordering::Relaxed), before + 1);
        }
    }
}
