//! The permanent state in a file, which is replaced as a whole.

use std::{fs, io::Write as _, path::PathBuf};

use svsm_vtpm::{NvStore, SeamError};

/// A file, or, without one, nothing: then the TPM itself remembers until the process ends.
pub(crate) struct FileStore {
    path: Option<PathBuf>,
}

impl FileStore {
    pub(crate) const fn new(path: Option<PathBuf>) -> Self {
        Self { path }
    }
}

impl NvStore for FileStore {
    fn load(&mut self, into: &mut [u8]) -> Result<Option<usize>, SeamError> {
        let Some(path) = &self.path else {
            return Ok(None);
        };
        let image = match fs::read(path) {
            Ok(image) => image,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(_) => return Err(SeamError::StoreUnavailable),
        };
        into.get_mut(..image.len())
            .ok_or(SeamError::StoreSize)?
            .copy_from_slice(&image);
        Ok(Some(image.len()))
    }

    fn commit(&mut self, _: u64, image: &[u8]) -> Result<(), SeamError> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        // The old file stays until the new one is whole.
        let new = path.with_extension("new");
        let write = || {
            let mut file = fs::File::create(&new)?;
            file.write_all(image)?;
            file.sync_data()?;
            fs::rename(&new, path)
        };
        write().map_err(|_| SeamError::StoreUnavailable)
    }
}
