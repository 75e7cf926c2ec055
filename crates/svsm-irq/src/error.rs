//! What can go wrong here.

use core::fmt;

use crate::Vector;

/// Result of this crate's operations.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// Why an operation was refused. Every variant is a mistake of the caller, unless it says
/// otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Error {
    /// The vector has a handler already.
    VectorTaken(Vector),
    /// No vector of the wanted class is free.
    NoVectorFree,
    /// A stack is too small to hold what the entry code puts there.
    StackTooSmall {
        /// What it would have to hold.
        need: usize,
        /// What it holds.
        have: usize,
    },
    /// An interrupt stack needs at least one slot of its own.
    NoStack,
    /// The time asked for can't be counted: zero, or longer than the counter's range.
    Interval,
    /// The machine's fault: a clock stood still, or ran backwards, while we measured against it.
    ClockStuck,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::VectorTaken(vector) => write!(f, "{vector} has a handler already"),
            Self::NoVectorFree => f.write_str("no vector of that class is free"),
            Self::StackTooSmall { need, have } => {
                write!(f, "stack of {have} bytes, at least {need} are needed")
            }
            Self::NoStack => f.write_str("an interrupt stack needs at least one slot"),
            Self::Interval => f.write_str("interval can't be counted"),
            Self::ClockStuck => f.write_str("the reference clock does not run"),
        }
    }
}

impl core::error::Error for Error {}
