use core::cell::OnceCell;
use core::fmt;
use core::panic::AssertUnwindSafe;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use defmt_decoder::{Locations, Table};
use object::Object as _;
use serde::Serialize;
use svsm_log::ImageId;

use super::trace::Code;
use crate::log::Level;
use crate::{Error, Result};

/// One ELF file.
pub struct Image {
    id: ImageId,
    name: String,
    path: PathBuf,
    bytes: Vec<u8>,
    table: Option<Table>,
    locations: OnceCell<Locations>,
    pub(super) code: Code,
    /// Read when it is first asked for, which most runs never do.
    pub(super) debug: OnceCell<Option<addr2line::Loader>>,
}

/// A line of source.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct SourcePlace {
    /// As the compiler was told.
    pub file: String,
    /// Counted from 1; 0 if unknown.
    pub line: u32,
}

/// A frame that was turned back into text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Message {
    /// `None` for what has no level (`println!`).
    pub level: Option<Level>,
    /// The text.
    pub text: String,
    /// Where it is logged.
    pub place: Option<SourcePlace>,
}

impl Image {
    pub(super) fn read(path: &Path, name: Option<String>) -> Result<Self> {
        let bytes = fs::read(path).map_err(Error::unreadable(path, "ELF file"))?;
        let bad = |cause: String| Error::BadElf {
            path: path.to_owned(),
            cause,
        };
        let file = object::File::parse(&*bytes).map_err(|cause| bad(cause.to_string()))?;
        let id = file
            .build_id()
            .map_err(|cause| bad(cause.to_string()))?
            .and_then(ImageId::from_build_id)
            .ok_or_else(|| bad("no build id (link with --build-id)".to_owned()))?;
        let code = Code::of(&file);
        let table = Table::parse(&bytes).map_err(|cause| bad(format!("defmt: {cause}")))?;
        let stem = || {
            path.file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned()
        };
        Ok(Self {
            id,
            name: name.unwrap_or_else(stem),
            path: path.to_owned(),
            bytes,
            table,
            locations: OnceCell::new(),
            code,
            debug: OnceCell::new(),
        })
    }

    /// The first four bytes of its build id.
    #[must_use]
    pub const fn id(&self) -> ImageId {
        self.id
    }

    /// What the log calls it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Turns a raw `defmt` frame back into text; `None` if it is not one of this image.
    #[must_use]
    pub fn decode(&self, frame: &[u8]) -> Option<Message> {
        let table = self.table.as_ref()?;
        // The frame comes from a firmware that may be dying, and the decoder was written for friends: it
        // panics on some damage.
        let decoded = catch_unwind(AssertUnwindSafe(|| {
            let (frame, consumed) = table.decode(frame).ok()?;
            let level = frame.level().and_then(|level| Level::parse(level.as_str()));
            Some((
                level,
                frame.display_message().to_string(),
                frame.index(),
                consumed,
            ))
        }));
        let (level, text, index, consumed) = decoded.ok().flatten()?;
        (consumed == frame.len()).then(|| Message {
            level,
            text,
            place: self.place(index),
        })
    }

    fn place(&self, index: u64) -> Option<SourcePlace> {
        let table = self.table.as_ref()?;
        let locations = self.locations.get_or_init(|| {
            // Images without debug information have none, which is no reason to refuse their messages.
            let found = catch_unwind(AssertUnwindSafe(|| table.get_locations(&self.bytes)));
            found
                .ok()
                .and_then(core::result::Result::ok)
                .unwrap_or_else(BTreeMap::new)
        });
        let location = locations.get(&index)?;
        Some(SourcePlace {
            file: location.file.to_string_lossy().into_owned(),
            line: u32::try_from(location.line).unwrap_or(0),
        })
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for SourcePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Whether a file begins as ELF files do.
pub(super) fn is_elf(path: &Path) -> bool {
    let mut magic = [0; 4];
    fs::File::open(path)
        .and_then(|mut file| file.read_exact(&mut magic))
        .is_ok()
        && magic == *b"\x7fELF"
}
