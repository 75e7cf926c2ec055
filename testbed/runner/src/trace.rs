//! What the software machine reports of a run exit by exit, and of its pages.

use core::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// Which exits are reported one by one.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Trace {
    /// None.
    #[default]
    Off,
    /// Requests to the host (SEV-SNP).
    Calls,
    /// All.
    Exits,
}

/// An exit that was answered.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ExitEvent {
    /// On which CPU.
    pub cpu: u64,
    /// When, in ticks of the time-stamp counter.
    pub tsc: u64,
    /// From which level, where there are levels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vmpl: Option<u8>,
    /// At which instruction.
    #[serde(deserialize_with = "hex", serialize_with = "to_hex")]
    pub rip: u64,
    /// Why: the name under which it is counted.
    pub reason: String,
    /// The processor's code for it.
    pub code: String,
    /// What goes with the code.
    pub info1: String,
    /// What goes with the code.
    pub info2: String,
    /// What was asked of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<Call>,
    /// The instruction that the machine carried out, where it is one of SEV-SNP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instruction: Option<Instruction>,
}

/// An access of a device to memory that it does not reach: private memory of the guest, or none of the guest's.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RefusedDma {
    /// The device on its bus, as `00:01.0`.
    pub device: String,
    /// The page that it wanted.
    #[serde(deserialize_with = "hex", serialize_with = "to_hex")]
    pub gpa: u64,
    /// `read` or `write`.
    pub access: String,
}

impl fmt::Display for RefusedDma {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            device,
            gpa,
            access,
        } = self;
        write!(
            f,
            "device {device} may not {access} guest physical address {gpa:#x}"
        )
    }
}

/// A request to the host.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Call {
    /// The number of the event, as faults are keyed by it.
    pub number: u64,
    /// `register` or `page`.
    pub via: String,
    /// Its name.
    pub name: String,
    /// Its fields, in words.
    pub what: String,
    /// The answer in the register.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// The answer in the page: `SW_EXITINFO1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info1: Option<String>,
    /// The answer in the page: `SW_EXITINFO2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info2: Option<String>,
}

/// An instruction that the machine carried out.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Instruction {
    /// Its name.
    pub name: String,
    /// Operands.
    pub rax: String,
    /// Operands.
    pub rcx: String,
    /// Operands.
    pub rdx: String,
    /// What it returned in EAX.
    pub result: u64,
}

impl ExitEvent {
    /// What happened: the name of the call or of the instruction, or else the reason.
    #[must_use]
    pub fn name(&self) -> &str {
        let call = self.call.as_ref().map(|call| call.name.as_str());
        let instruction = self.instruction.as_ref().map(|one| one.name.as_str());
        call.or(instruction).unwrap_or(&self.reason)
    }
}

impl fmt::Display for ExitEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.vmpl {
            Some(level) => write!(f, "VMPL{level} {:#x} ", self.rip)?,
            None => write!(f, "{:#x} ", self.rip)?,
        }
        if let Some(call) = &self.call {
            let Call {
                number,
                via,
                name,
                what,
                ..
            } = call;
            write!(f, "call {number} ({via}) {name} {what}")?;
            return match (&call.answer, &call.info1, &call.info2) {
                (Some(answer), ..) => write!(f, " -> {answer}"),
                (_, Some(info1), Some(info2)) => write!(f, " -> {info1}, {info2}"),
                _ => Ok(()),
            };
        }
        if let Some(one) = &self.instruction {
            let Instruction {
                name,
                rax,
                rcx,
                rdx,
                result,
            } = one;
            return write!(f, "{name} rax {rax}, rcx {rcx}, rdx {rdx} -> {result}");
        }
        let (reason, info1, info2) = (&self.reason, &self.info1, &self.info2);
        write!(f, "{reason} {info1}, {info2}")
    }
}

/// Pages of the guest, one behind the other, of which the same is true.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PageRange {
    /// The first one's guest physical address.
    #[serde(deserialize_with = "hex", serialize_with = "to_hex")]
    pub gpa: u64,
    /// How many pages of 4 KiB.
    pub pages: u64,
    /// `shared`, `private-invalid`, `private-valid`, `pre-guest` or `firmware`.
    pub state: String,
    /// The size of the pages in the table: 4096 or 2097152.
    pub size: u64,
    /// Whether they are save areas.
    pub vmsa: bool,
    /// The rights of each level: `r`, `w`, `u` (execute in ring 3), `x` (execute elsewhere), `s` (shadow stack), or `-`.
    pub rights: Vec<String>,
}

/// The state of all pages at a moment.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Pages {
    /// Before the first instruction.
    pub start: Vec<PageRange>,
    /// After the last.
    pub end: Vec<PageRange>,
}

/// One line of it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PagesEvent {
    /// `start` or `end`.
    pub when: String,
    /// The ranges.
    pub ranges: Vec<PageRange>,
}

impl Pages {
    pub(crate) fn take(&mut self, event: PagesEvent) {
        let to = if event.when == "start" {
            &mut self.start
        } else {
            &mut self.end
        };
        to.extend(event.ranges);
    }

    /// Whether nothing was reported.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.start.is_empty() && self.end.is_empty()
    }
}

fn hex<'d, D: Deserializer<'d>>(from: D) -> Result<u64, D::Error> {
    let text = String::deserialize(from)?;
    let digits = text.strip_prefix("0x").unwrap_or_default();
    u64::from_str_radix(digits, 16).map_err(serde::de::Error::custom)
}

fn to_hex<S: serde::Serializer>(value: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{value:#x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_are_told_in_a_line() {
        let call = r#"{"cpu":0,"tsc":5,"vmpl":1,"rip":"0xffffffff80001000","reason":"vmmcall","code":"0x81","info1":"0x0",
            "info2":"0x0","call":{"number":7,"via":"page","page":"0x9000","name":"io","what":"in 0x3fd, 1 bytes",
            "info1":"0x0","info2":"0x0"}}"#;
        let exit: ExitEvent = serde_json::from_str(call).unwrap();
        assert_eq!((exit.name(), exit.rip), ("io", 0xffff_ffff_8000_1000));
        assert_eq!(
            exit.to_string(),
            "VMPL1 0xffffffff80001000 call 7 (page) io in 0x3fd, 1 bytes -> 0x0, 0x0"
        );
        let bare = r#"{"cpu":0,"tsc":5,"rip":"0x10","reason":"hlt","code":"0x78","info1":"0x1","info2":"0x2"}"#;
        let exit: ExitEvent = serde_json::from_str(bare).unwrap();
        assert_eq!(exit.to_string(), "0x10 hlt 0x1, 0x2");
    }

    #[test]
    fn pages_of_many_lines_are_one_list() {
        let line = r#"{"when":"start","ranges":[{"gpa":"0x1000","pages":2,"state":"shared","size":4096,"vmsa":false,
            "rights":["rwux-","-----"]}]}"#;
        let event: PagesEvent = serde_json::from_str(line).unwrap();
        let mut pages = Pages::default();
        pages.take(event.clone());
        pages.take(event);
        assert_eq!((pages.start.len(), pages.end.len()), (2, 0));
        assert_eq!(pages.start[1].gpa, 0x1000);
    }
}
