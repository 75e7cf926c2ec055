//! What CPUs know of one another: their state, their mail, and who ends the run.
//!
//! Every virtual CPU runs on a CPU of its own. One that wants something of another
//! (INIT, a start-up message, an NMI, the end) writes it into the other's slot and
//! rings the bell: an NMI that makes the other leave its guest, or wakes it. Bell
//! and mail are one step under the slot's lock, so that the receiver can tell an NMI
//! that was a bell from one that is its guest's.

use crate::exit::Reason;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

/// The most CPUs that a machine can have.
pub const MAX_CPUS: usize = 64;

/// How many levels of privilege a CPU can have.
pub const LEVELS: usize = 4;

/// What is counted beside exits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `PVALIDATE`
    Pvalidate,
    /// `RMPADJUST`
    Rmpadjust,
    /// `RMPQUERY`
    Rmpquery,
    /// Requests to the host, in the register or in the page.
    Call,
    /// Page-state changes, one for each entry of a list.
    PageState,
    /// Changes from one level to another.
    Switch,
    /// Messages to the security processor.
    GuestRequest,
}

impl Operation {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Pvalidate,
        Self::Rmpadjust,
        Self::Rmpquery,
        Self::Call,
        Self::PageState,
        Self::Switch,
        Self::GuestRequest,
    ];

    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pvalidate => "pvalidate",
            Self::Rmpadjust => "rmpadjust",
            Self::Rmpquery => "rmpquery",
            Self::Call => "calls",
            Self::PageState => "page-state-changes",
            Self::Switch => "level-switches",
            Self::GuestRequest => "guest-requests",
        }
    }
}

/// All CPUs.
#[derive(Debug)]
pub struct Board {
    slots: [Slot; MAX_CPUS],
    count: usize,
    ended: AtomicBool,
}

/// One CPU, as the others see it.
#[derive(Debug)]
pub struct Slot {
    apic_id: AtomicU32,
    state: AtomicU8,
    stopped: AtomicBool,
    inside: AtomicBool,
    lock: AtomicBool,
    mail: AtomicU32,
    bells: AtomicU64,
    /// Exits by reason, and ticks; only the CPU itself writes them.
    pub counters: Counters,
}

/// What a CPU counts about its guest.
#[derive(Debug)]
pub struct Counters {
    /// By level, and the last for no level.
    exits: [[AtomicU64; Reason::ALL.len()]; LEVELS + 1],
    operations: [AtomicU64; Operation::ALL.len()],
    /// Ticks between an exit and the next entry.
    pub l0_ticks: AtomicU64,
    /// Ticks that L0 slept because the guest had halted; not part of `l0_ticks`.
    pub halt_ticks: AtomicU64,
    /// Ticks between an entry and the next exit.
    pub guest_ticks: AtomicU64,
    /// The time of the first entry.
    pub first_entry: AtomicU64,
}

/// What a CPU does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Not brought up yet.
    Absent = 0,
    /// Waits for a start-up message.
    WaitsForStart = 1,
    /// Runs its guest, or sleeps until the next interrupt.
    Runs = 2,
    /// Halted with interrupts off.
    HaltedForGood = 3,
}

impl State {
    const fn decode(value: u8) -> Self {
        match value {
            1 => Self::WaitsForStart,
            2 => Self::Runs,
            3 => Self::HaltedForGood,
            _ => Self::Absent,
        }
    }

    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::WaitsForStart => "waits-for-start",
            Self::Runs => "runs",
            Self::HaltedForGood => "halted",
        }
    }
}

/// What a CPU was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mail(u32);

impl Mail {
    const INIT: u32 = 1 << 8;
    const START: u32 = 1 << 9;
    const NMI: u32 = 1 << 10;
    const STOP: u32 = 1 << 11;
    const CREATED: u32 = 1 << 12;
    const LEAVE: u32 = 1 << 13;

    /// Back to waiting for a start.
    #[must_use]
    pub const fn init() -> Self {
        Self(Self::INIT)
    }

    /// Start at this page, if waiting.
    #[must_use]
    pub const fn start_up(page: u8) -> Self {
        Self(Self::START | page as u32)
    }

    /// An NMI for the guest.
    #[must_use]
    pub const fn nmi() -> Self {
        Self(Self::NMI)
    }

    /// The run is over.
    #[must_use]
    pub const fn stop() -> Self {
        Self(Self::STOP)
    }

    /// A virtual CPU to run.
    #[must_use]
    pub const fn created() -> Self {
        Self(Self::CREATED)
    }

    /// Nothing but to leave the guest, which forgets translations that are gone.
    #[must_use]
    pub const fn leave() -> Self {
        Self(Self::LEAVE)
    }

    /// Whether a virtual CPU is in it.
    #[must_use]
    pub const fn has_created(self) -> bool {
        self.0 & Self::CREATED != 0
    }

    /// Whether INIT is in it.
    #[must_use]
    pub const fn has_init(self) -> bool {
        self.0 & Self::INIT != 0
    }

    /// Whether an NMI is in it.
    #[must_use]
    pub const fn has_nmi(self) -> bool {
        self.0 & Self::NMI != 0
    }

    /// Whether it is to leave its guest, which may be gone.
    #[must_use]
    pub const fn has_leave(self) -> bool {
        self.0 & Self::LEAVE != 0
    }

    /// Whether the end is in it.
    #[must_use]
    pub const fn has_stop(self) -> bool {
        self.0 & Self::STOP != 0
    }

    /// The page of a start-up message, if one is in it.
    #[must_use]
    pub const fn start_page(self) -> Option<u8> {
        if self.0 & Self::START != 0 {
            Some((self.0 & 0xff) as u8)
        } else {
            None
        }
    }
}

impl Board {
    /// A board for the CPUs with these APIC ids; the first is the one that boots.
    ///
    /// CPUs beyond [`MAX_CPUS`] are left out.
    #[must_use]
    pub fn new(apic_ids: &[u32]) -> Self {
        let board = Self {
            slots: [const { Slot::new() }; MAX_CPUS],
            count: apic_ids.len().min(MAX_CPUS),
            ended: AtomicBool::new(false),
        };
        for (slot, id) in board.slots.iter().zip(apic_ids) {
            slot.apic_id.store(*id, Ordering::Relaxed);
        }
        board
    }

    /// The CPUs in order.
    pub fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().take(self.count)
    }

    /// One CPU.
    #[must_use]
    pub fn slot(&self, cpu: usize) -> Option<&Slot> {
        self.slots.get(cpu).filter(|_| cpu < self.count)
    }

    /// Claims the right to end the run. Only one CPU ever gets it.
    #[must_use]
    pub fn claim_end(&self) -> bool {
        !self.ended.swap(true, Ordering::AcqRel)
    }

    /// Whether somebody ends the run.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Whether no CPU can do anything any more.
    #[must_use]
    pub fn all_halted(&self) -> bool {
        self.slots().all(|slot| {
            matches!(slot.state(), State::WaitsForStart | State::HaltedForGood) && !slot.has_mail()
        })
    }
}

impl Slot {
    const fn new() -> Self {
        Self {
            apic_id: AtomicU32::new(0),
            state: AtomicU8::new(State::Absent as u8),
            stopped: AtomicBool::new(false),
            inside: AtomicBool::new(false),
            lock: AtomicBool::new(false),
            mail: AtomicU32::new(0),
            bells: AtomicU64::new(0),
            counters: Counters {
                exits: [const { [const { AtomicU64::new(0) }; Reason::ALL.len()] }; LEVELS + 1],
                operations: [const { AtomicU64::new(0) }; Operation::ALL.len()],
                l0_ticks: AtomicU64::new(0),
                halt_ticks: AtomicU64::new(0),
                guest_ticks: AtomicU64::new(0),
                first_entry: AtomicU64::new(0),
            },
        }
    }

    /// The CPU's APIC id.
    #[must_use]
    pub fn apic_id(&self) -> u32 {
        self.apic_id.load(Ordering::Relaxed)
    }

    /// What the CPU does.
    #[must_use]
    pub fn state(&self) -> State {
        State::decode(self.state.load(Ordering::SeqCst))
    }

    /// Says what the CPU does; only for the CPU itself.
    pub fn set_state(&self, state: State) {
        self.state.store(state as u8, Ordering::SeqCst);
    }

    /// Whether the CPU has stopped because the run is over.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Says that the CPU stops; only for the CPU itself.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    /// Says that the CPU is about to enter its guest, or has left it; only for the CPU itself.
    pub fn set_inside(&self, inside: bool) {
        self.inside.store(inside, Ordering::SeqCst);
    }

    /// Whether the CPU may be in its guest, with translations that it looked up before now.
    #[must_use]
    pub fn is_inside(&self) -> bool {
        self.inside.load(Ordering::SeqCst)
    }

    /// Leaves mail and rings.
    ///
    /// Of a start-up message that the CPU would not take, nothing is left.
    pub fn post(&self, mail: Mail, ring: impl FnOnce(u32)) {
        self.locked(|| {
            let waits = self.state() == State::WaitsForStart
                || self.mail.load(Ordering::SeqCst) & Mail::INIT != 0;
            if mail.start_page().is_some() && !waits {
                return;
            }
            // A second start-up message must not mix its page with the first one's.
            if mail.start_page().is_some() {
                self.mail.fetch_and(!0xff, Ordering::SeqCst);
            }
            self.mail.fetch_or(mail.0, Ordering::SeqCst);
            self.bells.fetch_add(1, Ordering::SeqCst);
            ring(self.apic_id());
        });
    }

    /// Whether there is mail.
    #[must_use]
    pub fn has_mail(&self) -> bool {
        self.mail.load(Ordering::SeqCst) != 0
    }

    /// Takes all mail; only for the CPU itself.
    pub fn take_mail(&self) -> Mail {
        if self.mail.load(Ordering::SeqCst) == 0 {
            return Mail::default();
        }
        Mail(self.mail.swap(0, Ordering::SeqCst))
    }

    /// Answers an NMI: if somebody rang since `heard`, `swallow` must take the NMI away,
    /// and the new count comes back. If nobody did, the NMI is the guest's.
    pub fn answer_bell(&self, heard: u64, swallow: impl FnOnce()) -> Option<u64> {
        self.locked(|| {
            let bells = self.bells.load(Ordering::SeqCst);
            if bells == heard {
                return None;
            }
            swallow();
            Some(bells)
        })
    }

    /// How many exits there were, of whatever reason.
    #[must_use]
    pub fn exits(&self) -> u64 {
        let counts = Reason::ALL.map(|reason| self.counters.exits(reason));
        counts.into_iter().fold(0, u64::wrapping_add)
    }

    /// Counts an exit from a level, where there are levels; only for the CPU itself.
    pub fn count_exit(&self, reason: Reason, level: Option<u8>) {
        let row = level.map_or(LEVELS, |level| usize::from(level).min(LEVELS));
        let counter = self.counters.exits.get(row);
        if let Some(counter) = counter.and_then(|row| row.get(reason as usize)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn locked<T>(&self, f: impl FnOnce() -> T) -> T {
        while self.lock.swap(true, Ordering::Acquire) {
            core::hint::spin_loop();
        }
        let result = f();
        self.lock.store(false, Ordering::Release);
        result
    }
}

impl Counters {
    /// How many exits there were for a reason.
    #[must_use]
    pub fn exits(&self, reason: Reason) -> u64 {
        let rows = self.exits.iter().filter_map(|row| row.get(reason as usize));
        rows.fold(0, |sum, counter| {
            sum.wrapping_add(counter.load(Ordering::Relaxed))
        })
    }

    /// How many of them were from a level.
    #[must_use]
    pub fn exits_from(&self, level: u8, reason: Reason) -> u64 {
        let row = self.exits.get(usize::from(level).min(LEVELS));
        row.and_then(|row| row.get(reason as usize))
            .map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// Counts something that was carried out for the guest; only for the CPU itself.
    pub fn count(&self, operation: Operation, times: u64) {
        if let Some(counter) = self.operations.get(operation as usize) {
            counter.fetch_add(times, Ordering::Relaxed);
        }
    }

    /// How often something was carried out.
    #[must_use]
    pub fn operations(&self, operation: Operation) -> u64 {
        self.operations
            .get(operation as usize)
            .map_or(0, |counter| counter.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_up_message_needs_a_cpu_that_waits() {
        let board = Board::new(&[0, 1]);
        let slot = board.slot(1).unwrap();
        slot.set_state(State::Runs);
        slot.post(Mail::start_up(8), |_| unreachable!());
        assert_eq!(slot.take_mail(), Mail::default());
        let mut rung = None;
        slot.post(Mail::init(), |id| rung = Some(id));
        slot.post(Mail::start_up(0x10), |_| {});
        slot.post(Mail::start_up(8), |_| {});
        assert_eq!(rung, Some(1));
        let mail = slot.take_mail();
        assert!(mail.has_init() && !mail.has_nmi());
        assert_eq!(mail.start_page(), Some(8));
        assert!(board.slot(2).is_none());
    }

    #[test]
    fn bells_and_guest_nmis_are_told_apart() {
        let board = Board::new(&[0]);
        let slot = board.slot(0).unwrap();
        assert_eq!(slot.answer_bell(0, || unreachable!()), None);
        slot.post(Mail::nmi(), |_| {});
        slot.post(Mail::stop(), |_| {});
        assert_eq!(slot.answer_bell(0, || {}), Some(2));
        assert_eq!(slot.answer_bell(2, || unreachable!()), None);
        assert!(slot.take_mail().has_stop());
    }

    #[test]
    fn a_halted_cpu_with_mail_is_not_lost() {
        let board = Board::new(&[0, 1]);
        board.slot(0).unwrap().set_state(State::HaltedForGood);
        board.slot(1).unwrap().set_state(State::WaitsForStart);
        assert!(board.all_halted());
        board.slot(1).unwrap().post(Mail::start_up(8), |_| {});
        assert!(!board.all_halted());
        assert!(board.claim_end() && !board.claim_end());
    }
}
