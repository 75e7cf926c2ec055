//! NV indices: public area, authorization value and data in an entry of the NV memory.

use super::{Core, object::hashed_name};
use crate::{
    crypto::Digest,
    handle::Handle,
    rc::{Rc, ensure},
    structures::{
        attributes::NvAttributes as A,
        nv::{NvKind, NvPublic},
        public::Name,
    },
    wire::{Reader, Writer, marshal},
};

/// Room for a marshalled public area of an index.
pub(crate) const NV_PUBLIC_MAX: usize = 4 + 2 + 4 + 66 + 2;
/// Where the attributes are in it.
const ATTRIBUTES_AT: usize = 6;

/// An index, but for its authorization value and its data.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    pub(crate) public: NvPublic,
    data_at: usize,
}

/// The data of PIN indices.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pin {
    pub(crate) count: u32,
    pub(crate) limit: u32,
}

impl Core<'_> {
    /// The index with this handle, if it is defined.
    pub(crate) fn index(&self, handle: Handle) -> Option<Index> {
        let content = self.nv.content(handle)?;
        let mut r = Reader::new(content);
        let public = r.read().ok()?;
        r.sized(64).ok()?;
        Some(Index {
            public,
            data_at: content.len() - r.rest().len(),
        })
    }

    /// The attributes of the index with this handle: all that most checks look at, without reading the rest.
    pub(crate) fn index_attributes(&self, handle: Handle) -> Option<A> {
        let content = self.nv.content(handle)?;
        let bits = content.get(ATTRIBUTES_AT..ATTRIBUTES_AT + 4)?;
        Some(A::from_bits_retain(u32::from_be_bytes(
            bits.try_into().ok()?,
        )))
    }

    /// The authorization value of the index with this handle.
    pub(crate) fn index_auth(&self, handle: Handle) -> Option<Digest> {
        let mut r = Reader::new(self.nv.content(handle)?);
        r.take(ATTRIBUTES_AT + 4).ok()?;
        // The policy, and the size of the data.
        r.sized(64).ok()?;
        r.take(2).ok()?;
        r.read().ok()
    }

    /// Checks that there is an index with this handle which can be used now.
    pub(crate) fn check_index(&self, handle: Handle) -> Result<(), Rc> {
        let attributes = self.index_attributes(handle).ok_or(Rc::HANDLE)?;
        let enabled = if attributes.contains(A::PLATFORM_CREATE) {
            self.clear.ph_enable_nv
        } else {
            self.clear.sh_enable
        };
        ensure(enabled, Rc::HANDLE)
    }

    pub(crate) fn index_data(&self, index: &Index) -> &[u8] {
        self.nv
            .content(index.public.handle)
            .and_then(|content| content.get(index.data_at..))
            .unwrap_or_default()
    }

    /// Writes data, and says that the permanent state changed unless the index is orderly.
    pub(crate) fn write_index(
        &mut self,
        index: &mut Index,
        offset: usize,
        data: &[u8],
    ) -> Result<(), Rc> {
        let at = index.data_at + offset;
        let room = self.nv.content_mut(index.public.handle).ok_or(Rc::HANDLE)?;
        room.get_mut(at..at + data.len())
            .ok_or(Rc::NV_RANGE)?
            .copy_from_slice(data);
        if !index.public.has(A::ORDERLY) {
            self.dirty = true;
        }
        if !index.public.has(A::WRITTEN) {
            self.set_index_attributes(index, index.public.attributes | A::WRITTEN);
        }
        Ok(())
    }

    /// Replaces the data of an orderly index by those of the same length that it had before a suspension.
    pub(crate) fn set_index_data(&mut self, index: &Index, data: &[u8]) {
        if let Some(content) = self.nv.content_mut(index.public.handle)
            && let Some(place) = content.get_mut(index.data_at..)
            && place.len() == data.len()
        {
            place.copy_from_slice(data);
        }
    }

    pub(crate) fn set_index_attributes(&mut self, index: &mut Index, attributes: A) {
        index.public.attributes = attributes;
        if let Some(content) = self.nv.content_mut(index.public.handle)
            && let Some(place) = content.get_mut(ATTRIBUTES_AT..ATTRIBUTES_AT + 4)
        {
            place.copy_from_slice(&attributes.bits().to_be_bytes());
            self.dirty = true;
        }
    }

    /// Replaces the authorization value, which has the room of the name algorithm's digest.
    pub(crate) fn set_index_auth(&mut self, index: &Index, auth: &Digest) {
        let len = index.public.name_alg.digest_len();
        let mut padded = auth.clone();
        padded.resize(len);
        if let Some(content) = self.nv.content_mut(index.public.handle)
            && let Some(place) = content.get_mut(index.data_at - len..index.data_at)
        {
            place.copy_from_slice(padded.as_slice());
            self.dirty = true;
        }
    }

    /// Defines an index. Its data begin as zeros; a value of the kind's initial state is written with the first write.
    pub(crate) fn add_index(&mut self, public: &NvPublic, auth: &Digest) -> Result<(), Rc> {
        let mut buffer = [0; NV_PUBLIC_MAX];
        let area = marshal(public, &mut buffer)?;
        let data = usize::from(public.size);
        let mut padded = auth.clone();
        padded.resize(public.name_alg.digest_len());
        self.nv.add(
            public.handle,
            area.len() + 2 + padded.len() + data,
            |content| {
                let mut w = Writer::new(content);
                w.bytes(area)?;
                w.sized(padded.as_slice())?;
                let at = w.len();
                content.get_mut(at..).unwrap_or_default().fill(0);
                Ok(())
            },
        )?;
        self.dirty = true;
        Ok(())
    }

    /// The highest value that a counter has or had.
    pub(crate) fn highest_counter(&self) -> u64 {
        self.nv
            .handles()
            .filter_map(|handle| self.index(handle))
            .filter(|i| i.public.kind() == NvKind::Counter && i.public.has(A::WRITTEN))
            .map(|index| self.index_u64(&index))
            .fold(self.permanent.max_counter, u64::max)
    }

    /// Removes an index; a counter's value lives on as the floor of the next one's.
    pub(crate) fn remove_index(&mut self, handle: Handle) {
        if let Some(index) = self.index(handle)
            && index.public.kind() == NvKind::Counter
            && index.public.has(A::WRITTEN)
        {
            let value = self.index_u64(&index);
            self.permanent.max_counter = self.permanent.max_counter.max(value);
        }
        self.nv.remove(handle);
        self.dirty = true;
    }

    pub(crate) fn index_name(&self, public: &NvPublic) -> Name {
        let mut buffer = [0; NV_PUBLIC_MAX];
        let area = marshal(public, &mut buffer).unwrap_or_default();
        hashed_name(self.crypto, Some(public.name_alg), &[area])
    }

    /// The counter, bit field or PIN of an index, as a number.
    pub(crate) fn index_u64(&self, index: &Index) -> u64 {
        Reader::new(self.index_data(index)).read().unwrap_or(0)
    }

    pub(crate) fn pin(&self, index: &Index) -> Pin {
        let value = self.index_u64(index).to_be_bytes();
        let mut r = Reader::new(&value);
        Pin {
            count: r.read().unwrap_or(0),
            limit: r.read().unwrap_or(0),
        }
    }

    /// Counts a right or wrong use of a PIN index's value.
    pub(crate) fn count_pin(&mut self, handle: Handle, right: bool) {
        if !self.index_attributes(handle).is_some_and(A::is_pin) {
            return;
        }
        let Some(mut index) = self.index(handle) else {
            return;
        };
        if !index.public.has(A::WRITTEN) {
            return;
        }
        let pin = self.pin(&index);
        let count = match (index.public.kind(), right) {
            (NvKind::PinFail, true) => 0,
            (NvKind::PinFail, false) | (NvKind::PinPass, true) => pin.count.saturating_add(1),
            _ => return,
        };
        if count != pin.count {
            let _ = self.write_index(&mut index, 0, &count.to_be_bytes());
        }
    }
}
