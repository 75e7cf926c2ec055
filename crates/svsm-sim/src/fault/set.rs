//! A choice from the catalogue.

use super::{Class, Fault, ParseError, Platforms};
use core::fmt;
use core::str::FromStr;

/// Some faults. As text: names, names of classes, or `all`, with commas between; one with a `-` before it is taken out
/// again (`all,-reset`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Faults(u64);

impl Faults {
    /// None.
    pub const NONE: Self = Self(0);
    /// All of the catalogue.
    pub const ALL: Self = Self(u64::MAX >> (64 - Fault::ALL.len()));

    /// With one more.
    #[must_use]
    pub const fn with(self, fault: Fault) -> Self {
        Self(self.0 | 1 << fault.index())
    }

    /// Those of both.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Those that mean something on all of `platforms`.
    #[must_use]
    pub fn on(self, platforms: Platforms) -> Self {
        self.iter()
            .filter(|fault| fault.platforms().contains(platforms))
            .collect()
    }

    /// Whether a fault is among them.
    #[must_use]
    pub const fn contains(self, fault: Fault) -> bool {
        self.0 >> fault.index() & 1 != 0
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many they are.
    #[must_use]
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Each of them, in the catalogue's order.
    pub fn iter(self) -> impl Iterator<Item = Fault> {
        let all = Fault::ALL.iter().copied();
        all.filter(move |fault| self.contains(*fault))
    }
}

impl FromIterator<Fault> for Faults {
    fn from_iter<I: IntoIterator<Item = Fault>>(faults: I) -> Self {
        faults.into_iter().fold(Self::NONE, Self::with)
    }
}

impl FromStr for Faults {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut chosen = Self::NONE;
        for (at, word) in super::parse::words(text) {
            let (out, name) = match word.strip_prefix('-') {
                Some(name) => (true, name),
                None => (false, word),
            };
            let group = group(name).ok_or(ParseError::Unknown { at })?;
            chosen = if out {
                chosen.without(group)
            } else {
                chosen.union(group)
            };
        }
        if chosen.is_empty() {
            return Err(ParseError::Nothing);
        }
        Ok(chosen)
    }
}

fn group(name: &str) -> Option<Faults> {
    if name == "all" {
        return Some(Faults::ALL);
    }
    if let Some(class) = Class::ALL.into_iter().find(|class| class.name() == name) {
        let of_class = Faults::ALL.iter().filter(|fault| fault.class() == class);
        return Some(of_class.collect());
    }
    Fault::named(name).map(|fault| Faults::NONE.with(fault))
}

impl fmt::Display for Faults {
    /// Names with commas between, as they are read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, fault) in self.iter().enumerate() {
            if number > 0 {
                f.write_str(",")?;
            }
            f.write_str(fault.name())?;
        }
        Ok(())
    }
}
