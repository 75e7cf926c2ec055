use core::time::Duration;

use serde::Serialize;

use crate::images::{SourcePlace, TraceEntry};

/// How much a message matters.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Step by step.
    Trace,
    /// For whoever looks for a fault.
    Debug,
    /// For everybody.
    Info,
    /// Something is odd.
    Warn,
    /// Something is wrong.
    Error,
}

impl Level {
    pub(crate) fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "trace" => Self::Trace,
            "debug" => Self::Debug,
            "info" => Self::Info,
            "warn" => Self::Warn,
            "error" => Self::Error,
            _ => return None,
        })
    }

    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// What a line is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum LineKind {
    /// A message of the firmware.
    Message,
    /// Text outside of any record.
    Text,
    /// The firmware's verdict on itself.
    Verdict,
    /// Where a panic happened.
    Panic,
    /// A stack trace.
    StackTrace,
    /// That records are missing here.
    Dropped,
    /// A record that cannot be read: its image is unknown, or it is damaged.
    Undecoded,
    /// Said by the software machine, not by the firmware.
    Machine,
}

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LogLine {
    /// Since the start of QEMU: by the host's clock when the line came, or exactly with `icount`.
    #[serde(rename = "seconds", serialize_with = "as_seconds")]
    pub time: Duration,
    /// What it is.
    pub kind: LineKind,
    /// How much it matters; nothing for text and the like.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
    /// Whether only the inside of the guest was to see it. It is seen here because the image is marked for
    /// debugging.
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    pub local: bool,
    /// The CPU that wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u16>,
    /// Ticks of the guest's time-stamp counter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ticks: Option<u64>,
    /// The image that wrote it: its name, or its id if no ELF file with that was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The text.
    pub message: String,
    /// Where it is logged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<SourcePlace>,
    /// The functions of a stack trace, innermost first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trace: Vec<TraceEntry>,
}

impl LogLine {
    /// A line that no record stands behind.
    pub(crate) fn plain(time: Duration, kind: LineKind, message: String) -> Self {
        Self {
            time,
            kind,
            level: None,
            local: false,
            cpu: None,
            ticks: None,
            image: None,
            message,
            place: None,
            trace: Vec::new(),
        }
    }
}

fn as_seconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}
