use core::fmt;

/// Why a file is no program that may run here. Segments are counted from 0, as `readelf -l` lists
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ProgramError {
    /// It is no ELF file, or one whose headers are cut off.
    Format,
    /// It is not a 64-bit x86 executable linked at fixed addresses.
    Kind {
        /// The machine it is for.
        machine: u16,
        /// The kind of ELF file.
        kind: u16,
    },
    /// It wants an interpreter, relocations or thread-local storage.
    NotStatic {
        /// The segment that says so.
        segment: usize,
    },
    /// It has nothing to load.
    NoSegments,
    /// It has more segments than [`MAX_SEGMENTS`](super::MAX_SEGMENTS).
    TooManySegments,
    /// A segment lies where programs may not, or wraps.
    Outside {
        /// Which.
        segment: usize,
    },
    /// A segment's contents are not in the file, or are more than the segment.
    Data {
        /// Which.
        segment: usize,
    },
    /// A segment would be writable and executable.
    WritableCode {
        /// Which.
        segment: usize,
    },
    /// A segment shares a page with one before it.
    Overlap {
        /// Which.
        segment: usize,
    },
    /// With this segment the program has more pages than it may.
    TooBig {
        /// Which.
        segment: usize,
    },
    /// It starts outside of its code.
    Entry(u64),
}

impl fmt::Display for ProgramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Format => f.write_str("not an elf file, or cut off"),
            Self::Kind { machine, kind } => {
                write!(
                    f,
                    "not a 64-bit x86 executable (machine {machine}, type {kind})"
                )
            }
            Self::NotStatic { segment } => write!(f, "segment {segment} asks for a dynamic linker"),
            Self::NoSegments => f.write_str("nothing to load"),
            Self::TooManySegments => f.write_str("too many segments"),
            Self::Outside { segment } => write!(f, "segment {segment} is outside user memory"),
            Self::Data { segment } => write!(f, "contents of segment {segment} are not there"),
            Self::WritableCode { segment } => write!(f, "segment {segment} is writable code"),
            Self::Overlap { segment } => write!(f, "segment {segment} overlaps another"),
            Self::TooBig { segment } => write!(f, "segment {segment} exceeds the page limit"),
            Self::Entry(at) => write!(f, "entry {at:#x} is not in code"),
        }
    }
}

impl core::error::Error for ProgramError {}
