use core::fmt;

use svsm_platform::addr::{Gpa, GpaRange, Gva, GvaRange};

pub use svsm_platform::Blame;

use crate::frame::Order;

/// What this crate's functions answer.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// What went wrong, and by [whom](Error::blame).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Error {
    /// The source has no block of that order.
    OutOfFrames {
        /// The order that was asked for.
        order: Order,
    },
    /// The memory is free already.
    DoubleFree {
        /// Where it starts.
        base: Gpa,
    },
    /// The memory was never this source's.
    ForeignFrame {
        /// Where it starts.
        base: Gpa,
    },
    /// A block came back larger than it was handed out.
    WrongOrder {
        /// Where it starts.
        base: Gpa,
        /// The order that was handed out.
        taken: Order,
        /// The order that came back.
        given: Order,
    },
    /// The source takes blocks back in reverse order only.
    OutOfTurn {
        /// Where the block starts.
        base: Gpa,
    },
    /// An address or length that must be a multiple of the page size is not.
    Misaligned {
        /// The number.
        address: u64,
    },
    /// The bookkeeping that the caller lent is too short.
    MetadataTooShort {
        /// How many elements are needed.
        needed: u64,
    },
    /// No window shows this page with the wanted visibility.
    Unreachable {
        /// The page.
        page: Gpa,
    },
    /// All slots of a window are in use.
    WindowFull,
    /// What the guest said is not so.
    Claim(svsm_platform::Error),
    /// Addresses that are not the address space's to use.
    OutsideArea {
        /// The addresses.
        range: GvaRange,
    },
    /// No addresses are free for a region of that size.
    NoAddresses {
        /// The size.
        len_bytes: u64,
    },
    /// Some processor may still hold what was unmapped.
    Unflushed,
    /// Memory whose state nobody tracks.
    Untracked {
        /// The memory.
        range: GpaRange,
    },
    /// The heap has no room for an object of that size.
    OutOfMemory {
        /// The size.
        len_bytes: u64,
    },
    /// Memory for a heap that is too little even for its bookkeeping.
    HeapPart {
        /// How much it was.
        len_bytes: u64,
    },
    /// An access that leaves a page or a range.
    OutOfBounds {
        /// Offset of the first byte.
        offset: u64,
        /// How many bytes were to be accessed.
        len_bytes: u64,
    },
    /// Something is mapped there already.
    Mapped {
        /// The first address in the way.
        at: Gva,
    },
    /// Nothing is mapped there.
    NotMapped {
        /// The address.
        at: Gva,
    },
    /// What was mapped there waits for its flush and [`Editor::reclaim`](crate::table::Editor::reclaim).
    Retired {
        /// The address.
        at: Gva,
    },
    /// That part of the address space belongs to another page table.
    ForeignTable {
        /// The address.
        at: Gva,
    },
    /// The page table has no such visibility for this page: the address is beyond its encryption
    /// bit or boundary.
    NotEncodable {
        /// The page.
        page: Gpa,
    },
    /// Writable and executable at once, without having been asked for explicitly.
    WriteExecute,
    /// A token of another page table, or one that was flushed before the latest unmapping.
    StaleToken,
    /// A defect of this crate.
    Bug,
}

impl Error {
    /// Whose fault it is.
    #[must_use]
    pub const fn blame(&self) -> Blame {
        match self {
            Self::Claim(error) => error.blame(),
            Self::Bug => Blame::Us,
            _ => Blame::Caller,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfFrames { order } => {
                write!(f, "no free block of {} frames", order.frames())
            }
            Self::DoubleFree { base } => write!(f, "frame {base} is free already"),
            Self::ForeignFrame { base } => write!(f, "frame {base} is not of this source"),
            Self::WrongOrder { base, taken, given } => write!(
                f,
                "frame {base} was taken as {} frames and given as {}",
                taken.frames(),
                given.frames()
            ),
            Self::OutOfTurn { base } => write!(f, "frame {base} is not the last one taken"),
            Self::Misaligned { address } => write!(f, "{address:#x} is not at a page bound"),
            Self::MetadataTooShort { needed } => write!(f, "metadata needs {needed} elements"),
            Self::Unreachable { page } => write!(f, "page {page} is not in the window"),
            Self::WindowFull => f.write_str("all slots of the window are in use"),
            Self::Claim(error) => error.fmt(f),
            Self::OutsideArea { range } => write!(f, "{range} is outside of the address space"),
            Self::NoAddresses { len_bytes } => write!(f, "no {len_bytes} addresses are free"),
            Self::Unflushed => f.write_str("some processor may hold what was unmapped"),
            Self::Untracked { range } => write!(f, "the state of {range} is not tracked"),
            Self::OutOfMemory { len_bytes } => write!(f, "no room for {len_bytes} bytes"),
            Self::HeapPart { len_bytes } => {
                write!(f, "{len_bytes} bytes are too little for a heap")
            }
            Self::OutOfBounds { offset, len_bytes } => {
                write!(
                    f,
                    "{len_bytes} bytes at offset {offset:#x} are out of bounds"
                )
            }
            Self::Mapped { at } => write!(f, "{at} is mapped already"),
            Self::NotMapped { at } => write!(f, "{at} is not mapped"),
            Self::Retired { at } => write!(f, "the former mapping at {at} is not reclaimed yet"),
            Self::ForeignTable { at } => write!(f, "{at} belongs to another page table"),
            Self::NotEncodable { page } => write!(f, "page {page} has no such visibility"),
            Self::WriteExecute => f.write_str("writable and executable at once"),
            Self::StaleToken => f.write_str("the flush does not cover the latest unmapping"),
            Self::Bug => f.write_str("defect in svsm-mm"),
        }
    }
}

impl core::error::Error for Error {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Claim(error) => Some(error),
            _ => None,
        }
    }
}
