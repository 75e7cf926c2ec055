use core::fmt;

use crate::addr::GpaRange;

/// Changes who can read and write ranges of guest physical memory.
///
/// All methods work from the start of the range to its end and do not undo anything: on failure they say how far they came.
/// Ranges have 4 KiB bounds; an implementation uses the largest pages it can. None of them clears memory, and none
/// flushes translations.
pub trait PageState {
    /// Why an implementation stops.
    type Error: Copy + fmt::Debug;

    /// Starts to use memory that the host has assigned to the guest but that nobody has used yet (SNP: PVALIDATE, TDX:
    /// TDG.MEM.PAGE.ACCEPT).
    ///
    /// # Errors
    /// Where and why it stopped.
    fn accept(&mut self, range: GpaRange) -> Result<(), Stopped<Self::Error>>;

    /// Stops using private memory, so that the host may take it away; it stays assigned until the host does.
    ///
    /// # Errors
    /// Where and why it stopped.
    fn release(&mut self, range: GpaRange) -> Result<(), Stopped<Self::Error>>;

    /// Makes private memory readable and writable by the host.
    ///
    /// # Errors
    /// Where and why it stopped.
    fn make_shared(&mut self, range: GpaRange) -> Result<(), Stopped<Self::Error>>;

    /// Takes shared memory away from the host and accepts it.
    ///
    /// # Errors
    /// Where and why it stopped.
    fn make_private(&mut self, range: GpaRange) -> Result<(), Stopped<Self::Error>>;
}

/// How far a range operation came before it failed.
///
/// The range has three parts: a prefix that is done, a part whose state is in doubt because it was being changed, and the
/// rest, which was not touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[must_use]
pub struct Stopped<E> {
    /// Bytes from the start that are in the new state.
    pub done_bytes: u64,
    /// Bytes after those that may be in either state or in none.
    pub doubtful_bytes: u64,
    /// Why it stopped.
    pub cause: E,
}

impl<E> Stopped<E> {
    /// Nothing was done.
    pub const fn at_start(cause: E) -> Self {
        Self {
            done_bytes: 0,
            doubtful_bytes: 0,
            cause,
        }
    }

    /// The same progress under another error type.
    pub fn map_cause<F>(self, f: impl FnOnce(E) -> F) -> Stopped<F> {
        Stopped {
            done_bytes: self.done_bytes,
            doubtful_bytes: self.doubtful_bytes,
            cause: f(self.cause),
        }
    }
}

impl<E: fmt::Display> fmt::Display for Stopped<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "stopped after {:#x} bytes ({:#x} in doubt): {}",
            self.done_bytes, self.doubtful_bytes, self.cause
        )
    }
}

impl<E: core::error::Error> core::error::Error for Stopped<E> {}
