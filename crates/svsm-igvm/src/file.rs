//! IGVM files, read with distrust.
//!
//! [`ImageFile`] reads any IGVM file, whoever wrote it, without a panic and
//! without memory beyond a small multiple of the file's headers. It checks what
//! a loader relies on: the fixed header, the checksum, the framing and order of
//! the variable headers, every reference into the file, and the life of
//! parameter areas. What is strange but loadable is a remark of
//! [`inspect`](crate::inspect()).

use core::fmt;

mod body;
mod check;
mod fault;
mod fields;
mod fixed;
mod header_type;

pub use body::{
    Body, PageData, PageType, ParameterArea, ParameterInsert, PlatformType, SnpIdBlock,
    SupportedPlatform, VpContext,
};
pub use fault::{FileError, FileFault};
pub use fixed::{Architecture, FixedHeader};
pub use header_type::{HeaderType, Section};

use fields::Fields;

/// Bytes before a variable header's body: its type and its length.
const PREFIX_BYTES: usize = 8;

/// An IGVM file whose structure has been checked.
#[derive(Clone, Debug)]
pub struct ImageFile<'a> {
    fixed: FixedHeader,
    file_bytes: usize,
    headers: Vec<Header<'a>>,
    platforms: Platforms,
}

/// A variable header.
#[derive(Clone, Debug)]
pub struct Header<'a> {
    /// Its place in the order of the file, counted from zero.
    pub index: usize,
    /// Its offset in the file.
    pub offset: usize,
    /// Its type.
    pub kind: HeaderType,
    /// Whether a loader that does not know the type may pass over it.
    pub optional: bool,
    /// What it says.
    pub body: Body<'a>,
}

/// The platforms of a file, by their bits in compatibility masks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Platforms(Vec<SupportedPlatform>);

impl Platforms {
    /// The platforms in the order of the file.
    #[must_use]
    pub fn all(&self) -> &[SupportedPlatform] {
        &self.0
    }

    /// The platforms that a compatibility mask names.
    pub fn of(&self, mask: u32) -> impl Iterator<Item = &SupportedPlatform> {
        self.0
            .iter()
            .filter(move |platform| platform.mask & mask != 0)
    }

    /// The bits that name a platform.
    #[must_use]
    pub fn mask(&self) -> u32 {
        self.0.iter().fold(0, |mask, platform| mask | platform.mask)
    }

    /// The names of the platforms that a mask names, and the bits that name none.
    #[must_use]
    pub fn describe(&self, mask: u32) -> String {
        let mut names: Vec<_> = self
            .of(mask)
            .map(|platform| platform.kind.to_string())
            .collect();
        let rest = mask & !self.mask();
        if rest != 0 || names.is_empty() {
            names.push(format!("mask {rest:#x}"));
        }
        names.join("+")
    }
}

impl<'a> ImageFile<'a> {
    /// Reads a file and checks its structure.
    ///
    /// # Errors
    /// A [`FileError`] names the offset, the header, and the rule it breaks.
    pub fn read(bytes: &'a [u8]) -> Result<Self, FileError> {
        let fixed = FixedHeader::read(bytes)?;
        let mut reader = Reader {
            bytes,
            fixed,
            at: fixed.variable_offset,
            index: 0,
        };
        let mut file = Self {
            fixed,
            file_bytes: bytes.len(),
            headers: Vec::new(),
            platforms: Platforms::default(),
        };
        let mut checker = check::Checker::default();
        while let Some(header) = reader.next(&file.platforms)? {
            checker.check(&header, &file.platforms)?;
            if let Body::SupportedPlatform(platform) = &header.body {
                file.platforms.0.push(platform.clone());
            }
            file.headers.push(header);
        }
        if file.platforms.0.is_empty() {
            return Err(FileError::at(fixed.variable_offset, FileFault::NoPlatform));
        }
        Ok(file)
    }

    /// The fixed header.
    #[must_use]
    pub const fn fixed(&self) -> &FixedHeader {
        &self.fixed
    }

    /// The size of the file.
    #[must_use]
    pub const fn file_bytes(&self) -> usize {
        self.file_bytes
    }

    /// All variable headers in the order of the file.
    #[must_use]
    pub fn headers(&self) -> &[Header<'a>] {
        &self.headers
    }

    /// The platforms.
    #[must_use]
    pub const fn platforms(&self) -> &Platforms {
        &self.platforms
    }

    /// The headers of one section.
    pub fn section(&self, section: Section) -> impl Iterator<Item = &Header<'a>> {
        self.headers
            .iter()
            .filter(move |header| header.kind.section() == Some(section))
    }
}

/// Walks the variable headers.
struct Reader<'a> {
    bytes: &'a [u8],
    fixed: FixedHeader,
    at: usize,
    index: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self, platforms: &Platforms) -> Result<Option<Header<'a>>, FileError> {
        let (offset, index) = (self.at, self.index);
        let end = self.fixed.variable_end();
        if offset == end {
            return Ok(None);
        }
        let truncated = |what, bytes| {
            FileError::at(
                offset,
                FileFault::HeaderTruncated {
                    index,
                    what,
                    bytes,
                    end,
                },
            )
        };
        let rest = self.bytes.get(offset..end).unwrap_or_default();
        let (prefix, rest) = rest
            .split_at_checked(PREFIX_BYTES)
            .ok_or(truncated("type and length", PREFIX_BYTES))?;
        let mut prefix = Fields::new(prefix);
        let (raw, length) = (prefix.u32(), prefix.u32());
        let (kind, optional) = HeaderType::split(raw);
        let fail = |fault| FileError {
            offset,
            header: Some((index, kind)),
            fault,
        };

        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let (content, rest) = rest
            .split_at_checked(length)
            .ok_or(truncated("body", length))?;
        let padding_bytes = length.next_multiple_of(8) - length;
        let padding = rest
            .get(..padding_bytes)
            .ok_or(truncated("padding", padding_bytes))?;
        if padding.iter().any(|byte| *byte != 0) {
            return Err(fail(FileFault::PaddingNotZero));
        }
        let data = body::Data {
            file: self.bytes,
            start: end,
            platforms,
        };
        let body = Body::read(kind, optional, content, &data).map_err(fail)?;
        self.at = offset + PREFIX_BYTES + length + padding_bytes;
        self.index += 1;
        Ok(Some(Header {
            index,
            offset,
            kind,
            optional,
            body,
        }))
    }
}

impl fmt::Display for Header<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "header {} ({}) at offset {:#x}",
            self.index, self.kind, self.offset
        )
    }
}
