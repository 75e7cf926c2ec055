//! What an NV index is: `TPMS_NV_PUBLIC` (Part 2, clause 13.5).

use super::{attributes::NvAttributes, public::Digest};
use crate::{
    alg::HashAlg,
    handle::{Handle, HandleKind},
    rc::{Rc, ensure},
    wire::{Marshal, Reader, Unmarshal, Writer},
};

/// The largest NV index that holds bytes.
pub(crate) const NV_INDEX_MAX: usize = 4096;

/// `TPM_NT`: what an index holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NvKind {
    Ordinary,
    Counter,
    Bits,
    Extend,
    PinFail,
    PinPass,
}

/// The public area of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NvPublic {
    pub(crate) handle: Handle,
    pub(crate) name_alg: HashAlg,
    pub(crate) attributes: NvAttributes,
    pub(crate) policy: Digest,
    pub(crate) size: u16,
}

impl NvAttributes {
    /// The kind of index; `None` for a number that means nothing.
    pub(crate) const fn kind(self) -> Option<NvKind> {
        match self.bits() >> 4 & 0xF {
            0 => Some(NvKind::Ordinary),
            1 => Some(NvKind::Counter),
            2 => Some(NvKind::Bits),
            4 => Some(NvKind::Extend),
            8 => Some(NvKind::PinFail),
            9 => Some(NvKind::PinPass),
            _ => None,
        }
    }

    /// Whether uses of the index's value are counted.
    pub(crate) const fn is_pin(self) -> bool {
        matches!(self.kind(), Some(NvKind::PinFail | NvKind::PinPass))
    }
}

impl NvPublic {
    pub(crate) const fn has(&self, attribute: NvAttributes) -> bool {
        self.attributes.contains(attribute)
    }

    pub(crate) fn kind(&self) -> NvKind {
        self.attributes.kind().unwrap_or(NvKind::Ordinary)
    }

    pub(crate) const fn is_pin(&self) -> bool {
        self.attributes.is_pin()
    }
}

impl Unmarshal for NvPublic {
    fn read(r: &mut Reader<'_>) -> Result<Self, Rc> {
        let handle: Handle = r.read()?;
        ensure(handle.kind() == HandleKind::Nv, Rc::VALUE)?;
        let name_alg = r.read()?;
        let attributes = r.read()?;
        let policy = r.read()?;
        let size = r.read()?;
        ensure(usize::from(size) <= NV_INDEX_MAX, Rc::SIZE)?;
        Ok(Self {
            handle,
            name_alg,
            attributes,
            policy,
            size,
        })
    }
}

/// `TPMT_NV_PUBLIC_2` (version 1.83, clause 13.12): the public area, after the type of its handle. There are none of the types that
/// would have more.
#[derive(Clone, Debug)]
pub(crate) struct NvPublic2(pub(crate) NvPublic);

/// `TPM_HT_NV_INDEX`.
const NV_INDEX: u8 = 1;

impl Unmarshal for NvPublic2 {
    fn read(r: &mut Reader<'_>) -> Result<Self, Rc> {
        ensure(r.read::<u8>()? == NV_INDEX, Rc::SELECTOR)?;
        r.read().map(Self)
    }
}

impl Marshal for NvPublic2 {
    fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        w.put(&NV_INDEX)?;
        w.put(&self.0)
    }
}

impl Marshal for NvPublic {
    fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        w.put(&self.handle)?;
        w.put(&self.name_alg)?;
        w.put(&self.attributes)?;
        w.put(&self.policy)?;
        w.put(&self.size)
    }
}
