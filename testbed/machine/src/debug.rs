//! A debugger of the guest: what it shares with the CPUs that it stops.
//!
//! It has a CPU of its own, which the guest does not see and which talks the remote protocol. The guest's CPUs come to
//! their seats when they are ordered to stop, leave their registers there, and wait; everything that the debugger sees
//! and changes is in the seats and in memory. Breakpoints are the CPU's own (DR0 to DR3), so that nothing in the
//! guest's memory changes: what is measured stays what it was, and code can be waited for before it is there.

pub mod arch; // registers as a debugger numbers them
pub mod memory; // the guest's memory as one of its CPUs sees it
pub mod points; // breakpoints and watchpoints
pub mod target; // what the protocol asks for

use crate::ending::Ending;
use crate::lock::Lock;
use crate::personality::FloatArea;
use crate::vcpu::{Gprs, Vcpu};
use crate::vmcb::Save;
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use points::{Hit, Points};
use zerocopy::FromZeros;

/// RFLAGS: the instruction that is next does not stop at a breakpoint.
const RESUME: u64 = 1 << 16;

/// What a CPU is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Come and wait.
    #[default]
    Stop,
    /// Run one instruction.
    Step,
    /// Run.
    Go,
}

/// A stop to be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// The CPU that it came from.
    pub cpu: usize,
    /// Why.
    pub why: Why,
}

/// Why a CPU stopped everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// A breakpoint or a watchpoint.
    Hit(Hit),
    /// The instruction that it was to run is done.
    Step,
    /// The run ends as soon as it goes on.
    End(Ending),
}

/// What a CPU leaves when it waits.
#[derive(Clone, Debug)]
pub struct Frozen {
    /// The registers that a control block holds.
    pub save: Save,
    /// The general ones beside it.
    pub gprs: Gprs,
    /// The floating-point ones.
    pub floats: FloatArea,
    /// The level that is loaded.
    pub level: Option<u8>,
    /// Whether there is anything to run: one that waits for a start has registers that mean nothing.
    pub alive: bool,
}

impl Frozen {
    fn empty() -> Self {
        Self {
            save: Save::new_zeroed(),
            gprs: Gprs::default(),
            floats: FloatArea::ZERO,
            level: None,
            alive: false,
        }
    }

    /// The linear address of the next instruction.
    #[must_use]
    pub const fn next(&self) -> u64 {
        linear(&self.save)
    }
}

/// The linear address of the next instruction.
#[must_use]
pub const fn linear(save: &Save) -> u64 {
    const LMA: u64 = 1 << 10;
    let long = save.efer & LMA != 0 && save.cs.attributes & crate::vmcb::Segment::LONG != 0;
    if long {
        save.rip
    } else {
        save.cs.base.wrapping_add(save.rip) & 0xffff_ffff
    }
}

/// Where a CPU waits.
#[derive(Debug)]
pub struct Seat {
    order: Order,
    waits: bool,
    changed: bool,
    /// The debugger knows that the CPU stands here, so that a breakpoint here does not stop it again.
    shown: Option<u64>,
    frozen: Frozen,
}

impl Seat {
    /// The seat of a CPU that has not started: it stops before its first instruction.
    #[must_use]
    pub fn new() -> Self {
        Self {
            order: Order::Stop,
            waits: false,
            changed: false,
            shown: None,
            frozen: Frozen::empty(),
        }
    }
}

impl Default for Seat {
    fn default() -> Self {
        Self::new()
    }
}

/// What the debugger and the CPUs share.
#[derive(Debug)]
pub struct Debugger<'m> {
    /// The APIC id of the debugger's own CPU.
    apic_id: u32,
    up: AtomicBool,
    seats: &'m [Lock<Seat>],
    stop: Lock<Option<Stop>>,
    points: Lock<Points>,
    has_points: AtomicBool,
    attached: AtomicBool,
    /// The end of the run, to be told: 1 for an orderly one, 2 for another.
    end: AtomicU8,
    told: AtomicBool,
}

impl<'m> Debugger<'m> {
    /// All of the guest's CPUs are ordered to stop.
    #[must_use]
    pub const fn new(apic_id: u32, seats: &'m [Lock<Seat>]) -> Self {
        Self {
            apic_id,
            up: AtomicBool::new(false),
            seats,
            stop: Lock::new(None),
            points: Lock::new(Points::NONE),
            has_points: AtomicBool::new(false),
            attached: AtomicBool::new(true),
            end: AtomicU8::new(0),
            told: AtomicBool::new(false),
        }
    }

    /// The APIC id of the debugger's own CPU.
    #[must_use]
    pub const fn apic_id(&self) -> u32 {
        self.apic_id
    }

    /// Says that this CPU is up; only for itself.
    pub fn set_up(&self) {
        self.up.store(true, Ordering::SeqCst);
    }

    /// Whether it is.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::SeqCst)
    }

    /// How many CPUs the guest has.
    #[must_use]
    pub const fn cpus(&self) -> usize {
        self.seats.len()
    }

    /// What a CPU is to do.
    #[must_use]
    pub fn order(&self, cpu: usize) -> Order {
        self.seats
            .get(cpu)
            .map_or(Order::Go, |seat| seat.lock().order)
    }

    /// Gives an order. Whoever waits must be rung for.
    pub fn give(&self, cpu: usize, order: Order) {
        if let Some(seat) = self.seats.get(cpu) {
            seat.lock().order = order;
        }
    }

    /// Orders all CPUs to stop. Those that run must be rung for.
    pub fn stop_all(&self) {
        (0..self.cpus()).for_each(|cpu| self.give(cpu, Order::Stop));
    }

    /// A CPU takes its seat.
    pub fn sit(&self, cpu: usize, frozen: Frozen) {
        if let Some(seat) = self.seats.get(cpu) {
            let mut seat = seat.lock();
            (seat.waits, seat.changed, seat.shown) = (true, false, None);
            seat.frozen = frozen;
        }
    }

    /// A CPU leaves its seat, if it is ordered to do something: what, and its registers if they were changed.
    pub fn rise(&self, cpu: usize, vcpu: &mut Vcpu<'_>) -> Option<Rise> {
        let mut seat = self.seats.get(cpu)?.lock();
        if seat.order == Order::Stop {
            return None;
        }
        seat.waits = false;
        let floats = seat.changed.then(|| {
            vcpu.vmcb.save.clone_from(&seat.frozen.save);
            vcpu.gprs = seat.frozen.gprs;
            seat.frozen.floats.clone()
        });
        if seat.shown == Some(linear(&vcpu.vmcb.save)) {
            vcpu.vmcb.save.rflags |= RESUME;
        }
        Some(Rise {
            step: seat.order == Order::Step,
            floats,
        })
    }

    /// Whether all CPUs wait.
    #[must_use]
    pub fn all_wait(&self) -> bool {
        self.seats.iter().all(|seat| seat.lock().waits)
    }

    /// Notes that the debugger is told where a CPU stands. Another one that came to a breakpoint at the same time comes to
    /// it again.
    pub fn show(&self, cpu: usize) {
        if let Some(seat) = self.seats.get(cpu) {
            let mut seat = seat.lock();
            seat.shown = Some(seat.frozen.next());
        }
    }

    /// Looks at the registers of a CPU that waits.
    pub fn look<T>(&self, cpu: usize, look: impl FnOnce(&Frozen) -> T) -> Option<T> {
        let seat = self.seats.get(cpu)?.lock();
        seat.waits.then(|| look(&seat.frozen))
    }

    /// Changes the registers of a CPU that waits.
    pub fn change<T>(&self, cpu: usize, change: impl FnOnce(&mut Frozen) -> T) -> Option<T> {
        let mut seat = self.seats.get(cpu)?.lock();
        if !seat.waits {
            return None;
        }
        seat.changed = true;
        Some(change(&mut seat.frozen))
    }

    /// Notes a stop, unless there is one already, which comes first.
    pub fn note(&self, stop: Stop) {
        self.stop.lock().get_or_insert(stop);
    }

    /// Takes the stop that is to be told.
    pub fn take_stop(&self) -> Option<Stop> {
        self.stop.lock().take()
    }

    /// The breakpoints, if there are any.
    #[must_use]
    pub fn points(&self) -> Option<Points> {
        let any = self.has_points.load(Ordering::SeqCst);
        any.then(|| *self.points.lock())
    }

    /// Changes the breakpoints, while all CPUs wait.
    pub fn change_points<T>(&self, change: impl FnOnce(&mut Points) -> T) -> T {
        let mut points = self.points.lock();
        let done = change(&mut points);
        self.has_points.store(!points.is_empty(), Ordering::SeqCst);
        done
    }

    /// Whether anybody is there to be told of a stop.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.attached.load(Ordering::SeqCst)
    }

    /// Says whether anybody is there.
    pub fn set_attached(&self, attached: bool) {
        self.attached.store(attached, Ordering::SeqCst);
    }

    /// The run is over: from now on only that is to be told.
    pub fn announce_end(&self, orderly: bool) {
        self.end
            .store(if orderly { 1 } else { 2 }, Ordering::SeqCst);
    }

    /// Whether the run is over, and then whether in an orderly way.
    #[must_use]
    pub fn end(&self) -> Option<bool> {
        match self.end.load(Ordering::SeqCst) {
            0 => None,
            end => Some(end == 1),
        }
    }

    /// The end was told.
    pub fn set_told(&self) {
        self.told.store(true, Ordering::SeqCst);
    }

    /// Whether it was.
    #[must_use]
    pub fn is_told(&self) -> bool {
        self.told.load(Ordering::SeqCst)
    }
}

/// How a CPU leaves its seat.
#[derive(Clone, Debug)]
pub struct Rise {
    /// For one instruction.
    pub step: bool,
    /// The floating-point registers, if any register was changed.
    pub floats: Option<FloatArea>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmcb::Vmcb;

    #[test]
    fn a_cpu_waits_until_it_is_ordered_to_go_and_takes_what_was_changed() {
        let seats = [Lock::new(Seat::new()), Lock::new(Seat::new())];
        let debugger = Debugger::new(2, &seats);
        let mut vmcb = Box::new(Vmcb::zeroed());
        let mut vcpu = Vcpu::new(&mut vmcb);
        vcpu.vmcb.save.rip = 0x1000;
        let frozen = |vcpu: &Vcpu<'_>| Frozen {
            save: vcpu.vmcb.save.clone(),
            alive: true,
            ..Frozen::empty()
        };
        assert_eq!(debugger.order(0), Order::Stop);
        assert_eq!(debugger.look(0, Frozen::next), None);
        debugger.sit(0, frozen(&vcpu));
        assert!(!debugger.all_wait() && debugger.rise(0, &mut vcpu).is_none());
        debugger.sit(1, frozen(&vcpu));
        assert!(debugger.all_wait());

        debugger.show(0);
        debugger.give(0, Order::Step);
        let rise = debugger.rise(0, &mut vcpu).unwrap();
        assert!(rise.step && rise.floats.is_none());
        assert_eq!(vcpu.vmcb.save.rflags & RESUME, RESUME);

        vcpu.vmcb.save.rflags = 2;
        debugger.stop_all();
        debugger.sit(0, frozen(&vcpu));
        debugger.show(0);
        debugger.change(0, |frozen| frozen.save.rip = 0x2000);
        debugger.give(0, Order::Go);
        assert!(debugger.rise(0, &mut vcpu).unwrap().floats.is_some());
        assert_eq!(
            (vcpu.vmcb.save.rip, vcpu.vmcb.save.rflags & RESUME),
            (0x2000, 0)
        );
    }

    #[test]
    fn the_first_stop_is_told() {
        let debugger = Debugger::new(1, &[]);
        let stop = |cpu| Stop {
            cpu,
            why: Why::Step,
        };
        debugger.note(stop(1));
        debugger.note(stop(0));
        assert_eq!(debugger.take_stop(), Some(stop(1)));
        assert_eq!(debugger.take_stop(), None);
    }
}
