use core::time::Duration;

use serde::Serialize;

use crate::machine::{Counters, End};
use crate::qemu::Version;
use crate::trace::Pages;
use crate::{FaultEvent, LogLine, MachineEvent, Verdict};

/// Everything about a run that has ended.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Outcome {
    /// How it ended.
    pub verdict: Verdict,
    /// What the firmware said about itself last, even if it then crashed.
    #[serde(serialize_with = "as_text", skip_serializing_if = "Option::is_none")]
    pub own_verdict: Option<svsm_log::Verdict>,
    /// The log: the last [`Outcome::MAX_LOG_LINES`] lines of it.
    pub log: Vec<LogLine>,
    /// How many lines there were before those.
    pub earlier_log_lines: u64,
    /// How many records the firmware says it had to drop.
    pub dropped_records: u64,
    /// How the machine saw the end, with all that it said about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
    /// The last counters that the machine reported.
    pub counters: Counters,
    /// The lies that the host told; the first [`Outcome::MAX_EVENTS`] of them.
    pub faults: Vec<FaultEvent>,
    /// The state of all pages, if it was asked for.
    #[serde(skip_serializing_if = "Pages::is_empty")]
    pub pages: Pages,
    /// What else the machine reported; its last [`Outcome::MAX_EVENTS`] events.
    pub events: Vec<MachineEvent>,
    /// The last that QEMU said on its standard error.
    pub qemu_stderr: String,
    /// From the start of QEMU to its end.
    #[serde(rename = "wall_seconds", serialize_with = "as_seconds")]
    pub wall_time: Duration,
    /// Which QEMU.
    #[serde(serialize_with = "as_display")]
    pub qemu_version: Version,
    /// Its command line, for doing it again by hand.
    pub command_line: Vec<String>,
}

impl Outcome {
    /// How many lines an outcome keeps.
    pub const MAX_LOG_LINES: usize = 20_000;
    /// How many events of the machine an outcome keeps.
    pub const MAX_EVENTS: usize = 10_000;

    /// An outcome of nothing.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Self {
            verdict: Verdict::Passed,
            own_verdict: None,
            log: Vec::new(),
            earlier_log_lines: 0,
            dropped_records: 0,
            end: None,
            counters: Counters::default(),
            faults: Vec::new(),
            pages: Pages::default(),
            events: Vec::new(),
            qemu_stderr: String::new(),
            wall_time: Duration::ZERO,
            qemu_version: crate::qemu::OLDEST,
            command_line: Vec::new(),
        }
    }

    /// Whether any line of the log has `text` in its message.
    #[must_use]
    pub fn log_contains(&self, text: &str) -> bool {
        self.log.iter().any(|line| line.message.contains(text))
    }
}

fn as_seconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

fn as_display<S: serde::Serializer>(version: &Version, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(version)
}

fn as_text<S: serde::Serializer>(
    verdict: &Option<svsm_log::Verdict>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match verdict {
        Some(verdict) => serializer.collect_str(verdict),
        None => serializer.serialize_none(),
    }
}
