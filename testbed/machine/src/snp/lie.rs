//! The lies of a host: when one comes, and what becomes of the answer.

use super::Loaded;
use super::Snp;
use super::vmgexit::Call;
use crate::board::Board;
use crate::deliver;
use crate::liar::{self, Effect};
use crate::memory::Guest;
use crate::personality::Hardware;
use crate::phys::HostMemory;
use crate::report;
use crate::vcpu::Vcpu;
use crate::vmcb::Event as Injected;
use svsm_sim::fault::{Fault, Fired, Occasions};
use svsm_sim::ghcb::{ApCreation, Event, Features, Malformed, MsrRequest, MsrResponse, Reply};

/// The port with which a guest powers off: the way out is always open.
const WAY_OUT: u16 = 0x604;
/// Offsets in the page: where junk can go behind what an event returns.
const BUFFER: core::ops::Range<u64> = 0x800..0xff0;
/// How much junk.
const JUNK: u64 = 64;

impl<M: HostMemory> Snp<'_, '_, M> {
    /// The lie that is being told, if it is this one.
    pub(super) fn lies(&self, fault: Fault) -> Option<Fired> {
        self.lie.filter(|fired| fired.fault == fault)
    }

    /// Asks the schedule whether a lie comes with this call.
    pub(super) fn tempt(&mut self, call: Call, board: &Board) -> Option<Fired> {
        (self.lie, self.effect) = (None, None);
        if self.liar.lock().is_honest() {
            self.event = self.liar.lock().next(Occasions::empty()).0;
            return None;
        }
        let occasions = occasions(call) | self.occasions(board);
        let mut liar = self.liar.lock();
        let (event, fired) = liar.next(occasions);
        let owed = || {
            let list = occasions.contains(Occasions::PAGE_STATE_LIST);
            let owed = if list { liar.owed.take() } else { None };
            owed.map(|fired| Fired { event, ..fired })
        };
        (self.event, self.lie) = (event, fired.or_else(owed));
        self.lie
    }

    /// What there is to lie about beside the call.
    fn occasions(&self, board: &Board) -> Occasions {
        let restricted = self.is_restricted();
        let owned = self.shared.state.lock();
        let seat = owned.seats.get(self.cpu);
        let resident = self.level().and_then(|level| seat?.resident(level));
        let door = restricted && resident.is_some_and(|resident| resident.bell.is_some());
        let mut occasions = Occasions::empty();
        occasions.set(
            Occasions::PRIVATE_PAGE,
            self.victim(0, &owned, true).is_some(),
        );
        occasions.set(Occasions::INTERRUPTIBLE, !restricted);
        occasions.set(Occasions::DOORBELL, door);
        occasions.set(Occasions::OTHERS, liar::has_others(board, self.cpu));
        occasions
    }

    /// What is done before the call is answered.
    pub(super) fn before_answer(&mut self, board: &Board, hardware: &mut impl Hardware) {
        let Some(fired) = self.lie else { return };
        self.effect = match fired.fault {
            Fault::DelayedExit => Some(liar::delay(fired.choice)),
            Fault::ReorderedExits => Some(liar::let_others_pass(board, self.cpu)),
            Fault::Remap | Fault::Replay | Fault::Smash => Some(self.swap(&fired, board, hardware)),
            Fault::Reset | Fault::SpuriousReturn => Some(Effect::Done),
            _ => None,
        };
    }

    /// What is done after it.
    pub(super) fn after_answer(
        &mut self,
        vcpu: &mut Vcpu<'_>,
        board: &Board,
        hardware: &mut impl Hardware,
    ) {
        let Some(fired) = self.lie.filter(|_| self.effect.is_none()) else {
            return;
        };
        let effect = match fired.fault {
            Fault::StrayInterrupt | Fault::ForbiddenVector if self.is_restricted() => {
                Effect::Nothing("the level that runs now takes no vectors")
            }
            Fault::StrayInterrupt | Fault::ForbiddenVector => liar::stray_interrupt(&fired, vcpu),
            Fault::StrayNmi => liar::stray_nmi(board, self.cpu, hardware),
            Fault::StrayVc => self.stray_exception(&fired, vcpu),
            Fault::StrayDoorbell | Fault::DoorbellJunk => self.stray_ring(&fired, vcpu),
            Fault::LostInterrupt => self.lose_interrupt(vcpu),
            _ => Effect::Done,
        };
        self.effect = Some(effect);
    }

    /// Says in the reports which lie was told, and to whom.
    pub(super) fn confess(&self, to: Loaded, rip: u64, hardware: &mut impl Hardware) {
        let Some(fired) = &self.lie else { return };
        let lie = report::Lie {
            fired,
            cpu: self.cpu,
            level: Some(to.level.as_u8()),
            rip,
            effect: self.effect.unwrap_or(Effect::Done),
        };
        hardware.report(&lie);
    }

    /// #VC with a code that no instruction here explains.
    fn stray_exception(&mut self, fired: &Fired, vcpu: &mut Vcpu<'_>) -> Effect {
        const VC: u8 = 29;
        const CODES: [u32; 8] = [0x72, 0x7b, 0x7c, 0x81, 0x400, 0x404, 0x403, 0xffff_ffff];
        if self.is_restricted() {
            return Effect::Nothing("under restricted injection hardware refuses it");
        }
        let code = fired.pick(0, &CODES).copied().unwrap_or_default();
        let bit = self.shared.encryption.bit();
        let mut guest = Guest::new(&self.shared.map, &mut self.memory);
        match deliver::exception(&mut vcpu.vmcb.save, VC, Some(code), bit, &mut guest) {
            Ok(()) => {
                vcpu.vmcb.control.int_state = 0;
                Effect::Exception(VC, code)
            }
            Err(_) => Effect::Nothing("the guest has no handler for it"),
        }
    }

    /// #HV for nothing, or for junk.
    fn stray_ring(&mut self, fired: &Fired, vcpu: &mut Vcpu<'_>) -> Effect {
        const HV: u8 = 28;
        let owned = self.shared.state.lock();
        let seat = owned.seats.get(self.cpu);
        let resident = self.level().and_then(|level| seat?.resident(level));
        let bell = resident.and_then(|resident| resident.bell);
        drop(owned);
        let Some(bell) = bell.filter(|_| self.is_restricted()) else {
            return Effect::Nothing("the level that runs now has no doorbell");
        };
        if vcpu.vmcb.control.event != 0 {
            return Effect::Nothing("another event is about to be injected");
        }
        if fired.fault == Fault::DoorbellJunk {
            let [vector, flags, ..] = fired.word(0).to_le_bytes();
            // The flag that says that the host rang already stays as it is.
            if !self.put(bell, &[vector]) || !self.put(bell.wrapping_add(1), &[flags | 0x80]) {
                return Effect::Nothing("the doorbell is not shared");
            }
        }
        vcpu.inject(Injected::Exception(HV));
        Effect::Done
    }

    /// The next interrupt of the machine does not arrive.
    fn lose_interrupt(&mut self, vcpu: &mut Vcpu<'_>) -> Effect {
        if self.is_restricted() {
            return Effect::Nothing("the level that runs now takes no vectors");
        }
        if let Some(vector) = vcpu.pending_interrupt() {
            vcpu.vmcb.control.int_ctl &= !(1 << 8);
            return Effect::Vector(vector);
        }
        self.loses = true;
        super::injection::catch(vcpu);
        Effect::Done
    }

    /// A malformation that is none.
    pub(super) fn refusal(&self) -> Reply {
        const ALL: [Malformed; 6] = [
            Malformed::NotRegistered,
            Malformed::Usage,
            Malformed::Scratch,
            Malformed::MissingInput,
            Malformed::InvalidInput,
            Malformed::Event,
        ];
        let why = self.lie.as_ref().and_then(|fired| fired.pick(0, &ALL));
        Reply::malformed(why.copied().unwrap_or(Malformed::Event))
    }

    /// An answer in the register, or the answer to something else.
    pub(super) fn twist_response(&self, honest: MsrResponse) -> MsrResponse {
        let Some(fired) = self.lies(Fault::WrongMsrResponse) else {
            return honest;
        };
        let others = [
            MsrResponse::PageState(0),
            MsrResponse::Features(Features::all()),
            MsrResponse::RunVmpl(0),
            MsrResponse::PreferredPage(None),
            MsrResponse::UnregisterPage,
        ];
        let kind = |response: MsrResponse| response.encode() & 0xfff;
        let first = fired.pick(0, &others).into_iter();
        let mut all = first.chain(&others).copied();
        all.find(|other| kind(*other) != kind(honest))
            .unwrap_or(honest)
    }

    /// An answer in the page, as the lie wants it.
    pub(super) fn twist_reply(
        &mut self,
        gpa: u64,
        event: core::result::Result<Event, Malformed>,
        honest: Reply,
    ) -> Reply {
        let Some(fired) = self.lie else { return honest };
        match fired.fault {
            Fault::JunkOutput => {
                let or_junk = |value: Option<u64>, number| value.or(Some(fired.word(number)));
                Reply {
                    rax: or_junk(honest.rax, 0),
                    rbx: or_junk(honest.rbx, 1),
                    rcx: or_junk(honest.rcx, 2),
                    rdx: or_junk(honest.rdx, 3),
                    ..honest
                }
            }
            Fault::JunkBuffer => {
                let start = BUFFER.start.max(returned(event));
                let end = BUFFER.end.min(start.saturating_add(JUNK));
                for at in (start..end).step_by(8) {
                    let word = fired.word(at).to_le_bytes();
                    self.put(gpa.wrapping_add(at), &word);
                }
                if start >= end {
                    self.effect = Some(Effect::Nothing("the buffer is full"));
                }
                honest
            }
            // 0 is success, 1 an exception, 2 a malformed request.
            Fault::WrongExitInfo => Reply {
                info1: 3 + fired.below(0, 0xffff_fff0),
                info2: fired.word(1),
                ..honest
            },
            Fault::WrongException => Reply {
                info1: 1,
                info2: forbidden_exception(&fired),
                ..honest
            },
            Fault::MissingOutput => {
                // The values are there, and then the bitmap says that they are not.
                self.reply(gpa, honest);
                Reply {
                    rax: None,
                    rbx: None,
                    rcx: None,
                    rdx: None,
                    ..honest
                }
            }
            _ => honest,
        }
    }
}

/// An event that no host may have a guest raise for it: anything but #GP and #UD (56421, "SW_EXITINFO2").
fn forbidden_exception(fired: &Fired) -> u64 {
    const VALID: u64 = 1 << 31;
    const WITH_CODE: u64 = 1 << 11;
    const EXCEPTION: u64 = 3 << 8;
    match fired.below(0, 5) {
        0 => VALID | WITH_CODE | EXCEPTION | 14 | fired.word(1) << 32,
        1 => VALID | WITH_CODE | EXCEPTION | 8,
        2 => VALID | EXCEPTION | 18,
        // An interrupt, and an event that is not valid.
        3 => VALID | 0x80,
        _ => EXCEPTION | 13,
    }
}

/// Where in the page behind what an event returns junk can go.
fn returned(event: core::result::Result<Event, Malformed>) -> u64 {
    match event {
        // The longest list fills the buffer; junk behind a shorter one would be entries that nobody asked for.
        Ok(Event::PageState { .. }) => BUFFER.end,
        Ok(Event::ReadMmio { buffer, size, .. }) => buffer + u64::from(size),
        Ok(Event::Io(io)) => io.string.map_or(0, |(count, buffer)| {
            buffer.saturating_add(count.saturating_mul(io.size.into()))
        }),
        _ => 0,
    }
    .next_multiple_of(8)
}

/// What a call gives the opportunity to.
fn occasions(call: Call) -> Occasions {
    use Occasions as O;
    match call {
        Call::Register(request) => match request {
            MsrRequest::RunVmpl(_) => O::RUN_VMPL,
            MsrRequest::Terminate(_) | MsrRequest::Unknown(_) => O::empty(),
            MsrRequest::Cpuid { .. } => O::MSR_PROTOCOL | O::CPUID,
            MsrRequest::PageState(_) => O::MSR_PROTOCOL | O::PAGE_STATE,
            MsrRequest::Features => O::MSR_PROTOCOL | O::FEATURES,
            _ => O::MSR_PROTOCOL,
        },
        Call::Page { event, .. } => match event {
            Err(_) | Ok(Event::Terminate(_)) => O::empty(),
            Ok(Event::RunVmpl(_)) => O::RUN_VMPL,
            Ok(Event::Io(io)) if !io.input && io.port == WAY_OUT => O::empty(),
            Ok(Event::Io(io)) if io.input && io.string.is_none() => {
                O::REPLY | O::REGISTERS | O::DEVICE_READ
            }
            Ok(Event::Io(io)) if io.input => O::REPLY | O::DEVICE_READ,
            Ok(Event::ReadMmio { .. }) => O::REPLY | O::DEVICE_READ,
            Ok(Event::ReadMsr(_)) => O::REPLY | O::REGISTERS | O::DEVICE_READ,
            Ok(Event::Cpuid { .. }) => O::REPLY | O::REGISTERS | O::CPUID,
            Ok(Event::ApicIds { .. }) => O::REPLY | O::REGISTERS,
            Ok(Event::PageState { .. }) => O::REPLY | O::PAGE_STATE | O::PAGE_STATE_LIST,
            Ok(Event::GuestRequest { .. }) => O::REPLY | O::GUEST_REQUEST,
            Ok(Event::Features) => O::REPLY | O::FEATURES,
            Ok(Event::ApCreation { what, .. }) if what != ApCreation::Destroy => {
                O::REPLY | O::AP_CREATION
            }
            Ok(_) => O::REPLY,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_out_is_open() {
        for request in [
            MsrRequest::Unknown(0xabc),
            MsrRequest::Terminate(svsm_sim::ghcb::Termination { set: 0, reason: 0 }),
        ] {
            assert_eq!(occasions(Call::Register(request)), Occasions::empty());
        }
    }

    #[test]
    fn no_forbidden_exception_is_one_that_a_host_may_ask_for() {
        for choice in 0..200 {
            let fired = Fired {
                fault: Fault::WrongException,
                event: 0,
                choice,
            };
            let word = forbidden_exception(&fired);
            let valid = word >> 31 & 1 == 1 && word >> 8 & 7 == 3;
            assert!(!(valid && matches!(word & 0xff, 6 | 13)), "{word:#x}");
        }
    }

    #[test]
    fn junk_lies_behind_what_is_returned() {
        let read = Event::ReadMmio {
            gpa: 0,
            size: 4,
            buffer: 0x804,
        };
        assert_eq!(returned(Ok(read)), 0x808);
        assert_eq!(returned(Ok(Event::Features)), 0);
        assert_eq!(returned(Ok(Event::PageState { buffer: 0x800 })), 0xff0);
    }
}
