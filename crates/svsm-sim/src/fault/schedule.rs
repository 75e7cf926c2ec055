//! When a host lies.

use super::draw::{self, draw};
use super::{Fault, Faults, Occasions, ParseError, parse};
use core::fmt;

/// A fault that comes now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fired {
    /// Which.
    pub fault: Fault,
    /// The number of the event at which it comes.
    pub event: u64,
    /// What all that is random about it is drawn from.
    pub choice: u64,
}

impl Fired {
    /// A random word for the fault's own use: the same for the same number, in every run.
    #[must_use]
    pub const fn word(&self, number: u64) -> u64 {
        draw(self.choice, number)
    }

    /// One of `options`, at random; `None` if there are none.
    #[must_use]
    pub fn pick<'a, T>(&self, number: u64, options: &'a [T]) -> Option<&'a T> {
        let at = self.below(number, u64::try_from(options.len()).ok()?);
        options.get(usize::try_from(at).ok()?)
    }

    /// A random number below `bound`, or zero if that is zero.
    #[must_use]
    pub const fn below(&self, number: u64, bound: u64) -> u64 {
        match self.word(number).checked_rem(bound) {
            Some(value) => value,
            None => 0,
        }
    }
}

impl fmt::Display for Fired {
    /// As a script has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}={:#x}", self.fault, self.event, self.choice)
    }
}

/// The longest distance between two appearances of a fault, as a power of two of fitting events.
const FARTHEST: u64 = 10;

/// Which faults come, and at which of a run's events.
#[derive(Clone, Debug)]
pub struct Schedule {
    plan: Plan,
}

#[derive(Clone, Debug)]
enum Plan {
    Honest,
    Seeded {
        seed: u64,
        faults: Faults,
        clocks: [Clock; Fault::ALL.len()],
    },
    Script {
        steps: [Option<Fired>; Schedule::STEPS],
    },
}

/// When a fault comes next, in events that give the opportunity.
#[derive(Clone, Copy, Debug, Default)]
struct Clock {
    left: u64,
    fired: u64,
}

impl Clock {
    /// Distances are drawn so that every order of magnitude is equally likely: faults hit early events and late ones,
    /// and of those that come rarely any.
    const fn set(stream: u64, fired: u64) -> Self {
        let word = draw(stream, fired);
        let magnitude = word % (FARTHEST + 1);
        Self {
            left: (word >> 32) & ((1 << magnitude) - 1),
            fired,
        }
    }
}

impl Schedule {
    /// A host that never lies.
    pub const HONEST: Self = Self { plan: Plan::Honest };
    /// The most words that a script can have.
    pub const STEPS: usize = 32;

    /// The faults in `faults`, each again and again, at events that follow from `seed`.
    #[must_use]
    pub fn seeded(faults: Faults, seed: u64) -> Self {
        let mut clocks = [Clock::default(); Fault::ALL.len()];
        for (clock, fault) in clocks.iter_mut().zip(Fault::ALL) {
            *clock = Clock::set(stream(seed, *fault), 0);
        }
        Self {
            plan: Plan::Seeded {
                seed,
                faults,
                clocks,
            },
        }
    }

    /// Reads a script: words `name@event`, with commas between. Each comes once, at the first event from that number on
    /// that gives the opportunity. `name@event=choice` fixes what is random about it, too.
    ///
    /// # Errors
    /// The first word that is wrong.
    pub fn script(text: &str) -> Result<Self, ParseError> {
        let mut steps = [None; Self::STEPS];
        let mut free = steps.iter_mut();
        for (at, word) in parse::words(text) {
            let (name, numbers) = word.split_once('@').ok_or(ParseError::NoEvent { at })?;
            let fault = Fault::named(name).ok_or(ParseError::Unknown { at })?;
            let (event, choice) = match numbers.split_once('=') {
                Some((event, choice)) => (parse::number(event), parse::number(choice)),
                None => {
                    let event = parse::number(numbers);
                    (event, event.map(|event| draw(stream(0, fault), event)))
                }
            };
            let (Some(event), Some(choice)) = (event, choice) else {
                return Err(ParseError::Number { at });
            };
            let step = free.next().ok_or(ParseError::TooLong { at })?;
            *step = Some(Fired {
                fault,
                event,
                choice,
            });
        }
        if steps.iter().all(Option::is_none) {
            return Err(ParseError::Nothing);
        }
        Ok(Self {
            plan: Plan::Script { steps },
        })
    }

    /// The faults that can come.
    #[must_use]
    pub fn faults(&self) -> Faults {
        match &self.plan {
            Plan::Honest => Faults::NONE,
            Plan::Seeded { faults, .. } => *faults,
            Plan::Script { steps } => steps.iter().flatten().map(|step| step.fault).collect(),
        }
    }

    /// The fault that comes at an event with that number, which gives these opportunities: at most one.
    ///
    /// Every event must be asked about, once, in the order of their numbers.
    pub fn next(&mut self, event: u64, occasions: Occasions) -> Option<Fired> {
        let occasions = occasions | Occasions::ENTRY;
        let fits = |fault: Fault| fault.occasions().intersects(occasions);
        match &mut self.plan {
            Plan::Honest => None,
            Plan::Seeded {
                seed,
                faults,
                clocks,
            } => {
                let mut chosen: Option<(u64, Fault, &mut Clock)> = None;
                for (clock, fault) in clocks.iter_mut().zip(Fault::ALL.iter().copied()) {
                    if !faults.contains(fault) || !fits(fault) {
                        continue;
                    }
                    if clock.left > 0 {
                        clock.left -= 1;
                        continue;
                    }
                    // Of several that are due one comes, by lot; the others wait for the next opportunity.
                    let lot = draw(stream(*seed, fault), event);
                    if chosen.as_ref().is_none_or(|(best, ..)| lot > *best) {
                        chosen = Some((lot, fault, clock));
                    }
                }
                let (choice, fault, clock) = chosen?;
                *clock = Clock::set(stream(*seed, fault), clock.fired.wrapping_add(1));
                Some(Fired {
                    fault,
                    event,
                    choice,
                })
            }
            Plan::Script { steps } => {
                let due = |step: &&mut Option<Fired>| {
                    step.is_some_and(|step| step.event <= event && fits(step.fault))
                };
                let step = steps.iter_mut().find(due)?.take()?;
                Some(Fired { event, ..step })
            }
        }
    }
}

/// The seed of all that is drawn for a fault.
const fn stream(seed: u64, fault: Fault) -> u64 {
    draw(seed, draw::number(fault.name()))
}
