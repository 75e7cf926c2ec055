//! How a run ends.

use crate::deliver::Undeliverable;
use core::fmt;
use svsm_sim::ghcb::Termination;

/// The end of a run, as L0 saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// ACPI S5: the guest's orderly end.
    PowerOff,
    /// The guest reset the machine through this port.
    Reset {
        /// The port.
        port: u16,
    },
    /// The host reset the machine, as a lying one may.
    Button,
    /// A CPU gave up: a triple fault.
    Shutdown,
    /// An exception could not be delivered, which ends in shutdown.
    Undelivered {
        /// The vector.
        vector: u8,
        /// Its error code.
        code: u32,
        /// What was missing.
        why: Undeliverable,
    },
    /// A private access that the reverse map table does not allow and no guest can be told of.
    Violation {
        /// The guest physical address.
        gpa: u64,
        /// The level.
        level: u8,
        /// What the table says.
        fault: svsm_sim::rmp::Fault,
    },
    /// The guest asked the host to end it.
    Terminated {
        /// Who gives the reason its meaning.
        set: u8,
        /// The reason.
        reason: u8,
    },
    /// All CPUs halted with interrupts off, or wait for a start that nobody can send.
    Halted,
    /// An access to a guest physical address behind which there is nothing.
    BadAccess {
        /// The address.
        gpa: u64,
        /// The nested fault's error code.
        code: u64,
    },
    /// VMRUN refused the guest's state: a VP context that no CPU can be in.
    InvalidState,
    /// The guest asked for something that L0 does not do.
    Unsupported(Unsupported),
    /// The image was refused.
    LoadError,
    /// L0 failed.
    Internal(Internal),
}

/// What L0 does not do for a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsupported {
    /// INS or OUTS at a port that L0 guards.
    StringIo(u16),
    /// An ACPI sleep type other than S5.
    SleepType(u8),
}

/// How L0 failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Internal {
    /// An exit that nothing asked for, by its code.
    Exit(u64),
    /// No memory for page tables, or a table that is out of reach.
    Memory,
    /// The unit for DMA remapping did not do what it was told.
    Remapping,
    /// An exception of its own, or a panic; the event before the verdict says more.
    Fault,
}

impl Ending {
    /// The name in the verdict.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::PowerOff => "power-off",
            Self::Reset { .. } | Self::Button => "reset",
            Self::Shutdown | Self::Undelivered { .. } => "shutdown",
            Self::Violation { .. } => "violation",
            Self::Terminated { .. } => "terminated",
            Self::Halted => "halted",
            Self::BadAccess { .. } => "bad-access",
            Self::InvalidState => "invalid-state",
            Self::Unsupported(_) => "unsupported",
            Self::LoadError => "load-error",
            Self::Internal(_) => "l0-error",
        }
    }

    /// What is written to QEMU's exit device; QEMU ends with twice that plus one.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::PowerOff => 0x10,
            Self::Reset { .. } | Self::Button => 0x11,
            Self::Shutdown | Self::Undelivered { .. } => 0x12,
            Self::Halted => 0x13,
            Self::BadAccess { .. } => 0x14,
            Self::InvalidState => 0x15,
            Self::Unsupported(_) => 0x16,
            Self::Terminated { .. } => 0x17,
            Self::LoadError => 0x18,
            Self::Internal(_) => 0x19,
            Self::Violation { .. } => 0x1a,
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PowerOff => f.write_str("the guest powered the machine off"),
            Self::Reset { port } => write!(f, "the guest reset the machine through port {port:#x}"),
            Self::Button => f.write_str("the host reset the machine"),
            Self::Shutdown => f.write_str("a CPU of the guest shut down after a triple fault"),
            Self::Undelivered { vector, code, why } => {
                write!(
                    f,
                    "exception {vector} with code {code:#x} was not delivered: {why}"
                )
            }
            Self::Violation { gpa, level, fault } => {
                write!(f, "VMPL{level} at guest physical address {gpa:#x}: {fault}")
            }
            Self::Terminated { set, reason } => {
                let why = Termination {
                    set: *set,
                    reason: *reason,
                };
                write!(f, "the guest asked to be ended, with reason {why}")
            }
            Self::Halted => f.write_str("all CPUs of the guest halted for ever"),
            Self::BadAccess { gpa, code } => {
                let what = match (code & 1 << 4 != 0, code & 1 << 1 != 0) {
                    (true, _) => "fetch from",
                    (false, true) => "write to",
                    (false, false) => "read from",
                };
                let how = if code & 1 << 33 != 0 {
                    "page-table "
                } else {
                    ""
                };
                write!(
                    f,
                    "{how}{what} guest physical address {gpa:#x}, where there is nothing"
                )
            }
            Self::InvalidState => f.write_str("no CPU can be in the guest's state"),
            Self::Unsupported(Unsupported::StringIo(port)) => {
                write!(f, "string I/O at the guarded port {port:#x}")
            }
            Self::Unsupported(Unsupported::SleepType(kind)) => {
                write!(f, "ACPI sleep type {kind} is not S5")
            }
            Self::LoadError => f.write_str("the image was refused"),
            Self::Internal(Internal::Exit(code)) => write!(f, "unexpected exit {code:#x}"),
            Self::Internal(Internal::Memory) => f.write_str("no memory is left for page tables"),
            Self::Internal(Internal::Remapping) => {
                f.write_str("the unit for DMA remapping does not obey")
            }
            Self::Internal(Internal::Fault) => f.write_str("L0 itself failed"),
        }
    }
}
