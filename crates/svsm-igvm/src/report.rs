//! What an image is made of, and whether that is within its budgets.

use core::fmt;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::manifest::{Budgets, Size};
use crate::reference::Reference;

/// What a page of an image is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Kind {
    /// The first stage, with its own page tables and stack.
    Stage2,
    /// The SVSM's instructions.
    Code,
    /// The SVSM's constants.
    ReadOnlyData,
    /// The SVSM's variables.
    Data,
    /// The SVSM's page tables.
    PageTables,
    /// The SVSM's stacks.
    Stacks,
    /// The hand-off block.
    HandOff,
    /// Pages that the platform's security processor fills in.
    Platform,
    /// Parameter areas, written by the host.
    Parameters,
    /// The archive of user-mode programs.
    Archive,
    /// The archive, where the host can see it.
    Staged,
}

impl Kind {
    /// Whether the contents of such pages are measured.
    #[must_use]
    pub const fn is_measured(self) -> bool {
        !matches!(self, Self::Parameters | Self::Platform | Self::Staged)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Stage2 => "stage2",
            Self::Code => "code",
            Self::ReadOnlyData => "read-only-data",
            Self::Data => "data",
            Self::PageTables => "page-tables",
            Self::Stacks => "stacks",
            Self::HandOff => "hand-off",
            Self::Platform => "platform",
            Self::Parameters => "parameters",
            Self::Archive => "archive",
            Self::Staged => "staged",
        })
    }
}

/// What an image is made of, line by line, each with its budget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Pages by kind.
    pub kinds: Vec<Line<Kind>>,
    /// Sums and the size of the file.
    pub totals: Vec<Line<Total>>,
    /// What an attestation report must say of a guest that came from the file's SEV-SNP part, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snp: Option<Reference>,
}

/// A figure of a report, and what it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Line<T> {
    /// What is counted.
    pub what: T,
    /// The count.
    pub is: u64,
    /// The most that it may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<u64>,
}

/// A sum in a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Total {
    /// All pages.
    Pages,
    /// Pages that pass through the launch update of a protected platform.
    LaunchPages,
    /// Pages that are measured.
    MeasuredPages,
    /// The size of the file in bytes.
    FileBytes,
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pages => "all pages",
            Self::LaunchPages => "launch pages",
            Self::MeasuredPages => "measured pages",
            Self::FileBytes => "file bytes",
        })
    }
}

impl<T> Line<T> {
    /// Whether the count is more than it may be.
    #[must_use]
    pub fn exceeds(&self) -> bool {
        self.budget.is_some_and(|budget| self.is > budget)
    }
}

impl Report {
    /// Holds the pages of an image by kind, the pages of its launch and its size
    /// against the budgets.
    #[must_use]
    pub fn new(
        pages: &BTreeMap<Kind, u64>,
        launch_pages: u64,
        file_bytes: u64,
        budgets: &Budgets,
    ) -> Self {
        let mut kinds = pages.clone();
        for kind in budgets.kinds.keys() {
            kinds.entry(*kind).or_default();
        }
        let sum = |wanted: &dyn Fn(Kind) -> bool| {
            pages
                .iter()
                .filter(|(kind, _)| wanted(**kind))
                .map(|(_, pages)| pages)
                .sum()
        };
        let all = sum(&|_| true);
        let measured = sum(&Kind::is_measured);
        let line = |what, is, budget| Line { what, is, budget };
        Self {
            kinds: kinds
                .into_iter()
                .map(|(what, is)| Line {
                    what,
                    is,
                    budget: budgets.kinds.get(&what).copied(),
                })
                .collect(),
            totals: vec![
                line(Total::Pages, all, budgets.pages),
                line(Total::LaunchPages, launch_pages, budgets.launch_pages),
                line(Total::MeasuredPages, measured, budgets.measured_pages),
                line(Total::FileBytes, file_bytes, budgets.file.map(Size::bytes)),
            ],
            snp: None,
        }
    }

    /// Takes a new size of the file down.
    #[cfg(feature = "attest")]
    pub(crate) fn resize(&mut self, file_bytes: u64) {
        for line in &mut self.totals {
            if line.what == Total::FileBytes {
                line.is = file_bytes;
            }
        }
    }

    /// Whether a budget is exceeded.
    #[must_use]
    pub fn exceeds(&self) -> bool {
        self.kinds.iter().any(Line::exceeds) || self.totals.iter().any(Line::exceeds)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<16} {:>10} {:>10}", "kind", "pages", "budget")?;
        for line in &self.kinds {
            writeln!(f, "{line}")?;
        }
        for line in &self.totals {
            writeln!(f, "{line}")?;
        }
        if let Some(reference) = &self.snp {
            reference.fmt(f)?;
        }
        Ok(())
    }
}

impl<T: fmt::Display> fmt::Display for Line<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<16} {:>10}", self.what, self.is)?;
        match self.budget {
            Some(budget) => write!(f, " {budget:>10}")?,
            None => write!(f, " {:>10}", "-")?,
        }
        if self.exceeds() {
            f.write_str("  exceeded")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budgets() -> Budgets {
        Budgets {
            pages: Some(10),
            kinds: [(Kind::Code, 5), (Kind::Archive, 3)].into(),
            ..Budgets::default()
        }
    }

    #[test]
    fn what_is_at_its_budget_passes() {
        let pages = [(Kind::Code, 5), (Kind::Parameters, 5)].into();
        let report = Report::new(&pages, 10, 1, &budgets());
        assert!(!report.exceeds(), "{report}");
        assert_eq!(report.totals[2].is, 5, "parameters are not measured");
    }

    #[test]
    fn a_budget_of_a_kind_and_of_the_sum_fail_alone() {
        let kind = Report::new(&[(Kind::Code, 6)].into(), 6, 1, &budgets());
        assert!(kind.exceeds());
        let sum = Report::new(&[(Kind::Stage2, 11)].into(), 11, 1, &budgets());
        assert!(sum.exceeds());
        assert!(
            sum.to_string()
                .contains("all pages                11         10  exceeded")
        );
    }
}
