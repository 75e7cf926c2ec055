//! What the CPUs of an SNP guest share: who owns which page, and which virtual CPUs there are.

use super::nested::{Encryption, Nested};
use super::vmsa::Area;
use crate::addr::{Address, Gpa, GpaRange, Hpa};
use crate::dma::Remapping;
use crate::ending::Internal;
use crate::fw_cfg::FwCfg;
use crate::lock::Lock;
use crate::memory::GuestMap;
use crate::paging::{Levels, MapError};
use crate::personality::Hardware;
use crate::phys::{HostMemory, Unreachable};
use crate::pool::Pool;
use svsm_sim::doorbell::Doorbell;
use svsm_sim::launch::Guest;
use svsm_sim::rmp::{Entry, NewState, PageSize, Rmp, State, Vmpl};

/// The guest's number; there is one guest.
pub const ASID: u32 = 1;

/// The position of the C-bit, as on the processors of today.
pub const C_BIT: u8 = 51;

/// What the CPUs share.
#[derive(Debug)]
pub struct Shared<'m> {
    /// Where the guest's memory lies.
    pub map: GuestMap,
    /// How the guest says whether an access is private.
    pub encryption: Encryption,
    /// Where RAM below 4 GiB ends and devices begin.
    pub low_end: u64,
    /// Where all RAM ends, and more devices may be: those with 64-bit windows.
    pub high_end: u64,
    /// Where among them a guest finds nothing: a device that is L0's.
    pub hidden: Option<GpaRange>,
    /// What this machine does that others need not.
    pub rules: Rules,
    /// What the host tells the guest's firmware.
    pub fw_cfg: Lock<FwCfg>,
    /// What changes while the guest runs.
    pub state: Lock<Ownership<'m>>,
}

/// What a machine does that others need not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// The features that every save area must have, as upstream KVM demands it: those of the first.
    pub features: Option<u64>,
    /// Guests may ask for exceptions at every instruction.
    pub storms: bool,
}

/// Who owns which page, and which virtual CPUs there are.
#[derive(Debug)]
pub struct Ownership<'m> {
    /// The reverse map table.
    pub rmp: Rmp<'m>,
    /// The nested tables.
    pub nested: Nested,
    /// What devices reach, if something stands between them and memory.
    pub remapping: Option<Remapping>,
    /// Memory for more tables of both.
    pub pool: Pool,
    /// What L0 could not do, if the guest must not go on without it.
    pub failed: Option<Internal>,
    /// The guest as the security processor knows it.
    pub guest: Guest,
    /// The virtual CPUs of each CPU.
    pub seats: &'m mut [Seat],
}

/// One CPU's virtual CPUs, at most one for each level.
#[derive(Clone, Debug)]
pub struct Seat {
    /// By level.
    pub residents: [Option<Resident>; 4],
    /// The level to take up next, for a CPU that runs none.
    pub next: Option<Vmpl>,
    /// By level, a virtual CPU that is gone: the host keeps its GHCB register and its registered page, as KVM does, since firmware
    /// that creates one anew relies on it, and what the APIC has for the level still waits for its end.
    left: [Option<Resident>; 4],
    /// The level whose registers this CPU has: they are written to the save area when it lets go of them.
    pub loaded: Option<Vmpl>,
}

/// A virtual CPU: a save area, and what the host keeps for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resident {
    /// The save area's address.
    pub gpa: u64,
    /// The value of the GHCB register.
    pub ghcb: u64,
    /// The page that was registered for the GHCB.
    pub registered: Option<u64>,
    /// An interrupt that was taken from the APIC for it and not delivered yet.
    pub pending: Option<u8>,
    /// More of them, which came while a higher level ran.
    pub held: Vectors,
    /// Where its doorbell is.
    pub bell: Option<u64>,
    /// What waits for it there, under restricted injection.
    pub waiting: Doorbell,
}

/// A set of vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vectors([u64; 4]);

impl Vectors {
    /// No vectors.
    pub const NONE: Self = Self([0; 4]);

    /// Adds one.
    pub fn add(&mut self, vector: u8) {
        if let Some(word) = self.0.get_mut(usize::from(vector >> 6)) {
            *word |= 1 << (vector & 63);
        }
    }

    /// Takes the highest out, which comes first.
    pub fn take(&mut self) -> Option<u8> {
        for (base, word) in [0, 64, 128, 192].into_iter().zip(&mut self.0).rev() {
            if let Some(bit) = word.checked_ilog2() {
                *word &= !(1 << bit);
                return Some(base | (bit & 63) as u8);
            }
        }
        None
    }
}

impl Resident {
    /// A virtual CPU as it is when it is created: the GHCB register says what the host speaks.
    #[must_use]
    pub const fn new(gpa: u64, ghcb: u64) -> Self {
        Self {
            gpa,
            ghcb,
            registered: None,
            pending: None,
            held: Vectors::NONE,
            bell: None,
            waiting: Doorbell::new(),
        }
    }
}

impl Seat {
    /// No virtual CPUs.
    pub const EMPTY: Self = Self {
        residents: [const { None }; 4],
        next: None,
        left: [const { None }; 4],
        loaded: None,
    };

    /// The virtual CPU of a level.
    #[must_use]
    pub fn resident(&self, level: Vmpl) -> Option<&Resident> {
        self.residents.get(usize::from(level.as_u8()))?.as_ref()
    }

    /// The virtual CPU of a level, to change.
    pub fn resident_mut(&mut self, level: Vmpl) -> Option<&mut Resident> {
        self.residents.get_mut(usize::from(level.as_u8()))?.as_mut()
    }

    /// Puts a virtual CPU into its place, or takes it away.
    pub fn place(&mut self, level: Vmpl, resident: Option<Resident>) {
        if let Some(slot) = self.residents.get_mut(usize::from(level.as_u8())) {
            *slot = resident;
        }
    }

    /// Takes a virtual CPU away, and keeps what a host keeps of it.
    pub fn vacate(&mut self, level: Vmpl) {
        let index = usize::from(level.as_u8());
        let gone = self.residents.get_mut(index).and_then(Option::take);
        if let (Some(gone), Some(left)) = (gone, self.left.get_mut(index)) {
            *left = Some(gone);
        }
    }

    /// Notes the GHCB register of a virtual CPU that stops, and is gone already.
    pub fn leave(&mut self, level: Vmpl, ghcb: u64) {
        let index = usize::from(level.as_u8());
        if self.resident(level).is_none()
            && let Some(left) = self.left.get_mut(index).and_then(Option::as_mut)
        {
            left.ghcb = ghcb;
        }
    }

    /// Puts a new virtual CPU into its place, with what was kept of the one before, if there was one.
    pub fn settle(&mut self, level: Vmpl, mut resident: Resident) {
        self.vacate(level);
        let left = self.left.get_mut(usize::from(level.as_u8()));
        if let Some(left) = left.and_then(Option::take) {
            (resident.ghcb, resident.registered) = (left.ghcb, left.registered);
            (resident.pending, resident.held) = (left.pending, left.held);
        }
        self.place(level, Some(resident));
    }
}

impl<'m> Ownership<'m> {
    /// Nothing is the guest's yet.
    #[must_use]
    pub const fn new(
        entries: &'m mut [Entry],
        seats: &'m mut [Seat],
        levels: Levels,
        remapping: Option<Remapping>,
        pool: Pool,
    ) -> Self {
        Self {
            rmp: Rmp::new(entries),
            nested: Nested::new(levels),
            remapping,
            pool,
            failed: None,
            guest: Guest::new(),
            seats,
        }
    }

    /// Gives a page to the guest or to the host (`RMPUPDATE`); it holds noise afterwards. Once this is over, neither this CPU nor an
    /// access of a device that begins afterwards reaches it as it was. Says whether another CPU may.
    ///
    /// Whatever changes hands while the guest runs does so here, and only here. `None`: it cannot be, and the page is whose it was,
    /// unless [`Ownership::failed`] says why the guest must not go on.
    pub fn assign(
        &mut self,
        gpa: u64,
        home: Hpa,
        new: NewState,
        encryption: Encryption,
        memory: &mut impl HostMemory,
        hardware: &mut impl Hardware,
    ) -> Option<bool> {
        let (size, is_hosts) = (new.size, !new.assigned);
        // The guest may validate the page as soon as it is the guest's: no device may reach it by then.
        if !is_hosts && let Err(why) = self.close(gpa, size, memory, hardware) {
            self.failed = Some(why);
            return None;
        }
        if self.rmp.rmpupdate(home.as_u64(), new).is_err() {
            // Devices keep what they had; one that does not get it back does no harm.
            let _ = self.open(gpa, home, size, memory);
            return None;
        }
        let known = self.forget(gpa, size, encryption, memory).ok()?;
        // What a device wrote as long as it might does not stay, and what it writes as soon as it may does.
        scramble(home, size, memory)?;
        if is_hosts {
            self.open(gpa, home, size, memory).ok()?;
        }
        Some(known)
    }

    /// Keeps devices from a page.
    fn close(
        &self,
        gpa: u64,
        size: PageSize,
        memory: &mut impl HostMemory,
        hardware: &mut impl Hardware,
    ) -> Result<(), Internal> {
        let Some(Remapping { unit, reach }) = self.remapping else {
            return Ok(());
        };
        if reach
            .close(gpa, size, memory)
            .map_err(|_| Internal::Memory)?
        {
            unit.forget(gpa, size, hardware)
                .map_err(|_| Internal::Remapping)?;
        }
        Ok(())
    }

    /// Lets devices reach a page, as far as the host has it.
    fn open(
        &mut self,
        gpa: u64,
        home: Hpa,
        size: PageSize,
        memory: &mut impl HostMemory,
    ) -> Result<(), MapError> {
        match self.remapping {
            Some(Remapping { reach, .. }) => {
                reach.open(gpa, home, size, &self.rmp, &mut self.pool, memory)
            }
            None => Ok(()),
        }
    }

    /// Takes a page out of the nested tables after its entry changed. Says whether a CPU may still know it.
    ///
    /// # Errors
    /// A table is out of reach.
    pub fn forget(
        &self,
        gpa: u64,
        size: PageSize,
        encryption: Encryption,
        memory: &mut impl HostMemory,
    ) -> Result<bool, MapError> {
        self.nested.forget(gpa, size, encryption, memory)
    }
}

/// What was written under one key is noise under another.
fn scramble(home: Hpa, size: PageSize, memory: &mut impl HostMemory) -> Option<()> {
    let noise = [0xa7; 4096];
    for offset in (0..size.bytes()).step_by(4096) {
        memory.write(home.checked_add(offset)?, &noise).ok()?;
    }
    Some(())
}

/// A save area in the guest's memory.
///
/// # Errors
/// There is no memory at its address.
pub fn read_area(
    map: &GuestMap,
    gpa: u64,
    memory: &impl HostMemory,
) -> Result<Area, Unreachable<Gpa>> {
    let (gpa, home) = home(map, gpa)?;
    let mut area = [0; 4096];
    memory.read(home, &mut area).map_err(|_| Unreachable(gpa))?;
    Ok(area)
}

/// Writes a save area back.
///
/// # Errors
/// There is no memory at its address.
pub fn write_area(
    map: &GuestMap,
    gpa: u64,
    area: &Area,
    memory: &mut impl HostMemory,
) -> Result<(), Unreachable<Gpa>> {
    let (gpa, home) = home(map, gpa)?;
    memory.write(home, area).map_err(|_| Unreachable(gpa))
}

fn home(map: &GuestMap, gpa: u64) -> Result<(Gpa, Hpa), Unreachable<Gpa>> {
    let gpa = Gpa::new(gpa).ok_or(Unreachable(Gpa::ZERO))?;
    map.resolve(gpa)
        .map(|(home, _)| (gpa, home))
        .ok_or(Unreachable(gpa))
}

/// The guest's memory as the host may use it: what is shared, and nothing else.
#[derive(Debug)]
pub struct HostView<'a, 'm, M> {
    /// Where memory lies.
    pub map: &'a GuestMap,
    /// Whose it is.
    pub rmp: &'a Rmp<'m>,
    /// The machine's memory.
    pub memory: &'a mut M,
}

impl<M: HostMemory> HostView<'_, '_, M> {
    /// The home of an address and how many bytes may be used from there, at most to the end of the page.
    fn part(&self, gpa: u64, write: bool) -> Option<(Hpa, usize)> {
        let (home, left) = self.map.resolve(Gpa::new(gpa)?)?;
        // Of a private page the host would read noise, which nobody wants here.
        let shared = self.rmp.entry(home.as_u64())?.state() == State::Hypervisor;
        let may = !write || self.rmp.host_write(home.as_u64(), PageSize::Size4K).is_ok();
        let in_page = 4096 - (gpa & 0xfff);
        (shared && may).then_some((home, usize::try_from(left.min(in_page)).ok()?))
    }

    /// Reads shared memory. Says whether all of it was there.
    pub fn read(&self, gpa: u64, mut into: &mut [u8]) -> bool {
        let mut at = gpa;
        while !into.is_empty() {
            let Some((home, count)) = self.part(at, false) else {
                return false;
            };
            let (piece, rest) = into.split_at_mut(count.min(into.len()));
            if self.memory.read(home, piece).is_err() {
                return false;
            }
            at = at.wrapping_add(piece.len() as u64);
            into = rest;
        }
        true
    }

    /// Writes shared memory. Says whether all of it was there.
    pub fn write(&mut self, gpa: u64, mut from: &[u8]) -> bool {
        let mut at = gpa;
        while !from.is_empty() {
            let Some((home, count)) = self.part(at, true) else {
                return false;
            };
            let (piece, rest) = from.split_at(count.min(from.len()));
            if self.memory.write(home, piece).is_err() {
                return false;
            }
            at = at.wrapping_add(piece.len() as u64);
            from = rest;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_keeps_the_page_of_a_virtual_cpu_that_is_created_anew() {
        let mut seat = Seat::EMPTY;
        seat.settle(Vmpl::VMPL2, Resident::new(0x5000, 1));
        let first = seat.resident_mut(Vmpl::VMPL2).unwrap();
        first.registered = Some(0x9000);
        first.held.add(0x41);
        seat.vacate(Vmpl::VMPL2);
        // The CPU stops only then.
        seat.leave(Vmpl::VMPL2, 0x9000);
        assert_eq!(seat.resident(Vmpl::VMPL2), None);
        seat.settle(Vmpl::VMPL2, Resident::new(0x6000, 1));
        let second = seat.resident(Vmpl::VMPL2).unwrap();
        assert_eq!((second.gpa, second.ghcb), (0x6000, 0x9000));
        assert_eq!(second.registered, Some(0x9000));
        assert_eq!(second.held.clone().take(), Some(0x41));
        seat.leave(Vmpl::VMPL2, 0xa000);
        assert_eq!(seat.resident(Vmpl::VMPL2).unwrap().ghcb, 0x9000);
        // Another level's is its own.
        seat.settle(Vmpl::VMPL1, Resident::new(0x7000, 1));
        assert_eq!(seat.resident(Vmpl::VMPL1).unwrap().ghcb, 1);
    }

    #[test]
    fn vectors_leave_the_set_from_the_highest_on() {
        let mut set = Vectors::NONE;
        for vector in [0, 63, 64, 0x41, 255, 0x41] {
            set.add(vector);
        }
        let taken = core::array::from_fn(|_| set.take());
        assert_eq!(
            taken,
            [Some(255), Some(0x41), Some(64), Some(63), Some(0), None]
        );
        assert_eq!(set, Vectors::NONE);
    }
}
