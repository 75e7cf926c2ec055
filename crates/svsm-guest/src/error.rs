//! What can be wrong with a guest that is to be started.

use core::fmt;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Error {
    /// The file is no `bzImage`.
    NotAKernel,
    /// The kernel speaks this version of the boot protocol, which is older than 2.12.
    Protocol(u16),
    /// The kernel has no 64-bit entry.
    Not64Bit,
    /// The kernel cannot be where it wants to be, or says nonsense of its size or alignment.
    Placement,
    /// The command line is longer than this kernel takes.
    CommandLine {
        /// Bytes that there are.
        bytes: usize,
        /// Bytes that the kernel takes.
        most: usize,
    },
    /// The command line has a zero byte.
    ZeroByte,
    /// The guest's memory is too small, too large (2 GiB is the most), or not a multiple of 2 MiB.
    Memory(u64),
    /// Kernel, RAM disk and all the rest do not fit into memory.
    NoRoom {
        /// Bytes that are needed.
        needed: u64,
        /// Bytes of memory.
        memory: u64,
    },
    /// No processors, or more than fit into the tables.
    Processors(usize),
    /// The ACPI tables that the host has are none, or its script for them does not add up.
    HostTables(TableFault),
    /// The host does not answer.
    Host,
    /// A memory map that is not sorted, overlaps, or has too many entries.
    MemoryMap,
    /// The file is no firmware with a table of GUIDs at its end.
    NotFirmware,
    /// The firmware's table, or the list that it leads to, does not add up.
    FirmwareTable,
    /// The firmware cannot start as a guest of SEV-SNP.
    NotForSnp,
    /// The firmware has no place for an SVSM's calling area.
    KnowsNoSvsm,
    /// The firmware asks for memory of a type that nobody knows.
    SectionType(u32),
    /// The firmware asks for memory here that is not whole pages below 4 GiB, or overlaps other memory of it.
    Section(u32),
}

/// What is wrong with the tables of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum TableFault {
    /// The script is too long, or has no whole lines.
    Script,
    /// A file is loaded twice, is not there, or asks for an address that is a multiple of nonsense.
    File,
    /// The files are too many, or too large.
    Size,
    /// A line names a file that was not loaded, or a part that the file does not have.
    Reach,
    /// A pointer leads nowhere, or has no room for the address.
    Pointer,
    /// There is no root pointer, or no table where it points.
    Root,
}

impl fmt::Display for TableFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Script => "the script has no whole lines, or too many",
            Self::File => "the script loads a file that cannot be loaded",
            Self::Size => "the files are too many, or too large",
            Self::Reach => "the script reaches beyond its files",
            Self::Pointer => "a pointer leads nowhere",
            Self::Root => "there is no root pointer with a table",
        })
    }
}

/// The result of everything here.
pub type Result<T> = core::result::Result<T, Error>;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAKernel => f.write_str("the file is no Linux kernel (bzImage)"),
            Self::Protocol(version) => write!(
                f,
                "the kernel's boot protocol is {}.{:02}, and 2.12 is the oldest that will do",
                version >> 8,
                version & 0xff
            ),
            Self::Not64Bit => f.write_str("the kernel has no 64-bit entry"),
            Self::Placement => f.write_str("the kernel's header says nonsense of where it goes"),
            Self::CommandLine { bytes, most } => {
                write!(
                    f,
                    "the command line has {bytes} bytes, and the kernel takes {most}"
                )
            }
            Self::ZeroByte => f.write_str("the command line has a zero byte"),
            Self::Memory(bytes) => write!(
                f,
                "{bytes} bytes of memory are not a multiple of 2 MiB between 64 MiB and 2 GiB"
            ),
            Self::NoRoom { needed, memory } => {
                write!(f, "{needed} bytes are needed, and memory has {memory}")
            }
            Self::Processors(count) => write!(f, "{count} processors are not possible"),
            Self::NotFirmware => f.write_str("the file is no guest firmware (OVMF)"),
            Self::FirmwareTable => f.write_str("the firmware's table does not add up"),
            Self::NotForSnp => f.write_str("the firmware cannot start on SEV-SNP"),
            Self::KnowsNoSvsm => f.write_str("the firmware cannot start below an SVSM"),
            Self::SectionType(kind) => {
                write!(f, "the firmware asks for memory of unknown type {kind:#x}")
            }
            Self::Section(gpa) => write!(
                f,
                "the memory that the firmware asks for at {gpa:#x} is not whole pages of its own"
            ),
            Self::HostTables(fault) => write!(f, "the host's ACPI tables do not add up: {fault}"),
            Self::Host => f.write_str("the host does not answer"),
            Self::MemoryMap => f.write_str("the memory map is not sorted, or too long"),
        }
    }
}

impl core::error::Error for Error {}
