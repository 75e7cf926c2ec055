use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use super::class::{self, Class};
use crate::Outcome;

/// One run of a campaign.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Case {
    /// Which lies can come: names, with commas between.
    pub faults: String,
    /// From which number it is drawn when.
    pub seed: u64,
}

impl Case {
    pub(crate) fn new(faults: &str, seed: u64) -> Self {
        Self {
            faults: faults.to_owned(),
            seed,
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.faults.split(',').count() {
            1 => write!(f, "{} seed {}", self.faults, self.seed),
            count => write!(f, "{count} faults seed {}", self.seed),
        }
    }
}

/// What came of a case.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct CaseResult {
    /// The case.
    #[serde(flatten)]
    pub case: Case,
    /// How it ended.
    pub class: Class,
    /// Whether it may end like this after the lies that were told.
    pub fine: bool,
    /// The verdict as text, with the reason of a termination.
    pub verdict: String,
    /// The lies that were told and changed something, as steps of a script.
    pub lies: Vec<String>,
    /// How long it took.
    pub seconds: f64,
}

impl CaseResult {
    pub(crate) fn new(case: &Case, outcome: &Outcome) -> Self {
        let (class, fine) = class::judge(outcome);
        let told = outcome.faults.iter().filter(|told| told.had_effect());
        Self {
            case: case.clone(),
            class,
            fine,
            verdict: outcome.verdict.to_string(),
            lies: told.map(|told| told.script.clone()).collect(),
            seconds: outcome.wall_time.as_secs_f64(),
        }
    }
}

/// The seeds of a campaign: one, or all from a first to a last.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Seeds {
    first: u64,
    last: u64,
}

impl Seeds {
    /// The most that a campaign has.
    const MOST: u64 = 10_000_000;

    /// One.
    #[must_use]
    pub const fn one(seed: u64) -> Self {
        Self {
            first: seed,
            last: seed,
        }
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = u64> {
        self.first..=self.last
    }
}

impl FromStr for Seeds {
    type Err = &'static str;

    /// `7`, or `1..1000` with both ends in it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "seeds are a number, or two with `..` between: 1..1000, both included";
        let number = |text: &str| text.trim().parse::<u64>().map_err(|_| WRONG);
        let (first, last) = match text.split_once("..") {
            Some((first, last)) => (
                number(first)?,
                number(last.strip_prefix('=').unwrap_or(last))?,
            ),
            None => (number(text)?, number(text)?),
        };
        if first > last {
            return Err("the first seed is behind the last");
        }
        if last - first >= Self::MOST {
            return Err("more than ten million seeds are no campaign");
        }
        Ok(Self { first, last })
    }
}

/// Which part of the cases: number `part` of `of`, counted from one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Partition {
    part: usize,
    of: usize,
}

impl Partition {
    /// All of them.
    pub const WHOLE: Self = Self { part: 1, of: 1 };

    /// Whether the case with this number belongs to it: cases are dealt like cards, so that parts take equally long.
    pub(crate) const fn has(self, index: usize) -> bool {
        index % self.of == self.part - 1
    }
}

impl FromStr for Partition {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once('/').and_then(|(part, of)| {
            let (part, of) = (part.parse().ok()?, of.parse().ok()?);
            (part >= 1 && part <= of).then_some(Self { part, of })
        });
        parts.ok_or("a part is a number and how many there are: 3/16, counted from one")
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.part, self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_have_both_ends() {
        let seeds = |text: &str| text.parse::<Seeds>().map(|seeds| seeds.iter().count());
        assert_eq!(seeds("1..1000"), Ok(1000));
        assert_eq!(seeds("1..=3"), Ok(3));
        assert_eq!(seeds("7"), Ok(1));
        for wrong in ["", "..", "3..1", "x", "-1", "0..99999999999"] {
            assert!(seeds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn parts_are_counted_from_one() {
        for wrong in ["", "3", "0/4", "5/4", "1/0", "a/b", "1/2/3"] {
            assert!(wrong.parse::<Partition>().is_err(), "{wrong}");
        }
        let part: Partition = "2/3".parse().unwrap();
        assert_eq!(part.to_string(), "2/3");
        assert!(part.has(1) && part.has(4) && !part.has(2));
    }
}
