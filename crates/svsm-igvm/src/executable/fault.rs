//! Why an ELF file is refused.

use core::fmt;

use elf::parse::ParseError;

/// The rule that an ELF file breaks, with the place. Segments are named by the
/// index of their program header, as `readelf -l` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ElfFault {
    /// The first bytes are not those of an ELF file.
    NotElf,
    /// A header or table is damaged or lies outside of the file.
    Malformed {
        /// What the ELF reader met there.
        what: Malformed,
    },
    /// The file is for another machine, or for 32 bits.
    NotX86_64 {
        /// `e_machine` of the file.
        machine: u16,
    },
    /// The file is not linked at fixed addresses (`ET_EXEC`).
    NotStatic {
        /// `e_type` of the file.
        file_type: u16,
    },
    /// The file asks for a dynamic linker.
    NeedsLinker {
        /// The `PT_INTERP` or `PT_DYNAMIC` header.
        index: usize,
    },
    /// The file has thread-local storage, which nothing would set up.
    ThreadLocal {
        /// The `PT_TLS` header.
        index: usize,
    },
    /// There is nothing to load.
    NoSegments,
    /// More program headers than any linker writes.
    TooManyHeaders {
        /// How many there are.
        count: usize,
    },
    /// A program header refers to bytes that the file does not have.
    OutsideFile {
        /// The program header.
        index: usize,
        /// `p_offset`.
        offset: u64,
        /// `p_filesz`.
        bytes: u64,
        /// The size of the file.
        file_bytes: usize,
    },
    /// A segment has more bytes in the file than in memory.
    MoreFileThanMemory {
        /// The program header.
        index: usize,
        /// `p_filesz`.
        file_bytes: u64,
        /// `p_memsz`.
        memory_bytes: u64,
    },
    /// A segment reaches past the end of the address space.
    Wraps {
        /// The program header.
        index: usize,
        /// `p_vaddr`.
        start: u64,
        /// `p_memsz`.
        bytes: u64,
    },
    /// A segment could be written and executed.
    WritableAndExecutable {
        /// The program header.
        index: usize,
        /// `p_vaddr`.
        start: u64,
    },
    /// Two segments touch the same page.
    Overlap {
        /// The program header of the lower segment.
        first: usize,
        /// The program header of the higher segment.
        second: usize,
        /// The first page of the higher segment.
        page: u64,
    },
    /// The first instruction lies in no executable segment.
    EntryNotExecutable {
        /// `e_entry`.
        entry: u64,
    },
    /// A segment lies outside of where this program has to be linked.
    OutsideRegion {
        /// The segment's first byte.
        start: u64,
        /// The byte after its last.
        end: u64,
        /// The region: first byte, and the byte after its last.
        region: (u64, u64),
    },
}

/// What was wrong with a header or table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Malformed {
    /// Neither 32 nor 64 bits, big-endian, or an unknown version.
    Identification,
    /// The file ends before what should be read at these offsets.
    Truncated {
        /// The first byte wanted.
        start: usize,
        /// The byte after the last one wanted.
        end: usize,
    },
    /// A table's entries have a size that they cannot have.
    EntrySize {
        /// The size that the file gives.
        found: u64,
    },
    /// An offset or a size is out of all bounds.
    Number,
}

impl ElfFault {
    pub(super) fn malformed(error: ParseError) -> Self {
        let what = match error {
            ParseError::BadMagic(_) => return Self::NotElf,
            ParseError::UnsupportedElfClass(_)
            | ParseError::UnsupportedElfEndianness(_)
            | ParseError::UnsupportedVersion(_) => Malformed::Identification,
            ParseError::SliceReadError((start, end)) => Malformed::Truncated { start, end },
            ParseError::BadEntsize((found, _)) => Malformed::EntrySize { found },
            _ => Malformed::Number,
        };
        Self::Malformed { what }
    }
}

impl fmt::Display for ElfFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotElf => f.write_str("not an ELF file"),
            Self::Malformed { what } => what.fmt(f),
            Self::NotX86_64 { machine } => {
                write!(f, "not a 64-bit x86 program (machine {machine})")
            }
            Self::NotStatic { file_type } => write!(
                f,
                "not linked at fixed addresses (type {file_type}): link it statically and \
                 without PIE"
            ),
            Self::NeedsLinker { index } => {
                write!(f, "program header {index} asks for a dynamic linker")
            }
            Self::ThreadLocal { index } => {
                write!(f, "program header {index} asks for thread-local storage")
            }
            Self::NoSegments => f.write_str("nothing to load: no PT_LOAD program header"),
            Self::TooManyHeaders { count } => write!(f, "{count} program headers are too many"),
            Self::OutsideFile {
                index,
                offset,
                bytes,
                file_bytes,
            } => write!(
                f,
                "program header {index} refers to {bytes:#x} bytes at offset {offset:#x}, and \
                 the file has {file_bytes:#x}"
            ),
            Self::MoreFileThanMemory {
                index,
                file_bytes,
                memory_bytes,
            } => write!(
                f,
                "program header {index} has {file_bytes:#x} bytes in the file but only \
                 {memory_bytes:#x} in memory"
            ),
            Self::Wraps {
                index,
                start,
                bytes,
            } => write!(
                f,
                "program header {index} reaches past the end of the address space: {bytes:#x} \
                 bytes at {start:#x}"
            ),
            Self::WritableAndExecutable { index, start } => write!(
                f,
                "program header {index} (at {start:#x}) is both writable and executable"
            ),
            Self::Overlap {
                first,
                second,
                page,
            } => write!(
                f,
                "program headers {first} and {second} share the page at {page:#x}, which can \
                 have the rights of one only"
            ),
            Self::EntryNotExecutable { entry } => {
                write!(f, "the entry point {entry:#x} is in no executable segment")
            }
            Self::OutsideRegion { start, end, region } => write!(
                f,
                "the segment {start:#x}..{end:#x} lies outside of {:#x}..{:#x}, where this \
                 program must be linked",
                region.0, region.1
            ),
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Identification => f.write_str("not a 64-bit little-endian ELF file"),
            Self::Truncated { start, end } => {
                write!(
                    f,
                    "truncated: there is nothing at offset {start:#x}..{end:#x}"
                )
            }
            Self::EntrySize { found } => write!(f, "a table has entries of {found} bytes"),
            Self::Number => f.write_str("an offset or size is out of bounds"),
        }
    }
}

impl core::error::Error for ElfFault {}
