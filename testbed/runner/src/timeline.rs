//! A run over time: every exit, every lie, and the state of all pages at the start and at the end.
//!
//! As JSON for programs, and as one HTML page with all that it needs in it, for people.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::trace::{ExitEvent, PageRange, Pages};
use crate::{MachineEvent, Outcome, Progress};

/// The page, in which the JSON takes the place of a word.
const PAGE: &str = include_str!("timeline/page.html");
const PLACE: &str = "@TIMELINE@";

/// Collects a timeline from what happens during a run.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    names: BTreeMap<String, usize>,
    exits: Vec<[u64; 5]>,
    left_out: u64,
    lies: Vec<Value>,
}

impl Timeline {
    /// How many exits are kept; a page of more could not be looked at.
    pub const MAX_EXITS: usize = 400_000;

    /// Takes note of what happens.
    pub fn take(&mut self, progress: &Progress<'_>) {
        match progress {
            Progress::Machine(MachineEvent::Exit(exit)) => self.exit(exit),
            Progress::Machine(MachineEvent::Fault(fault)) => {
                let at = self.exits.last().map_or(0, |[tsc, ..]| *tsc);
                self.lies.push(json!({
                    "tsc": at, "cpu": fault.cpu, "script": fault.script, "effect": fault.effect
                }));
            }
            _ => {}
        }
    }

    fn exit(&mut self, exit: &ExitEvent) {
        if self.exits.len() >= Self::MAX_EXITS {
            self.left_out = self.left_out.saturating_add(1);
            return;
        }
        let number = self.names.len();
        let name = *self.names.entry(exit.name().to_owned()).or_insert(number);
        // Level 4 is none.
        let level = exit.vmpl.map_or(4, u64::from);
        self.exits
            .push([exit.tsc, exit.cpu, level, name as u64, exit.rip]);
    }

    /// The timeline as JSON: `names`; `exits`, each the time, the CPU, the level (4: none), the number of a name and the
    /// instruction's address as text; `lies`; `pages`.
    #[must_use]
    pub fn json(&self, outcome: &Outcome) -> Value {
        let mut names: Vec<(&String, &usize)> = self.names.iter().collect();
        names.sort_by_key(|(_, number)| **number);
        let names: Vec<&String> = names.into_iter().map(|(name, _)| name).collect();
        let exits = self.exits.iter().map(|[tsc, cpu, level, name, rip]| {
            // JSON's readers do not keep 64 bits.
            json!([tsc, cpu, level, name, format!("{rip:#x}")])
        });
        let Pages { start, end } = &outcome.pages;
        json!({
            "verdict": outcome.verdict.to_string(),
            "seconds": outcome.wall_time.as_secs_f64(),
            "names": names,
            "exits": exits.collect::<Vec<_>>(),
            "left_out": self.left_out,
            "lies": self.lies,
            "pages": { "start": ranges(start), "end": ranges(end) },
        })
    }

    /// The timeline as an HTML page without anything from elsewhere.
    #[must_use]
    pub fn html(&self, outcome: &Outcome) -> String {
        // Within a script element `<` could end it.
        let data = self.json(outcome).to_string().replace('<', "\\u003c");
        PAGE.replacen(PLACE, &data, 1)
    }
}

/// Ranges as short arrays: address, pages, state, size, save area, rights.
fn ranges(ranges: &[PageRange]) -> Vec<Value> {
    ranges
        .iter()
        .map(|range| {
            let rights = range.rights.join(" ");
            json!([
                range.gpa,
                range.pages,
                range.state,
                range.size,
                range.vmsa,
                rights
            ])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(tsc: u64, reason: &str) -> MachineEvent {
        let line = format!(
            r#"{{"event":"exit","cpu":1,"tsc":{tsc},"vmpl":2,"rip":"0xfff","reason":"{reason}","code":"0x72","info1":"0x0","info2":"0x0"}}"#
        );
        MachineEvent::parse(&line).unwrap()
    }

    #[test]
    fn exits_share_their_names_and_nothing_ends_the_script() {
        let mut timeline = Timeline::default();
        for (tsc, reason) in [(1, "cpuid"), (2, "</script>"), (3, "cpuid")] {
            timeline.take(&Progress::Machine(&exit(tsc, reason)));
        }
        let outcome = Outcome::for_tests();
        let value = timeline.json(&outcome);
        assert_eq!(value["names"], json!(["cpuid", "</script>"]));
        assert_eq!(value["exits"][2], json!([3, 1, 2, 0, "0xfff"]));
        let page = timeline.html(&outcome);
        assert!(!page.contains(PLACE));
        assert_eq!(
            page.matches("</script>").count(),
            PAGE.matches("</script>").count()
        );
        assert!(!page.contains("http"), "a page of its own");
    }
}
