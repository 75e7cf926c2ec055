//! The run loop: one for each CPU.
#![expect(
    unsafe_code,
    reason = "the control block as an object, and the world switch"
)]

mod debugged; // for a debugger of the guest

use super::console::{Console, exit};
use super::cpu::{Cpu, Local};
use super::direct::DirectMap;
use super::enter::{INSIDE, enter};
use super::insn::{self, Bare};
use super::machine::Site;
use super::trap;
use crate::board::{Mail, Slot, State};
use crate::cmdline::Trace;
use crate::dma::Watch;
use crate::ending::Ending;
use crate::exit::{Exit, Reason};
use crate::icr;
use crate::loader::Context;
use crate::memory::Guest;
use crate::native::Native;
use crate::personality::{Hardware as _, Next, Personality};
use crate::report::{self, GuestState, Traced, Verdict};
use crate::snp::Snp;
use crate::snp::pages;
use crate::vcpu::Vcpu;
use crate::vmcb::{Intercept1, Vmcb};
use crate::walk;
use core::sync::atomic::Ordering;

/// How long the end waits for the other CPUs to stop.
const PATIENCE_TICKS: u64 = 200_000_000;

/// Runs a CPU: from a context, or from the start-up message that comes one day.
pub(super) fn run(site: &'static Site, index: usize, cpu: Cpu, context: Option<&Context>) -> ! {
    match &site.snp {
        None => {
            // SAFETY: the map is in place, and it is used for guest memory only.
            let memory = unsafe { DirectMap::new() };
            let native = Native::new(&site.liar, &site.transfers, &site.map, memory);
            run_as(native, site, index, cpu, context)
        }
        Some(shared) => {
            // SAFETY: the map is in place, and it is used for guest memory and nested tables only.
            let memory = unsafe { DirectMap::new() };
            run_as(
                Snp::new(shared, &site.liar, memory, index),
                site,
                index,
                cpu,
                context,
            )
        }
    }
}

fn run_as<P: Personality>(
    mut personality: P,
    site: &'static Site,
    index: usize,
    cpu: Cpu,
    context: Option<&Context>,
) -> ! {
    let (Some(slot), Some(local), Some(block)) = (
        site.board.slot(index),
        Local::current(),
        DirectMap::pointer(cpu.vmcb, size_of::<Vmcb>() as u64),
    ) else {
        super::fatal::end(&"a CPU without a place on the board")
    };
    let block = block.cast::<Vmcb>();
    // SAFETY: the page was taken from the pool for this CPU's control block and nothing else.
    unsafe { block.write_bytes(0, 1) };
    // SAFETY: zeros are a control block, and this is the only reference to it, for ever.
    let block = unsafe { &mut *block };
    personality.prepare(block);
    site.prepare(block);
    debugged::prepare(site, block);
    let mut vcpu = Vcpu::new(block);
    let runs = match context {
        Some(Context::Native(context)) => {
            vcpu.start(context);
            true
        }
        // A save area that no CPU would run is found at once.
        Some(Context::Snp(_)) => personality.take_up(&mut vcpu, &mut Bare),
        None => false,
    };
    slot.set_state(if runs {
        State::Runs
    } else {
        State::WaitsForStart
    });
    Runner {
        personality,
        site,
        index,
        cpu,
        slot,
        local,
        vcpu,
        heard: 0,
        last_exit: None,
        nmi: GuestNmi::default(),
        steps: false,
        stepped: false,
    }
    .run(runs || context.is_none())
}

/// An exit, as it was before it was answered.
struct Seen {
    tsc: u64,
    level: Option<u8>,
    rip: u64,
    reason: Reason,
    code: [u64; 3],
    dr6: u64,
}

struct Runner<'a, 'v, P> {
    personality: P,
    site: &'static Site,
    index: usize,
    cpu: Cpu,
    slot: &'a Slot,
    local: &'static Local,
    vcpu: Vcpu<'v>,
    /// How many rings of the bell were answered.
    heard: u64,
    last_exit: Option<u64>,
    nmi: GuestNmi,
    /// The debugger wants one instruction.
    steps: bool,
    /// It wanted one before: the trap flag may be in places where the guest put its flags meanwhile.
    stepped: bool,
}

/// How the guest's NMIs stand.
///
/// NMIs are intercepted, so that one can be a bell. To give the guest one, the intercept is
/// lifted and a real NMI sent to this very CPU: the CPU itself then masks further ones until
/// the handler's IRET, which is intercepted in turn to bring the first intercept back.
#[derive(Clone, Copy, Debug, Default)]
struct GuestNmi {
    /// One is to be given as soon as no handler runs.
    owed: bool,
    /// The guest's handler runs, or is about to.
    handled: bool,
    /// The guest is at its handler's IRET: NMIs are masked for one more instruction.
    at_iret: bool,
}

impl<P: Personality> Runner<'_, '_, P> {
    fn run(mut self, sound: bool) -> ! {
        if !sound {
            self.end(Ending::InvalidState);
        }
        loop {
            self.read_mail();
            self.wait_for_debugger();
            match self.slot.state() {
                State::Runs => self.step(),
                _ => self.idle(),
            }
        }
    }

    fn read_mail(&mut self) {
        let mail = self.slot.take_mail();
        if mail.has_stop() {
            self.park();
        }
        if mail.has_init() {
            if self.nmi.handled || self.nmi.at_iret {
                // The handler's IRET will not come any more, and the next bell must be heard.
                insn::unmask_nmis();
            }
            self.intercept_nmis(true);
            self.nmi = GuestNmi::default();
            insn::apic_reset();
            self.slot.set_state(State::WaitsForStart);
            self.end_if_all_halted();
        }
        if let Some(page) = mail.start_page()
            && self.slot.state() == State::WaitsForStart
        {
            self.vcpu.start_up(page);
            self.slot.set_state(State::Runs);
        }
        if mail.has_leave()
            && self.slot.state() == State::HaltedForGood
            && self.personality.let_go(&mut self.vcpu, &mut Bare)
        {
            self.run_out();
        }
        if mail.has_created()
            && matches!(
                self.slot.state(),
                State::WaitsForStart | State::HaltedForGood
            )
            && self.personality.take_up(&mut self.vcpu, &mut Bare)
        {
            self.slot.set_state(State::Runs);
        }
        if mail.has_nmi() {
            self.owe_nmi();
        }
    }

    /// Runs the guest up to its next exit, and answers that.
    fn step(&mut self) {
        if self.nmi.owed && self.nmi.at_iret {
            // A bell for oneself: after the IRET, the guest exits at once.
            self.slot
                .post(Mail::default(), |id| insn::send(icr::nmi_to(id)));
        } else if self.nmi.owed && !self.nmi.handled {
            self.give_nmi();
        }
        self.nmi.at_iret = false;
        match self.personality.before_entry(&mut self.vcpu, &mut Bare) {
            Next::Resume => {}
            Next::Halt => return self.halt(),
            Next::Idle => return self.run_out(),
            Next::End(ending) => self.end(ending),
        }
        // A bell may have been answered meanwhile that rang for this.
        if self.is_stopped() {
            return;
        }
        let armed = self.arm();
        self.slot.set_inside(true);
        // SAFETY: the addresses are those of this CPU; `site.prepare` gave the block maps and
        // tables that leave L0's pages out; every CPU runs with the flag clear from
        // `activate` on.
        let times = unsafe { enter(&mut self.vcpu, self.cpu.vmcb, self.cpu.host) };
        self.slot.set_inside(false);
        self.disarm(&armed);
        let counters = &self.slot.counters;
        let inside = times.left.saturating_sub(times.entered);
        counters
            .guest_ticks
            .fetch_add(inside.saturating_sub(INSIDE), Ordering::Relaxed);
        match self.last_exit {
            Some(last) => {
                let outside = times.entered.saturating_sub(last) + INSIDE;
                counters.l0_ticks.fetch_add(outside, Ordering::Relaxed);
            }
            None => counters.first_entry.store(times.entered, Ordering::Relaxed),
        }
        self.last_exit = Some(times.left);

        let control = &self.vcpu.vmcb.control;
        let exit = Exit::decode(control);
        let seen = Seen {
            tsc: times.left,
            level: self.personality.vmpl(),
            rip: self.vcpu.vmcb.save.rip,
            reason: exit.reason(),
            code: [control.exit_code, control.exit_info1, control.exit_info2],
            dr6: self.vcpu.vmcb.save.dr6,
        };
        self.slot.count_exit(seen.reason, seen.level);
        self.look_for_refused_dma(seen.tsc);
        match exit {
            Exit::Nmi => {
                if !self.answer_bell() {
                    // Nobody's bell: it stays pending, and is delivered at the next entry.
                    self.intercept_nmis(false);
                }
            }
            Exit::Interrupt => {
                trap::take_interrupt();
                self.take_in();
            }
            // The instruction itself follows at the next entry.
            Exit::Iret => {
                self.intercept_nmis(true);
                self.nmi.at_iret = true;
            }
            exit => {
                let board = &self.site.board;
                let next =
                    self.personality
                        .exit(exit, &mut self.vcpu, self.index, board, &mut Bare);
                self.trace(&seen);
                self.after_exit(exit, &seen, &armed);
                match next {
                    Next::Resume => {}
                    Next::Halt => self.halt(),
                    Next::Idle => self.run_out(),
                    Next::End(ending) => self.end(ending),
                }
            }
        }
    }

    /// Reports what devices were refused, now and then.
    fn look_for_refused_dma(&self, now: u64) {
        if let Some(watch) = &self.site.dma {
            watch.look_at(now, &mut Bare);
        }
    }

    /// Reports an exit that was answered, if exits like it are to be reported.
    fn trace(&mut self, seen: &Seen) {
        let wanted = match self.site.trace {
            Trace::Off => false,
            Trace::Calls => self.personality.was_call(),
            Trace::Exits => true,
        };
        if !wanted {
            return;
        }
        let Seen {
            tsc,
            level,
            rip,
            reason,
            code,
            ..
        } = *seen;
        let start = insn::rdtsc();
        Bare.report(&Traced {
            cpu: self.index,
            tsc,
            level,
            rip,
            reason,
            code,
            personality: &self.personality,
        });
        // Writing is no work of L0's that anybody would count.
        let spent = insn::rdtsc().wrapping_sub(start);
        self.last_exit = self.last_exit.map(|last| last.wrapping_add(spent));
    }

    /// There is no virtual CPU to run.
    fn run_out(&mut self) {
        self.slot.set_state(State::WaitsForStart);
        self.end_if_all_halted();
    }

    /// The guest executed HLT.
    fn halt(&mut self) {
        if !self.personality.wakes(&self.vcpu) {
            self.slot.set_state(State::HaltedForGood);
            self.end_if_all_halted();
            if self.nmi.handled {
                // The bell must be heard, and the guest never goes on from here: another NMI
                // is masked for it, and INIT forgets everything.
                insn::unmask_nmis();
            }
            return;
        }
        if self.personality.has_pending(&self.vcpu) {
            // The shadow of STI kept it from HLT; another one must not take its place.
            return;
        }
        let start = insn::rdtsc();
        loop {
            trap::wait_for_any();
            if self.take_in() || self.slot.has_mail() {
                break;
            }
            self.wait_for_debugger();
        }
        let now = insn::rdtsc();
        self.slot
            .counters
            .halt_ticks
            .fetch_add(now.wrapping_sub(start), Ordering::Relaxed);
        // Sleep is no work of L0's.
        self.last_exit = self
            .last_exit
            .map(|last| last.wrapping_add(now.wrapping_sub(start)));
    }

    /// Passes on what L0 let in for its guest. Says whether that was anything.
    fn take_in(&mut self) -> bool {
        self.answer_bell();
        let nmi = self.local.take_nmi();
        let vector = self.local.take_vector();
        if let Some(vector) = vector {
            self.personality
                .interrupt(vector, &mut self.vcpu, &mut Bare);
        }
        if nmi {
            self.owe_nmi();
        }
        vector.is_some() || nmi
    }

    /// Nothing to run: waits for somebody to ring.
    fn idle(&mut self) {
        trap::wait_for_nmi();
        self.answer_bell();
        if self.local.take_nmi() {
            self.owe_nmi();
        }
    }

    /// Takes note of the bell; says whether anybody rang. Then what was taken was the bell's NMI, and not the guest's.
    fn answer_bell(&mut self) -> bool {
        match self.slot.answer_bell(self.heard, insn::swallow_nmi) {
            Some(heard) => {
                self.heard = heard;
                self.local.take_nmi();
                true
            }
            None => false,
        }
    }

    /// An NMI for the guest. It wakes a CPU that halted, unless that did so in an NMI's handler.
    fn owe_nmi(&mut self) {
        match self.slot.state() {
            State::Runs if self.personality.nmi() => {}
            State::Runs => self.nmi.owed = true,
            State::HaltedForGood if !self.nmi.handled => {
                self.nmi.owed = true;
                self.slot.set_state(State::Runs);
            }
            _ => {}
        }
    }

    /// Sends this CPU the NMI that the guest takes at its next entry.
    fn give_nmi(&mut self) {
        // A bell that rings now would merge with it, and be taken for it.
        self.answer_bell();
        self.nmi.owed = false;
        self.intercept_nmis(false);
        insn::send(icr::nmi_to(self.slot.apic_id()));
    }

    /// Whether NMIs make the guest exit; if not, the end of their handler does.
    fn intercept_nmis(&mut self, yes: bool) {
        self.nmi.handled = !yes;
        let (set, clear) = if yes {
            (Intercept1::NMI, Intercept1::IRET)
        } else {
            (Intercept1::IRET, Intercept1::NMI)
        };
        let word = &mut self.vcpu.vmcb.control.intercept1;
        *word = *word & !clear.bits() | set.bits();
    }

    fn end_if_all_halted(&mut self) {
        if self.site.board.all_halted() {
            self.end(Ending::Halted);
        }
    }

    /// Ends the run, unless another CPU does.
    fn end(&mut self, ending: Ending) -> ! {
        self.last_words(ending);
        if !self.site.board.claim_end() {
            self.park();
        }
        let others = || {
            self.site
                .board
                .slots()
                .enumerate()
                .filter(|(i, _)| *i != self.index)
        };
        for (_, slot) in others() {
            slot.post(Mail::stop(), |id| insn::send(icr::nmi_to(id)));
        }
        let start = insn::rdtsc();
        while others().any(|(_, slot)| !slot.is_stopped())
            && insn::rdtsc().wrapping_sub(start) < PATIENCE_TICKS
        {
            core::hint::spin_loop();
        }
        self.report(ending);
        self.tell_end(ending);
        exit(ending)
    }

    fn report(&self, ending: Ending) {
        // All others have stopped, and none of them looks.
        if let Some(watch) = &self.site.dma {
            watch.look(&mut Bare);
        }
        let mut out = Console::new();
        // SAFETY: the map is in place, and only guest memory is read.
        let mut memory = unsafe { DirectMap::new() };
        let guest = Guest::new(&self.site.map, &mut memory);
        let Vmcb { control, save } = &*self.vcpu.vmcb;
        let mut bytes = [0; 16];
        let code = walk::code(save, self.personality.encryption_bit(), &guest, &mut bytes);
        let verdict = Verdict {
            ending,
            cpu: self.index,
            tsc: insn::rdtsc(),
            slot: Some(self.slot),
            guest: Some(GuestState {
                control,
                save,
                gprs: &self.vcpu.gprs,
                code,
            }),
        };
        // A console that fails cannot be told anywhere.
        let _ = report::verdict(&mut out, &verdict);
        let refused = self.site.dma.as_ref().map(Watch::refused);
        let _ = report::counters(&mut out, &self.site.board, refused);
        if let (true, Some(shared)) = (self.site.rmp, &self.site.snp) {
            let _ = pages::write(&mut out, "end", shared);
        }
    }

    fn park(&self) -> ! {
        self.slot.stop();
        insn::stop()
    }
}
