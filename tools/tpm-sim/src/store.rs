//! The permanent state in a file, which is replaced as a whole.

use std::{
    fs,
    io::Write as _,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use svsm_vtpm::{NvStore, SeamError};

/// A file and what it holds; without a file, the image ends with the process. Clones are one store.
#[derive(Clone)]
pub(crate) struct FileStore {
    path: Option<PathBuf>,
    image: Arc<Mutex<Option<Vec<u8>>>>,
}

impl FileStore {
    pub(crate) fn new(path: Option<PathBuf>) -> Self {
        Self {
            path,
            image: Arc::default(),
        }
    }

    fn held(&self) -> MutexGuard<'_, Option<Vec<u8>>> {
        self.image.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The image that was loaded or committed last.
    pub(crate) fn image(&self) -> Option<Vec<u8>> {
        self.held().clone()
    }

    fn read(&self) -> Result<Option<Vec<u8>>, SeamError> {
        let Some(path) = &self.path else {
            return Ok(None);
        };
        match fs::read(path) {
            Ok(image) => Ok(Some(image)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(_) => Err(SeamError::StoreUnavailable),
        }
    }
}

impl NvStore for FileStore {
    fn load(&mut self, into: &mut [u8]) -> Result<Option<usize>, SeamError> {
        let mut held = self.held();
        if held.is_none() {
            *held = self.read()?;
        }
        let Some(image) = held.as_ref() else {
            return Ok(None);
        };
        into.get_mut(..image.len())
            .ok_or(SeamError::StoreSize)?
            .copy_from_slice(image);
        Ok(Some(image.len()))
    }

    fn commit(&mut self, _: u64, image: &[u8]) -> Result<(), SeamError> {
        if let Some(path) = &self.path {
            // The old file stays until the new one is whole.
            let new = path.with_extension("new");
            let write = || {
                let mut file = fs::File::create(&new)?;
                file.write_all(image)?;
                file.sync_data()?;
                fs::rename(&new, path)
            };
            write().map_err(|_| SeamError::StoreUnavailable)?;
        }
        *self.held() = Some(image.to_vec());
        Ok(())
    }
}
