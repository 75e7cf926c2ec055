use core::fmt;

use crate::{addr::Gpa, error::Blame};

/// An instruction of SEV-SNP that can refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Instruction {
    /// PVALIDATE.
    Pvalidate,
    /// RMPADJUST.
    Rmpadjust,
    /// RMPQUERY.
    Rmpquery,
}

/// Why an instruction did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Failure {
    /// It raised an exception.
    Faulted,
    /// FAIL_INPUT: a page size, an address or a reserved bit.
    Input,
    /// FAIL_PERMISSION: the level is not below the caller's.
    Permission,
    /// FAIL_SIZEMISMATCH: the page is many small ones.
    SizeMismatch,
    /// The page had that state already: the host plays with pages.
    Unchanged,
    /// A code that no manual knows.
    Unknown(u32),
}

/// What the host said about a request that it did not fulfil.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Refusal {
    /// It wants an exception raised: 6 for #UD, 13 for #GP.
    Exception(u8),
    /// It calls the request malformed; the number is the protocol's.
    Malformed(u32),
    /// It failed with that code of the request's own.
    Code(u64),
}

/// What went wrong between the guest, its processor and its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Error {
    /// An instruction did nothing.
    Instruction {
        /// Which.
        instruction: Instruction,
        /// Why.
        failure: Failure,
    },
    /// The page cannot be shown to the processor.
    NotMapped {
        /// The page.
        page: Gpa,
    },
    /// A range does not have 4 KiB bounds.
    Unaligned,
    /// The host answered something else than what it was asked.
    Answer {
        /// The request: its number in the MSR protocol, or its exit code.
        request: u64,
    },
    /// The host does not answer, however often it is asked.
    NoAnswer {
        /// The request.
        request: u64,
    },
    /// The host says that it will not.
    Refused {
        /// The request.
        request: u64,
        /// What it said.
        refusal: Refusal,
    },
    /// The host speaks no version of the protocol that we speak.
    ProtocolVersion,
    /// The request does not fit into the shared buffer, or is none that exists.
    Request,
}

impl Error {
    /// Whose fault it is.
    #[must_use]
    pub const fn blame(&self) -> Blame {
        match self {
            Self::Instruction { failure, .. } => match failure {
                Failure::Input | Failure::Permission => Blame::Caller,
                _ => Blame::Host,
            },
            Self::NotMapped { .. } | Self::Unaligned | Self::Request => Blame::Caller,
            Self::Answer { .. }
            | Self::NoAnswer { .. }
            | Self::Refused { .. }
            | Self::ProtocolVersion => Blame::Host,
        }
    }

    /// Whether it is a large page that turns out to be many small ones.
    pub(crate) const fn is_size_mismatch(&self) -> bool {
        matches!(
            self,
            Self::Instruction {
                failure: Failure::SizeMismatch,
                ..
            }
        )
    }
}

impl fmt::Display for Instruction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pvalidate => "PVALIDATE",
            Self::Rmpadjust => "RMPADJUST",
            Self::Rmpquery => "RMPQUERY",
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Faulted => f.write_str("raised an exception"),
            Self::Input => f.write_str("calls its input invalid"),
            Self::Permission => f.write_str("lacks permission"),
            Self::SizeMismatch => f.write_str("meets a page of another size"),
            Self::Unchanged => f.write_str("meets a page that has that state already"),
            Self::Unknown(code) => write!(f, "answers {code}, which nobody knows"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exception(vector) => write!(f, "exception {vector}"),
            Self::Malformed(reason) => write!(f, "malformed, reason {reason}"),
            Self::Code(code) => write!(f, "code {code:#x}"),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instruction {
                instruction,
                failure,
            } => write!(f, "{instruction} {failure}"),
            Self::NotMapped { page } => write!(f, "page {page} cannot be shown"),
            Self::Unaligned => f.write_str("the range has no whole pages"),
            Self::Answer { request } => {
                write!(f, "the host answers nonsense to request {request:#x}")
            }
            Self::NoAnswer { request } => {
                write!(f, "the host does not answer request {request:#x}")
            }
            Self::Refused { request, refusal } => {
                write!(f, "the host refuses request {request:#x}: {refusal}")
            }
            Self::ProtocolVersion => f.write_str("the host speaks another protocol version"),
            Self::Request => f.write_str("no such request can be made"),
        }
    }
}

impl core::error::Error for Error {}
