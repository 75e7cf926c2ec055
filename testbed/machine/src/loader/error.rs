//! Why an image is refused.

use core::fmt;

/// Why an image is refused, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadError {
    /// Where in the file the header begins that is wrong.
    pub offset: u64,
    /// What is wrong with it.
    pub reason: Reason,
}

/// What is wrong with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The file ends before what begins here does.
    Truncated,
    /// The file does not begin like an IGVM file.
    Magic(u32),
    /// A format version other than 1 and 2.
    Version(u32),
    /// An image for another processor architecture.
    Architecture(u32),
    /// Pages of another size than 4 KiB.
    PageSize(u32),
    /// The variable headers do not begin at a multiple of 8 behind the fixed header.
    HeaderOffset(u32),
    /// The checksum does not fit the headers.
    Checksum {
        /// What the file says.
        stated: u32,
        /// What it should say.
        actual: u32,
    },
    /// A header that is not known and may not be ignored.
    Unknown(u32),
    /// A header of an earlier section.
    Order(u32),
    /// A header whose body has the wrong length.
    Length {
        /// The header's type.
        kind: u32,
        /// The length of its body.
        bytes: u32,
    },
    /// A field that must be zero is not.
    Reserved,
    /// Not exactly one bit in a platform's compatibility mask, or one that is taken.
    Mask(u32),
    /// The platform was declared before.
    SecondPlatform(u8),
    /// A version of a platform that is not known.
    PlatformVersion(u16),
    /// A platform asks for what it cannot have: trust levels or a boundary of shared memory.
    PlatformFeature,
    /// The image is not for the platform that was asked for.
    NoPlatform,
    /// A header that makes no sense on the chosen platform.
    NotForPlatform(u32),
    /// A second header of a kind of which there can be one.
    Second(u32),
    /// Text that is not UTF-8.
    Text,
    /// An address or a size that is not a multiple of the page size.
    Unaligned(u64),
    /// An address outside the address space, or a range that leaves it.
    Address(u64),
    /// Two directives put something at this address.
    Overlap(u64),
    /// Memory where the machine has devices.
    OverDevice(u64),
    /// Memory in too many separate pieces.
    TooManyRanges,
    /// A page of 2 MiB, for which the format's libraries have no data.
    LargePage,
    /// A type of page data that is not known, or not on this platform.
    PageType(u16),
    /// Data outside the file's data.
    Data(u32),
    /// A parameter area was declared before.
    SecondArea(u32),
    /// Too many parameter areas.
    TooManyAreas,
    /// A parameter area that is not declared, or inserted already.
    Area(u32),
    /// A parameter does not fit into its area.
    DoesNotFit {
        /// Bytes that the parameter needs.
        needs: u64,
        /// Bytes from its place to the end of the area.
        has: u64,
    },
    /// A context for a CPU other than the first.
    VpIndex(u16),
    /// No context to start the first CPU with.
    NoContext,
    /// The machine lacks the memory that the image needs at this address.
    NoMemory(u64),
    /// The platform's launch refuses the page at this address, with this status of its firmware.
    Launch {
        /// The page.
        gpa: u64,
        /// The status (56860, "Status codes").
        status: u32,
    },
    /// The platform's firmware does not start the launch, with this status: the policy does not fit the machine.
    LaunchStart(u32),
    /// The platform's firmware does not finish the launch, with this status.
    LaunchFinish(u32),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {:#x}: {}", self.offset, self.reason)
    }
}

impl core::error::Error for LoadError {}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("the file ends too early"),
            Self::Magic(magic) => write!(f, "{magic:#x} is not the mark of an IGVM file"),
            Self::Version(version) => write!(f, "format version {version} is not known"),
            Self::Architecture(a) => write!(f, "the image is for architecture {a}, not for x86-64"),
            Self::PageSize(size) => write!(f, "pages of {size} bytes are not possible"),
            Self::HeaderOffset(at) => write!(f, "headers cannot begin at {at:#x}"),
            Self::Checksum { stated, actual } => {
                write!(f, "the checksum is {actual:#x}, not {stated:#x}")
            }
            Self::Unknown(kind) => write!(f, "header {kind:#x} is not known"),
            Self::Order(kind) => write!(f, "header {kind:#x} belongs to an earlier section"),
            Self::Length { kind, bytes } => write!(f, "header {kind:#x} cannot have {bytes} bytes"),
            Self::Reserved => f.write_str("a reserved field is not zero"),
            Self::Mask(mask) => write!(f, "{mask:#x} is no compatibility mask of one platform"),
            Self::SecondPlatform(kind) => write!(f, "platform {kind} is declared twice"),
            Self::PlatformVersion(version) => write!(f, "platform version {version} is not known"),
            Self::PlatformFeature => f.write_str("the platform has no such feature"),
            Self::NoPlatform => f.write_str("the image is not for this platform"),
            Self::NotForPlatform(kind) => {
                write!(f, "header {kind:#x} makes no sense on this platform")
            }
            Self::Second(kind) => write!(f, "there is a second header {kind:#x}"),
            Self::Text => f.write_str("the text is not UTF-8"),
            Self::Unaligned(value) => write!(f, "{value:#x} is not a multiple of the page size"),
            Self::Address(at) => write!(f, "{at:#x} leaves the address space"),
            Self::Overlap(at) => write!(f, "the page at {at:#x} is filled twice"),
            Self::OverDevice(at) => write!(f, "there is a device at {at:#x}"),
            Self::TooManyRanges => f.write_str("memory is in too many pieces"),
            Self::LargePage => f.write_str("a page of 2 MiB is not possible"),
            Self::PageType(kind) => write!(f, "page data of type {kind} is not possible"),
            Self::Data(at) => write!(f, "data at {at:#x} is not in the file"),
            Self::SecondArea(index) => write!(f, "parameter area {index} is declared twice"),
            Self::TooManyAreas => f.write_str("there are too many parameter areas"),
            Self::Area(index) => write!(f, "there is no parameter area {index} here"),
            Self::DoesNotFit { needs, has } => {
                write!(f, "the parameter needs {needs} bytes and has {has}")
            }
            Self::VpIndex(index) => write!(f, "CPU {index} cannot have a context"),
            Self::NoContext => f.write_str("there is no context to start with"),
            Self::Launch { gpa, status } => {
                write!(
                    f,
                    "the firmware refuses the page at {gpa:#x} with status {status:#x}"
                )
            }
            Self::LaunchStart(status) => {
                write!(
                    f,
                    "the firmware refuses the guest's policy with status {status:#x}"
                )
            }
            Self::LaunchFinish(status) => {
                write!(
                    f,
                    "the firmware refuses to finish the launch with status {status:#x}"
                )
            }
            Self::NoMemory(at) => write!(f, "there is not enough memory for {at:#x}"),
        }
    }
}
