//! What can go wrong between reset and the SVSM's first instruction.

use core::fmt;

use svsm_platform::Blame;
use svsm_platform::addr::Gpa;

use crate::region::{Parameter, Region};

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// A refusal, with the facts that led to it; [`blame`](Self::blame) says by whom.
///
/// The caller is whoever built the image: hand-off and tables are its work, and measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Error {
    /// A part of the image has no acceptable place.
    Region {
        /// Which part.
        region: Region,
        /// What is wrong with it.
        fault: Fault,
    },
    /// The hand-off block says something nobody understands.
    Handoff {
        /// Offset of the field in the block.
        offset: usize,
        /// What is wrong with it.
        flaw: Flaw,
    },
    /// What the loader deposited is malformed.
    Claim {
        /// Which parameter.
        parameter: Parameter,
        /// Offset of the culprit in its area.
        offset: usize,
        /// What is wrong there.
        flaw: Flaw,
    },
    /// A prebuilt page table is not what the plan ordered.
    Table {
        /// The page that holds the table.
        table: Gpa,
        /// The entry in it.
        index: u16,
        /// What is wrong with the entry.
        fault: TableFault,
    },
    /// Another CPU did not start.
    Ap {
        /// Its APIC id.
        apic_id: u32,
        /// How far it got.
        fault: ApFault,
    },
    /// An invariant of this crate does not hold.
    Bug,
}

/// What is wrong with a [`Region`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Fault {
    /// It is needed and not there.
    Missing,
    /// It holds no byte.
    Empty,
    /// It starts or ends inside a page, or its two addresses differ in their offset.
    Unaligned {
        /// The address that is no page bound.
        address: u64,
    },
    /// No address of its kind is that large, or the hole of non-canonical addresses is in it.
    NoAddress {
        /// The number that is none.
        value: u64,
    },
    /// Its end leaves the address space.
    Wraps {
        /// Where it starts.
        address: u64,
    },
    /// It shares bytes with another.
    Overlaps(Region),
    /// It has to lie in another and does not.
    Outside(Region),
    /// Another, in which it has to lie, has no room left for it.
    NoRoom {
        /// The region that is full.
        region: Region,
        /// How many bytes do not fit.
        missing_bytes: u64,
    },
    /// It asks to be both writable and executable.
    WriteExecute,
    /// It may have to be executable, writable, or neither, and is something else.
    WrongRights,
    /// Its length is fixed, and it has another.
    WrongLength {
        /// The right length.
        expected: u64,
    },
    /// How its machine tells private from shared memory does not suit the kind of machine, or the
    /// place of the memory.
    WrongEncryption,
    /// Its file part is longer than its memory.
    FileTooLong,
    /// There are more of its kind than there is room for.
    TooMany,
    /// The memory map does not say that its memory is there.
    NoMemory,
}

/// What is wrong with a field of something that was parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Flaw {
    /// The bytes end before it does.
    Truncated,
    /// It is not the number by which the format is recognised.
    Magic,
    /// A version that this code does not know.
    Version,
    /// A length that cannot be right.
    Length,
    /// The sum of all bytes is wrong.
    Checksum,
    /// A value without a meaning.
    Unknown,
    /// A reserved field that is not zero.
    Reserved,
    /// An address or a range that does not exist.
    Address,
    /// It overlaps an earlier one of its kind.
    Overlap,
    /// More of them than there is room for.
    TooMany,
    /// Not one of them.
    Empty,
    /// No terminator in the area.
    Unterminated,
    /// It is there twice.
    Duplicate,
    /// A byte that text may not contain.
    Text,
    /// It is filled in when stage2 runs, and stage2 has not run, or has run before.
    Order,
}

/// What is wrong with an entry of a prebuilt page table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum TableFault {
    /// It points to a table outside the image's tables, or not behind the table it is in.
    Outside,
    /// It points to a table that another entry points to.
    Shared,
    /// No entry points to this table.
    Orphan,
    /// It maps memory that the SVSM does not own.
    Foreign,
    /// It maps memory writable and executable.
    WriteExecute,
    /// It maps a part of the image with rights that the part does not have anywhere.
    Rights,
    /// It is open to user mode.
    User,
    /// It sets bits that the plan never asks for.
    Bits,
    /// Its address cannot be encoded with this encryption.
    Encryption,
    /// The table cannot be reached for editing.
    Unreachable,
}

/// How far another CPU got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ApFault {
    /// The mailbox still holds an order for this CPU.
    Busy {
        /// The CPU for which the order is.
        apic_id: u32,
    },
    /// The interrupts that start it could not be sent.
    NotSent,
    /// It never claimed its order. The order was withdrawn: it cannot be carried out any more.
    NoAnswer,
    /// It claimed its order and never confirmed it. The mailbox and what the order points to
    /// cannot be used again.
    Stuck,
    /// The order cannot be carried out: an address that the trampoline cannot load.
    BadOrder,
}

impl Error {
    /// Whose fault it is.
    #[must_use]
    pub const fn blame(&self) -> Blame {
        match self {
            Self::Region { .. } | Self::Handoff { .. } | Self::Table { .. } => Blame::Caller,
            Self::Claim { .. } => Blame::Host,
            Self::Ap {
                fault: ApFault::Busy { .. } | ApFault::BadOrder,
                ..
            } => Blame::Caller,
            Self::Ap { .. } => Blame::Host,
            Self::Bug => Blame::Us,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Region { region, fault } => write!(f, "{region} {fault}"),
            Self::Handoff { offset, flaw } => {
                write!(f, "hand-off block, offset {offset:#x}: {flaw}")
            }
            Self::Claim {
                parameter,
                offset,
                flaw,
            } => {
                write!(f, "{parameter} from the host, offset {offset:#x}: {flaw}")
            }
            Self::Table {
                table,
                index,
                fault,
            } => {
                write!(f, "page table at {table}, entry {index}: {fault}")
            }
            Self::Ap { apic_id, fault } => write!(f, "cpu with apic id {apic_id}: {fault}"),
            Self::Bug => f.write_str("a broken invariant of svsm-stage2"),
        }
    }
}

impl core::error::Error for Error {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("is missing"),
            Self::Empty => f.write_str("is empty"),
            Self::Unaligned { address } => write!(f, "is not page aligned at {address:#x}"),
            Self::NoAddress { value } => write!(f, "cannot lie at {value:#x}"),
            Self::Wraps { address } => {
                write!(f, "starts at {address:#x} and leaves the address space")
            }
            Self::Overlaps(other) => write!(f, "overlaps the {other}"),
            Self::Outside(other) => write!(f, "lies outside the {other}"),
            Self::NoRoom {
                region,
                missing_bytes,
            } => {
                write!(
                    f,
                    "does not fit into the {region}: {missing_bytes} bytes too many"
                )
            }
            Self::WriteExecute => f.write_str("is writable and executable"),
            Self::WrongRights => f.write_str("has the wrong rights"),
            Self::WrongLength { expected } => write!(f, "is not {expected} bytes long"),
            Self::WrongEncryption => f.write_str("cannot be encrypted that way"),
            Self::FileTooLong => f.write_str("has more bytes in the file than in memory"),
            Self::TooMany => f.write_str("has more parts than there is room for"),
            Self::NoMemory => f.write_str("lies where the memory map has no memory"),
        }
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "truncated",
            Self::Magic => "wrong magic number",
            Self::Version => "unknown version",
            Self::Length => "impossible length",
            Self::Checksum => "wrong checksum",
            Self::Unknown => "unknown value",
            Self::Reserved => "reserved field is not zero",
            Self::Address => "no such address range",
            Self::Overlap => "overlaps an earlier one",
            Self::TooMany => "too many",
            Self::Empty => "none at all",
            Self::Unterminated => "no terminator",
            Self::Duplicate => "there twice",
            Self::Text => "not text",
            Self::Order => "stage2 has not run, or has run before",
        })
    }
}

impl fmt::Display for TableFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Outside => "points outside the image's tables or backwards",
            Self::Shared => "points to a table that has a parent already",
            Self::Orphan => "no entry points to this table",
            Self::Foreign => "maps memory that is not the svsm's",
            Self::WriteExecute => "maps memory writable and executable",
            Self::Rights => "maps a part of the image with more rights than it has",
            Self::User => "is open to user mode",
            Self::Bits => "has unexpected bits",
            Self::Encryption => "cannot be encrypted",
            Self::Unreachable => "cannot be reached for editing",
        })
    }
}

impl fmt::Display for ApFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy { apic_id } => {
                write!(
                    f,
                    "the mailbox holds an order for the cpu with apic id {apic_id}"
                )
            }
            Self::NotSent => f.write_str("start-up interrupts could not be sent"),
            Self::NoAnswer => f.write_str("did not start"),
            Self::Stuck => f.write_str("stopped half-way"),
            Self::BadOrder => f.write_str("cannot be sent to such an address"),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    #[test]
    fn the_host_is_to_blame_for_what_it_says() {
        let claim = Error::Claim {
            parameter: Parameter::Madt,
            offset: 9,
            flaw: Flaw::Checksum,
        };
        assert_eq!(claim.blame(), Blame::Host);
        assert_eq!(
            claim.to_string(),
            "madt from the host, offset 0x9: wrong checksum"
        );
    }

    #[test]
    fn errors_name_the_regions() {
        let error = Error::Region {
            region: Region::SvsmSegment(2),
            fault: Fault::Overlaps(Region::Heap),
        };
        assert_eq!(error.to_string(), "svsm segment 2 overlaps the heap");
    }
}
