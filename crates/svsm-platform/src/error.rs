use core::fmt;

use crate::{
    addr::{Gpa, GpaRange},
    percpu::CpuIndex,
};

/// What this crate's functions answer.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// Whose fault an error is. The answer to each is different: a result code for the guest, the firmware's decision about the
/// host, a defect report about us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Blame {
    /// The guest asked for what it must not have.
    Guest,
    /// The host, or hardware that it emulates, broke its contract.
    Host,
    /// The code that called us passed what does not fit.
    Caller,
    /// A defect here.
    Us,
}

/// What went wrong. [`blame`](Self::blame) says by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Error {
    /// The guest named memory that is not all its own.
    NotGuestMemory {
        /// The memory it named.
        range: GpaRange,
    },
    /// No address of the wanted kind has this number.
    NoSuchAddress {
        /// The number.
        value: u64,
    },
    /// The number does not lie on the bound that was asked for.
    Misaligned {
        /// The number.
        value: u64,
    },
    /// A CPU's own value is borrowed already.
    SlotBorrowed {
        /// The CPU.
        cpu: CpuIndex,
    },
    /// There is no value for this CPU.
    NoSlot {
        /// The CPU.
        cpu: CpuIndex,
    },
    /// No window maps an access of that size at that address.
    NotMapped {
        /// The address.
        at: Gpa,
    },
    /// The port was not accessed.
    PortRefused {
        /// The port.
        port: u16,
    },
    /// A timer or counter that must run does not.
    ClockStuck,
    /// The processor has no random numbers to give, or gives such as are not.
    NoEntropy,
}

impl Error {
    /// Whose fault it is.
    #[must_use]
    pub const fn blame(&self) -> Blame {
        match self {
            Self::NotGuestMemory { .. } => Blame::Guest,
            Self::NoSuchAddress { .. }
            | Self::Misaligned { .. }
            | Self::SlotBorrowed { .. }
            | Self::NoSlot { .. }
            | Self::NotMapped { .. }
            | Self::PortRefused { .. } => Blame::Caller,
            Self::ClockStuck | Self::NoEntropy => Blame::Host,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotGuestMemory { range } => write!(f, "guest does not own all of {range}"),
            Self::NoSuchAddress { value } => write!(f, "no address has the number {value:#x}"),
            Self::Misaligned { value } => write!(f, "{value:#x} is not aligned"),
            Self::SlotBorrowed { cpu } => write!(f, "the value of cpu {cpu} is borrowed already"),
            Self::NoSlot { cpu } => write!(f, "cpu {cpu} has no value of its own"),
            Self::NotMapped { at } => write!(f, "no window maps the access at {at}"),
            Self::PortRefused { port } => write!(f, "port {port:#x} was not accessed"),
            Self::ClockStuck => f.write_str("clock does not run"),
            Self::NoEntropy => f.write_str("processor gives no random numbers"),
        }
    }
}

impl core::error::Error for Error {}
