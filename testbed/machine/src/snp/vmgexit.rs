//! `VMGEXIT`: what the guest asks of its host, and what this host does.

mod cpus; // their creation, and messages between them
mod device; // ports, device memory and MSRs
mod page_state; // pages that change hands

use super::shared::{C_BIT, HostView};
use super::{About, Loaded, Snp, cpuid};
use crate::addr::Gpa;
use crate::board::{Board, Operation};
use crate::ending::{Ending, Internal};
use crate::personality::{Hardware, Next};
use crate::phys::HostMemory;
use crate::report;
use crate::vcpu::Vcpu;
use core::fmt;
use svsm_sim::fault::Fault;
use svsm_sim::ghcb::{
    Change, Event, Features, Malformed, MsrRequest, MsrResponse, Reply, Snapshot, Termination,
    VERSIONS, Written,
};
use svsm_sim::rmp::Vmpl;

/// What this host can do.
const FEATURES: Features = Features::SNP
    .union(Features::AP_CREATION)
    .union(Features::RESTRICTED_INJECTION)
    .union(Features::APIC_ID_LIST)
    .union(Features::MULTI_VMPL)
    .union(Features::UNREGISTER);

/// What the GHCB register of a new virtual CPU says.
#[must_use]
pub const fn first_ghcb() -> u64 {
    MsrResponse::SevInformation {
        lowest: *VERSIONS.start(),
        highest: *VERSIONS.end(),
        c_bit: C_BIT,
    }
    .encode()
}

impl<M: HostMemory> Snp<'_, '_, M> {
    /// Does what the guest asks for, or lies about it.
    pub(super) fn vmgexit(
        &mut self,
        vcpu: &mut Vcpu<'_>,
        board: &Board,
        hardware: &mut (impl Hardware + Clone),
    ) -> Next {
        let Some(loaded) = self.loaded else {
            return Next::End(Ending::Internal(Internal::Exit(0x403)));
        };
        let mut page = None;
        let call = match Written::decode(loaded.ghcb) {
            Written::Request(request) => Call::Register(request),
            Written::Page(gpa) => {
                let Some((copy, registered)) = self.copy(gpa, loaded) else {
                    return Next::End(Ending::BadAccess { gpa, code: 0 });
                };
                let event = if registered {
                    Event::decode(&copy, gpa)
                } else {
                    Err(Malformed::NotRegistered)
                };
                page = Some(copy);
                Call::Page { gpa, event }
            }
        };
        if let Some(why) = call.termination() {
            return Next::End(Ending::Terminated {
                set: why.set,
                reason: why.reason,
            });
        }
        let lie = self.tempt(call, board);
        self.about = About::Call(self.event, call, [0; 2]);
        if let Some(slot) = board.slot(self.cpu) {
            slot.counters.count(Operation::Call, 1);
        }
        let rip = vcpu.vmcb.save.rip;
        self.before_answer(board, hardware);
        let next = match (call, page, lie.map(|fired| fired.fault)) {
            (_, _, Some(Fault::Reset)) => Next::End(Ending::Button),
            // As the guest left it.
            (_, _, Some(Fault::SpuriousReturn)) | (Call::Page { .. }, None, _) => Next::Resume,
            (Call::Register(request), ..) => self.msr_request(request, vcpu, board, hardware),
            (Call::Page { gpa, event }, Some(page), _) => {
                self.page_request(gpa, &page, event, vcpu, board, hardware)
            }
        };
        self.after_answer(vcpu, board, hardware);
        self.confess(loaded, rip, hardware);
        next
    }

    fn msr_request(
        &mut self,
        request: MsrRequest,
        vcpu: &mut Vcpu<'_>,
        board: &Board,
        hardware: &mut (impl Hardware + Clone),
    ) -> Next {
        let response = match request {
            MsrRequest::SevInformation => MsrResponse::SevInformation {
                lowest: *VERSIONS.start(),
                highest: *VERSIONS.end(),
                c_bit: C_BIT,
            },
            MsrRequest::Cpuid { leaf, register } => {
                let values = self.cpuid(leaf, 0, board, hardware);
                let value = values.get(register as usize).copied().unwrap_or_default();
                MsrResponse::Cpuid { value, register }
            }
            // Start-up messages start nothing here: virtual CPUs are created.
            MsrRequest::ApResetHold => MsrResponse::ApResetHold(false),
            MsrRequest::PreferredPage => MsrResponse::PreferredPage(None),
            MsrRequest::RegisterPage(gpa) => {
                let registered = self.register(Some(gpa)).then_some(gpa);
                MsrResponse::RegisterPage(registered)
            }
            MsrRequest::UnregisterPage => {
                self.register(None);
                MsrResponse::UnregisterPage
            }
            MsrRequest::PageState(change) => {
                let change = Change {
                    gpa: change.gpa,
                    operation: change.operation,
                    large: false,
                    done: 0,
                };
                let done = self.change_one(change, board, hardware);
                MsrResponse::PageState(u32::from(!done))
            }
            MsrRequest::RunVmpl(level) => {
                // What is read here when this level runs again.
                self.respond_raw(MsrResponse::RunVmpl(0).encode());
                let stays = self.lies(Fault::RunVmplElsewhere).is_some();
                let to = Vmpl::new(level).filter(|_| !stays);
                return if stays || to.is_some_and(|to| self.switch(to, vcpu, board, hardware)) {
                    Next::Resume
                } else {
                    self.respond_raw(MsrResponse::RunVmpl(1).encode())
                };
            }
            MsrRequest::Features => MsrResponse::Features(self.features()),
            // The guest sees that nothing changed.
            MsrRequest::Terminate(_) => return Next::Resume,
            MsrRequest::Unknown(value) => return self.storm_request(value, vcpu),
        };
        let response = self.twist_response(response);
        self.respond_raw(response.encode())
    }

    /// Answers in the register.
    pub(super) const fn respond_raw(&mut self, value: u64) -> Next {
        if let About::Call(_, _, answer) = &mut self.about {
            *answer = [value, 0];
        }
        if let Some(loaded) = &mut self.loaded {
            loaded.ghcb = value;
        }
        Next::Resume
    }

    /// Registers the page of the virtual CPU that is loaded, or forgets it. Says whether it is memory.
    fn register(&self, gpa: Option<u64>) -> bool {
        let known = gpa.is_none_or(|gpa| {
            Gpa::new(gpa).is_some_and(|gpa| self.shared.map.resolve(gpa).is_some())
        });
        let mut owned = self.shared.state.lock();
        let resident = self.loaded.and_then(|loaded| {
            let seat = owned.seats.get_mut(self.cpu)?;
            seat.resident_mut(loaded.level)
        });
        match resident {
            Some(resident) if known => {
                resident.registered = gpa;
                true
            }
            _ => false,
        }
    }

    fn cpuid(
        &self,
        leaf: u32,
        subleaf: u32,
        board: &Board,
        hardware: &mut (impl Hardware + Clone),
    ) -> [u32; 4] {
        let mut values = cpuid::answer(leaf, subleaf, C_BIT, hardware);
        let id = board.slot(self.cpu).map_or(0, |slot| slot.apic_id());
        // What QEMU says of its own CPUs' topology need not name the CPU that asks.
        match leaf {
            1 => values[1] = values[1] & 0xff_ffff | id << 24,
            0xb | 0x1f => values[3] = id,
            0x8000_001e => values[0] = id,
            _ => {}
        }
        if let Some(fired) = self.lies(Fault::LyingCpuid) {
            for (number, value) in (0..).zip(values.iter_mut()) {
                *value = (fired.word(number) & 0xffff_ffff) as u32;
            }
        }
        values
    }

    /// What this host says that it can do.
    fn features(&self) -> Features {
        match self.lies(Fault::LyingFeatures) {
            Some(_) => Features::from_bits_retain(FEATURES.bits() ^ Features::all().bits()),
            None => FEATURES,
        }
    }

    /// Runs another level's virtual CPU. Says whether there is one that hardware would run.
    fn switch(
        &mut self,
        to: Vmpl,
        vcpu: &mut Vcpu<'_>,
        board: &Board,
        hardware: &mut impl Hardware,
    ) -> bool {
        let shared = self.shared;
        let mut owned = shared.state.lock();
        let Some(from) = self.level() else {
            return false;
        };
        if !self.can_load(to, &owned) {
            return false;
        }
        if from == to {
            return true;
        }
        if let Some(slot) = board.slot(self.cpu) {
            slot.counters.count(Operation::Switch, 1);
        }
        self.unload(vcpu, &mut owned, hardware);
        self.load(to, vcpu, &mut owned, hardware)
    }

    fn page_request(
        &mut self,
        gpa: u64,
        page: &Snapshot,
        event: Result<Event, Malformed>,
        vcpu: &mut Vcpu<'_>,
        board: &Board,
        hardware: &mut (impl Hardware + Clone),
    ) -> Next {
        let reply = match event {
            Err(why) => Reply::malformed(why),
            Ok(_) if self.lies(Fault::RefusedExit).is_some() => self.refusal(),
            Ok(Event::RunVmpl(level)) => {
                // The answer is there when this level runs again.
                if !self.reply(gpa, Reply::DONE) {
                    return Next::End(Ending::BadAccess { gpa, code: 0 });
                }
                let stays = self.lies(Fault::RunVmplElsewhere).is_some();
                let to = Vmpl::new(level).filter(|_| !stays);
                if stays || to.is_some_and(|to| self.switch(to, vcpu, board, hardware)) {
                    return Next::Resume;
                }
                Reply::malformed(Malformed::InvalidInput)
            }
            Ok(Event::Io(io)) => match self.port(&io, gpa, page, hardware) {
                Ok(reply) => reply,
                Err(ending) => return Next::End(ending),
            },
            Ok(event) => self.event(event, gpa, page, board, hardware),
        };
        let reply = self.twist_reply(gpa, event, reply);
        if self.reply(gpa, reply) {
            Next::Resume
        } else {
            Next::End(Ending::BadAccess { gpa, code: 0 })
        }
    }

    /// A copy of the guest's page, and whether it is the registered one; `None` if the host cannot read it.
    fn copy(&mut self, gpa: u64, loaded: Loaded) -> Option<(Snapshot, bool)> {
        let owned = self.shared.state.lock();
        let registered = owned
            .seats
            .get(self.cpu)
            .and_then(|seat| seat.resident(loaded.level))
            .is_some_and(|resident| resident.registered == Some(gpa));
        let view = HostView {
            map: &self.shared.map,
            rmp: &owned.rmp,
            memory: &mut self.memory,
        };
        let mut bytes = [0; 4096];
        view.read(gpa, &mut bytes)
            .then(|| (Snapshot::new(bytes), registered))
    }

    /// Writes an answer into the page. Says whether all of it is shared memory.
    pub(super) fn reply(&mut self, gpa: u64, reply: Reply) -> bool {
        if let About::Call(_, _, answer) = &mut self.about {
            *answer = [reply.info1, reply.info2];
        }
        let mut all = true;
        reply.write(|offset, bytes| all &= self.put(gpa.wrapping_add(offset as u64), bytes));
        all
    }

    /// Reads shared memory. Says whether all of it was there.
    pub(super) fn get(&mut self, gpa: u64, into: &mut [u8]) -> bool {
        let owned = self.shared.state.lock();
        let view = HostView {
            map: &self.shared.map,
            rmp: &owned.rmp,
            memory: &mut self.memory,
        };
        view.read(gpa, into)
    }

    /// Writes to shared memory.
    pub(super) fn put(&mut self, gpa: u64, bytes: &[u8]) -> bool {
        let owned = self.shared.state.lock();
        let mut view = HostView {
            map: &self.shared.map,
            rmp: &owned.rmp,
            memory: &mut self.memory,
        };
        view.write(gpa, bytes)
    }

    fn event(
        &mut self,
        event: Event,
        gpa: u64,
        page: &Snapshot,
        board: &Board,
        hardware: &mut (impl Hardware + Clone),
    ) -> Reply {
        match event {
            Event::Cpuid { leaf, subleaf, .. } => {
                let [rax, rbx, rcx, rdx] = self
                    .cpuid(leaf, subleaf, board, hardware)
                    .map(|value| Some(u64::from(value)));
                Reply {
                    rax,
                    rbx,
                    rcx,
                    rdx,
                    ..Reply::DONE
                }
            }
            Event::ReadMsr(msr) => {
                match device::read_msr(msr, hardware).map(|value| self.untrue(value)) {
                    Some(value) => Reply {
                        rax: Some(value & 0xffff_ffff),
                        rdx: Some(value >> 32),
                        ..Reply::DONE
                    },
                    None => Reply::general_protection(),
                }
            }
            Event::WriteMsr(msr, value) => {
                if self.write_msr_for_guest(msr, value, board, hardware) {
                    Reply::DONE
                } else {
                    Reply::general_protection()
                }
            }
            Event::ReadMmio {
                gpa: at,
                size,
                buffer,
            } => {
                let value = self.read_device(at, size, hardware);
                let value = self.untrue(value).to_le_bytes();
                let bytes = value.get(..usize::from(size)).unwrap_or_default();
                if self.put(gpa.wrapping_add(buffer), bytes) {
                    Reply::DONE
                } else {
                    Reply::malformed(Malformed::Scratch)
                }
            }
            Event::WriteMmio {
                gpa: at,
                size,
                value,
            } => {
                self.write_device(at, size, value, board, hardware);
                Reply::DONE
            }
            Event::PageState { buffer } => self.change_list(gpa, buffer, page, board, hardware),
            Event::ApCreation {
                what,
                vmpl,
                apic_id,
                features,
            } => self.create(what, vmpl, apic_id, features, board, hardware),
            Event::Ipi(command) => {
                self.send(command, board, hardware);
                Reply::DONE
            }
            Event::ApicIds { buffer, pages } => self.apic_ids(buffer, pages, board),
            Event::Features => Reply::with_info2(self.features().bits()),
            Event::GuestRequest {
                request,
                response,
                data,
            } => {
                if let Some(slot) = board.slot(self.cpu) {
                    slot.counters.count(Operation::GuestRequest, 1);
                }
                self.request(request, response, data, hardware)
            }
            Event::Doorbell(what) => self.doorbell(what),
            Event::ApJumpTable(_) => Reply::DONE,
            // A VMMCALL is a hypercall of a hypervisor that has none: "no such call".
            Event::Vmmcall(..) => Reply {
                rax: Some(NO_SUCH_CALL),
                ..Reply::DONE
            },
            Event::Rdpmc(_) => Reply::general_protection(),
            // The guest knows what it wrote; the rest has no effect here.
            Event::ReadDr7
            | Event::WriteDr7(_)
            | Event::Invd
            | Event::Wbinvd
            | Event::Monitor
            | Event::Mwait
            | Event::NmiComplete
            | Event::ApResetHold
            | Event::Unsupported(..) => Reply::DONE,
            // The counter is not intercepted, and the others are answered elsewhere.
            Event::Rdtsc
            | Event::Rdtscp
            | Event::Io(_)
            | Event::RunVmpl(_)
            | Event::Terminate(_) => Reply::malformed(Malformed::Event),
        }
    }
}

/// The answer of a hypervisor to a call that it does not know: `-KVM_ENOSYS`.
const NO_SUCH_CALL: u64 = 0xffff_ffff_ffff_fc18;

/// What the guest asks for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Call {
    /// In the register.
    Register(MsrRequest),
    /// In the page.
    Page {
        /// The page's address.
        gpa: u64,
        /// What it says.
        event: Result<Event, Malformed>,
    },
}

impl Call {
    /// The call as a member of a JSON object, with a comma before it.
    pub(super) fn describe(
        self,
        number: u64,
        answer: [u64; 2],
        f: &mut fmt::Formatter<'_>,
    ) -> fmt::Result {
        let [first, second] = answer;
        write!(f, r#","call":{{"number":{number},"#)?;
        match self {
            Self::Register(request) => {
                write!(f, r#""via":"register","name":"{}","what":"#, request.name())?;
                report::quoted(f, &request)?;
                write!(f, r#","answer":"{first:#x}"}}"#)
            }
            Self::Page { gpa, event } => {
                write!(f, r#""via":"page","page":"{gpa:#x}","#)?;
                match event {
                    Ok(event) => {
                        write!(f, r#""name":"{}","what":"#, event.name())?;
                        report::quoted(f, &event)?;
                    }
                    Err(why) => {
                        f.write_str(r#""name":"malformed","what":"#)?;
                        report::quoted(f, &why)?;
                    }
                }
                write!(f, r#","info1":"{first:#x}","info2":"{second:#x}"}}"#)
            }
        }
    }

    /// Why the guest wants to be ended, if it does.
    const fn termination(self) -> Option<Termination> {
        match self {
            Self::Register(MsrRequest::Terminate(why))
            | Self::Page {
                event: Ok(Event::Terminate(why)),
                ..
            } => Some(why),
            _ => None,
        }
    }
}
