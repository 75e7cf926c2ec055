//! The protocol that needs no page: requests in the GHCB register itself (56421, "MSR protocol").

use super::page_state::SinglePage;
use core::fmt;

/// What a guest left in the GHCB register when it executed `VMGEXIT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The address of a page with a request.
    Page(u64),
    /// A request.
    Request(MsrRequest),
}

/// A register of CPUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// EAX
    Eax,
    /// EBX
    Ebx,
    /// ECX
    Ecx,
    /// EDX
    Edx,
}

/// A request in the register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MsrRequest {
    /// 0x002: which versions, and where the C-bit is.
    SevInformation,
    /// 0x004: a register of a CPUID leaf, subleaf 0.
    Cpuid {
        /// The leaf.
        leaf: u32,
        /// Which register.
        register: Register,
    },
    /// 0x006: wait for a start-up message.
    ApResetHold,
    /// 0x010: where the host would like the page.
    PreferredPage,
    /// 0x012: this will be the page; its address.
    RegisterPage(u64),
    /// 0x014: one page becomes private or shared.
    PageState(SinglePage),
    /// 0x016: run this level.
    RunVmpl(u8),
    /// 0x018: forget the page.
    UnregisterPage,
    /// 0x080: what the host can do.
    Features,
    /// 0x100: end the guest.
    Terminate(Termination),
    /// Anything else; the host leaves the register as it is.
    Unknown(u64),
}

/// Why a guest wants to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Termination {
    /// Who gives the reason its meaning.
    pub set: u8,
    /// The reason.
    pub reason: u8,
}

bitflags::bitflags! {
    /// What the host can do (56421, "Hypervisor features").
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Features: u64 {
        /// SEV-SNP.
        const SNP = 1 << 0;
        /// Starting virtual CPUs from save areas.
        const AP_CREATION = 1 << 1;
        /// Restricted injection.
        const RESTRICTED_INJECTION = 1 << 2;
        /// A timer for it.
        const RESTRICTED_INJECTION_TIMER = 1 << 3;
        /// The list of APIC ids.
        const APIC_ID_LIST = 1 << 4;
        /// Several levels.
        const MULTI_VMPL = 1 << 5;
        /// Page-state changes for guests of SEV-ES.
        const SEV_ES_PAGE_STATE = 1 << 6;
        /// Giving up the page.
        const UNREGISTER = 1 << 8;
    }
}

/// An answer in the register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MsrResponse {
    /// 0x001
    SevInformation {
        /// The lowest version.
        lowest: u16,
        /// The highest version.
        highest: u16,
        /// The position of the C-bit.
        c_bit: u8,
    },
    /// 0x005
    Cpuid {
        /// The register's value.
        value: u32,
        /// Which register.
        register: Register,
    },
    /// 0x007; whether a start-up message came.
    ApResetHold(bool),
    /// 0x011; `None`: any page will do.
    PreferredPage(Option<u64>),
    /// 0x013; `None`: refused.
    RegisterPage(Option<u64>),
    /// 0x015; zero is success.
    PageState(u32),
    /// 0x017; zero is success.
    RunVmpl(u32),
    /// 0x019
    UnregisterPage,
    /// 0x081
    Features(Features),
}

const FRAMES: u64 = 0x000f_ffff_ffff_f000;

impl Written {
    /// Takes the register's value apart.
    #[must_use]
    pub const fn decode(value: u64) -> Self {
        let request = match value & 0xfff {
            0 => return Self::Page(value),
            0x002 => MsrRequest::SevInformation,
            0x004 => MsrRequest::Cpuid {
                leaf: (value >> 32) as u32,
                register: match value >> 30 & 3 {
                    0 => Register::Eax,
                    1 => Register::Ebx,
                    2 => Register::Ecx,
                    _ => Register::Edx,
                },
            },
            0x006 => MsrRequest::ApResetHold,
            0x010 => MsrRequest::PreferredPage,
            0x012 => MsrRequest::RegisterPage(value & FRAMES),
            0x014 => match SinglePage::decode(value) {
                Some(change) => MsrRequest::PageState(change),
                None => MsrRequest::Unknown(value),
            },
            0x016 => MsrRequest::RunVmpl((value >> 32 & 0xff) as u8),
            0x018 => MsrRequest::UnregisterPage,
            0x080 => MsrRequest::Features,
            0x100 => MsrRequest::Terminate(Termination {
                set: (value >> 12 & 0xf) as u8,
                reason: (value >> 16 & 0xff) as u8,
            }),
            _ => MsrRequest::Unknown(value),
        };
        Self::Request(request)
    }
}

impl MsrResponse {
    /// The register's value.
    #[must_use]
    pub const fn encode(self) -> u64 {
        match self {
            Self::SevInformation {
                lowest,
                highest,
                c_bit,
            } => 0x001 | (c_bit as u64) << 24 | (lowest as u64) << 32 | (highest as u64) << 48,
            Self::Cpuid { value, register } => {
                0x005 | (register as u64) << 30 | (value as u64) << 32
            }
            Self::ApResetHold(started) => 0x007 | (started as u64) << 12,
            Self::PreferredPage(Some(gpa)) => 0x011 | gpa & FRAMES,
            Self::PreferredPage(None) => 0x011 | !0xfff,
            Self::RegisterPage(Some(gpa)) => 0x013 | gpa & FRAMES,
            Self::RegisterPage(None) => 0x013 | !0xfff,
            Self::PageState(error) => 0x015 | (error as u64) << 32,
            Self::RunVmpl(error) => 0x017 | (error as u64) << 32,
            Self::UnregisterPage => 0x019,
            Self::Features(features) => 0x081 | features.bits() << 12,
        }
    }
}

impl Termination {
    /// What the reason is called where it is defined (56421 for set 0, the Linux kernel for set 1).
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        Some(match (self.set, self.reason) {
            (0, 0) => "general",
            (0, 1) => "no protocol version in common",
            (0, 2) => "SEV-SNP features not supported",
            (1, 0) => "GHCB registration",
            (1, 1) => "page state change",
            (1, 2) => "PVALIDATE",
            (1, 3) => "not at VMPL0",
            (1, 4) => "CPUID table",
            (1, 5) => "CPUID from the hypervisor",
            (1, 6) => "secrets page",
            (1, 7) => "no SVSM",
            (1, 8) => "SVSM at VMPL0",
            (1, 9) => "SVSM calling area",
            (1, 10) => "secure TSC",
            (1, 11) => "remapping of the calling area",
            (1, 12) => "secure AVIC",
            _ => return None,
        })
    }
}

impl fmt::Display for Termination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:#x}", self.set, self.reason)?;
        self.name().map_or(Ok(()), |name| write!(f, " ({name})"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::page_state::Operation;
    use super::*;
    use std::string::ToString;

    #[test]
    fn requests_are_told_by_their_low_bits() {
        let decode = |value| match Written::decode(value) {
            Written::Request(request) => request,
            Written::Page(gpa) => panic!("{gpa:#x} is no request"),
        };
        assert_eq!(Written::decode(0x1234_5000), Written::Page(0x1234_5000));
        assert_eq!(decode(2), MsrRequest::SevInformation);
        assert_eq!(
            decode(0x8000_001f_4000_0004),
            MsrRequest::Cpuid {
                leaf: 0x8000_001f,
                register: Register::Ebx
            }
        );
        assert_eq!(decode(0x5012), MsrRequest::RegisterPage(0x5000));
        assert_eq!(
            decode(2 << 52 | 0x7014),
            MsrRequest::PageState(SinglePage {
                gpa: 0x7000,
                operation: Operation::Shared
            })
        );
        assert_eq!(
            decode(3 << 52 | 0x7014),
            MsrRequest::Unknown(3 << 52 | 0x7014)
        );
        assert_eq!(decode(2 << 32 | 0x16), MsrRequest::RunVmpl(2));
        let end = Termination { set: 1, reason: 2 };
        assert_eq!(
            decode(2 << 16 | 1 << 12 | 0x100),
            MsrRequest::Terminate(end)
        );
        assert_eq!(end.to_string(), "1:0x2 (PVALIDATE)");
        assert_eq!(decode(0xf00), MsrRequest::Unknown(0xf00));
    }

    #[test]
    fn responses_are_encoded_as_specified() {
        let information = MsrResponse::SevInformation {
            lowest: 1,
            highest: 2,
            c_bit: 51,
        };
        assert_eq!(information.encode(), 0x0002_0001_3300_0001);
        let register = Register::Edx;
        let cpuid = MsrResponse::Cpuid { value: 7, register };
        assert_eq!(cpuid.encode(), 7 << 32 | 3 << 30 | 5);
        assert_eq!(MsrResponse::RegisterPage(Some(0x5000)).encode(), 0x5013);
        assert_eq!(MsrResponse::RegisterPage(None).encode(), !0xfff | 0x13);
        assert_eq!(MsrResponse::PageState(1).encode(), 1 << 32 | 0x15);
        assert_eq!(MsrResponse::Features(Features::SNP).encode(), 0x1081);
    }
}
