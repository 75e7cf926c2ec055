//! `VMGEXIT`: what the guest asks of its host, and what this host does.

use super::injection::END_OF_INTERRUPT;
use super::shared::{ASID, C_BIT, HostView, Ownership, Resident};
use super::{Loaded, Snp, cpuid, vmsa};
use crate::addr::{Gpa, Hpa, PAGE};
use crate::board::{Board, Mail};
use crate::devices;
use crate::ending::{Ending, Internal};
use crate::exit::Io;
use crate::icr::{self, Message};
use crate::personality::{Hardware, Next};
use crate::phys::HostMemory;
use crate::vcpu::Vcpu;
use svsm_sim::ghcb::{
    ApCreation, Change, EntryError, Event, Features, IoAccess, List, Malformed, MsrRequest,
    MsrResponse, Operation, Reply, Snapshot, VERSIONS, Written,
};
use svsm_sim::rmp::{NewState, PageSize, State, Vmpl};

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

const APIC_BASE: u32 = 0x1b;
const TSC: u32 = 0x10;
const MTRR_CAPABILITIES: u32 = 0xfe;
const MTRR_DEFAULT: u32 = 0x2ff;
/// Registers that every processor of AMD has, and in which nothing is on here: platform id, patch level, machine check
/// (capabilities, status), debug control, SYSCFG, HWCR, northbridge, pending interrupts, workarounds.
const READ_AS_ZERO: [u32; 12] = [
    0x17,
    0x8b,
    0x179,
    0x17a,
    0x1d9,
    0xc001_0010,
    0xc001_0015,
    0xc001_001f,
    0xc001_0055,
    0xc001_0140,
    0xc001_0141,
    0xc001_1029,
];
const MISC_ENABLE: u32 = 0x1a0;
const X2APIC: core::ops::RangeInclusive<u32> = 0x800..=0x8ff;
const ICR: u8 = 0x30;

impl<'m, M: HostMemory> Snp<'_, 'm, M> {
    /// Does what the guest asks for.
    pub(super) fn vmgexit(
        &mut self,
        vcpu: &mut Vcpu<'_>,
        board: &Board,
        hardware: &mut (impl Hardware + Clone),
    ) -> Next {
        let Some(loaded) = self.loaded else {
            return Next::End(Ending::Internal(Internal::Exit(0x403)));
        };
        match Written::decode(loaded.ghcb) {
            Written::Page(gpa) => self.page_request(gpa, loaded, vcpu, board, hardware),
            Written::Request(request) => self.msr_request(request, vcpu, board, hardware),
        }
    }

    fn msr_request(
        &mut self,
        request: MsrRequest,
        vcpu: &mut Vcpu<'_>,
        board: &Board,
        hardware: &mut (impl Hardware + Clone),
    ) -> Next {
        let response = match request {
            MsrRequest::SevInformation => return self.respond_raw(first_ghcb()),
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
                let shared = self.shared;
                let mut owned = shared.state.lock();
                let change = Change {
                    gpa: change.gpa,
                    operation: change.operation,
                    large: false,
                    done: 0,
                };
                let done = self.change(change, &mut owned);
                if done == Some(true) {
                    self.leave_all(board, hardware);
                }
                MsrResponse::PageState(u32::from(done.is_none()))
            }
            MsrRequest::RunVmpl(level) => {
                // What is read here when this level runs again.
                self.respond_raw(MsrResponse::RunVmpl(0).encode());
                let switched = Vmpl::new(level).is_some_and(|to| self.switch(to, vcpu, hardware));
                return if switched {
                    Next::Resume
                } else {
                    self.respond_raw(MsrResponse::RunVmpl(1).encode())
                };
            }
            MsrRequest::Features => MsrResponse::Features(FEATURES),
            MsrRequest::Terminate(why) => {
                return Next::End(Ending::Terminated {
                    set: why.set,
                    reason: why.reason,
                });
            }
            // The guest sees that nothing changed.
            MsrRequest::Unknown(_) => return Next::Resume,
        };
        self.respond_raw(response.encode())
    }

    const fn respond_raw(&mut self, value: u64) -> Next {
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
        if leaf == 1 {
            values[1] = values[1] & 0xff_ffff | id << 24;
        }
        values
    }

    /// Runs another level's virtual CPU. Says whether there is one that hardware would run.
    fn switch(&mut self, to: Vmpl, vcpu: &mut Vcpu<'_>, hardware: &mut impl Hardware) -> bool {
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
        self.unload(vcpu, &mut owned, hardware);
        self.load(to, vcpu, &mut owned, hardware)
    }

    fn page_request(
        &mut self,
        gpa: u64,
        loaded: Loaded,
        vcpu: &mut Vcpu<'_>,
        board: &Board,
        hardware: &mut (impl Hardware + Clone),
    ) -> Next {
        let Some((page, registered)) = self.copy(gpa, loaded) else {
            return Next::End(Ending::BadAccess { gpa, code: 0 });
        };
        let event = if registered {
            Event::decode(&page, gpa)
        } else {
            Err(Malformed::NotRegistered)
        };
        let reply = match event {
            Err(why) => Reply::malformed(why),
            Ok(Event::RunVmpl(level)) => {
                let to = Vmpl::new(level);
                // The answer is there when this level runs again.
                if !self.reply(gpa, Reply::DONE) {
                    return Next::End(Ending::BadAccess { gpa, code: 0 });
                }
                if to.is_some_and(|to| self.switch(to, vcpu, hardware)) {
                    return Next::Resume;
                }
                Reply::malformed(Malformed::InvalidInput)
            }
            Ok(Event::Terminate(why)) => {
                return Next::End(Ending::Terminated {
                    set: why.set,
                    reason: why.reason,
                });
            }
            Ok(Event::Io(io)) => match self.port(&io, gpa, &page, hardware) {
                Ok(reply) => reply,
                Err(ending) => return Next::End(ending),
            },
            Ok(event) => self.event(event, gpa, &page, board, hardware),
        };
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

    fn reply(&mut self, gpa: u64, reply: Reply) -> bool {
        let mut all = true;
        reply.write(|offset, bytes| all &= self.put(gpa.wrapping_add(offset as u64), bytes));
        all
    }

    /// Writes to shared memory.
    fn put(&mut self, gpa: u64, bytes: &[u8]) -> bool {
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
            Event::ReadMsr(msr) => match read_msr(msr, hardware) {
                Some(value) => Reply {
                    rax: Some(value & 0xffff_ffff),
                    rdx: Some(value >> 32),
                    ..Reply::DONE
                },
                None => Reply::general_protection(),
            },
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
                let value = self.read_device(at, size, hardware).to_le_bytes();
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
            Event::Features => Reply::with_info2(FEATURES.bits()),
            Event::GuestRequest {
                request,
                response,
                data,
            } => self.request(request, response, data, hardware),
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

    fn port(
        &mut self,
        io: &IoAccess,
        gpa: u64,
        page: &Snapshot,
        hardware: &mut (impl Hardware + Clone),
    ) -> Result<Reply, Ending> {
        let access = Io {
            port: io.port,
            size: io.size,
            input: io.input,
            string: false,
            next_rip: 0,
        };
        let Some((count, buffer)) = io.string else {
            if io.input {
                let value = devices::input(&access, hardware);
                let mask = u32::MAX >> (32 - 8 * u32::from(io.size.clamp(1, 4)));
                return Ok(Reply {
                    rax: Some(u64::from(value & mask)),
                    ..Reply::DONE
                });
            }
            devices::output(&access, io.value, hardware)?;
            return Ok(Reply::DONE);
        };
        // Not more than the buffer holds: that was checked.
        for element in 0..count {
            let size = u64::from(io.size);
            let at = buffer + element * size;
            if io.input {
                let value = devices::input(&access, hardware).to_le_bytes();
                let bytes = value.get(..usize::from(io.size)).unwrap_or_default();
                if !self.put(gpa.wrapping_add(at), bytes) {
                    return Ok(Reply::malformed(Malformed::Scratch));
                }
            } else {
                let mut word = [0; 4];
                let bytes = page.buffer(at, size).unwrap_or_default();
                for (to, from) in word.iter_mut().zip(bytes) {
                    *to = *from;
                }
                devices::output(&access, u32::from_le_bytes(word), hardware)?;
            }
        }
        Ok(Reply::DONE)
    }

    fn write_msr_for_guest(
        &self,
        msr: u32,
        value: u64,
        board: &Board,
        hardware: &mut (impl Hardware + Clone),
    ) -> bool {
        match msr {
            // Already where it must be; leaving x2APIC mode is not offered.
            APIC_BASE => value == hardware.apic_base(),
            TSC | MTRR_DEFAULT | MISC_ENABLE => true,
            _ if READ_AS_ZERO.contains(&msr) => true,
            _ if X2APIC.contains(&msr) => match u8::try_from(msr - X2APIC.start()) {
                Ok(END_OF_INTERRUPT) if self.is_restricted() => {
                    self.end_of_interrupt();
                    value == 0
                }
                Ok(ICR) => {
                    self.send(value, board, hardware);
                    true
                }
                Ok(register) => hardware.apic_write(register, value),
                Err(_) => false,
            },
            _ => false,
        }
    }

    /// Carries an interrupt command out. INIT runs what was created for it; start-up messages start nothing.
    fn send(&self, value: u64, board: &Board, hardware: &mut impl Hardware) {
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

    /// Device memory: what lies between RAM and 4 GiB, and video memory.
    fn device(&self, gpa: u64, size: u8) -> Option<Hpa> {
        const FOUR_GIB: u64 = 1 << 32;
        let end = gpa.checked_add(u64::from(size))?;
        let low = gpa >= 0xa_0000 && end <= 0xc_0000;
        let high = gpa >= self.shared.low_end && end <= FOUR_GIB;
        let taken = |at: u64| Gpa::new(at).is_none_or(|at| self.shared.map.resolve(at).is_some());
        ((low || high) && !taken(gpa) && !taken(end - 1))
            .then(|| Hpa::new(gpa))
            .flatten()
    }

    fn read_device(&self, gpa: u64, size: u8, hardware: &mut impl Hardware) -> u64 {
        if let Some(register) = apic_register(gpa) {
            let value = hardware.apic_read(register).unwrap_or_default();
            // The window has the id in the highest byte, and half of the command.
            return match register {
                0x02 => value << 24,
                0x31 => hardware.apic_read(ICR).unwrap_or_default() >> 32 << 24,
                _ => value & 0xffff_ffff,
            };
        }
        self.device(gpa, size)
            .map_or(u64::MAX, |at| hardware.device_read(at, size))
    }

    fn write_device(
        &self,
        gpa: u64,
        size: u8,
        value: u64,
        board: &Board,
        hardware: &mut (impl Hardware + Clone),
    ) {
        match apic_register(gpa) {
            // CPUs are in x2APIC mode; commands need both halves at once, which the window does not give.
            Some(ICR) => self.send(value & 0xffff_ffff, board, hardware),
            Some(register) => {
                hardware.apic_write(register, value & 0xffff_ffff);
            }
            None => {
                if let Some(at) = self.device(gpa, size) {
                    hardware.device_write(at, size, value);
                }
            }
        }
    }

    fn change_list(
        &mut self,
        gpa: u64,
        buffer: u64,
        page: &Snapshot,
        board: &Board,
        hardware: &mut (impl Hardware + Clone),
    ) -> Reply {
        let word = |offset: u64| {
            let mut word = [0; 8];
            let bytes = page.buffer(buffer + offset, 8)?;
            word.copy_from_slice(bytes);
            Some(u64::from_le_bytes(word))
        };
        let Some(header) = word(0) else {
            return Reply::malformed(Malformed::Scratch);
        };
        let mut list = match List::decode(header) {
            Ok(list) => list,
            Err(error) => return Reply::with_info2(error.word()),
        };
        let (mut result, mut stale) = (0, false);
        while let Some((_, offset)) = list.next() {
            let Some(entry) = word(offset) else {
                result = EntryError::Invalid.word();
                break;
            };
            let change = match Change::decode(entry) {
                Ok(change) => change,
                Err(error) => {
                    result = error.word();
                    break;
                }
            };
            let shared = self.shared;
            let mut owned = shared.state.lock();
            let done = self.change(change, &mut owned);
            drop(owned);
            match done {
                Some(known) => stale |= known,
                None => {
                    result = EntryError::generic();
                    break;
                }
            }
            let finished = Change::finished(entry).to_le_bytes();
            self.put(gpa.wrapping_add(buffer + offset), &finished);
            list.advance();
        }
        self.put(gpa.wrapping_add(buffer), &list.header().to_le_bytes());
        if stale {
            self.leave_all(board, hardware);
        }
        Reply::with_info2(result)
    }

    /// Makes a page private or shared. `None`: it cannot be; otherwise whether other CPUs may know it as it was.
    fn change(&mut self, change: Change, owned: &mut Ownership<'m>) -> Option<bool> {
        let bytes = if change.large {
            PageSize::Size2M.bytes()
        } else {
            PAGE
        };
        let start = change.gpa.checked_add(u64::from(change.done) * PAGE)?;
        let end = change.gpa.checked_add(bytes)?;
        let mut stale = false;
        match change.operation {
            Operation::Private if change.large && change.done == 0 => {
                let home = self.home(change.gpa)?;
                let whole = home.is_aligned(bytes)
                    && (0..bytes).step_by(4096).all(|offset| {
                        let entry = owned.rmp.entry(home.as_u64() + offset);
                        self.home(change.gpa + offset).map(Hpa::as_u64)
                            == Some(home.as_u64() + offset)
                            && entry.is_some_and(|entry| entry.state() == State::Hypervisor)
                    });
                if whole {
                    return self.give(change.gpa, home, PageSize::Size2M, owned);
                }
                for gpa in (start..end).step_by(4096) {
                    stale |= self.give(gpa, self.home(gpa)?, PageSize::Size4K, owned)?;
                }
            }
            Operation::Private => {
                for gpa in (start..end).step_by(4096) {
                    stale |= self.give(gpa, self.home(gpa)?, PageSize::Size4K, owned)?;
                }
            }
            Operation::Shared => {
                for gpa in (start..end).step_by(4096) {
                    stale |= self.take(gpa, self.home(gpa)?, owned)?;
                }
            }
            Operation::Smash => stale = self.split(change.gpa, self.home(change.gpa)?, owned)?,
            // Whether pages are joined is for the host to say, and this one does not.
            Operation::Unsmash => {}
        }
        Some(stale)
    }

    fn home(&self, gpa: u64) -> Option<Hpa> {
        self.shared
            .map
            .resolve(Gpa::new(gpa)?)
            .map(|(home, _)| home)
    }

    /// A page for the guest to validate; one that it has already stays as it is.
    fn give(
        &mut self,
        gpa: u64,
        home: Hpa,
        size: PageSize,
        owned: &mut Ownership<'m>,
    ) -> Option<bool> {
        if owned.rmp.entry(home.as_u64())?.state() != State::Hypervisor {
            return Some(false);
        }
        let new = NewState::guest(ASID, gpa, size);
        owned.rmp.rmpupdate(home.as_u64(), new).ok()?;
        self.scramble(home, size.bytes())?;
        owned
            .forget(gpa, size, self.shared.encryption, &mut self.memory)
            .ok()
    }

    /// A page back from the guest.
    fn take(&mut self, gpa: u64, home: Hpa, owned: &mut Ownership<'m>) -> Option<bool> {
        let entry = owned.rmp.entry(home.as_u64())?;
        if entry.state() == State::Hypervisor {
            return Some(false);
        }
        let mut stale = false;
        if entry.size() == PageSize::Size2M {
            stale = self.split(gpa, home, owned)?;
        }
        owned
            .rmp
            .rmpupdate(home.as_u64(), NewState::HYPERVISOR)
            .ok()?;
        self.scramble(home, PAGE)?;
        let encryption = self.shared.encryption;
        let known = owned
            .forget(gpa, PageSize::Size4K, encryption, &mut self.memory)
            .ok()?;
        Some(stale | known)
    }

    fn split(&mut self, gpa: u64, home: Hpa, owned: &mut Ownership<'m>) -> Option<bool> {
        let large = !(PageSize::Size2M.bytes() - 1);
        if owned.rmp.entry(home.as_u64())?.size() != PageSize::Size2M {
            return Some(false);
        }
        owned.rmp.psmash(home.as_u64() & large).ok()?;
        let encryption = self.shared.encryption;
        owned
            .forget(gpa & large, PageSize::Size2M, encryption, &mut self.memory)
            .ok()
    }

    /// What was written under one key is noise under another.
    fn scramble(&mut self, home: Hpa, bytes: u64) -> Option<()> {
        let noise = [0xa7; 4096];
        for offset in (0..bytes).step_by(4096) {
            let at = Hpa::new(home.as_u64() + offset)?;
            self.memory.write(at, &noise).ok()?;
        }
        Some(())
    }

    /// AP creation: a virtual CPU for a level of some CPU.
    fn create(
        &mut self,
        what: ApCreation,
        level: u8,
        apic_id: u32,
        features: u64,
        board: &Board,
        hardware: &mut (impl Hardware + Clone),
    ) -> Reply {
        let refused = Reply::malformed(Malformed::InvalidInput);
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
                    seat.place(level, None);
                }
                drop(owned);
                slot.post(Mail::leave(), |id| hardware.send(icr::nmi_to(id)));
                return Reply::DONE;
            }
        };
        // An erratum of the hardware, against which hosts protect themselves.
        let erratum = gpa.is_multiple_of(PageSize::Size2M.bytes());
        let area = super::shared::read_area(&self.shared.map, gpa, &self.memory);
        let fits = area.is_ok_and(|area| vmsa::features(&area) == features);
        if erratum || !fits {
            return refused;
        }
        let Some(seat) = owned.seats.get_mut(index) else {
            return refused;
        };
        seat.place(level, Some(Resident::new(gpa, first_ghcb())));
        if index != self.cpu || !now {
            seat.next = Some(level);
        }
        drop(owned);
        if now && index != self.cpu {
            slot.post(Mail::created(), |id| hardware.send(icr::nmi_to(id)));
        }
        Reply::DONE
    }

    fn apic_ids(&mut self, buffer: u64, pages: u64, board: &Board) -> Reply {
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

/// The answer of a hypervisor to a call that it does not know: `-KVM_ENOSYS`.
const NO_SUCH_CALL: u64 = 0xffff_ffff_ffff_fc18;

/// The APIC's register at an address of its window.
fn apic_register(gpa: u64) -> Option<u8> {
    const WINDOW: u64 = 0xfee0_0000;
    let offset = gpa.checked_sub(WINDOW).filter(|offset| *offset < 0x400)?;
    u8::try_from(offset >> 4).ok()
}

fn read_msr(msr: u32, hardware: &mut impl Hardware) -> Option<u64> {
    Some(match msr {
        APIC_BASE => hardware.apic_base(),
        // No variable ranges; all memory is write-back.
        MTRR_CAPABILITIES => 0,
        _ if READ_AS_ZERO.contains(&msr) => 0,
        MTRR_DEFAULT => 1 << 11 | 6,
        MISC_ENABLE => 1,
        _ if X2APIC.contains(&msr) => {
            let register = u8::try_from(msr - X2APIC.start()).ok()?;
            return hardware.apic_read(register);
        }
        _ => return None,
    })
}
