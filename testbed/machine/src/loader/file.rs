//! The file's frame: the fixed header, its checksum, and the list of variable headers.

use super::error::{LoadError, Reason};
use igvm_defs::{
    IGVM_FIXED_HEADER, IGVM_FIXED_HEADER_V2, IGVM_MAGIC_VALUE, IGVM_VHS_VARIABLE_HEADER,
    IGVM_VHT_OPTIONAL_BIT, IgvmArchitecture, PAGE_SIZE_4K,
};
use zerocopy::FromBytes;

/// An IGVM file whose frame is sound.
#[derive(Clone, Copy, Debug)]
pub struct File<'a> {
    bytes: &'a [u8],
    version: u32,
    headers_at: usize,
    headers_end: usize,
}

/// A variable header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// Where in the file it begins.
    pub offset: u64,
    /// Its type, without the optional bit.
    pub kind: u32,
    /// Whether a loader that does not know it may ignore it.
    pub optional: bool,
    /// Its body, without padding.
    pub body: &'a [u8],
}

/// The variable headers in order. After an error there are no more.
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    file: File<'a>,
    at: usize,
}

impl<'a> File<'a> {
    /// Checks the frame of a file.
    ///
    /// # Errors
    /// The first thing that is wrong, in the order of the fields.
    pub fn new(bytes: &'a [u8]) -> Result<Self, LoadError> {
        let fail = |reason| LoadError { offset: 0, reason };
        let (fixed, _) =
            IGVM_FIXED_HEADER::read_from_prefix(bytes).map_err(|_| fail(Reason::Truncated))?;
        if fixed.magic != IGVM_MAGIC_VALUE {
            return Err(fail(Reason::Magic(fixed.magic)));
        }
        let fixed_bytes = match fixed.format_version {
            1 => size_of::<IGVM_FIXED_HEADER>(),
            2 => {
                let (v2, _) = IGVM_FIXED_HEADER_V2::read_from_prefix(bytes)
                    .map_err(|_| fail(Reason::Truncated))?;
                if v2.architecture != IgvmArchitecture::X64 {
                    return Err(fail(Reason::Architecture(v2.architecture.0)));
                }
                if u64::from(v2.page_size) != PAGE_SIZE_4K {
                    return Err(fail(Reason::PageSize(v2.page_size)));
                }
                size_of::<IGVM_FIXED_HEADER_V2>()
            }
            other => return Err(fail(Reason::Version(other))),
        };

        let total = index(fixed.total_file_size);
        let headers_at = index(fixed.variable_header_offset);
        let headers_end = headers_at.saturating_add(index(fixed.variable_header_size));
        if headers_at < fixed_bytes || !headers_at.is_multiple_of(8) {
            return Err(fail(Reason::HeaderOffset(fixed.variable_header_offset)));
        }
        let bytes = bytes.get(..total).ok_or(fail(Reason::Truncated))?;
        let headers = bytes
            .get(headers_at..headers_end)
            .ok_or(fail(Reason::Truncated))?;

        let mut crc = Crc32::new();
        let checksum_at = core::mem::offset_of!(IGVM_FIXED_HEADER, checksum);
        for (at, byte) in bytes.iter().take(fixed_bytes).enumerate() {
            crc.add(if (checksum_at..checksum_at + 4).contains(&at) {
                0
            } else {
                *byte
            });
        }
        headers.iter().for_each(|byte| crc.add(*byte));
        let actual = crc.finish();
        if actual != fixed.checksum {
            return Err(fail(Reason::Checksum {
                stated: fixed.checksum,
                actual,
            }));
        }
        Ok(Self {
            bytes,
            version: fixed.format_version,
            headers_at,
            headers_end,
        })
    }

    /// The format version, 1 or 2.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// The size of the file as its header states it.
    #[must_use]
    pub const fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The variable headers.
    #[must_use]
    pub const fn headers(&self) -> Headers<'a> {
        Headers {
            file: *self,
            at: self.headers_at,
        }
    }

    /// Where the variable headers end.
    #[must_use]
    pub const fn headers_end(&self) -> u64 {
        self.headers_end as u64
    }

    /// `bytes` of the file's data at a file offset, if they lie behind the headers.
    #[must_use]
    pub fn data(&self, offset: u32, bytes: usize) -> Option<&'a [u8]> {
        let at = index(offset);
        if at < self.headers_end {
            return None;
        }
        self.bytes.get(at..at.checked_add(bytes)?)
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = Result<Header<'a>, LoadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at;
        let end = self.file.headers_end;
        let rest = self
            .file
            .bytes
            .get(at..end)
            .filter(|rest| !rest.is_empty())?;
        self.at = end;
        let truncated = LoadError {
            offset: at as u64,
            reason: Reason::Truncated,
        };
        let Ok((prefix, rest)) = IGVM_VHS_VARIABLE_HEADER::read_from_prefix(rest) else {
            return Some(Err(truncated));
        };
        let length = index(prefix.length);
        let Some(body) = rest.get(..length) else {
            return Some(Err(truncated));
        };
        let Some(padded) = length
            .checked_next_multiple_of(8)
            .filter(|n| *n <= rest.len())
        else {
            return Some(Err(truncated));
        };
        self.at = at + size_of::<IGVM_VHS_VARIABLE_HEADER>() + padded;
        Some(Ok(Header {
            offset: at as u64,
            kind: prefix.typ.0 & !IGVM_VHT_OPTIONAL_BIT,
            optional: prefix.typ.0 & IGVM_VHT_OPTIONAL_BIT != 0,
            body,
        }))
    }
}

/// A 32-bit number as an index; this crate only runs where that always fits.
const fn index(value: u32) -> usize {
    value as usize
}

/// The CRC-32 of zlib and Ethernet.
struct Crc32(u32);

impl Crc32 {
    const TABLE: [u32; 16] = {
        let mut table = [0; 16];
        let mut i = 0;
        while i < 16 {
            #[expect(clippy::cast_possible_truncation, reason = "less than 16")]
            let mut value = i as u32;
            let mut bit = 0;
            while bit < 4 {
                value = if value & 1 != 0 {
                    value >> 1 ^ 0xedb8_8320
                } else {
                    value >> 1
                };
                bit += 1;
            }
            #[expect(clippy::indexing_slicing, reason = "checked by the compiler")]
            {
                table[i] = value;
            }
            i += 1;
        }
        table
    };

    const fn new() -> Self {
        Self(u32::MAX)
    }

    fn add(&mut self, byte: u8) {
        let nibble = |state: u32, value: u8| {
            let row = (state ^ u32::from(value)) & 15;
            state >> 4 ^ Self::TABLE.get(index(row)).copied().unwrap_or_default()
        };
        self.0 = nibble(nibble(self.0, byte & 15), byte >> 4);
    }

    const fn finish(self) -> u32 {
        !self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_zlib() {
        let mut crc = Crc32::new();
        b"123456789".iter().for_each(|byte| crc.add(*byte));
        assert_eq!(crc.finish(), 0xcbf4_3926);
    }

    #[test]
    fn a_frame_that_is_too_short_is_refused() {
        for bytes in 0..24 {
            let error = File::new(&vec![0; bytes]).unwrap_err();
            assert_eq!(error.reason, Reason::Truncated);
        }
        assert_eq!(File::new(&[0; 24]).unwrap_err().reason, Reason::Magic(0));
    }
}
