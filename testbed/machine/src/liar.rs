//! A host that lies: which lie comes at which of a run's events, and what the host remembers for it.
//!
//! The catalogue and the schedules are `svsm-sim`'s. An event is an exit that the host answers: on SEV-SNP every
//! `VMGEXIT` but one that ends the guest; without isolation every intercepted instruction. Events are numbered through
//! the run from zero, for all CPUs together.

use crate::board::{Board, Mail, State};
use crate::icr;
use crate::personality::Hardware;
use crate::vcpu::Vcpu;
use core::fmt;
use svsm_sim::fault::{Fault, Fired, Occasions, Schedule};

/// Which lies a run was asked for.
#[derive(Clone, Debug)]
pub struct Liar {
    script: Schedule,
    seeded: Schedule,
    honest: bool,
    /// No lie comes before a level below the highest has run.
    waits: bool,
    events: u64,
    /// Private pages that the guest named, the latest last.
    named: [Option<u64>; Self::NAMES],
    /// Where the next name goes.
    next_name: usize,
    /// A lie about a list of page-state changes that goes on with the guest's next list.
    pub owed: Option<Fired>,
    /// The security processor's latest response.
    pub response: Option<[u8; 4096]>,
}

impl Liar {
    const NAMES: usize = 64;

    /// A host that lies as the schedules say: one that was written down, and one that was drawn.
    #[must_use]
    pub fn new(script: Schedule, seeded: Schedule) -> Self {
        Self {
            honest: script.faults().union(seeded.faults()).is_empty(),
            script,
            seeded,
            waits: false,
            events: 0,
            named: [None; Self::NAMES],
            next_name: 0,
            owed: None,
            response: None,
        }
    }

    /// The same host, which is honest until a level below the highest has run.
    #[must_use]
    pub const fn from_guest(mut self, waits: bool) -> Self {
        self.waits = waits;
        self
    }

    /// A level below the highest runs.
    pub const fn guest_runs(&mut self) {
        self.waits = false;
    }

    /// A host that never lies.
    #[must_use]
    pub fn honest() -> Self {
        Self::new(Schedule::HONEST, Schedule::HONEST)
    }

    /// Whether it never lies.
    #[must_use]
    pub const fn is_honest(&self) -> bool {
        self.honest
    }

    /// The number of the event that happens now, and the lie that comes with it. Every event asks once.
    pub fn next(&mut self, occasions: Occasions) -> (u64, Option<Fired>) {
        let event = self.events;
        self.events = event.wrapping_add(1);
        if self.waits {
            return (event, None);
        }
        let written = self.script.next(event, occasions);
        (
            event,
            written.or_else(|| self.seeded.next(event, occasions)),
        )
    }

    /// The guest has a private page there, and the host knows of it.
    pub fn name(&mut self, gpa: u64) {
        if self.named.contains(&Some(gpa)) {
            return;
        }
        if let Some(slot) = self.named.get_mut(self.next_name) {
            *slot = Some(gpa);
        }
        self.next_name = (self.next_name + 1) % Self::NAMES;
    }

    /// The pages that were named, beginning with one that `choice` picks.
    pub fn named(&self, choice: u64) -> impl Iterator<Item = u64> {
        let start = usize::try_from(choice % Self::NAMES as u64).unwrap_or_default();
        let (before, after) = self.named.split_at_checked(start).unwrap_or_default();
        after.iter().chain(before).flatten().copied()
    }
}

/// What was done when a lie came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// What the catalogue says.
    Done,
    /// It was done to this page.
    Page(u64),
    /// This vector was injected.
    Vector(u8),
    /// This exception was injected, with this code.
    Exception(u8, u32),
    /// There was nothing to do it to after all; the reason.
    Nothing(&'static str),
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Page(gpa) => write!(f, "done to the page at {gpa:#x}"),
            Self::Vector(vector) => write!(f, "vector {vector:#x}"),
            Self::Exception(vector, code) => write!(f, "exception {vector} with code {code:#x}"),
            Self::Nothing(why) => write!(f, "nothing: {why}"),
        }
    }
}

/// Whether other CPUs run, so that what they do can come first.
#[must_use]
pub fn has_others(board: &Board, cpu: usize) -> bool {
    others(board, cpu).next().is_some()
}

fn others(board: &Board, cpu: usize) -> impl Iterator<Item = &crate::board::Slot> {
    let slots = board.slots().enumerate();
    slots
        .filter(move |(index, slot)| *index != cpu && slot.state() == State::Runs)
        .map(|(_, slot)| slot)
}

/// Takes long: up to a tenth of a second or so.
pub fn delay(choice: u64) -> Effect {
    for _ in 0..1_u64 << (10 + choice % 14) {
        core::hint::spin_loop();
    }
    Effect::Done
}

/// Waits until another CPU has exited, for a while.
pub fn let_others_pass(board: &Board, cpu: usize) -> Effect {
    const PATIENCE: u32 = 1 << 14;
    let exits = || others(board, cpu).fold(0, |sum: u64, slot| sum.wrapping_add(slot.exits()));
    let before = exits();
    for _ in 0..PATIENCE {
        if exits() != before {
            return Effect::Done;
        }
        core::hint::spin_loop();
    }
    Effect::Nothing("no other CPU exited")
}

/// Makes an interrupt pending that nobody asked for.
pub fn stray_interrupt(fired: &Fired, vcpu: &mut Vcpu<'_>) -> Effect {
    if vcpu.pending_interrupt().is_some() {
        return Effect::Nothing("another interrupt is pending");
    }
    let [low, ..] = fired.choice.to_le_bytes();
    let vector = match fired.fault {
        Fault::ForbiddenVector => low & 0x1f,
        _ => low | 0x20,
    };
    vcpu.raise(vector);
    Effect::Vector(vector)
}

/// Sends this CPU's guest an NMI.
pub fn stray_nmi(board: &Board, cpu: usize, hardware: &mut impl Hardware) -> Effect {
    match board.slot(cpu) {
        Some(slot) => {
            slot.post(Mail::nmi(), |id| hardware.send(icr::nmi_to(id)));
            Effect::Done
        }
        None => Effect::Nothing("there is no such CPU"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmcb::Vmcb;

    fn fired(fault: Fault, choice: u64) -> Fired {
        Fired {
            fault,
            event: 0,
            choice,
        }
    }

    #[test]
    fn events_are_numbered_whether_or_not_the_host_lies() {
        let mut honest = Liar::honest();
        assert!(honest.is_honest());
        assert_eq!(honest.next(Occasions::REPLY), (0, None));
        assert_eq!(honest.next(Occasions::REPLY), (1, None));
        let script = Schedule::script("stray-nmi@1").unwrap();
        let mut liar = Liar::new(script, Schedule::HONEST);
        assert_eq!(liar.next(Occasions::REPLY), (0, None));
        let (event, lie) = liar.next(Occasions::REPLY);
        assert_eq!((event, lie.unwrap().fault), (1, Fault::StrayNmi));
    }

    #[test]
    fn a_host_may_be_honest_until_the_guest_runs() {
        let script = Schedule::script("stray-nmi@1").unwrap();
        let mut liar = Liar::new(script, Schedule::HONEST).from_guest(true);
        for event in 0..5 {
            assert_eq!(liar.next(Occasions::REPLY), (event, None));
        }
        liar.guest_runs();
        let (event, lie) = liar.next(Occasions::REPLY);
        assert_eq!((event, lie.unwrap().fault), (5, Fault::StrayNmi));
    }

    #[test]
    fn pages_are_named_once_and_the_latest_stay() {
        let mut liar = Liar::honest();
        assert_eq!(liar.named(5).count(), 0);
        for page in 0..100 {
            liar.name(page << 12);
            liar.name(page << 12);
        }
        let mut named: Vec<_> = liar.named(77).collect();
        named.sort_unstable();
        assert_eq!(named.len(), 64);
        assert_eq!(named.first(), Some(&(36 << 12)));
    }

    #[test]
    fn stray_vectors_are_those_of_their_fault() {
        for choice in 0..256 {
            let mut vmcb = Box::new(Vmcb::zeroed());
            let mut vcpu = Vcpu::new(&mut vmcb);
            let Effect::Vector(vector) =
                stray_interrupt(&fired(Fault::ForbiddenVector, choice), &mut vcpu)
            else {
                panic!("nothing was injected")
            };
            assert!(vector < 32);
            assert_eq!(vcpu.pending_interrupt(), Some(vector));
            let again = stray_interrupt(&fired(Fault::StrayInterrupt, choice), &mut vcpu);
            assert!(matches!(again, Effect::Nothing(_)));
            vcpu.vmcb.control.int_ctl = 0;
            let stray = stray_interrupt(&fired(Fault::StrayInterrupt, choice), &mut vcpu);
            assert!(matches!(stray, Effect::Vector(32..)));
        }
    }
}
