//! The personality of AMD SEV-SNP.
//!
//! The guest's memory is its own page by page, as the reverse map table says; its virtual CPUs have save areas in that
//! memory and levels of privilege; what hardware would make an exit that the guest must help with is a #VC. The rules
//! are `svsm-sim`'s; this module brings them to the CPU.

pub mod cpuid; // what CPUID says
pub mod fault; // accesses that the nested tables do not allow
mod injection; // interrupts under restricted injection
mod instruction; // what L0 carries out for the CPU
pub mod launch; // before the first instruction
mod lie; // what becomes of an answer
pub mod nested; // those tables
pub mod ownership; // the instructions on the reverse map table
pub mod pages; // their state, for the reports
mod request; // messages to the security processor
pub mod shared; // what the CPUs share
mod storm; // exceptions at every instruction
pub mod vmgexit; // what the guest asks of the host
pub mod vmsa; // save areas
mod walk; // names that only walks may use

use self::fault::{Answer, Attempt};
use self::instruction::CR0_PG;
use self::nested::Mode;
use self::ownership::Operands;
use self::shared::{ASID, Ownership, Shared, read_area, write_area};
use self::storm::Storm;
use self::walk::Walk;
use crate::addr::{Address, Gpa};
use crate::board::{Board, Mail};
use crate::deliver;
use crate::ending::{Ending, Internal};
use crate::exit::Exit;
use crate::icr;
use crate::liar::{Effect, Liar};
use crate::lock::Lock;
use crate::memory::Guest;
use crate::opcode::{self, Instruction};
use crate::permission::{IoPermissions, MsrPermissions};
use crate::personality::{Hardware, Next, Personality};
use crate::phys::HostMemory;
use crate::vcpu::{SVME, Vcpu};
use crate::vmcb::{Event, Intercept1, Intercept2, Vmcb};
use core::fmt;
use svsm_sim::fault::Fired;
use svsm_sim::rmp::{Caller, State, Vmpl};
use svsm_sim::vmsa::SevFeatures;

pub use vmgexit::first_ghcb;

/// The MSRs that a save area holds, and the time-stamp counter's auxiliary word.
const OWN_MSRS: [u32; 12] = [
    0x174,
    0x175,
    0x176,
    0x277,
    0xc000_0081,
    0xc000_0082,
    0xc000_0083,
    0xc000_0084,
    0xc000_0100,
    0xc000_0101,
    0xc000_0102,
    0xc000_0103,
];

/// How often one CPU looks whether another has left its guest, before it gives up.
const PATIENCE: u32 = 1_000_000;

/// One CPU of the personality.
#[derive(Debug)]
pub struct Snp<'s, 'm, M> {
    shared: &'s Shared<'m>,
    memory: M,
    cpu: usize,
    /// What is loaded.
    loaded: Option<Loaded>,
    /// Which lies are to be told.
    liar: &'s Lock<Liar>,
    /// The number of the last event.
    event: u64,
    /// The lie that is being told.
    lie: Option<Fired>,
    /// What came of it.
    effect: Option<Effect>,
    /// The next interrupt is not delivered.
    loses: bool,
    /// The save area of what is loaded is in use: the virtual CPU runs, as far as hardware would know.
    in_use: bool,
    /// The exceptions that the guest asked for at every instruction.
    storm: Option<Storm>,
    /// What the last exit was about.
    about: About,
    /// Names that the nested tables have until the next exit that is not of a walk.
    walk: Walk,
}

/// What an exit was about, for who looks on.
#[derive(Clone, Copy, Debug)]
enum About {
    /// The exit says it all.
    Nothing,
    /// A request to the host, its number, and the two words of the answer, or the one in the register.
    Call(u64, vmgexit::Call, [u64; 2]),
    /// An instruction, its operands and what it returned.
    Instruction(Instruction, Operands, u64),
}

/// The virtual CPU that is loaded.
#[derive(Clone, Copy, Debug)]
struct Loaded {
    level: Vmpl,
    /// Its save area.
    gpa: u64,
    /// Where that is in the machine's memory.
    home: u64,
    facts: vmsa::Facts,
    ghcb: u64,
}

impl<'s, 'm, M: HostMemory> Snp<'s, 'm, M> {
    /// A CPU that has nothing loaded.
    pub const fn new(shared: &'s Shared<'m>, liar: &'s Lock<Liar>, memory: M, cpu: usize) -> Self {
        Self {
            shared,
            memory,
            cpu,
            loaded: None,
            liar,
            event: 0,
            lie: None,
            effect: None,
            loses: false,
            in_use: false,
            storm: None,
            about: About::Nothing,
            walk: Walk::new(),
        }
    }

    /// The level that is loaded.
    #[must_use]
    pub fn level(&self) -> Option<Vmpl> {
        self.loaded.map(|loaded| loaded.level)
    }

    /// Whether hardware would run the virtual CPU of a level.
    fn can_load(&self, level: Vmpl, owned: &Ownership<'m>) -> bool {
        let resident = owned
            .seats
            .get(self.cpu)
            .and_then(|seat| seat.resident(level));
        let Some(gpa) = resident.map(|resident| resident.gpa) else {
            return false;
        };
        // Only a page that software made a save area, and that still is one, is ever run.
        let entry = Gpa::new(gpa)
            .and_then(|gpa| self.shared.map.resolve(gpa))
            .and_then(|(home, _)| owned.rmp.entry(home.as_u64()));
        let is_area = entry.is_some_and(|e| e.state() == State::GuestValid && e.is_vmsa());
        is_area
            && read_area(&self.shared.map, gpa, &self.memory).is_ok_and(|mut area| {
                vmsa::reveal(&mut area);
                vmsa::check(&area, level.as_u8()).is_ok()
            })
    }

    /// Loads the virtual CPU of a level. Says whether hardware would run it.
    fn load(
        &mut self,
        level: Vmpl,
        vcpu: &mut Vcpu<'_>,
        owned: &mut Ownership<'m>,
        hardware: &mut impl Hardware,
    ) -> bool {
        if !self.can_load(level, owned) {
            return false;
        }
        let Some(resident) = owned
            .seats
            .get_mut(self.cpu)
            .and_then(|seat| seat.resident_mut(level))
        else {
            return false;
        };
        let Ok(mut area) = read_area(&self.shared.map, resident.gpa, &self.memory) else {
            return false;
        };
        let home = Gpa::new(resident.gpa).and_then(|gpa| self.shared.map.resolve(gpa));
        let Some((home, _)) = home else {
            return false;
        };
        vmsa::reveal(&mut area);
        let Ok(facts) = vmsa::check(&area, level.as_u8()) else {
            return false;
        };
        vmsa::load(&area, vcpu, hardware);
        injection::intercept(vcpu, facts.features);
        let alternate = facts.features.contains(SevFeatures::ALTERNATE_INJECTION);
        if !alternate && let Some(vector) = resident.pending.take().or_else(|| resident.held.take())
        {
            vcpu.raise(vector);
        }
        self.loaded = Some(Loaded {
            level,
            gpa: resident.gpa,
            home: home.as_u64(),
            facts,
            ghcb: resident.ghcb,
        });
        if let Some(seat) = owned.seats.get_mut(self.cpu) {
            seat.loaded = Some(level);
        }
        if level != Vmpl::VMPL0 {
            self.liar.lock().guest_runs();
        }
        true
    }

    /// Stores what is loaded back into its save area.
    fn unload(
        &mut self,
        vcpu: &mut Vcpu<'_>,
        owned: &mut Ownership<'m>,
        hardware: &mut impl Hardware,
    ) {
        self.leave(owned);
        let Some(loaded) = self.loaded.take() else {
            return;
        };
        if let Some(seat) = owned.seats.get_mut(self.cpu) {
            seat.loaded = None;
            seat.leave(loaded.level, loaded.ghcb);
        }
        if let Ok(mut area) = read_area(&self.shared.map, loaded.gpa, &self.memory) {
            vmsa::reveal(&mut area);
            vmsa::store(&mut area, vcpu, hardware);
            vmsa::blind(&mut area, hardware.random());
            // The area was there a moment ago, and guest memory does not go away.
            let _ = write_area(&self.shared.map, loaded.gpa, &area, &mut self.memory);
        }
        let resident = owned
            .seats
            .get_mut(self.cpu)
            .and_then(|seat| seat.resident_mut(loaded.level));
        if let Some(resident) = resident
            && resident.gpa == loaded.gpa
        {
            resident.ghcb = loaded.ghcb;
            if !loaded
                .facts
                .features
                .contains(SevFeatures::ALTERNATE_INJECTION)
            {
                resident.pending = vcpu.pending_interrupt();
            }
        }
    }

    /// The virtual CPU does not run any more, as far as hardware knows: its save area may change.
    fn leave(&mut self, owned: &mut Ownership<'m>) {
        if let Some(loaded) = self.loaded
            && core::mem::take(&mut self.in_use)
        {
            owned.rmp.vmexit(loaded.home);
        }
    }

    /// Makes a guest's exit into a #VC.
    fn exception(&mut self, code: u32, vcpu: &mut Vcpu<'_>) -> Next {
        let bit = self.shared.encryption.bit();
        let mut guest = Guest::new(&self.shared.map, &mut self.memory);
        let save = &mut vcpu.vmcb.save;
        match deliver::exception(save, VC, Some(code), bit, &mut guest) {
            Ok(()) => {
                vcpu.vmcb.control.int_state = 0;
                Next::Resume
            }
            Err(why) => Next::End(Ending::Undelivered {
                vector: VC,
                code,
                why,
            }),
        }
    }

    fn nested_fault(
        &mut self,
        gpa: u64,
        code: u64,
        vcpu: &mut Vcpu<'_>,
        board: &Board,
        hardware: &mut impl Hardware,
    ) -> Next {
        let Some(loaded) = self.loaded else {
            return Next::End(Ending::Internal(Internal::Exit(0x400)));
        };
        let attempt = Attempt::decode(gpa, code, vcpu.vmcb.save.cpl);
        let caller = Caller {
            asid: ASID,
            vmpl: loaded.level,
        };
        let mode = mode(vcpu);
        let mut owned = self.shared.state.lock();
        let Ownership {
            rmp, nested, pool, ..
        } = &mut *owned;
        match fault::judge(
            attempt,
            caller,
            mode,
            self.shared.encryption,
            &self.shared.map,
            rmp,
        ) {
            Answer::Map {
                raw,
                home,
                size,
                flags,
                once,
            } => {
                let memory = &mut self.memory;
                let mapped = nested
                    .tree(loaded.level, mode, pool, memory)
                    .and_then(|tree| nested::map(tree, raw, home, size, flags, pool, memory));
                drop(owned);
                let once = once.then(|| {
                    self.walk
                        .note(loaded.level, raw, self.shared, &mut self.memory)
                });
                if let Some(Err(_)) = once {
                    return Next::End(Ending::Internal(Internal::Memory));
                }
                match mapped {
                    Ok(()) => Next::Resume,
                    Err(_) => Next::End(Ending::Internal(Internal::Memory)),
                }
            }
            Answer::Share => {
                let page = self.shared.encryption.place(gpa).gpa;
                let shared = self.share(page, &mut owned, hardware);
                drop(owned);
                match shared {
                    Some(stale) => {
                        if stale {
                            self.leave_all(board, hardware);
                        }
                        Next::Resume
                    }
                    None => Next::End(Ending::BadAccess { gpa, code }),
                }
            }
            Answer::Exception(code) => {
                drop(owned);
                self.exception(code, vcpu)
            }
            Answer::Violation(fault) => Next::End(Ending::Violation {
                gpa: self.shared.encryption.place(gpa).gpa,
                level: loaded.level.as_u8(),
                fault,
            }),
            Answer::Nothing => Next::End(Ending::BadAccess { gpa, code }),
        }
    }

    /// Makes all other CPUs leave their guests, so that none has a translation from before.
    fn leave_all(&self, board: &Board, hardware: &mut impl Hardware) {
        let others = || {
            board
                .slots()
                .enumerate()
                .filter(|(index, slot)| *index != self.cpu && slot.is_inside())
        };
        for (_, slot) in others() {
            slot.post(Mail::leave(), |id| hardware.send(icr::nmi_to(id)));
        }
        // One that handles an NMI of its own hears the bell only after that.
        for _ in 0..PATIENCE {
            if others().next().is_none() {
                return;
            }
            core::hint::spin_loop();
        }
    }
}

/// The vector of exits that the guest must help with.
const VC: u8 = 29;

fn mode(vcpu: &Vcpu<'_>) -> Mode {
    if vcpu.vmcb.save.cr0 & CR0_PG != 0 {
        Mode::Paged
    } else {
        Mode::Unpaged
    }
}

impl<M: HostMemory> Personality for Snp<'_, '_, M> {
    fn guard(io: &mut IoPermissions<'_>, msr: &mut MsrPermissions<'_>) {
        io.guard_all();
        msr.guard_all();
        for own in OWN_MSRS {
            msr.let_through(own);
        }
    }

    fn prepare(&self, vmcb: &mut Vmcb) {
        const UD: u32 = 1 << 6;
        const WRITE_CR0: u32 = 1 << 16;
        vmcb.control.intercept_cr = WRITE_CR0;
        vmcb.control.intercept_exceptions = UD;
        vmcb.control.intercept1 = (Intercept1::NMI
            | Intercept1::INIT
            | Intercept1::RDPMC
            | Intercept1::CPUID
            | Intercept1::INVD
            | Intercept1::HLT
            | Intercept1::INVLPGA
            | Intercept1::IOIO
            | Intercept1::MSR
            | Intercept1::SHUTDOWN)
            .bits();
        let waiting = Intercept2::WBINVD | Intercept2::MONITOR | Intercept2::MWAIT;
        vmcb.control.intercept2 = (Intercept2::SVM | waiting).bits();
    }

    fn take_up(&mut self, vcpu: &mut Vcpu<'_>, hardware: &mut impl Hardware) -> bool {
        let shared = self.shared;
        let mut owned = shared.state.lock();
        let next = owned.seats.get_mut(self.cpu).and_then(|s| s.next.take());
        let Some(level) = next else {
            return false;
        };
        self.unload(vcpu, &mut owned, hardware);
        self.load(level, vcpu, &mut owned, hardware)
    }

    fn let_go(&mut self, vcpu: &mut Vcpu<'_>, hardware: &mut impl Hardware) -> bool {
        let shared = self.shared;
        let mut owned = shared.state.lock();
        let Some(loaded) = self.loaded else {
            return false;
        };
        let seat = owned.seats.get(self.cpu);
        let is_there = seat
            .and_then(|seat| seat.resident(loaded.level))
            .is_some_and(|resident| resident.gpa == loaded.gpa);
        if !is_there {
            self.unload(vcpu, &mut owned, hardware);
        }
        !is_there
    }

    fn wakes(&self, vcpu: &Vcpu<'_>) -> bool {
        self.is_restricted() || self.is_alternate() || vcpu.interrupts_on()
    }

    fn has_pending(&self, vcpu: &Vcpu<'_>) -> bool {
        vcpu.pending_interrupt().is_some() || self.has_posted()
    }

    fn interrupt(&mut self, vector: u8, vcpu: &mut Vcpu<'_>, hardware: &mut impl Hardware) {
        if core::mem::take(&mut self.loses) {
            // It is over before the guest hears of it.
            hardware.apic_write(injection::END_OF_INTERRUPT, 0);
            if let Some(loaded) = self.loaded {
                injection::intercept(vcpu, loaded.facts.features);
            }
        } else if self.is_alternate() {
            // What the host has for this level is for the highest to give.
            hardware.apic_write(injection::END_OF_INTERRUPT, 0);
            self.post_to_highest(vector);
        } else if self.is_restricted() && self.hold(vector) {
            // Whose it is ends it at the APIC.
        } else if self.is_restricted() {
            // The guest answers the door, not the APIC.
            hardware.apic_write(injection::END_OF_INTERRUPT, 0);
            self.post_vector(vector);
        } else {
            vcpu.raise(vector);
        }
    }

    fn nmi(&mut self) -> bool {
        self.post_nmi()
    }

    fn before_entry(&mut self, vcpu: &mut Vcpu<'_>, hardware: &mut impl Hardware) -> Next {
        self.make_way(vcpu, hardware);
        let Some(loaded) = self.loaded else {
            return Next::Idle;
        };
        let runs = read_area_svme(self.shared, loaded.gpa, &self.memory);
        let mut owned = self.shared.state.lock();
        if let Some(why) = owned.failed {
            return Next::End(Ending::Internal(why));
        }
        let there = owned
            .seats
            .get(self.cpu)
            .and_then(|seat| seat.resident(loaded.level))
            .is_some_and(|resident| resident.gpa == loaded.gpa);
        let enters = runs && there && (self.in_use || owned.rmp.vmrun(loaded.home, ASID).is_ok());
        if enters {
            self.in_use = true;
        } else {
            // Software took the virtual CPU away; what it was about to do is in its area.
            self.unload(vcpu, &mut owned, hardware);
            return Next::Idle;
        }
        let Ownership { nested, pool, .. } = &mut *owned;
        match nested.tree(loaded.level, mode(vcpu), pool, &mut self.memory) {
            Ok(tree) => {
                vcpu.vmcb.control.nested_cr3 = tree.root().as_u64();
                if vcpu.pending_interrupt().is_none()
                    && !injection::is_intercepted(loaded.facts.features)
                    && let Some(seat) = owned.seats.get_mut(self.cpu)
                    && let Some(resident) = seat.resident_mut(loaded.level)
                    && let Some(vector) = resident.held.take()
                {
                    vcpu.raise(vector);
                }
                drop(owned);
                self.ring(vcpu);
                self.rage(vcpu)
            }
            Err(_) => Next::End(Ending::Internal(Internal::Memory)),
        }
    }

    fn vmpl(&self) -> Option<u8> {
        self.level().map(Vmpl::as_u8)
    }

    fn was_call(&self) -> bool {
        matches!(self.about, About::Call(..))
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.about {
            About::Nothing => Ok(()),
            About::Call(number, call, answer) => call.describe(number, answer, f),
            About::Instruction(instruction, operands, code) => {
                let Operands { rax, rcx, rdx } = operands;
                write!(f, r#","instruction":{{"name":"{}","#, instruction.name())?;
                write!(
                    f,
                    r#""rax":"{rax:#x}","rcx":"{rcx:#x}","rdx":"{rdx:#x}","result":{code}}}"#
                )
            }
        }
    }

    fn encryption_bit(&self) -> u64 {
        self.shared.encryption.bit()
    }

    fn exit(
        &mut self,
        exit: Exit,
        vcpu: &mut Vcpu<'_>,
        _cpu: usize,
        board: &Board,
        hardware: &mut (impl Hardware + Clone),
    ) -> Next {
        // A walk that goes on needs all of its tables at the same time.
        let walks = matches!(exit, Exit::NestedFault { code, .. } if fault::is_forced(code));
        if !walks && self.walk.forget(self.shared, &mut self.memory).is_err() {
            return Next::End(Ending::Internal(Internal::Memory));
        }
        vcpu.deliver_again();
        self.about = About::Nothing;
        // Whatever L0 carries out for the CPU happens, for the guest, without an exit.
        let is_real = match exit {
            Exit::NestedFault { .. } | Exit::Hlt | Exit::Shutdown | Exit::Invalid => true,
            Exit::Vmmcall => self.is_vmgexit(vcpu),
            _ => false,
        };
        if is_real {
            let shared = self.shared;
            self.leave(&mut shared.state.lock());
        }
        if let Some(storm) = &mut self.storm {
            storm.due = !matches!(exit, Exit::NestedFault { .. });
        }
        match exit {
            Exit::Debug => {
                // L0's own step: the guest is told of it by nothing but the storm.
                vcpu.vmcb.save.dr6 &= !(1 << 14);
                Next::Resume
            }
            Exit::NestedFault { gpa, code } => self.nested_fault(gpa, code, vcpu, board, hardware),
            Exit::Undefined => self.undefined(vcpu, board, hardware),
            Exit::Vmmcall => {
                let mut bytes = [0; opcode::MAX_LENGTH];
                let long = vcpu.is_long();
                match Instruction::decode(self.code(vcpu, &mut bytes), long) {
                    Some((Instruction::Vmgexit, length)) => {
                        vcpu.skip(length);
                        self.vmgexit(vcpu, board, hardware)
                    }
                    _ => self.exception(0x81, vcpu),
                }
            }
            Exit::Msr { write: true } => self.write_msr(vcpu, hardware),
            Exit::Msr { write: false } => self.read_msr(vcpu),
            Exit::Cr0Write => self.write_cr0(vcpu),
            Exit::Hlt => {
                self.skip(&[0xf4], vcpu);
                Next::Halt
            }
            Exit::Cpuid => self.exception(0x72, vcpu),
            Exit::Io(_) => self.exception(0x7b, vcpu),
            Exit::Rdpmc => self.exception(0x6f, vcpu),
            Exit::Invd => self.exception(0x76, vcpu),
            Exit::Wbinvd => self.exception(0x89, vcpu),
            Exit::Monitor => self.exception(0x8a, vcpu),
            Exit::Mwait => self.exception(0x8b, vcpu),
            Exit::Svm => {
                vcpu.inject(Event::UD);
                Next::Resume
            }
            Exit::Shutdown => Next::End(Ending::Shutdown),
            Exit::Invalid => Next::End(Ending::InvalidState),
            Exit::Interrupt => Next::End(Ending::Internal(Internal::Exit(0x60))),
            Exit::Init => Next::End(Ending::Internal(Internal::Exit(0x63))),
            Exit::Nmi => Next::End(Ending::Internal(Internal::Exit(0x61))),
            Exit::Iret => Next::End(Ending::Internal(Internal::Exit(0x74))),
            Exit::IntN => self.software_interrupt(vcpu),
            Exit::Other(code) => Next::End(Ending::Internal(Internal::Exit(code))),
        }
    }
}

/// Whether the save area still lets its virtual CPU run.
fn read_area_svme(shared: &Shared<'_>, gpa: u64, memory: &impl HostMemory) -> bool {
    const EFER_AT: u64 = 0xd0;
    Gpa::new(gpa)
        .and_then(|gpa| shared.map.resolve(gpa))
        .and_then(|(home, _)| home.checked_add(EFER_AT))
        .and_then(|at| memory.read_u64(at).ok())
        .is_some_and(|efer| efer & SVME != 0)
}
