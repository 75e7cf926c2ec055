//! How much of what a process may have.

use crate::abi::SysError;

/// What a process uses up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Resource {
    /// Handles.
    Handles,
    /// Pages of memory.
    Pages,
    /// Tasks that it started and nobody waited for yet.
    Tasks,
}

impl Resource {
    const COUNT: usize = 3;
}

/// Keeps a process within what it was given.
pub trait Quota {
    /// Takes so much; all of it or nothing.
    ///
    /// # Errors
    /// [`SysError::QUOTA`] if that is more than there is left.
    fn charge(&mut self, what: Resource, amount: u64) -> Result<(), SysError>;

    /// Gives so much back of what was taken before.
    fn refund(&mut self, what: Resource, amount: u64);
}

/// A quota of fixed amounts, all zero at first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Budget {
    left: [u64; Resource::COUNT],
}

impl Budget {
    /// Nothing of anything.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            left: [0; Resource::COUNT],
        }
    }

    /// Sets how much there is of one thing.
    #[must_use]
    pub fn with(mut self, what: Resource, amount: u64) -> Self {
        if let Some(left) = self.left.get_mut(what as usize) {
            *left = amount;
        }
        self
    }

    /// How much there is left of one thing.
    #[must_use]
    pub fn left(&self, what: Resource) -> u64 {
        self.left.get(what as usize).copied().unwrap_or(0)
    }
}

impl Quota for Budget {
    fn charge(&mut self, what: Resource, amount: u64) -> Result<(), SysError> {
        let left = self.left.get_mut(what as usize).ok_or(SysError::QUOTA)?;
        *left = left.checked_sub(amount).ok_or(SysError::QUOTA)?;
        Ok(())
    }

    fn refund(&mut self, what: Resource, amount: u64) {
        if let Some(left) = self.left.get_mut(what as usize) {
            *left = left.saturating_add(amount);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charges_that_do_not_fit_take_nothing() {
        let mut budget = Budget::new().with(Resource::Pages, 10);
        assert_eq!(budget.charge(Resource::Pages, 11), Err(SysError::QUOTA));
        assert_eq!(budget.charge(Resource::Pages, 10), Ok(()));
        assert_eq!(budget.charge(Resource::Tasks, 1), Err(SysError::QUOTA));
        budget.refund(Resource::Pages, 4);
        assert_eq!(
            (budget.left(Resource::Pages), budget.left(Resource::Tasks)),
            (4, 0)
        );
    }
}
