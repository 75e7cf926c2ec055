//! What a run came to, in a table for people.

use core::fmt;

use crate::{MachineEvent, Outcome};

/// What the machine measured and counted in a run.
#[derive(Clone, Copy, Debug)]
pub struct Summary<'a>(&'a Outcome);

/// Operations as the machine names them, and what people call them.
const OPERATIONS: [(&str, &str); 7] = [
    ("pvalidate", "PVALIDATE"),
    ("rmpadjust", "RMPADJUST"),
    ("rmpquery", "RMPQUERY"),
    ("page-state-changes", "page-state changes"),
    ("calls", "requests to the host"),
    ("guest-requests", "messages to the security processor"),
    ("level-switches", "changes of the level"),
];

impl<'a> Summary<'a> {
    /// That of a run which has ended.
    #[must_use]
    pub const fn new(outcome: &'a Outcome) -> Self {
        Self(outcome)
    }

    /// The launch digest that the machine measured, in hexadecimal.
    #[must_use]
    pub fn launch_digest(&self) -> Option<&'a str> {
        self.0.events.iter().find_map(|event| match event {
            MachineEvent::Other(fields) => fields.get("digest")?.as_str(),
            _ => None,
        })
    }
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(digest) = self.launch_digest() {
            writeln!(f, "{:34} {digest}", "launch digest")?;
        }
        let counters = &self.0.counters;
        exits(f, "exits", &counters.exits(None))?;
        for level in 0..4 {
            let of_level = counters.exits(Some(level));
            if !of_level.is_empty() {
                exits(f, &format!("  from VMPL{level}"), &of_level)?;
            }
        }
        for (name, title) in OPERATIONS {
            let count = counters.sum(&format!("operations.{name}"));
            if count > 0 {
                writeln!(f, "{title:34} {count}")?;
            }
        }
        if let Some(refused @ 1..) = counters.value("dma.refused") {
            writeln!(f, "{:34} {refused} or more", "refused accesses of devices")?;
        }
        Ok(())
    }
}

/// A line of exits: their number, and the reasons, most frequent first.
fn exits(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    exits: &std::collections::BTreeMap<&str, u64>,
) -> fmt::Result {
    let mut reasons: Vec<_> = exits.iter().filter(|(_, count)| **count > 0).collect();
    reasons.sort_by_key(|(_, count)| core::cmp::Reverse(**count));
    let total: u64 = exits.values().sum();
    let shown = reasons
        .iter()
        .map(|(reason, count)| format!("{count} {reason}"));
    let shown = shown.collect::<Vec<_>>().join(", ");
    writeln!(f, "{title:34} {total} ({shown})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(line: &str) -> MachineEvent {
        MachineEvent::parse(line).unwrap()
    }

    #[test]
    fn a_table_has_what_was_counted_and_nothing_else() {
        let mut outcome = Outcome::for_tests();
        outcome
            .events
            .push(event(r#"{"event":"start","digest":"abcd"}"#));
        let counters = r#"{"event":"counters","cpus":[
            {"exits":{"cpuid":3,"msr":4},"by_vmpl":{"0":{"msr":4},"2":{"cpuid":3}},"operations":{"pvalidate":7}},
            {"exits":{"cpuid":2},"by_vmpl":{"2":{"cpuid":2}},"operations":{"pvalidate":1,"calls":0}}],
            "dma":{"refused":2}}"#;
        let MachineEvent::Counters { counters } = event(&counters.replace('\n', "")) else {
            panic!("not counters")
        };
        outcome.counters = counters;
        let table = Summary::new(&outcome).to_string();
        let lines: Vec<Vec<&str>> = table
            .lines()
            .map(|line| line.split("  ").filter(|part| !part.is_empty()).collect())
            .collect();
        let line = |title: &str| {
            let found = lines.iter().find(|line| line[0] == title);
            found.map(|line| line[1].trim())
        };
        assert_eq!(line("launch digest"), Some("abcd"));
        assert_eq!(line("exits"), Some("9 (5 cpuid, 4 msr)"));
        assert_eq!(line("from VMPL0"), Some("4 (4 msr)"));
        assert_eq!(line("from VMPL2"), Some("5 (5 cpuid)"));
        assert_eq!(line("PVALIDATE"), Some("8"));
        assert_eq!(line("refused accesses of devices"), Some("2 or more"));
        assert_eq!(lines.len(), 6, "{table}");
    }
}
