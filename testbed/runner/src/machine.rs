//! What the software machine reports: one JSON object per line on the second serial port.
//!
//! Every object has a member `event`. `verdict` ends a run and says how; `counters` may come at any time
//! and replaces what came before; everything else is passed on. In a run without the software machine
//! QEMU's own control protocol takes its place, and only the reason of a shutdown is taken from it.

use core::fmt;
use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::FaultEvent;
use crate::trace::{ExitEvent, PagesEvent, RefusedDma};

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
#[non_exhaustive]
pub enum Event {
    /// The machine ends the run.
    Verdict(Box<End>),
    /// Numbers by name, since the start.
    Counters {
        /// All of them, in place of those that came before.
        counters: Counters,
    },
    /// The host told a lie.
    Fault(Box<FaultEvent>),
    /// An exit, if exits are traced.
    Exit(Box<ExitEvent>),
    /// Pages of the guest, if they are reported.
    #[serde(rename = "rmp")]
    Pages(PagesEvent),
    /// A device was kept from memory.
    #[serde(rename = "dma-refused")]
    RefusedDma(RefusedDma),
    /// Any other event.
    #[serde(untagged)]
    Other(Map<String, Value>),
}

/// How the machine saw the firmware end.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct End {
    /// In which way.
    pub kind: EndKind,
    /// The same as a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The CPU on which it happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u64>,
    /// The registers of that CPU.
    #[serde(skip_serializing_if = "Registers::is_empty")]
    pub registers: Registers,
    /// Whatever else the machine knows about it.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl End {
    pub(crate) fn new(kind: EndKind) -> Self {
        Self {
            kind,
            reason: None,
            cpu: None,
            registers: Registers::default(),
            more: Map::new(),
        }
    }
}

/// In which way a firmware can end.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EndKind {
    /// It switched the machine off by ACPI: the orderly end.
    PowerOff,
    /// It reset the machine.
    Reset,
    /// A triple fault.
    Shutdown,
    /// All CPUs are halted and nothing can wake them.
    Halted,
    /// It touched an address behind which there is nothing.
    BadAccess,
    /// It (or the image) brought a CPU into a state that cannot be.
    InvalidState,
    /// It asked its host to end it.
    Terminated,
    /// It broke the rules of memory ownership in a way of which no guest is told.
    Violation,
    /// It did what the machine does not model.
    Unsupported,
    /// The machine refused the image.
    LoadError,
    /// The machine failed itself.
    L0Error,
    /// A word that this runner does not know.
    #[serde(untagged)]
    Other(String),
}

impl EndKind {
    fn parse(word: &str) -> Self {
        match word {
            "power-off" => Self::PowerOff,
            "reset" => Self::Reset,
            "shutdown" => Self::Shutdown,
            "halted" => Self::Halted,
            "bad-access" => Self::BadAccess,
            "invalid-state" => Self::InvalidState,
            "terminated" => Self::Terminated,
            "violation" => Self::Violation,
            "unsupported" => Self::Unsupported,
            "load-error" => Self::LoadError,
            "l0-error" => Self::L0Error,
            other => Self::Other(other.to_owned()),
        }
    }

    /// What the machine told QEMU's exit device, should its verdict have been lost.
    pub(crate) fn from_exit_status(status: i32) -> Option<Self> {
        Some(match status {
            0x21 => Self::PowerOff,
            0x23 => Self::Reset,
            0x25 => Self::Shutdown,
            0x27 => Self::Halted,
            0x29 => Self::BadAccess,
            0x2b => Self::InvalidState,
            0x2d => Self::Unsupported,
            0x2f => Self::Terminated,
            0x31 => Self::LoadError,
            0x33 => Self::L0Error,
            0x35 => Self::Violation,
            _ => return None,
        })
    }
}

/// What the machine counted: numbers by name. The members of objects and lists are joined with dots, as in
/// `cpus.0.exits.cpuid`.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Counters(BTreeMap<String, u64>);

impl Counters {
    /// One number.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<u64> {
        self.0.get(name).copied()
    }

    /// The sum of one number of all CPUs: `sum("exits.cpuid")`.
    #[must_use]
    pub fn sum(&self, name: &str) -> u64 {
        let of_cpu = |key: &str| Some(key.strip_prefix("cpus.")?.split_once('.')?.1 == name);
        self.iter()
            .filter(|(key, _)| of_cpu(key) == Some(true))
            .map(|(_, value)| value)
            .sum()
    }

    /// The exits of all CPUs together by reason: all of them, or only those from a level.
    #[must_use]
    pub fn exits(&self, vmpl: Option<u8>) -> BTreeMap<&str, u64> {
        let group = vmpl.map_or_else(|| "exits.".to_owned(), |level| format!("by_vmpl.{level}."));
        let mut exits = BTreeMap::new();
        for (key, count) in self.iter() {
            let of_cpu = key
                .strip_prefix("cpus.")
                .and_then(|key| key.split_once('.'));
            if let Some(reason) = of_cpu.and_then(|(_, name)| name.strip_prefix(&*group)) {
                *exits.entry(reason).or_default() += count;
            }
        }
        exits
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }
}

/// Registers by name, in lower case; the parts of a segment register are `cs.selector`, `cs.base` and so on.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Registers(BTreeMap<String, u64>);

impl Registers {
    /// The value of the register called `name`.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<u64> {
        self.0.get(name).copied()
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }
}

#[cfg(test)]
impl FromIterator<(String, u64)> for Registers {
    fn from_iter<I: IntoIterator<Item = (String, u64)>>(registers: I) -> Self {
        Self(registers.into_iter().collect())
    }
}

impl Serialize for Registers {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // As text: many JSON readers keep only 53 bits of a number.
        serializer.collect_map(
            self.iter()
                .map(|(name, value)| (name, format!("{value:#x}"))),
        )
    }
}

impl fmt::Display for Registers {
    /// Those that people look at, in three columns.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: [&str; 30] = [
            "rip",
            "rsp",
            "rflags",
            "rax",
            "rbx",
            "rcx",
            "rdx",
            "rsi",
            "rdi",
            "rbp",
            "r8",
            "r9",
            "r10",
            "r11",
            "r12",
            "r13",
            "r14",
            "r15",
            "cr0",
            "cr2",
            "cr3",
            "cr4",
            "efer",
            "cpl",
            "cs.selector",
            "ss.selector",
            "gs.base",
            "gdtr.base",
            "idtr.base",
            "tr.base",
        ];
        let known = SHOWN
            .iter()
            .filter_map(|name| Some((name, self.value(name)?)));
        for (at, (name, value)) in known.enumerate() {
            match at {
                0 => {}
                _ if at % 3 == 0 => f.write_str("\n")?,
                _ => f.write_str("  ")?,
            }
            write!(f, "{name:>11} {value:016x}")?;
        }
        Ok(())
    }
}

impl Event {
    /// Reads one line of the software machine's report.
    ///
    /// # Errors
    /// When it is not a JSON object with a member `event`, or a verdict without a kind.
    pub fn parse(line: &str) -> Result<Self, serde_json::Error> {
        let mut fields: Map<String, Value> = serde_json::from_str(line)?;
        match fields.get("event").and_then(Value::as_str) {
            Some("verdict") => {
                fields.remove("event");
                let Some(Value::String(kind)) = fields.remove("kind") else {
                    return Err(missing("kind"));
                };
                Ok(Self::Verdict(Box::new(End {
                    kind: EndKind::parse(&kind),
                    reason: reason(&mut fields),
                    cpu: fields.remove("cpu").as_ref().and_then(number),
                    registers: Registers(numbers(&fields.remove("registers").unwrap_or_default())),
                    more: fields,
                })))
            }
            Some("counters") => Ok(Self::Counters {
                counters: Counters(numbers(&Value::Object(fields))),
            }),
            Some("exit") => {
                let exit = serde_json::from_value(Value::Object(fields))?;
                Ok(Self::Exit(Box::new(exit)))
            }
            Some("rmp") => Ok(Self::Pages(serde_json::from_value(Value::Object(fields))?)),
            Some("dma-refused") => Ok(Self::RefusedDma(serde_json::from_value(Value::Object(
                fields,
            ))?)),
            Some("fault") => {
                let fault = serde_json::from_value(Value::Object(fields))?;
                Ok(Self::Fault(Box::new(fault)))
            }
            Some(_) => Ok(Self::Other(fields)),
            None => Err(missing("event")),
        }
    }

    /// Why the machine refuses the image or gives up, which it says in an event before its verdict.
    pub(crate) fn complaint(&self) -> Option<String> {
        let Self::Other(fields) = self else {
            return None;
        };
        let text = |name: &str| fields.get(name).and_then(Value::as_str);
        match (
            text("event")?,
            text("reason")?,
            fields.get("offset").and_then(number),
        ) {
            ("load-error", reason, Some(offset)) => {
                Some(format!("{reason} (at {offset:#x} in the file)"))
            }
            ("load-error" | "l0-error", reason, _) => Some(reason.to_owned()),
            _ => None,
        }
    }

    /// Reads one line of QEMU's control protocol: the reason of a shutdown, or nothing of interest.
    #[must_use]
    pub fn parse_qmp(line: &str) -> Option<Self> {
        let message: Value = serde_json::from_str(line).ok()?;
        if message.get("event")?.as_str()? != "SHUTDOWN" {
            return None;
        }
        let kind = match message.get("data")?.get("reason")?.as_str()? {
            "guest-shutdown" => EndKind::PowerOff,
            "guest-reset" => EndKind::Reset,
            other => EndKind::Other(other.to_owned()),
        };
        Some(Self::Verdict(Box::new(End::new(kind))))
    }
}

fn missing(member: &str) -> serde_json::Error {
    serde::de::Error::custom(format_args!("no member `{member}`"))
}

fn reason(fields: &mut Map<String, Value>) -> Option<String> {
    match fields.remove("reason")? {
        Value::String(reason) => Some(reason),
        _ => None,
    }
}

/// All numbers in a value, by their path.
fn numbers(value: &Value) -> BTreeMap<String, u64> {
    fn walk(found: &mut BTreeMap<String, u64>, path: &str, value: &Value) {
        let join = |name: &str| {
            if path.is_empty() {
                name.to_owned()
            } else {
                format!("{path}.{name}")
            }
        };
        match value {
            Value::Object(members) => {
                members
                    .iter()
                    .for_each(|(name, value)| walk(found, &join(name), value));
            }
            Value::Array(items) => {
                items
                    .iter()
                    .enumerate()
                    .for_each(|(at, item)| walk(found, &join(&at.to_string()), item));
            }
            _ => found.extend(number(value).map(|number| (path.to_owned(), number))),
        }
    }
    let mut found = BTreeMap::new();
    // A reader of JSON bounds the depth, so this does not go far down.
    walk(&mut found, "", value);
    found
}

/// A number, or text that is one: 64-bit values travel as `"0x…"`.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        let text = value.as_str()?;
        text.strip_prefix("0x").map_or_else(
            || text.parse().ok(),
            |hex| u64::from_str_radix(hex, 16).ok(),
        )
    })
}

#[cfg(test)]
mod tests;
