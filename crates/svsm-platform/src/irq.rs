//! Interrupt masking, as far as locks need to know of it.

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
