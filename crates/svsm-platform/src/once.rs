//! A cell that is written once.
#![expect(
    unsafe_code,
    reason = "hands out the content of a cell once it is written for good"
)]

use core::fmt;

use crate::sync::{AtomicU8, Ordering, UnsafeCell, const_fn};

const EMPTY: u8 = 0;
const WRITING: u8 = 1;
const FULL: u8 = 2;

/// A value that is not there at first, is set once, and stays.
///
/// No method waits, so all of them can be called from any handler. There is no "initialize at first use": a second CPU, or a
/// handler on the same one, would have to wait for a first that may be the code it interrupted.
///
/// ```
/// use svsm_platform::once::OnceCell;
///
/// let rate = OnceCell::new();
/// assert_eq!(rate.value(), None);
/// rate.set(1_000_000_000_u64)?;
/// assert_eq!(rate.set(0), Err(0));
/// assert_eq!(rate.value(), Some(&1_000_000_000));
/// # Ok::<(), u64>(())
/// ```
pub struct OnceCell<T> {
    state: AtomicU8,
    value: UnsafeCell<Option<T>>, // written between `WRITING` and `FULL`, and never again
}

// SAFETY: one thread moves the value in, which needs `Send`; from then on all have `&T`, which needs `Sync`.
unsafe impl<T: Send + Sync> Sync for OnceCell<T> {}

impl<T> OnceCell<T> {
    const_fn! {
        /// A cell without a value.
        pub fn new() -> Self {
            Self { state: AtomicU8::new(EMPTY), value: UnsafeCell::new(None) }
        }
    }

    /// The value, if it is set.
    pub fn value(&self) -> Option<&T> {
        if self.state.load(Ordering::Acquire) != FULL {
            return None;
        }
        // SAFETY: whoever wrote is done, as `FULL` says, and nobody writes any more.
        self.value.with(|value| unsafe { &*value }).as_ref()
    }

    /// Sets the value.
    ///
    /// # Errors
    /// Gives `value` back if another is set or is being set right now.
    pub fn set(&self, value: T) -> Result<(), T> {
        if self
            .state
            .compare_exchange(EMPTY, WRITING, Ordering::Relaxed, Ordering::Relaxed)
            .is_err()
        {
            return Err(value);
        }
        // SAFETY: only one caller ever gets from `EMPTY` to `WRITING`, and nobody reads before `FULL`.
        self.value.with_mut(|slot| unsafe { *slot = Some(value) });
        self.state.store(FULL, Ordering::Release);
        Ok(())
    }

    /// The value, if it was set.
    pub fn into_inner(self) -> Option<T> {
        self.value.into_inner()
    }
}

impl<T> Default for OnceCell<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: fmt::Debug> fmt::Debug for OnceCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value() {
            Some(value) => f.debug_tuple("OnceCell").field(value).finish(),
            None => f.write_str("OnceCell(<empty>)"),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn first_value_stays() {
        let cell = OnceCell::new();
        assert_eq!(cell.value(), None);
        assert_eq!(cell.set(1), Ok(()));
        assert_eq!(cell.set(2), Err(2));
        assert_eq!(cell.value(), Some(&1));
        assert_eq!(cell.into_inner(), Some(1));
    }
}
