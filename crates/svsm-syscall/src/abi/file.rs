use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, little_endian::U64};

use super::SysError;

/// The longest path, with the zero byte that ends it.
pub const PATH_BYTES: usize = 4096;

/// The longest name of a directory entry, with the zero byte that ends it.
pub const NAME_BYTES: usize = 256;

bitflags::bitflags! {
    /// How [`Number::OPEN`](super::Number::OPEN) opens a file.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct FileModes: u64 {
        /// It may be read.
        const READ = 1 << 0;
        /// It may be written.
        const WRITE = 1 << 1;
        /// The position starts at the end.
        const APPEND = 1 << 2;
        /// It is emptied.
        const TRUNC = 1 << 3;
    }

    /// What else [`Number::OPEN`](super::Number::OPEN) does.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct FileFlags: u64 {
        /// It is made if it is not there.
        const CREATE = 1 << 0;
    }
}

/// From where [`Number::SEEK`](super::Number::SEEK) counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u64)]
pub enum SeekMode {
    /// From the start.
    Absolute = 0,
    /// From the position.
    Relative = 1,
    /// From the end.
    End = 2,
}

impl TryFrom<u64> for SeekMode {
    type Error = SysError;

    fn try_from(mode: u64) -> Result<Self, SysError> {
        match mode {
            0 => Ok(Self::Absolute),
            1 => Ok(Self::Relative),
            2 => Ok(Self::End),
            _ => Err(SysError::INVALID),
        }
    }
}

/// What a directory entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(transparent)]
pub struct FileKind(u8);

impl FileKind {
    /// A file.
    pub const FILE: Self = Self(0);
    /// A directory.
    pub const DIRECTORY: Self = Self(1);
}

/// One entry of a directory, as [`Number::READDIR`](super::Number::READDIR) writes it.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct DirEntry {
    name: [u8; NAME_BYTES],
    kind: FileKind,
    reserved: [u8; 7],
    bytes: U64,
}

const _: () = assert!(size_of::<DirEntry>() == 272);

impl DirEntry {
    /// An entry; of a name that is too long, as many whole characters as fit.
    #[must_use]
    pub fn new(name: &str, kind: FileKind, bytes: u64) -> Self {
        let mut entry = Self {
            name: [0; NAME_BYTES],
            kind,
            reserved: [0; 7],
            bytes: U64::new(bytes),
        };
        let fits = (0..NAME_BYTES)
            .rev()
            .find_map(|end| name.get(..end.min(name.len())));
        for (to, from) in entry.name.iter_mut().zip(fits.unwrap_or("").bytes()) {
            *to = from;
        }
        entry
    }

    /// Its name up to the first zero byte; `None` if that is not text.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        let name = self.name.split(|byte| *byte == 0).next()?;
        core::str::from_utf8(name).ok()
    }

    /// What it is.
    #[must_use]
    pub const fn kind(&self) -> FileKind {
        self.kind
    }

    /// How many bytes a file has; 0 for a directory.
    #[must_use]
    pub const fn len_bytes(&self) -> u64 {
        self.bytes.get()
    }
}

#[cfg(test)]
mod tests {
    use std::string::String;

    use zerocopy::IntoBytes;

    use super::{DirEntry, FileKind};

    #[test]
    fn an_entry_has_the_layout_that_programs_have_compiled_in() {
        let entry = DirEntry::new("init", FileKind::DIRECTORY, 0x0102);
        let bytes = entry.as_bytes();
        assert_eq!(bytes[..5], *b"init\0");
        assert_eq!(
            bytes[256..],
            [1, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0]
        );
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        assert_eq!(DirEntry::new("", FileKind::FILE, 0).name(), Some(""));
        let ascii: String = core::iter::repeat_n('a', 300).collect();
        assert_eq!(
            DirEntry::new(&ascii, FileKind::FILE, 0)
                .name()
                .unwrap()
                .len(),
            255
        );
        let wide: String = core::iter::repeat_n('ä', 200).collect();
        assert_eq!(
            DirEntry::new(&wide, FileKind::FILE, 0)
                .name()
                .unwrap()
                .len(),
            254
        );
    }
}
