//! ELF files by build id: what turns frames into messages and addresses into names.

mod elf;
mod trace;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use svsm_log::ImageId;

pub use elf::{Image, Message, SourcePlace};
pub use trace::TraceEntry;

use crate::{Error, Result};

/// The ELF files that a run may log from.
///
/// A record names its image by the first four bytes of the build id, so stage2, the SVSM and every
/// process can log through one channel. Files must have been linked with `--build-id`.
#[derive(Debug, Default)]
pub struct Images {
    by_id: BTreeMap<ImageId, Image>,
    stale: Vec<PathBuf>,
}

/// What an image builder writes beside an image: which ELF files went into it.
#[derive(Debug, Deserialize)]
struct SymbolFile {
    images: Vec<SymbolFileEntry>,
}

#[derive(Debug, Deserialize)]
struct SymbolFileEntry {
    /// What the log calls it; the file's name if there is none.
    name: Option<String>,
    /// Relative to the symbol file.
    elf: PathBuf,
    /// The build id that the image holds, hexadecimal.
    build_id: Option<String>,
}

impl Images {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an ELF file, or all ELF files with a build id of a directory.
    ///
    /// # Errors
    /// When a file cannot be read, or is named but is not an ELF file with a build id.
    pub fn add(&mut self, path: &Path) -> Result<()> {
        if path.is_dir() {
            return self.add_directory(path);
        }
        self.add_file(path, None)
    }

    /// Adds the ELF files that a symbol file lists:
    /// `{"images": [{"name": "svsm", "elf": "svsm.elf", "build_id": "…"}]}`, with the build id being optional.
    ///
    /// A file that is gone or has another build id by now is noted ([`stale`](Self::stale)), not used.
    ///
    /// # Errors
    /// When it cannot be read or is not such a list.
    pub fn add_symbols(&mut self, path: &Path) -> Result<()> {
        let text = fs::read(path).map_err(Error::unreadable(path, "symbols"))?;
        let file: SymbolFile =
            serde_json::from_slice(&text).map_err(|cause| Error::BadSymbols {
                path: path.to_owned(),
                cause: cause.to_string(),
            })?;
        for entry in file.images {
            let elf = path.parent().unwrap_or(Path::new("")).join(entry.elf);
            let expected = entry.build_id.as_deref();
            match Image::read(&elf, entry.name) {
                Ok(image) if expected.is_none_or(|id| id.starts_with(&image.id().to_string())) => {
                    self.by_id.insert(image.id(), image);
                }
                _ => self.stale.push(elf),
            }
        }
        Ok(())
    }

    /// Files that symbol files list but that are not what they were: the image has to be built anew.
    #[must_use]
    pub fn stale(&self) -> &[PathBuf] {
        &self.stale
    }

    /// The image that a record names.
    #[must_use]
    pub fn find(&self, id: ImageId) -> Option<&Image> {
        self.by_id.get(&id)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Image> {
        self.by_id.values()
    }

    /// What the log calls an image.
    #[must_use]
    pub fn name(&self, id: ImageId) -> String {
        self.find(id)
            .map_or_else(|| id.to_string(), |image| image.name().to_owned())
    }

    /// The functions at `address`, innermost first; those that were inlined there come before the one
    /// that contains them.
    ///
    /// `within` is asked first, then the others. Where several of those have code, as processes do that
    /// are linked at the same address, there is no telling, and the answer names none.
    #[must_use]
    pub fn resolve(
        &self,
        within: Option<ImageId>,
        address: u64,
        is_return: bool,
    ) -> Vec<TraceEntry> {
        let known = |image| {
            Some(trace::resolve(image, address, is_return)).filter(|found| !found.is_empty())
        };
        if let Some(found) = within.and_then(|id| known(self.find(id)?)) {
            return found;
        }
        let mut others = self.iter().filter_map(known);
        match (others.next(), others.next()) {
            (Some(found), None) => found,
            _ => vec![TraceEntry::unknown(address)],
        }
    }

    fn add_directory(&mut self, path: &Path) -> Result<()> {
        let entries = fs::read_dir(path).map_err(Error::unreadable(path, "ELF files"))?;
        for entry in entries {
            let file = entry.map_err(Error::unreadable(path, "ELF files"))?.path();
            if file.is_file() && elf::is_elf(&file) {
                // Not everything in a build directory is meant for us.
                let _ = self.add_file(&file, None);
            }
        }
        Ok(())
    }

    fn add_file(&mut self, path: &Path, name: Option<String>) -> Result<()> {
        let image = Image::read(path, name)?;
        self.by_id.insert(image.id(), image);
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests;
