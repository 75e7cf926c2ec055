//! The fixed header.

use core::fmt;

use igvm_defs::{
    IGVM_FIXED_HEADER, IGVM_FIXED_HEADER_V2, IGVM_FORMAT_VERSION_1, IGVM_FORMAT_VERSION_2,
    IGVM_MAGIC_VALUE,
};

use super::fault::{FileError, FileFault};
use super::fields::Fields;
use crate::PAGE_BYTES;

/// The fixed header, checked against the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedHeader {
    /// The version of the format: 1 or 2.
    pub version: u32,
    /// The processors that the file is for.
    pub architecture: Architecture,
    /// The CRC-32 of all headers.
    pub checksum: u32,
    /// Where the variable headers start.
    pub variable_offset: usize,
    /// The size of the variable headers.
    pub variable_bytes: usize,
}

/// The processors that a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// 64-bit x86.
    X64,
    /// 64-bit Arm.
    AArch64,
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::X64 => "x64",
            Self::AArch64 => "aarch64",
        })
    }
}

/// Offsets of fields, for errors.
mod offset {
    pub(super) const VERSION: usize = 4;
    pub(super) const VARIABLE_OFFSET: usize = 8;
    pub(super) const VARIABLE_BYTES: usize = 12;
    pub(super) const TOTAL_BYTES: usize = 16;
    pub(super) const CHECKSUM: usize = 20;
    pub(super) const ARCHITECTURE: usize = 24;
    pub(super) const PAGE_BYTES: usize = 28;
}

impl FixedHeader {
    /// The offset after the last variable header, where file data may start.
    #[must_use]
    pub const fn variable_end(&self) -> usize {
        self.variable_offset + self.variable_bytes
    }

    pub(super) fn read(bytes: &[u8]) -> Result<Self, FileError> {
        let version_1_bytes = size_of::<IGVM_FIXED_HEADER>();
        let version_2_bytes = size_of::<IGVM_FIXED_HEADER_V2>();
        let short = FileError::at(
            0,
            FileFault::NoFixedHeader {
                file_bytes: bytes.len(),
            },
        );

        let mut fields = Fields::new(bytes.get(..version_1_bytes).ok_or(short)?);
        let magic = fields.u32();
        if magic != IGVM_MAGIC_VALUE {
            return Err(FileError::at(0, FileFault::Magic { found: magic }));
        }
        let version = fields.u32();
        let header_bytes = match version {
            IGVM_FORMAT_VERSION_1 => version_1_bytes,
            IGVM_FORMAT_VERSION_2 => version_2_bytes,
            _ => {
                return Err(FileError::at(
                    offset::VERSION,
                    FileFault::Version { found: version },
                ));
            }
        };
        let [variable_offset, variable_bytes, total_bytes] =
            [fields.u32(), fields.u32(), fields.u32()]
                .map(|field| usize::try_from(field).unwrap_or(usize::MAX));
        let checksum = fields.u32();

        if total_bytes != bytes.len() {
            let fault = FileFault::FileSize {
                stated: total_bytes,
                file_bytes: bytes.len(),
            };
            return Err(FileError::at(offset::TOTAL_BYTES, fault));
        }
        let header = bytes.get(..header_bytes).ok_or(short)?;
        let architecture = if version == IGVM_FORMAT_VERSION_1 {
            Architecture::X64
        } else {
            architecture(header)?
        };
        if variable_offset < header_bytes || !variable_offset.is_multiple_of(8) {
            let fault = FileFault::VariableOffset {
                found: variable_offset,
            };
            return Err(FileError::at(offset::VARIABLE_OFFSET, fault));
        }
        let outside = FileError::at(
            offset::VARIABLE_BYTES,
            FileFault::VariableOutside {
                offset: variable_offset,
                bytes: variable_bytes,
            },
        );
        let end = variable_offset.checked_add(variable_bytes).ok_or(outside)?;
        let variable = bytes.get(variable_offset..end).ok_or(outside)?;
        let computed = sum(header, variable);
        if computed != checksum {
            let fault = FileFault::Checksum {
                stated: checksum,
                computed,
            };
            return Err(FileError::at(offset::CHECKSUM, fault));
        }
        Ok(Self {
            version,
            architecture,
            checksum,
            variable_offset,
            variable_bytes,
        })
    }
}

/// The fields that version 2 adds.
fn architecture(header: &[u8]) -> Result<Architecture, FileError> {
    let mut fields = Fields::new(header.get(offset::ARCHITECTURE..).unwrap_or_default());
    let architecture = match fields.u32() {
        0 => Architecture::X64,
        1 => Architecture::AArch64,
        found => {
            let fault = FileFault::Architecture { found };
            return Err(FileError::at(offset::ARCHITECTURE, fault));
        }
    };
    let page_bytes = fields.u32();
    if u64::from(page_bytes) != PAGE_BYTES {
        let fault = FileFault::PageSize { found: page_bytes };
        return Err(FileError::at(offset::PAGE_BYTES, fault));
    }
    Ok(architecture)
}

/// The checksum of the headers, as if its own field were zero.
fn sum(header: &[u8], variable: &[u8]) -> u32 {
    let (before, field_and_after) = header.split_at(offset::CHECKSUM.min(header.len()));
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(before);
    hasher.update(&[0; 4]);
    hasher.update(field_and_after.get(4..).unwrap_or_default());
    hasher.update(variable);
    hasher.finalize()
}
