//! Virtual CPUs: their creation, and messages between them.

use super::super::shared::Resident;
use super::super::{PATIENCE, Snp, shared, vmsa};
use super::first_ghcb;
use crate::addr::PAGE;
use crate::board::{Board, Mail};
use crate::icr::{self, Message};
use crate::personality::Hardware;
use crate::phys::HostMemory;
use svsm_sim::fault::Fault;
use svsm_sim::ghcb::{ApCreation, Malformed, Reply};
use svsm_sim::rmp::{PageSize, Vmpl};

impl<M: HostMemory> Snp<'_, '_, M> {
    /// Carries an interrupt command out. INIT runs what was created for it; start-up messages start nothing.
    pub(super) fn send(&self, value: u64, board: &Board, hardware: &mut impl Hardware) {
        let command = icr::Command::decode(value);
        let sender = board.slot(self.cpu).map_or(0, |slot| slot.apic_id());
        let targets = || {
            board
                .slots()
                .enumerate()
                .filter(|(_, slot)| command.destination.matches(slot.apic_id(), sender))
        };
        match command.message {
            Message::Interrupt if self.is_restricted() => {
                // From doorbell to doorbell of the same level: the APIC knows no levels.
                for (index, slot) in targets() {
                    self.post_to(index, (value & 0xff) as u8);
                    if index != self.cpu {
                        slot.post(Mail::leave(), |id| hardware.send(icr::nmi_to(id)));
                    }
                }
            }
            Message::Interrupt => hardware.send(value & icr::DEFINED),
            Message::Nmi => {
                for (_, slot) in targets() {
                    slot.post(Mail::nmi(), |id| hardware.send(icr::nmi_to(id)));
                }
            }
            Message::Init => {
                for (_, slot) in targets() {
                    slot.post(Mail::created(), |id| hardware.send(icr::nmi_to(id)));
                }
            }
            Message::StartUp(_) | Message::Nothing => {}
        }
    }

    /// AP creation: a virtual CPU for a level of some CPU.
    pub(super) fn create(
        &mut self,
        what: ApCreation,
        level: u8,
        apic_id: u32,
        features: u64,
        board: &Board,
        hardware: &mut (impl Hardware + Clone),
    ) -> Reply {
        let refused = Reply::malformed(Malformed::InvalidInput);
        if what != ApCreation::Destroy {
            if self.lies(Fault::ApRefused).is_some() {
                return refused;
            }
            if self.lies(Fault::ApIdle).is_some() {
                return Reply::DONE;
            }
        }
        let mut slots = board.slots().enumerate();
        let target = slots.find(|(_, slot)| slot.apic_id() == apic_id);
        let (Some((index, slot)), Some(level)) = (target, Vmpl::new(level)) else {
            return refused;
        };
        let mut owned = self.shared.state.lock();
        let (gpa, now) = match what {
            ApCreation::Now(gpa) => (gpa, true),
            ApCreation::OnInit(gpa) => (gpa, false),
            ApCreation::Destroy => {
                if let Some(seat) = owned.seats.get_mut(index) {
                    seat.vacate(level);
                }
                drop(owned);
                if index != self.cpu {
                    slot.post(Mail::leave(), |id| hardware.send(icr::nmi_to(id)));
                    if !self.wait_for_area(index, level) {
                        // It is gone, but its page is not safe to fill anew.
                        return refused;
                    }
                }
                return Reply::DONE;
            }
        };
        // An erratum of the hardware, against which hosts protect themselves.
        let erratum = gpa.is_multiple_of(PageSize::Size2M.bytes());
        let area = shared::read_area(&self.shared.map, gpa, &self.memory);
        let fits = area.is_ok_and(|area| vmsa::features(&area) == features);
        let fits = fits && self.shared.rules.features.is_none_or(|all| all == features);
        if erratum || !fits {
            return refused;
        }
        let Some(seat) = owned.seats.get_mut(index) else {
            return refused;
        };
        seat.settle(level, Resident::new(gpa, first_ghcb()));
        if index != self.cpu || !now {
            seat.next = Some(level);
        }
        drop(owned);
        if now && index != self.cpu {
            slot.post(Mail::created(), |id| hardware.send(icr::nmi_to(id)));
        }
        Reply::DONE
    }

    /// Waits until a CPU has written the registers of a level to their save area: after that, the page is the guest's to fill anew.
    /// Says whether it has; two CPUs that wait for each other do not wait for ever.
    fn wait_for_area(&self, index: usize, level: Vmpl) -> bool {
        for _ in 0..PATIENCE {
            let owned = self.shared.state.lock();
            let seat = owned.seats.get(index);
            if seat.is_none_or(|seat| seat.loaded != Some(level)) {
                return true;
            }
            drop(owned);
            core::hint::spin_loop();
        }
        false
    }

    /// The list of APIC ids, if there is room for it.
    pub(super) fn apic_ids(&mut self, buffer: u64, pages: u64, board: &Board) -> Reply {
        let count = board.slots().count() as u64;
        let needed = (4 + 4 * count).div_ceil(PAGE);
        let reply = |pages| Reply {
            rax: Some(pages),
            ..Reply::DONE
        };
        if pages < needed {
            return reply(needed);
        }
        let ids = board.slots().map(|slot| slot.apic_id());
        let words = core::iter::once((count & 0xffff_ffff) as u32).chain(ids);
        for (word, offset) in words.zip((0..).step_by(4)) {
            if !self.put(buffer.wrapping_add(offset), &word.to_le_bytes()) {
                return Reply::malformed(Malformed::InvalidInput);
            }
        }
        reply(pages)
    }
}
