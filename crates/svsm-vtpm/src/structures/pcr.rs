//! Selections of PCRs: `TPML_PCR_SELECTION` (Part 2, clause 10.9.7).

use crate::{
    alg::HashAlg,
    rc::{Rc, ensure},
    wire::{Marshal, Reader, Unmarshal, Writer},
};

/// How many PCRs a bank has.
pub(crate) const PCR_COUNT: usize = 24;
/// Octets of a selection bitmap.
pub(crate) const SELECT_LEN: usize = PCR_COUNT / 8;
const SELECT_LEN_U8: u8 = 3;
const _: () = assert!(SELECT_LEN == SELECT_LEN_U8 as usize);

/// `TPMS_PCR_SELECTION`: PCRs of one bank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PcrSelection {
    pub(crate) hash: HashAlg,
    pub(crate) select: [u8; SELECT_LEN],
    /// How many octets of the bitmap the caller sent: what is not sent selects nothing.
    pub(crate) len: u8,
}

impl PcrSelection {
    pub(crate) fn selects(&self, pcr: usize) -> bool {
        self.select
            .get(pcr / 8)
            .is_some_and(|octet| octet & 1 << (pcr % 8) != 0)
    }

    pub(crate) fn clear(&mut self, pcr: usize) {
        if let Some(octet) = self.select.get_mut(pcr / 8) {
            *octet &= !(1 << (pcr % 8));
        }
    }

    pub(crate) fn set(&mut self, pcr: usize) {
        if let Some(octet) = self.select.get_mut(pcr / 8) {
            *octet |= 1 << (pcr % 8);
        }
    }

    /// No PCR of a bank.
    pub(crate) const fn none(hash: HashAlg) -> Self {
        Self {
            hash,
            select: [0; SELECT_LEN],
            len: SELECT_LEN_U8,
        }
    }
}

impl Unmarshal for PcrSelection {
    fn read(r: &mut Reader<'_>) -> Result<Self, Rc> {
        let hash = r.read()?;
        let len = r.read::<u8>()?;
        ensure(usize::from(len) == SELECT_LEN, Rc::VALUE)?;
        Ok(Self {
            hash,
            select: r.array()?,
            len,
        })
    }
}

impl Marshal for PcrSelection {
    fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        w.put(&self.hash)?;
        w.put(&self.len)?;
        w.bytes(&self.select)
    }
}

/// Selections of up to as many banks as there are hash algorithms.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PcrSelections {
    list: [Option<PcrSelection>; HashAlg::ALL.len()],
}

impl PcrSelections {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &PcrSelection> {
        self.list.iter().flatten()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut PcrSelection> {
        self.list.iter_mut().flatten()
    }

    pub(crate) fn push(&mut self, it: PcrSelection) -> Result<(), Rc> {
        let free = self.list.iter_mut().find(|s| s.is_none()).ok_or(Rc::SIZE)?;
        *free = Some(it);
        Ok(())
    }
}

impl Unmarshal for PcrSelections {
    fn read(r: &mut Reader<'_>) -> Result<Self, Rc> {
        let count = r.read::<u32>()?;
        let mut it = Self::default();
        ensure(count as usize <= it.list.len(), Rc::SIZE)?;
        for _ in 0..count {
            it.push(r.read()?)?;
        }
        Ok(it)
    }
}

impl Marshal for PcrSelections {
    fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        w.put(&u32::try_from(self.iter().count()).map_err(|_| Rc::SIZE)?)?;
        self.iter().try_for_each(|s| w.put(s))
    }
}
