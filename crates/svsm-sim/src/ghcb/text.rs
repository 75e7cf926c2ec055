//! Requests for people: a name that never changes, and the fields that matter.

use super::{ApCreation, Doorbell, Event, IoAccess, Malformed, MsrRequest, Operation};
use core::fmt;

impl Event {
    /// Its name: lower case, with hyphens.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::ReadDr7 => "read-dr7",
            Self::WriteDr7(_) => "write-dr7",
            Self::Rdtsc => "rdtsc",
            Self::Rdpmc(_) => "rdpmc",
            Self::Cpuid { .. } => "cpuid",
            Self::Invd => "invd",
            Self::Io(_) => "io",
            Self::ReadMsr(_) => "read-msr",
            Self::WriteMsr(..) => "write-msr",
            Self::Vmmcall(..) => "vmmcall",
            Self::Rdtscp => "rdtscp",
            Self::Wbinvd => "wbinvd",
            Self::Monitor => "monitor",
            Self::Mwait => "mwait",
            Self::ReadMmio { .. } => "read-mmio",
            Self::WriteMmio { .. } => "write-mmio",
            Self::NmiComplete => "nmi-complete",
            Self::ApResetHold => "ap-reset-hold",
            Self::ApJumpTable(_) => "ap-jump-table",
            Self::PageState { .. } => "page-state",
            Self::GuestRequest { .. } => "guest-request",
            Self::ApCreation { .. } => "ap-creation",
            Self::Doorbell(_) => "doorbell",
            Self::Ipi(_) => "ipi",
            Self::ApicIds { .. } => "apic-ids",
            Self::RunVmpl(_) => "run-vmpl",
            Self::Features => "features",
            Self::Terminate(_) => "terminate",
            Self::Unsupported(..) => "unsupported",
        }
    }
}

impl fmt::Display for Event {
    /// The fields, without the name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WriteDr7(value) => write!(f, "{value:#x}"),
            Self::Rdpmc(counter) => write!(f, "counter {counter}"),
            Self::Cpuid { leaf, subleaf, .. } => write!(f, "leaf {leaf:#x}, subleaf {subleaf:#x}"),
            Self::Io(io) => io.fmt(f),
            Self::ReadMsr(msr) => write!(f, "{msr:#x}"),
            Self::WriteMsr(msr, value) => write!(f, "{msr:#x} = {value:#x}"),
            Self::Vmmcall(rax, cpl) => write!(f, "{rax:#x} from ring {cpl}"),
            Self::ReadMmio { gpa, size, .. } => write!(f, "{size} bytes at {gpa:#x}"),
            Self::WriteMmio { gpa, size, value } => {
                write!(f, "{size} bytes at {gpa:#x} = {value:#x}")
            }
            Self::ApJumpTable(Some(gpa)) => write!(f, "{gpa:#x}"),
            Self::PageState { buffer } => write!(f, "list at offset {buffer:#x}"),
            Self::GuestRequest {
                request,
                response,
                data,
            } => {
                write!(f, "request {request:#x}, response {response:#x}")?;
                data.map_or(Ok(()), |(gpa, pages)| {
                    write!(f, ", certificates {gpa:#x} ({pages} pages)")
                })
            }
            Self::ApCreation {
                what,
                vmpl,
                apic_id,
                features,
            } => {
                match what {
                    ApCreation::OnInit(gpa) => write!(f, "after INIT, {gpa:#x}")?,
                    ApCreation::Now(gpa) => write!(f, "now, {gpa:#x}")?,
                    ApCreation::Destroy => f.write_str("destroy")?,
                }
                write!(f, ", VMPL{vmpl} of APIC {apic_id}, features {features:#x}")
            }
            Self::Doorbell(what) => match what {
                Doorbell::Preferred => f.write_str("preferred?"),
                Doorbell::Set(gpa) => write!(f, "set {gpa:#x}"),
                Doorbell::Query => f.write_str("query"),
                Doorbell::Clear => f.write_str("clear"),
            },
            Self::Ipi(command) => write!(f, "{command:#x}"),
            Self::ApicIds { buffer, pages } => write!(f, "{pages} pages at {buffer:#x}"),
            Self::RunVmpl(level) => write!(f, "VMPL{level}"),
            Self::Terminate(why) => why.fmt(f),
            Self::Unsupported(code, info) => write!(f, "{code:#x}, {info:#x}"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for IoAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            port, size, input, ..
        } = self;
        let direction = if *input { "in" } else { "out" };
        write!(f, "{direction} {port:#x}, {size} bytes")?;
        match self.string {
            Some((count, _)) => write!(f, ", {count} times"),
            None if *input => Ok(()),
            None => write!(f, " = {:#x}", self.value),
        }
    }
}

impl Malformed {
    /// What is wrong, in words.
    #[must_use]
    pub const fn about(self) -> &'static str {
        match self {
            Self::NotRegistered => "the page is not the registered one",
            Self::Usage => "the page is used for something else",
            Self::Scratch => "the scratch area is not in the page",
            Self::MissingInput => "a field that the event needs is not valid",
            Self::InvalidInput => "a field has a value that the event does not allow",
            Self::Event => "there is no such event",
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.about())
    }
}

impl MsrRequest {
    /// Its name: lower case, with hyphens.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::SevInformation => "sev-information",
            Self::Cpuid { .. } => "cpuid",
            Self::ApResetHold => "ap-reset-hold",
            Self::PreferredPage => "preferred-page",
            Self::RegisterPage(_) => "register-page",
            Self::PageState(_) => "page-state",
            Self::RunVmpl(_) => "run-vmpl",
            Self::UnregisterPage => "unregister-page",
            Self::Features => "features",
            Self::Terminate(_) => "terminate",
            Self::Unknown(_) => "unknown",
        }
    }
}

impl fmt::Display for MsrRequest {
    /// The fields, without the name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpuid { leaf, register } => {
                let names = ["EAX", "EBX", "ECX", "EDX"];
                let name = names.get(*register as usize).copied().unwrap_or_default();
                write!(f, "leaf {leaf:#x}, {name}")
            }
            Self::RegisterPage(gpa) => write!(f, "{gpa:#x}"),
            Self::PageState(change) => {
                let to = match change.operation {
                    Operation::Private => "private",
                    Operation::Shared => "shared",
                    Operation::Smash => "split",
                    Operation::Unsmash => "joined",
                };
                write!(f, "{:#x} {to}", change.gpa)
            }
            Self::RunVmpl(level) => write!(f, "VMPL{level}"),
            Self::Terminate(why) => why.fmt(f),
            Self::Unknown(value) => write!(f, "{value:#x}"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Termination, Written};
    use super::*;
    use std::string::ToString;

    #[test]
    fn requests_are_told_in_a_line() {
        let io = Event::Io(IoAccess {
            port: 0x3f8,
            size: 1,
            input: false,
            string: None,
            value: 0x41,
        });
        assert_eq!(
            (io.name(), io.to_string()),
            ("io", "out 0x3f8, 1 bytes = 0x41".to_string())
        );
        let create = Event::ApCreation {
            what: ApCreation::Now(0x5000),
            vmpl: 2,
            apic_id: 1,
            features: 1,
        };
        assert_eq!(
            create.to_string(),
            "now, 0x5000, VMPL2 of APIC 1, features 0x1"
        );
        let why = Termination { set: 1, reason: 2 };
        assert_eq!(Event::Terminate(why).to_string(), "1:0x2 (PVALIDATE)");
        let Written::Request(request) = Written::decode(2 << 52 | 0x7014) else {
            panic!("a page");
        };
        assert_eq!(
            (request.name(), request.to_string()),
            ("page-state", "0x7000 shared".to_string())
        );
    }
}
