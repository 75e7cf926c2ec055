//! The NV memory: a list of entries (indices and persistent objects) in the storage that the embedder lent.
//!
//! An entry is its length, its handle and its content. Removing one moves what follows it, so that no space is ever lost;
//! the memory is small and entries are removed rarely.

use zeroize::Zeroize;

use crate::{
    handle::{Handle, HandleKind},
    rc::{Rc, ensure},
};

const HEAD: usize = 8;
/// Bytes before the first entry, where an image keeps everything else.
pub(crate) const FIRST: usize = 5120;

/// Entries in the embedder's memory.
#[derive(Debug)]
pub(crate) struct Entries<'a> {
    memory: &'a mut [u8],
    used: usize,
}

impl<'a> Entries<'a> {
    pub(crate) const fn new(memory: &'a mut [u8]) -> Self {
        Self {
            memory,
            used: FIRST,
        }
    }

    /// Takes over entries that are already in the memory, if they are well formed.
    pub(crate) fn restore(&mut self, used: usize) -> Result<(), Rc> {
        ensure(used <= self.memory.len(), Rc::NV_SIZE)?;
        self.used = used;
        let mut at = FIRST;
        while at < used {
            let (len, _) = self.head(at).ok_or(Rc::NV_SIZE)?;
            ensure(len >= HEAD && len <= used - at, Rc::NV_SIZE)?;
            at += len;
        }
        Ok(())
    }

    pub(crate) fn clear(&mut self) {
        self.memory.zeroize();
        self.used = FIRST;
    }

    pub(crate) const fn free(&self) -> usize {
        self.memory.len().saturating_sub(self.used)
    }

    /// The head's room and all bytes of all entries.
    pub(crate) fn image(&self) -> &[u8] {
        self.memory.get(..self.used).unwrap_or_default()
    }

    /// The head, as it was last committed or loaded.
    pub(crate) fn committed_head(&self) -> &[u8] {
        self.memory.get(..FIRST).unwrap_or_default()
    }

    /// Bytes of memory for entries.
    pub(crate) const fn room(&self) -> usize {
        self.memory.len().saturating_sub(FIRST)
    }

    /// All of the memory, to read an image into or to write its head.
    pub(crate) const fn memory_mut(&mut self) -> &mut [u8] {
        self.memory
    }

    fn head(&self, at: usize) -> Option<(usize, Handle)> {
        let (len, rest) = self.memory.get(at..self.used)?.split_first_chunk()?;
        let (handle, _) = rest.split_first_chunk()?;
        Some((
            u32::from_be_bytes(*len) as usize,
            Handle(u32::from_be_bytes(*handle)),
        ))
    }

    fn find(&self, handle: Handle) -> Option<(usize, usize)> {
        let mut at = FIRST;
        while let Some((len, found)) = self.head(at) {
            if found == handle {
                return Some((at, len));
            }
            at += len;
        }
        None
    }

    /// The content of the entry with this handle.
    pub(crate) fn content(&self, handle: Handle) -> Option<&[u8]> {
        let (at, len) = self.find(handle)?;
        self.memory.get(at + HEAD..at + len)
    }

    pub(crate) fn content_mut(&mut self, handle: Handle) -> Option<&mut [u8]> {
        let (at, len) = self.find(handle)?;
        self.memory.get_mut(at + HEAD..at + len)
    }

    pub(crate) fn has_room_for(&self, content: usize) -> bool {
        content + HEAD <= self.free()
    }

    /// Appends an entry of which `fill` writes the content.
    pub(crate) fn add(
        &mut self,
        handle: Handle,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), Rc>,
    ) -> Result<(), Rc> {
        ensure(self.has_room_for(len), Rc::NV_SPACE)?;
        let total = u32::try_from(len + HEAD).map_err(|_| Rc::NV_SPACE)?;
        let room = self.memory.get_mut(self.used..).ok_or(Rc::NV_SPACE)?;
        let (head, rest) = room.split_at_mut_checked(HEAD).ok_or(Rc::NV_SPACE)?;
        let content = rest.get_mut(..len).ok_or(Rc::NV_SPACE)?;
        fill(content)?;
        let (size, name) = head.split_at_mut(4);
        size.copy_from_slice(&total.to_be_bytes());
        name.copy_from_slice(&handle.0.to_be_bytes());
        self.used += len + HEAD;
        Ok(())
    }

    pub(crate) fn remove(&mut self, handle: Handle) {
        if let Some((at, len)) = self.find(handle) {
            self.memory.copy_within(at + len..self.used, at);
            let used = self.used - len;
            self.memory
                .get_mut(used..self.used)
                .unwrap_or_default()
                .zeroize();
            self.used = used;
        }
    }

    /// All handles, in the order in which they came.
    pub(crate) fn handles(&self) -> impl Iterator<Item = Handle> {
        let mut at = FIRST;
        core::iter::from_fn(move || {
            let (len, handle) = self.head(at)?;
            at += len;
            Some(handle)
        })
    }

    /// The smallest handle of a kind that is not below `from`.
    pub(crate) fn next_handle(&self, kind: HandleKind, from: Handle) -> Option<Handle> {
        self.handles()
            .filter(|h| h.kind() == kind && *h >= from)
            .min()
    }

    pub(crate) fn count(&self, kind: HandleKind) -> usize {
        self.handles().filter(|h| h.kind() == kind).count()
    }
}
