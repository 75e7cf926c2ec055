//! Faults as people write them.

use core::fmt;

/// Why a text is no choice of faults, or no script. `at` is where the word begins, in bytes from the start of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParseError {
    /// A word that names no fault (and, in a choice, no class).
    Unknown {
        /// Where.
        at: usize,
    },
    /// A word of a script without the number of an event: `name@event` is expected.
    NoEvent {
        /// Where.
        at: usize,
    },
    /// A word of a script whose numbers are none.
    Number {
        /// Where.
        at: usize,
    },
    /// More words than a script can have.
    TooLong {
        /// Where the first one too many is.
        at: usize,
    },
    /// Nothing is chosen.
    Nothing,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { at } => write!(f, "no fault has the name at column {}", at + 1),
            Self::NoEvent { at } => write!(f, "`name@event` is expected at column {}", at + 1),
            Self::Number { at } => {
                write!(f, "a number is expected in the word at column {}", at + 1)
            }
            Self::TooLong { at } => write!(f, "the script is too long from column {} on", at + 1),
            Self::Nothing => f.write_str("no fault is chosen"),
        }
    }
}

impl core::error::Error for ParseError {}

/// The words between commas, each with the place where it begins; blanks around them and empty ones do not count.
pub(super) fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut next = 0;
    text.split(',').filter_map(move |piece| {
        let start = next;
        next += piece.len() + 1;
        let word = piece.trim_ascii();
        let blanks = piece.len() - piece.trim_ascii_start().len();
        (!word.is_empty()).then_some((start + blanks, word))
    })
}

/// A number, decimal or with `0x` before it.
pub(super) fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) if !digits.starts_with('+') => u64::from_str_radix(digits, 16).ok(),
        None if !text.starts_with('+') => text.parse().ok(),
        _ => None,
    }
}
