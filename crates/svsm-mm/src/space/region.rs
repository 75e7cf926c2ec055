//! The list of what is where in an address space.

use alloc::vec::Vec;

use svsm_platform::addr::{Gpa, Gva, GvaRange, PageSize};

use crate::table::Rights;
use crate::{Error, Result};

/// What is behind a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Backing {
    /// Frames of its own.
    Fresh,
    /// Memory of someone else, from there on.
    Memory(Gpa),
    /// Nothing: accesses fault.
    Nothing,
}

/// A range of an address space that serves one purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Region {
    reserved: GvaRange, // contains `range`
    range: GvaRange,
    rights: Rights,
    backing: Backing,
}

impl Region {
    pub(super) fn new(
        range: GvaRange,
        guard_bytes: u64,
        rights: Rights,
        backing: Backing,
    ) -> Result<Self> {
        let start = range.start().checked_sub(guard_bytes);
        let end = range.end().checked_add(guard_bytes);
        let reserved = start
            .zip(end)
            .and_then(|(start, end)| GvaRange::from_bounds(start, end));
        Ok(Self {
            reserved: reserved.ok_or(Error::Bug)?,
            range,
            rights,
            backing,
        })
    }

    /// The addresses that are mapped.
    #[must_use]
    pub const fn range(&self) -> GvaRange {
        self.range
    }

    /// The addresses that nothing else may use: guards included.
    #[must_use]
    pub const fn reserved(&self) -> GvaRange {
        self.reserved
    }

    /// What may be done there, user mode's part left out: that is the same for a whole space.
    #[must_use]
    pub const fn rights(&self) -> Rights {
        self.rights
    }

    /// What is behind it.
    #[must_use]
    pub const fn backing(&self) -> Backing {
        self.backing
    }

    /// What remains before and behind `cut`. A guard goes with the last page beside it.
    fn without(self, cut: GvaRange) -> (Option<Self>, Option<Self>) {
        let part = |reserved: Option<GvaRange>, range: Option<GvaRange>| {
            let (reserved, range) = reserved.zip(range)?;
            let backing = match self.backing {
                Backing::Memory(to) => {
                    let offset = range.start().checked_offset_from(self.range.start())?;
                    Backing::Memory(to.checked_add(offset)?)
                }
                other => other,
            };
            let part = Self {
                reserved,
                range,
                rights: self.rights,
                backing,
            };
            (!range.is_empty()).then_some(part)
        };
        let before = |whole: GvaRange| GvaRange::from_bounds(whole.start(), cut.start());
        let behind = |whole: GvaRange| GvaRange::from_bounds(cut.end(), whole.end());
        (
            part(before(self.reserved), before(self.range)),
            part(behind(self.reserved), behind(self.range)),
        )
    }
}

/// Regions in order of address; none overlaps another.
#[derive(Debug)]
pub(super) struct Regions(Vec<Region>);

impl Regions {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn iter(&self) -> core::slice::Iter<'_, Region> {
        self.0.iter()
    }

    /// Makes sure that two regions can be added: one cut can make three of one.
    pub(super) fn make_room(&mut self) -> Result<()> {
        let len_bytes = 2 * size_of::<Region>() as u64;
        self.0
            .try_reserve(2)
            .map_err(|_| Error::OutOfMemory { len_bytes })
    }

    /// The region that reserves `at`.
    pub(super) fn reserving(&self, at: Gva) -> Option<&Region> {
        let index = self.0.partition_point(|region| region.reserved.end() <= at);
        self.0
            .get(index)
            .filter(|region| region.reserved.contains(at))
    }

    /// The first region that overlaps `range`.
    pub(super) fn overlapping(&self, range: GvaRange) -> Option<&Region> {
        let index = self
            .0
            .partition_point(|region| region.reserved.end() <= range.start());
        self.0
            .get(index)
            .filter(|region| region.reserved.overlaps(&range))
    }

    /// The first place in `area` that is free, with `guard_bytes` on both sides.
    pub(super) fn find(
        &self,
        area: GvaRange,
        len_bytes: u64,
        align: PageSize,
        guard_bytes: u64,
    ) -> Result<GvaRange> {
        if !len_bytes.is_multiple_of(PageSize::Size4K.bytes()) {
            return Err(Error::Misaligned { address: len_bytes });
        }
        let fits = |from: Gva, to: Gva| {
            let start = from.checked_add(guard_bytes)?.align_up(align)?;
            let range = GvaRange::new(start, len_bytes)?;
            range
                .end()
                .checked_add(guard_bytes)
                .filter(|end| *end <= to)
                .map(|_| range)
        };
        let ends = core::iter::once(area.start()).chain(self.iter().map(|r| r.reserved.end()));
        let starts = self
            .iter()
            .map(|r| r.reserved.start())
            .chain(core::iter::once(area.end()));
        let place = ends.zip(starts).find_map(|(from, to)| fits(from, to));
        place.ok_or(Error::NoAddresses { len_bytes })
    }

    /// Adds a region for which room was made, and which overlaps none.
    pub(super) fn insert(&mut self, region: Region) -> Result<()> {
        let index = self
            .0
            .partition_point(|other| other.reserved.end() <= region.reserved.start());
        if self.0.len() == self.0.capacity() {
            return Err(Error::Bug);
        }
        self.0.insert(index, region);
        Ok(())
    }

    /// Takes `range` out of all regions. There must be room.
    pub(super) fn remove(&mut self, range: GvaRange) {
        self.cut(range, |_| None);
    }

    /// Gives what lies in `range` these rights. There must be room.
    pub(super) fn protect(&mut self, range: GvaRange, rights: Rights) {
        self.cut(range, |inside| Some(Region { rights, ..inside }));
    }

    /// Replaces the parts of regions that lie in `range`.
    fn cut(&mut self, range: GvaRange, inside: impl Fn(Region) -> Option<Region>) {
        if range.is_empty() {
            return;
        }
        let first = self
            .0
            .partition_point(|region| region.reserved.end() <= range.start());
        let mut index = first;
        while let Some(region) = self.0.get(index).copied() {
            if !region.reserved.overlaps(&range) {
                break;
            }
            let Some(common) = region.range.intersection(&range) else {
                // Guards alone: they stay as long as what they guard.
                index += 1;
                continue;
            };
            let (before, behind) = region.without(common);
            let middle = inside(region.only(common, before.is_none(), behind.is_none()));
            let parts = [before, middle, behind].into_iter().flatten();
            let count = parts.clone().count();
            self.0.splice(index..=index, parts);
            index += count;
        }
    }
}

impl Region {
    /// The part of the region in `common`, with the guards that nothing else is left to need.
    fn only(self, common: GvaRange, first: bool, last: bool) -> Self {
        let start = if first {
            self.reserved.start()
        } else {
            common.start()
        };
        let end = if last {
            self.reserved.end()
        } else {
            common.end()
        };
        let reserved = GvaRange::from_bounds(start, end).unwrap_or(common);
        let offset = common
            .start()
            .checked_offset_from(self.range.start())
            .unwrap_or(0);
        let backing = match self.backing {
            Backing::Memory(to) => Backing::Memory(to.checked_add(offset).unwrap_or(to)),
            other => other,
        };
        Self {
            reserved,
            range: common,
            rights: self.rights,
            backing,
        }
    }
}
