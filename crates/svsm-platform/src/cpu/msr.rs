//! Model-specific registers.

use core::fmt;

/// The number of a model-specific register.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Msr(u32);

impl Msr {
    /// The register of that number, which need not exist.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The plain number.
    #[must_use]
    pub const fn as_u32(self) -> u32 {
        self.0
    }
}

impl fmt::Debug for Msr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Msr({:#x})", self.0)
    }
}
