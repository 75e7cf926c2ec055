//! Why a guest stopped.

use crate::vmcb::Control;

/// An exit, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// A write of CR0, by MOV, LMSW or CLTS.
    Cr0Write,
    /// An undefined opcode.
    Undefined,
    /// A debug exception, which L0 asked for.
    Debug,
    /// RDPMC.
    Rdpmc,
    /// INVD.
    Invd,
    /// WBINVD.
    Wbinvd,
    /// MONITOR.
    Monitor,
    /// MWAIT.
    Mwait,
    /// An interrupt is pending.
    Interrupt,
    /// A non-maskable interrupt is pending.
    Nmi,
    /// An INIT signal is pending.
    Init,
    /// CPUID.
    Cpuid,
    /// IRET.
    Iret,
    /// INT with a number.
    IntN,
    /// HLT.
    Hlt,
    /// An instruction of the SVM extension other than `VMMCALL`.
    Svm,
    /// `VMMCALL`, or with a prefix `VMGEXIT`.
    Vmmcall,
    /// IN or OUT.
    Io(Io),
    /// RDMSR, or WRMSR if `write`.
    Msr {
        /// Whether the guest writes.
        write: bool,
    },
    /// The guest's CPU gave up: a triple fault.
    Shutdown,
    /// A guest physical address is not mapped or does not allow the access.
    NestedFault {
        /// The address.
        gpa: u64,
        /// The error code of the fault.
        code: u64,
    },
    /// The CPU refused to run the guest's state.
    Invalid,
    /// Anything else, by its code.
    Other(u64),
}

/// An access to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Io {
    /// The first port.
    pub port: u16,
    /// Bytes accessed: 1, 2 or 4.
    pub size: u8,
    /// IN instead of OUT.
    pub input: bool,
    /// INS or OUTS.
    pub string: bool,
    /// Where the next instruction is.
    pub next_rip: u64,
}

impl Exit {
    /// What the control area says after an exit.
    #[must_use]
    pub const fn decode(control: &Control) -> Self {
        let (info1, info2) = (control.exit_info1, control.exit_info2);
        match control.exit_code {
            0x10 => Self::Cr0Write,
            0x41 => Self::Debug,
            0x46 => Self::Undefined,
            0x60 => Self::Interrupt,
            0x61 => Self::Nmi,
            0x63 => Self::Init,
            0x6f => Self::Rdpmc,
            0x72 => Self::Cpuid,
            0x74 => Self::Iret,
            0x75 => Self::IntN,
            0x76 => Self::Invd,
            0x78 => Self::Hlt,
            0x7a | 0x80 | 0x82..=0x86 => Self::Svm,
            0x81 => Self::Vmmcall,
            0x89 => Self::Wbinvd,
            0x8a => Self::Monitor,
            0x8b => Self::Mwait,
            0x7b => Self::Io(Io {
                port: (info1 >> 16 & 0xffff) as u16,
                size: (info1 >> 4 & 7) as u8,
                input: info1 & 1 != 0,
                string: info1 & 4 != 0,
                next_rip: info2,
            }),
            0x7c => Self::Msr {
                write: info1 & 1 != 0,
            },
            0x7f => Self::Shutdown,
            0x400 => Self::NestedFault {
                gpa: info2,
                code: info1,
            },
            // 64 bits of it on hardware, 32 in TCG.
            0xffff_ffff | u64::MAX => Self::Invalid,
            code => Self::Other(code),
        }
    }

    /// The row of the counters that the exit belongs to.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Nmi => Reason::Nmi,
            Self::Cpuid => Reason::Cpuid,
            Self::Iret => Reason::Iret,
            Self::Hlt => Reason::Hlt,
            Self::Svm => Reason::Svm,
            Self::Vmmcall => Reason::Vmmcall,
            Self::Undefined => Reason::Undefined,
            Self::Io(_) => Reason::Io,
            Self::Msr { .. } => Reason::Msr,
            Self::NestedFault { .. } => Reason::NestedFault,
            Self::Interrupt => Reason::Interrupt,
            Self::Cr0Write
            | Self::Debug
            | Self::Rdpmc
            | Self::Invd
            | Self::Wbinvd
            | Self::Monitor
            | Self::Mwait
            | Self::Init
            | Self::IntN
            | Self::Shutdown
            | Self::Invalid
            | Self::Other(_) => Reason::Other,
        }
    }
}

/// What exits are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// CPUID.
    Cpuid,
    /// HLT.
    Hlt,
    /// IN and OUT.
    Io,
    /// IRET.
    Iret,
    /// RDMSR and WRMSR.
    Msr,
    /// Nested page faults.
    NestedFault,
    /// Non-maskable interrupts.
    Nmi,
    /// Instructions of the SVM extension.
    Svm,
    /// `VMMCALL` and `VMGEXIT`.
    Vmmcall,
    /// Interrupts.
    Interrupt,
    /// Undefined opcodes, among them the instructions of SEV-SNP.
    Undefined,
    /// All the rest.
    Other,
}

impl Reason {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::Cpuid,
        Self::Hlt,
        Self::Io,
        Self::Iret,
        Self::Msr,
        Self::NestedFault,
        Self::Nmi,
        Self::Svm,
        Self::Vmmcall,
        Self::Interrupt,
        Self::Undefined,
        Self::Other,
    ];

    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpuid => "cpuid",
            Self::Hlt => "hlt",
            Self::Io => "io",
            Self::Iret => "iret",
            Self::Msr => "msr",
            Self::NestedFault => "nested-fault",
            Self::Nmi => "nmi",
            Self::Svm => "svm",
            Self::Vmmcall => "vmmcall",
            Self::Interrupt => "interrupt",
            Self::Undefined => "undefined",
            Self::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmcb::Vmcb;

    #[test]
    fn exits_are_taken_apart() {
        let mut control = Vmcb::zeroed().control;
        control.exit_code = 0x7b;
        control.exit_info1 = 0x0604_0020;
        control.exit_info2 = 0x1234;
        assert_eq!(
            Exit::decode(&control),
            Exit::Io(Io {
                port: 0x604,
                size: 2,
                input: false,
                string: false,
                next_rip: 0x1234
            })
        );
        control.exit_code = 0xffff_ffff;
        assert_eq!(Exit::decode(&control), Exit::Invalid);
        control.exit_code = 0x81;
        assert_eq!(Exit::decode(&control), Exit::Vmmcall);
    }

    #[test]
    fn reasons_are_numbered_in_order() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
    }
}
