//! The programs that came with the image: a cpio archive of the "new ASCII" format.
//!
//! The archive is part of the image, or its host-visible copy was checked against hashes; still
//! nothing here trusts it. Whatever is wrong ends the walk with an [`ArchiveError`] that names the
//! place.
//!
//! ```
//! use svsm_syscall::archive::{Archive, ArchiveError};
//!
//! fn init(bytes: &[u8]) -> Result<Option<&[u8]>, ArchiveError> {
//!     Archive::new(bytes).find("init")
//! }
//! # assert!(init(b"070702").is_err());
//! ```

use core::fmt;

/// An archive that was not looked at yet.
#[derive(Clone, Copy, Debug)]
pub struct Archive<'a>(&'a [u8]);

/// One file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    name: &'a str,
    mode: u32,
    data: &'a [u8],
}

/// What is wrong with an archive, and at which byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ArchiveError {
    /// Where, counted from the start of the archive.
    pub offset: usize,
    /// What.
    pub kind: ArchiveErrorKind,
}

/// What is wrong with an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ArchiveErrorKind {
    /// It ends in the middle of something, or without the entry that ends archives.
    Truncated,
    /// There is no header where one must be.
    Magic,
    /// A digit of a header is none.
    Digit,
    /// A name is empty, lacks its final zero byte, or is not text.
    Name,
    /// A file is named by a path that leads out of the archive, or nowhere: it has a part `..`.
    Path,
    /// More entries than [`Archive::MAX_ENTRIES`].
    TooMany,
}

const HEADER: usize = 110;
const MAGIC: &[u8] = b"070701";
const END: &str = "TRAILER!!!";

impl<'a> Archive<'a> {
    /// More entries than this no archive of programs has.
    pub const MAX_ENTRIES: usize = 4096;

    /// The archive in those bytes. What follows its last entry does not matter.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Its files and directories, up to the first mistake.
    #[must_use]
    pub const fn entries(&self) -> Entries<'a> {
        Entries {
            bytes: self.0,
            offset: 0,
            left: Some(Self::MAX_ENTRIES),
        }
    }

    /// The contents of the file at that path; `None` if there is none. Slashes ahead of a path
    /// don't matter.
    ///
    /// If there are two, it is the first, as long as that is no mistake: the whole archive is read.
    ///
    /// # Errors
    /// The first mistake of the archive, wherever it is.
    pub fn find(&self, path: &str) -> Result<Option<&'a [u8]>, ArchiveError> {
        let path = path.trim_start_matches('/');
        let mut found = None;
        for entry in self.entries() {
            let entry = entry?;
            if entry.is_file() && entry.name == path && found.is_none() {
                found = Some(entry.data);
            }
        }
        Ok(found)
    }
}

impl<'a> Entry<'a> {
    /// Its path, without slashes and dots ahead of it; empty for the root.
    #[must_use]
    pub const fn name(&self) -> &'a str {
        self.name
    }

    /// Its contents; empty for a directory.
    #[must_use]
    pub const fn data(&self) -> &'a [u8] {
        self.data
    }

    /// Whether it is a regular file.
    #[must_use]
    pub const fn is_file(&self) -> bool {
        self.mode & 0o170_000 == 0o100_000
    }

    /// Whether it is a directory.
    #[must_use]
    pub const fn is_directory(&self) -> bool {
        self.mode & 0o170_000 == 0o040_000
    }
}

/// Walks through an archive.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    bytes: &'a [u8],
    offset: usize,
    left: Option<usize>, // none: it is over
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, ArchiveError>;

    fn next(&mut self) -> Option<Self::Item> {
        let left = self.left.take()?;
        if left == 0 {
            return Some(self.error(ArchiveErrorKind::TooMany));
        }
        let entry = self.read().transpose()?;
        if entry.is_ok() {
            self.left = Some(left - 1);
        }
        Some(entry)
    }
}

impl<'a> Entries<'a> {
    fn error<T>(&self, kind: ArchiveErrorKind) -> Result<T, ArchiveError> {
        Err(ArchiveError {
            offset: self.offset,
            kind,
        })
    }

    /// The next bytes, and on to a multiple of 4.
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], ArchiveError> {
        let end = self.offset.checked_add(bytes);
        let Some(taken) = end.and_then(|end| self.bytes.get(self.offset..end)) else {
            return self.error(ArchiveErrorKind::Truncated);
        };
        self.offset += bytes;
        Ok(taken)
    }

    fn align(&mut self) {
        // Padding that the end cut off is missed by whoever reads on.
        self.offset = self.offset.next_multiple_of(4).min(self.bytes.len());
    }

    /// The next entry; `None` for the one that ends the archive.
    fn read(&mut self) -> Result<Option<Entry<'a>>, ArchiveError> {
        let start = self.clone();
        let header = self
            .take(HEADER)
            .or_else(|error| match self.bytes.get(self.offset..) {
                // Something else stands here: say that rather than "too short".
                Some(rest) if !MAGIC.starts_with(rest.get(..6).unwrap_or(rest)) => {
                    start.error(ArchiveErrorKind::Magic)
                }
                _ => Err(error),
            })?;
        if !header.starts_with(MAGIC) {
            return start.error(ArchiveErrorKind::Magic);
        }
        let field = |number: usize| {
            let at = MAGIC.len() + number * 8;
            let digits = header.get(at..at + 8).unwrap_or_default();
            hexadecimal(digits).ok_or(ArchiveError {
                offset: start.offset + at,
                kind: ArchiveErrorKind::Digit,
            })
        };
        let (mode, data_bytes, name_bytes) = (field(1)?, field(6)?, field(11)?);
        let named = self.clone();
        let name = self.take(length(name_bytes))?;
        let Some((0, name)) = name.split_last() else {
            return named.error(ArchiveErrorKind::Name);
        };
        let name = match core::str::from_utf8(name) {
            Ok(name) if !name.is_empty() && !name.contains('\0') => name,
            _ => return named.error(ArchiveErrorKind::Name),
        };
        if name == END {
            return Ok(None);
        }
        if name.split('/').any(|part| part == "..") {
            return named.error(ArchiveErrorKind::Path);
        }
        self.align();
        let data = self.take(length(data_bytes))?;
        self.align();
        let name = if name == "." {
            ""
        } else {
            name.trim_start_matches("./")
        };
        Ok(Some(Entry {
            name: name.trim_start_matches('/'),
            mode,
            data,
        }))
    }
}

/// A length that does not fit an address is one that no slice has.
fn length(bytes: u32) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn hexadecimal(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0_u32, |value, digit| {
        // Signs and spaces, which `from_str_radix` or `strtoul` would take, are no digits.
        char::from(*digit)
            .to_digit(16)
            .map(|digit| value << 4 | digit)
    })
}

impl fmt::Display for ArchiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ArchiveErrorKind::Truncated => "ends too early",
            ArchiveErrorKind::Magic => "has no header there",
            ArchiveErrorKind::Digit => "has a bad digit",
            ArchiveErrorKind::Name => "has a bad name",
            ArchiveErrorKind::Path => "has a path that leads out of it",
            ArchiveErrorKind::TooMany => "has too many entries",
        };
        write!(f, "archive {kind} (byte {:#x})", self.offset)
    }
}

impl core::error::Error for ArchiveError {}

#[cfg(test)]
mod tests;
