//! The model of the hardware as the machine below a service.

use core::ops::Range;

use svsm_platform::addr::{Gpa, GpaRange, PageSize};
use svsm_platform::level::Vmpl;
use svsm_platform::seam::{GuestMap, Owner, Rights};
use svsm_protocol::seam::{GuestMemory, GuestPages, PageError, SaveAreas, Unreachable};
use svsm_sim::rmp::{
    Access, Caller, Entry, Mapping, NewState, PageSize as SimSize, Permissions, Rmp,
    Vmpl as SimVmpl,
};

const ASID: u32 = 7;
pub(crate) const SMALL: u64 = 4096;
pub(crate) const LARGE: u64 = 2 << 20;
/// The guest's memory, in small pages below 2 MiB and in large ones above.
pub(crate) const GUEST: Range<u64> = 0..crate::LARGE_PAGES * LARGE;
pub(crate) const SVSM: Range<u64> = GUEST.end..GUEST.end + 16 * SMALL;

pub(crate) struct Model {
    pub(crate) entries: Vec<Entry>,
    pub(crate) bytes: Vec<u8>,
    /// Save areas from which somebody runs.
    pub(crate) running: Vec<u64>,
    pub(crate) flushes: usize,
}

impl Model {
    pub(crate) fn new() -> Self {
        let pages = usize::try_from(SVSM.end / SMALL).unwrap();
        let mut model = Self {
            entries: vec![Entry::HYPERVISOR; pages],
            bytes: vec![0xee; usize::try_from(SVSM.end).unwrap()],
            running: vec![],
            flushes: 0,
        };
        let mut rmp = Rmp::new(&mut model.entries);
        let caller = caller(0);
        let large = (1..crate::LARGE_PAGES).map(|n| (n * LARGE, SimSize::Size2M));
        let small = (0..LARGE)
            .chain(SVSM)
            .step_by(4096)
            .map(|at| (at, SimSize::Size4K));
        for (at, size) in small.chain(large) {
            rmp.rmpupdate(at, NewState::guest(ASID, at, size)).unwrap();
            let mapping = mapping(at, size);
            let done = rmp.pvalidate(caller, mapping, size, true).unwrap().unwrap();
            assert!(done.changed);
            if at < GUEST.end {
                for level in 2..4 {
                    let level = SimVmpl::new(level).unwrap();
                    rmp.rmpadjust(
                        caller,
                        mapping,
                        size,
                        level,
                        Permissions::all() - Permissions::SHADOW_STACK,
                        false,
                    )
                    .unwrap()
                    .unwrap();
                }
            }
        }
        model
    }

    pub(crate) fn rmp(&mut self) -> Rmp<'_> {
        Rmp::new(&mut self.entries)
    }

    /// What a level may do with the page at `at`, as the hardware checks it.
    pub(crate) fn may(&mut self, level: u8, at: u64, access: Access) -> bool {
        let size = self.rmp().entry(at).unwrap().size();
        self.rmp()
            .access(caller(level), mapping(at, size), access)
            .is_ok()
    }

    pub(crate) fn range(at: Gpa, len: usize) -> Range<usize> {
        let start = usize::try_from(at.as_u64()).unwrap();
        start..start + len
    }

    pub(crate) fn reach(&mut self, at: Gpa, len: usize) -> Result<Range<usize>, Unreachable> {
        if at.as_u64() + len as u64 > SVSM.end || !self.may(0, at.as_u64(), Access::WRITE) {
            return Err(Unreachable);
        }
        assert!(
            len as u64 + at.page_offset(PageSize::Size4K) <= SMALL,
            "one page"
        );
        Ok(Self::range(at, len))
    }

    pub(crate) fn put(&mut self, at: u64, bytes: &[u8]) {
        let at = usize::try_from(at).unwrap();
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(crate) fn word(&self, at: u64) -> u64 {
        let at = usize::try_from(at).unwrap();
        u64::from_le_bytes(self.bytes[at..at + 8].try_into().unwrap())
    }

    pub(crate) fn list(&mut self, at: u64, next: u16, entries: &[u64]) {
        let count = u16::try_from(entries.len()).unwrap();
        self.put(at, &count.to_le_bytes());
        self.put(at + 2, &next.to_le_bytes());
        for (index, entry) in entries.iter().enumerate() {
            self.put(at + 8 + 8 * index as u64, &entry.to_le_bytes());
        }
    }

    pub(crate) fn next(&self, at: u64) -> u64 {
        self.word(at) >> 16 & 0xffff
    }

    pub(crate) fn save_area(&mut self, at: u64, level: u8, efer: u64, features: u64) {
        self.put(at + 0xc8, &[0, 0, level, 0, 0, 0, 0, 0]);
        self.put(at + 0xd0, &efer.to_le_bytes());
        self.put(at + 0x3b0, &features.to_le_bytes());
    }
}

pub(crate) fn caller(level: u8) -> Caller {
    Caller {
        asid: ASID,
        vmpl: SimVmpl::new(level).unwrap(),
    }
}

pub(crate) const fn mapping(at: u64, size: SimSize) -> Mapping {
    Mapping {
        spa: at,
        gpa: at,
        size,
    }
}

pub(crate) const fn sim_size(size: PageSize) -> SimSize {
    match size {
        PageSize::Size4K => SimSize::Size4K,
        _ => SimSize::Size2M,
    }
}

impl GuestMemory for Model {
    fn read(&mut self, at: Gpa, to: &mut [u8]) -> Result<(), Unreachable> {
        let range = self.reach(at, to.len())?;
        to.copy_from_slice(&self.bytes[range]);
        Ok(())
    }

    fn write(&mut self, at: Gpa, from: &[u8]) -> Result<(), Unreachable> {
        let range = self.reach(at, from.len())?;
        self.bytes[range].copy_from_slice(from);
        Ok(())
    }

    fn clear(&mut self, page: Gpa, size: PageSize) -> Result<(), Unreachable> {
        self.reach(page, 1)?;
        self.bytes[Self::range(page, usize::try_from(size.bytes()).unwrap())].fill(0);
        Ok(())
    }
}

impl GuestPages for Model {
    fn validate(&mut self, page: Gpa, size: PageSize, valid: bool) -> Result<(), PageError> {
        let at = mapping(page.as_u64(), self.entries[0].size());
        let nested = self
            .rmp()
            .entry(page.as_u64())
            .ok_or(PageError::Faulted)?
            .size();
        let at = Mapping { size: nested, ..at };
        match self.rmp().pvalidate(caller(0), at, sim_size(size), valid) {
            Ok(Ok(done)) if done.changed => Ok(()),
            Ok(Ok(_)) => Err(PageError::Unchanged),
            Ok(Err(failure)) => Err(PageError::Code(failure as u32)),
            Err(_) => Err(PageError::Faulted),
        }
    }

    fn adjust(
        &mut self,
        page: Gpa,
        size: PageSize,
        level: Vmpl,
        rights: Rights,
        is_save_area: bool,
    ) -> Result<(), PageError> {
        let nested = self
            .rmp()
            .entry(page.as_u64())
            .ok_or(PageError::Faulted)?
            .size();
        let level = SimVmpl::new(level.as_u8()).unwrap();
        let rights = Permissions::from_bits_truncate(rights.bits());
        let at = mapping(page.as_u64(), nested);
        match self
            .rmp()
            .rmpadjust(caller(0), at, sim_size(size), level, rights, is_save_area)
        {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(failure)) => Err(PageError::Code(failure as u32)),
            Err(_) => Err(PageError::Faulted),
        }
    }

    fn flush(&mut self) {
        self.flushes += 1;
    }
}

impl SaveAreas for Model {
    fn stop(&mut self, area: Gpa) -> Result<bool, Unreachable> {
        let efer = self.word(area.as_u64() + 0xd0) & !0x1000;
        self.put(area.as_u64() + 0xd0, &efer.to_le_bytes());
        Ok(!self.running.contains(&area.as_u64()))
    }

    fn resume(&mut self, area: Gpa) -> Result<(), Unreachable> {
        let efer = self.word(area.as_u64() + 0xd0) | 0x1000;
        self.put(area.as_u64() + 0xd0, &efer.to_le_bytes());
        Ok(())
    }
}

pub(crate) struct Map;

impl GuestMap for Map {
    fn owner(&self, range: GpaRange) -> Option<Owner> {
        let inside =
            |of: Range<u64>| of.start <= range.start().as_u64() && range.end().as_u64() <= of.end;
        if inside(GUEST) {
            Some(Owner::Guest)
        } else if inside(SVSM) {
            Some(Owner::Svsm)
        } else {
            None
        }
    }
}

pub(crate) fn gpa(at: u64) -> Gpa {
    Gpa::new(at).unwrap()
}
