//! Why an IGVM file is refused.

use core::fmt;

use super::HeaderType;

/// A rule of the format that a file breaks, with the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileError {
    /// The offset in the file of the field or header.
    pub offset: usize,
    /// The number of the variable header and its type, if it is about one.
    pub header: Option<(usize, HeaderType)>,
    /// The rule.
    pub fault: FileFault,
}

impl FileError {
    pub(super) const fn at(offset: usize, fault: FileFault) -> Self {
        Self {
            offset,
            header: None,
            fault,
        }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((index, kind)) = self.header {
            write!(f, "header {index} ({kind}) ")?;
        }
        write!(f, "at offset {:#x}: {}", self.offset, self.fault)
    }
}

impl core::error::Error for FileError {}

/// A rule of the format that a file breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileFault {
    /// The file is too short for a fixed header.
    NoFixedHeader {
        /// The size of the file.
        file_bytes: usize,
    },
    /// The file does not start with "IGVM".
    Magic {
        /// What it starts with.
        found: u32,
    },
    /// The version of the format is unknown.
    Version {
        /// The version.
        found: u32,
    },
    /// The file is shorter or longer than its header says.
    FileSize {
        /// What the header says.
        stated: usize,
        /// The size of the file.
        file_bytes: usize,
    },
    /// The architecture is unknown.
    Architecture {
        /// Its number.
        found: u32,
    },
    /// Pages are not of 4 KiB.
    PageSize {
        /// Their size.
        found: u32,
    },
    /// The variable headers start inside the fixed header, or not at a
    /// multiple of eight.
    VariableOffset {
        /// Where they start.
        found: usize,
    },
    /// The variable headers do not lie in the file.
    VariableOutside {
        /// Where they start.
        offset: usize,
        /// Their size.
        bytes: usize,
    },
    /// The headers are not those that the checksum was computed of.
    Checksum {
        /// What the header says.
        stated: u32,
        /// What it should say.
        computed: u32,
    },
    /// A variable header reaches past their end.
    HeaderTruncated {
        /// The number of the header.
        index: usize,
        /// The part of it that does not fit.
        what: &'static str,
        /// The size of that part.
        bytes: usize,
        /// Where the variable headers end.
        end: usize,
    },
    /// The padding after a header is not zero.
    PaddingNotZero,
    /// The type belongs to no section.
    NoSection,
    /// The header comes after one of a later section.
    SectionOrder,
    /// The body has not the size that the type has.
    BodySize {
        /// Its size.
        found: usize,
        /// The size of the type.
        expected: usize,
    },
    /// A field that must be zero is not.
    ReservedNotZero,
    /// The platform's bit in compatibility masks is not one bit.
    PlatformMask {
        /// The mask.
        mask: u32,
    },
    /// Two platforms have the same type or the same bit.
    PlatformTwice,
    /// There is no platform.
    NoPlatform,
    /// An address is not a multiple of the page size.
    Unaligned {
        /// The address.
        address: u64,
    },
    /// A size is not a multiple of the page size.
    NotPages {
        /// The size.
        bytes: u64,
    },
    /// A range of addresses wraps.
    Wraps {
        /// Its first byte.
        address: u64,
        /// Its size.
        bytes: u64,
    },
    /// File data does not lie in the file behind the headers.
    DataOutside {
        /// Where it starts.
        offset: usize,
        /// Its size.
        bytes: u64,
    },
    /// The type of a page's data is unknown.
    PageType {
        /// Its number.
        found: u16,
    },
    /// A parameter area is declared a second time.
    AreaTwice {
        /// Its index.
        area: u32,
    },
    /// A parameter area is used that was not declared, or was inserted already.
    AreaUnknown {
        /// Its index.
        area: u32,
    },
    /// A parameter starts past the end of its area.
    OutsideArea {
        /// The area's index.
        area: u32,
        /// Where the parameter starts.
        offset: u32,
        /// The size of the area.
        bytes: u64,
    },
    /// A processor's context names no platform, or platforms whose contexts differ.
    ContextPlatform {
        /// The compatibility mask.
        mask: u32,
    },
    /// A processor's context has no data.
    ContextEmpty,
    /// There is more than one version string, or it is not UTF-8.
    VersionString,
}

impl fmt::Display for FileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoFixedHeader { file_bytes } => {
                write!(f, "{file_bytes} bytes are too few for an IGVM file")
            }
            Self::Magic { found } => {
                write!(
                    f,
                    "not an IGVM file: it starts with {found:#010x}, not with \"IGVM\""
                )
            }
            Self::Version { found } => write!(f, "version {found} of the format is unknown"),
            Self::FileSize { stated, file_bytes } => {
                let verdict = if stated > file_bytes {
                    "truncated"
                } else {
                    "too long"
                };
                write!(
                    f,
                    "{verdict}: the header says {stated} bytes, the file has {file_bytes}"
                )
            }
            Self::Architecture { found } => write!(f, "architecture {found} is unknown"),
            Self::PageSize { found } => write!(f, "pages have {found} bytes, not 4096"),
            Self::VariableOffset { found } => {
                write!(f, "variable headers cannot start at offset {found:#x}")
            }
            Self::VariableOutside { offset, bytes } => write!(
                f,
                "variable headers do not lie in the file: {bytes:#x} bytes at offset {offset:#x}"
            ),
            Self::Checksum { stated, computed } => write!(
                f,
                "the headers are damaged: their checksum is {computed:#010x}, and {stated:#010x} \
                 is stated"
            ),
            Self::HeaderTruncated {
                index,
                what,
                bytes,
                end,
            } => write!(
                f,
                "variable header {index} is cut short: the {bytes} bytes of its {what} reach past \
                 the end of the headers at {end:#x}"
            ),
            Self::PaddingNotZero => f.write_str("its padding is not zero"),
            Self::NoSection => f.write_str("its type belongs to no section of the file"),
            Self::SectionOrder => f.write_str("it comes after headers of a later section"),
            Self::BodySize { found, expected } => {
                write!(f, "it has {found} bytes instead of {expected}")
            }
            Self::ReservedNotZero => f.write_str("a reserved field is not zero"),
            Self::PlatformMask { mask } => {
                write!(f, "the platform's mask {mask:#x} is not a single bit")
            }
            Self::PlatformTwice => f.write_str("its platform or its mask is there already"),
            Self::NoPlatform => f.write_str("the file supports no platform"),
            Self::Unaligned { address } => write!(f, "the address {address:#x} is not aligned"),
            Self::NotPages { bytes } => write!(f, "{bytes:#x} bytes are not whole pages"),
            Self::Wraps { address, bytes } => {
                write!(
                    f,
                    "{bytes:#x} bytes at {address:#x} wrap around the address space"
                )
            }
            Self::DataOutside { offset, bytes } => write!(
                f,
                "its data does not lie in the file's data: {bytes:#x} bytes at offset {offset:#x}"
            ),
            Self::PageType { found } => write!(f, "page data of type {found} is unknown"),
            Self::AreaTwice { area } => write!(f, "parameter area {area} is there already"),
            Self::AreaUnknown { area } => {
                write!(
                    f,
                    "parameter area {area} was not declared or is inserted already"
                )
            }
            Self::OutsideArea {
                area,
                offset,
                bytes,
            } => write!(
                f,
                "offset {offset:#x} lies outside of parameter area {area}, which has {bytes:#x} \
                 bytes"
            ),
            Self::ContextPlatform { mask } => write!(
                f,
                "the mask {mask:#x} does not tell what kind of processor context this is"
            ),
            Self::ContextEmpty => f.write_str("it has no data"),
            Self::VersionString => f.write_str("it is not the only one, or not UTF-8"),
        }
    }
}
