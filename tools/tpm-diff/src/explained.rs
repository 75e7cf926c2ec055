//! The list of differences that somebody has reviewed, and the rule of the specification that allows each.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// The list itself.
const LIST: &str = include_str!("../explained.toml");

/// A reviewed difference.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    /// The commands that show it.
    commands: Vec<String>,
    /// Our answer, as the tool prints it; `*` stands for any.
    ours: String,
    /// The other TPM's.
    theirs: String,
    /// Part and clause of the TPM 2.0 Library Specification.
    clause: String,
    /// Why both answers are right, or why ours is.
    why: String,
}

impl Entry {
    /// Whether a difference is of this kind.
    fn covers(&self, command: &str, ours: &str, theirs: &str) -> bool {
        let same = |rule: &str, text: &str| rule == "*" || rule == text;
        self.commands.iter().any(|name| same(name, command))
            && same(&self.ours, ours)
            && same(&self.theirs, theirs)
    }

    /// A line for people.
    pub(crate) fn describe(&self) -> String {
        format!(
            "{}: ours {}, theirs {} ({}: {})",
            self.commands.join(", "),
            self.ours,
            self.theirs,
            self.clause,
            self.why
        )
    }
}

/// The reviewed list.
pub(crate) struct Explained(Vec<Entry>);

impl Explained {
    /// The list that the tool was built with.
    pub(crate) fn load() -> Result<Self> {
        Self::parse(LIST).context("explained.toml")
    }

    fn parse(text: &str) -> Result<Self> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            #[serde(default)]
            difference: Vec<Entry>,
        }
        let file: File = toml::from_str(text)?;
        for entry in &file.difference {
            ensure!(
                entry.clause.starts_with("Part ") && !entry.why.trim().is_empty(),
                "an entry for {} names no clause, or no reason",
                entry.commands.join(", ")
            );
            ensure!(
                (entry.ours != "*" || entry.theirs != "*") && !entry.commands.is_empty(),
                "an entry covers everything"
            );
        }
        Ok(Self(file.difference))
    }

    /// The number of the entry that covers a difference.
    pub(crate) fn find(&self, command: &str, ours: &str, theirs: &str) -> Option<usize> {
        self.0
            .iter()
            .position(|entry| entry.covers(command, ours, theirs))
    }

    /// All entries.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "[[difference]]\ncommands = [\"Load\"]\nours = \"SIZE\"\ntheirs = \"*\"\n\
                       clause = \"Part 2, 12.3.7\"\nwhy = \"a limit\"\n";

    #[test]
    fn the_list_of_the_tool_is_whole() {
        assert!(Explained::load().is_ok());
    }

    #[test]
    fn an_entry_covers_its_command_and_codes_only() {
        let list = Explained::parse(ONE).unwrap();
        assert_eq!(list.find("Load", "SIZE", "VALUE"), Some(0));
        assert_eq!(list.find("Import", "SIZE", "VALUE"), None);
        assert_eq!(list.find("Load", "VALUE", "SIZE"), None);
    }

    #[test]
    fn an_entry_without_a_clause_or_a_reason_is_refused() {
        assert!(Explained::parse(&ONE.replace("Part 2", "2")).is_err());
        assert!(Explained::parse(&ONE.replace("a limit", " ")).is_err());
        assert!(Explained::parse(&ONE.replace("\"SIZE\"", "\"*\"")).is_err());
    }
}
