//! The run loop's part for a debugger of the guest. Without one, nothing here does anything.

use super::super::{insn, trap};
use super::{Runner, Seen, State};
use crate::board::Mail;
use crate::debug::points::Points;
use crate::debug::{Frozen, Order, Stop, Why, linear};
use crate::ending::Ending;
use crate::exit::Exit;
use crate::icr;
use crate::personality::{FloatArea, Hardware as _, Personality};
use crate::vmcb::{Event, Vmcb};
use insn::Bare;

const TRAP: u64 = 1 << 8;
/// DR6: the trap flag did it.
const SINGLE_STEP: u64 = 1 << 14;
/// The debug exception, in the word of intercepted exceptions.
const DEBUG: u32 = 1 << 1;
/// The instruction after STI is next, and no interrupt comes before it.
const SHADOW: u64 = 1;
/// How long the end waits until the debugger was told of it.
const PATIENCE_TICKS: u64 = 200_000_000;

/// Intercepts what stops a guest for its debugger.
pub(super) const fn prepare(site: &super::Site, vmcb: &mut Vmcb) {
    if site.debugger.is_some() {
        vmcb.control.intercept_exceptions |= DEBUG;
    }
}

/// What of the guest's was put aside while its debugger's is in its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Armed {
    points: Option<Points>,
    step: bool,
    trap: u64,
    dr6: u64,
    dr7: u64,
    addresses: [u64; 4],
}

impl<P: Personality> Runner<'_, '_, P> {
    /// Whether the debugger wants this CPU to wait.
    pub(super) fn is_stopped(&self) -> bool {
        let debugger = self.site.debugger.as_ref();
        debugger.is_some_and(|debugger| debugger.order(self.index) == Order::Stop)
    }

    /// Waits, if the debugger wants that.
    pub(super) fn wait_for_debugger(&mut self) {
        let site = self.site;
        let Some(debugger) = site.debugger.as_ref().filter(|_| self.is_stopped()) else {
            return;
        };
        let mut floats = FloatArea::ZERO;
        Bare.save_floats(&mut floats);
        debugger.sit(
            self.index,
            Frozen {
                save: self.vcpu.vmcb.save.clone(),
                gprs: self.vcpu.gprs,
                floats,
                level: self.personality.vmpl(),
                alive: matches!(self.slot.state(), State::Runs | State::HaltedForGood),
            },
        );
        let start = insn::rdtsc();
        let rise = loop {
            if let Some(rise) = debugger.rise(self.index, &mut self.vcpu) {
                break rise;
            }
            if site.board.has_ended() {
                self.park();
            }
            if self.nmi.handled {
                // The guest is in its handler: no bell wakes this CPU before that ends.
                core::hint::spin_loop();
            } else {
                trap::wait_for_nmi();
            }
            self.answer_bell();
            if self.local.take_nmi() {
                self.owe_nmi();
            }
        };
        if let Some(floats) = &rise.floats {
            Bare.load_floats(floats);
        }
        self.steps = rise.step;
        self.stepped |= rise.step;
        // To wait is no work of L0's.
        let spent = insn::rdtsc().wrapping_sub(start);
        self.last_exit = self.last_exit.map(|last| last.wrapping_add(spent));
    }

    /// Puts the debugger's breakpoints and its step in the place of the guest's, up to the next exit.
    pub(super) fn arm(&mut self) -> Option<Armed> {
        let debugger = self.site.debugger.as_ref()?;
        let Vmcb { control, save } = &mut *self.vcpu.vmcb;
        let mut armed = Armed {
            points: debugger.points(),
            step: self.steps,
            trap: save.rflags & TRAP,
            dr6: save.dr6,
            dr7: save.dr7,
            addresses: [0; 4],
        };
        if armed.step {
            save.rflags |= TRAP;
            control.int_state |= SHADOW;
        }
        if let Some(points) = &armed.points {
            armed.addresses = Bare.debug_registers();
            Bare.set_debug_registers(points.addresses());
            save.dr7 = points.control();
            insn::breakpoints_on(points.control());
        }
        Some(armed)
    }

    /// Gives the guest its own back.
    pub(super) fn disarm(&mut self, armed: &Option<Armed>) {
        let Some(armed) = armed else {
            return;
        };
        let save = &mut self.vcpu.vmcb.save;
        if armed.points.is_some() {
            insn::breakpoints_off();
            Bare.set_debug_registers(armed.addresses);
            save.dr7 = armed.dr7;
        }
        if armed.step {
            save.rflags = save.rflags & !TRAP | armed.trap;
        }
    }

    /// Finds out whether an exit that was answered is a stop.
    pub(super) fn after_exit(&mut self, exit: Exit, seen: &Seen, armed: &Option<Armed>) {
        let Some(armed) = armed else {
            return;
        };
        if !matches!(exit, Exit::Debug) {
            // What L0 carries out for the CPU, and what it delivers, is an instruction's worth.
            let moved =
                self.vcpu.vmcb.save.rip != seen.rip || self.personality.vmpl() != seen.level;
            if armed.step && moved {
                self.stop(Why::Step);
            }
            return;
        }
        let save = &mut self.vcpu.vmcb.save;
        let dr6 = seen.dr6;
        save.dr6 = armed.dr6;
        let next = linear(save);
        let hit = armed.points.and_then(|points| points.hit(next, dr6));
        if let Some(hit) = hit {
            self.stop(Why::Hit(hit));
        } else if armed.step {
            self.stop(Why::Step);
        } else if self.stepped && dr6 & SINGLE_STEP != 0 {
            // A flag that a step left in what the guest saved.
            save.rflags &= !TRAP;
        } else {
            save.dr6 = dr6;
            self.vcpu.inject(Event::Exception(1));
        }
    }

    /// Stops all CPUs.
    fn stop(&mut self, why: Why) {
        let site = self.site;
        let Some(debugger) = site.debugger.as_ref().filter(|d| d.is_attached()) else {
            return;
        };
        self.steps = false;
        debugger.note(Stop {
            cpu: self.index,
            why,
        });
        debugger.stop_all();
        let others = site.board.slots().enumerate();
        for (_, slot) in others.filter(|(index, _)| *index != self.index) {
            slot.post(Mail::default(), |id| insn::send(icr::nmi_to(id)));
        }
    }

    /// Lets the debugger look before a run ends that its guest did not end in an orderly way.
    pub(super) fn last_words(&mut self, ending: Ending) {
        if ending != Ending::PowerOff && !self.site.board.has_ended() {
            self.stop(Why::End(ending));
            self.wait_for_debugger();
        }
    }

    /// Tells the debugger that the run is over.
    pub(super) fn tell_end(&self, ending: Ending) {
        let Some(debugger) = self.site.debugger.as_ref().filter(|d| d.is_attached()) else {
            return;
        };
        debugger.announce_end(ending == Ending::PowerOff);
        let start = insn::rdtsc();
        while !debugger.is_told() && insn::rdtsc().wrapping_sub(start) < PATIENCE_TICKS {
            core::hint::spin_loop();
        }
    }
}
