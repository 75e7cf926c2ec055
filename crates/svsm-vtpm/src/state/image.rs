//! The permanent state as bytes: a head with everything but NV, and the NV memory's entries.

use zeroize::Zeroize;

use super::{Core, nv::FIRST, permanent::Orderly};
use crate::{
    rc::{Rc, ensure},
    seam::SeamError,
    wire::{Reader, Writer},
};

const MAGIC: [u8; 8] = *b"svsmvtpm";
/// The layout; raised when it changes.
const FORMAT: u16 = 3;
/// The layout without countdown timers and read-only mode. What had it knew neither.
const FORMAT_2: u16 = 2;

impl Core<'_> {
    /// Gives the store the state, if it changed. The state stays "changed" if the store fails.
    pub(crate) fn commit(&mut self) -> Result<(), Rc> {
        if !self.dirty {
            return Ok(());
        }
        let generation = self.generation + 1;
        self.put_head(generation)?;
        self.outside
            .store()
            .commit(generation, self.nv.image())
            .map_err(|_| Rc::NV_UNAVAILABLE)?;
        self.generation = generation;
        self.dirty = false;
        Ok(())
    }

    /// Writes the head into the NV memory's front, which goes to the store with the entries.
    pub(super) fn put_head(&mut self, generation: u64) -> Result<(), Rc> {
        let mut head = [0; FIRST];
        let written = self.write_head(generation, &mut head);
        if let Some(room) = self.nv.memory_mut().get_mut(..FIRST) {
            room.copy_from_slice(&head);
        }
        head.zeroize();
        written
    }

    fn write_head(&self, generation: u64, head: &mut [u8]) -> Result<(), Rc> {
        let mut w = Writer::new(head);
        w.bytes(&MAGIC)?;
        w.put(&FORMAT)?;
        w.put(&generation)?;
        w.put(&self.permanent)?;
        if matches!(
            Orderly::from_u8(self.permanent.orderly),
            Orderly::State { .. }
        ) {
            w.put(&self.reset)?;
            w.put(&self.clear)?;
            self.pcrs.write_saved(&mut w)?;
            w.put(&self.read_only)?;
            self.timers.write_saved(&mut w)?;
        }
        Ok(())
    }

    /// Reads the state from the store; whether there was one.
    pub(crate) fn load(&mut self) -> Result<bool, LoadError> {
        let Some(len) = self
            .outside
            .store()
            .load(self.nv.memory_mut())
            .map_err(LoadError::Store)?
        else {
            return Ok(false);
        };
        self.take_image(len)?;
        Ok(true)
    }

    /// As [`Core::power_on`], but with this image instead of what the store has.
    #[cfg(feature = "callbacks")]
    pub(crate) fn power_on_with(&mut self, image: &[u8]) -> Result<(), LoadError> {
        self.unload();
        self.started = false;
        self.nv
            .memory_mut()
            .get_mut(..image.len())
            .ok_or(LoadError::Store(crate::SeamError::StoreSize))?
            .copy_from_slice(image);
        self.take_image(image.len())?;
        self.set_loaded();
        self.power_on()
    }

    /// Takes the image that was read into the front of the NV memory.
    fn take_image(&mut self, len: usize) -> Result<(), LoadError> {
        let mut head = [0; FIRST];
        head.copy_from_slice(
            self.nv
                .memory_mut()
                .get(..FIRST)
                .ok_or(LoadError::Foreign)?,
        );
        let read = self.read_head(&head);
        head.zeroize();
        read.and_then(|()| self.nv.restore(len))
            .map_err(|_| LoadError::Foreign)
    }

    fn read_head(&mut self, head: &[u8]) -> Result<(), Rc> {
        let mut r = Reader::new(head);
        ensure(r.array()? == MAGIC, Rc::VALUE)?;
        let format: u16 = r.read()?;
        ensure(matches!(format, FORMAT_2 | FORMAT), Rc::VALUE)?;
        self.read_only = false;
        self.timers.forget();
        self.generation = r.read()?;
        self.permanent = r.read()?;
        if matches!(
            Orderly::from_u8(self.permanent.orderly),
            Orderly::State { .. }
        ) {
            self.reset = r.read()?;
            self.clear = r.read()?;
            self.pcrs.read_saved(&mut r)?;
            if format > FORMAT_2 {
                self.read_only = r.read()?;
                self.timers.read_saved(&mut r)?;
            }
        }
        Ok(())
    }
}

/// Why the permanent state could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LoadError {
    /// The store says so.
    Store(SeamError),
    /// It is not a state of this TPM, or of a newer version.
    Foreign,
}
