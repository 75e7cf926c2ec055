//! The host's half of the #HV doorbell page: how a guest under restricted injection is told of interrupts (56421, "#HV
//! doorbell page").
//!
//! Such a guest takes no vector from its host. The host writes what is pending to a shared page and rings: it injects #HV,
//! once, until the guest says that it has heard. [`Doorbell`] is what a host keeps for one virtual CPU at one level; it
//! takes events as they come ([`post`](Doorbell::post)), and before each entry says whether to ring
//! ([`present`](Doorbell::present)).
//!
//! The guest owns the page as much as the host does, so that each byte is read and changed in one step ([`Bell`]), and
//! whatever stands there can have been anything. All that a guest can achieve by writing nonsense is to miss its own
//! interrupts.
//!
//! What drafts of the specification add for lower levels (offsets 3 and 0x40 and up) is not here.

use core::fmt;

/// Where things are on the page.
pub mod offset {
    /// The vector that waits to be taken; zero is none.
    pub const VECTOR: usize = 0;
    /// [`Flags`](super::Flags).
    pub const FLAGS: usize = 1;
    /// Bit 0: the guest need not say that it is done with the vector.
    pub const NO_EOI: usize = 2;
}

bitflags::bitflags! {
    /// The byte beside the vector.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Flags: u8 {
        /// An NMI waits.
        const NMI = 1 << 0;
        /// A machine check waits.
        const MACHINE_CHECK = 1 << 1;
        /// The guest was rung for, and has not answered the door yet.
        const NO_FURTHER_SIGNAL = 1 << 7;
    }
}

/// Single bytes of a page that host and guest change at the same time. Each call is one atomic step.
pub trait Bell {
    /// Why the page cannot be reached: the guest may have made it private.
    type Error;

    /// Reads a byte.
    ///
    /// # Errors
    /// If the page cannot be reached.
    fn load(&mut self, offset: usize) -> Result<u8, Self::Error>;

    /// Writes a byte, and gives what it was.
    ///
    /// # Errors
    /// If the page cannot be reached.
    fn swap(&mut self, offset: usize, value: u8) -> Result<u8, Self::Error>;

    /// Sets bits of a byte, and gives what it was.
    ///
    /// # Errors
    /// If the page cannot be reached.
    fn set(&mut self, offset: usize, bits: u8) -> Result<u8, Self::Error>;
}

/// An event for the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// An interrupt.
    Interrupt(Vector),
    /// An NMI.
    Nmi,
    /// A machine check.
    MachineCheck,
}

/// A vector that a doorbell can hold: 31 and up. 31 itself stands for lower levels' events in drafts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vector(u8);

impl Vector {
    /// The vector with that number; none below 31.
    #[must_use]
    pub const fn new(vector: u8) -> Option<Self> {
        if vector >= 31 {
            Some(Self(vector))
        } else {
            None
        }
    }

    /// Its number.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Vector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vector {}", self.0)
    }
}

/// Whether the host has to inject #HV at the next entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "a guest that is not rung for does not look"]
pub enum Ring {
    /// Inject it.
    Now,
    /// There is nothing new, or the guest has not heard the last one yet.
    No,
}

/// What became of the vector that the guest has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Given {
    /// It has none.
    #[default]
    Nothing,
    /// It has one, and will say when it is done.
    UntilEoi,
    /// It has one, and clears a byte when it is done.
    Silent,
}

/// What a host keeps of one doorbell: the events that are not on the page yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doorbell {
    waiting: [u32; 8],
    flags: u8,
    given: Given,
    /// A vector is on the page, and nobody rang for it yet.
    unrung: bool,
}

impl Doorbell {
    /// One with nothing pending.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            waiting: [0; 8],
            flags: 0,
            given: Given::Nothing,
            unrung: false,
        }
    }

    /// Takes note of an event. Several of a kind (or with the same vector) are one, as with a real interrupt controller.
    pub fn post(&mut self, event: Event) {
        match event {
            Event::Interrupt(Vector(vector)) => {
                if let Some(word) = self.waiting.get_mut(usize::from(vector >> 5)) {
                    *word |= 1 << (vector & 31);
                }
            }
            Event::Nmi => self.flags |= Flags::NMI.bits(),
            Event::MachineCheck => self.flags |= Flags::MACHINE_CHECK.bits(),
        }
    }

    /// Whether events wait that are not on the page.
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        self.flags != 0 || self.highest().is_some()
    }

    /// The guest wrote its end-of-interrupt register.
    pub const fn end_of_interrupt(&mut self) {
        self.given = Given::Nothing;
    }

    /// Puts on the page what can go there, before the virtual CPU is entered.
    ///
    /// One vector is there at a time: the next comes when the guest took it and is done with it. If no other waits, the
    /// guest is spared to say so.
    ///
    /// # Errors
    /// If the page cannot be reached. What was posted stays posted, and what is on the page is rung for the next time.
    pub fn present<B: Bell>(&mut self, bell: &mut B) -> Result<Ring, B::Error> {
        if self.can_take(bell)?
            && let Some(Vector(vector)) = self.highest()
        {
            // Before the vector: the guest looks at it when it is done with what it took.
            let last = self.after(vector).is_none();
            bell.swap(offset::NO_EOI, u8::from(last))?;
            bell.swap(offset::VECTOR, vector)?;
            self.given = if last { Given::Silent } else { Given::UntilEoi };
            self.clear(vector);
            self.unrung = true;
        }
        if self.flags == 0 && !self.unrung {
            return Ok(Ring::No);
        }
        let ring = self.flags | Flags::NO_FURTHER_SIGNAL.bits();
        let before = bell.set(offset::FLAGS, ring)?;
        (self.flags, self.unrung) = (0, false);
        let heard = before & Flags::NO_FURTHER_SIGNAL.bits() == 0;
        Ok(if heard { Ring::Now } else { Ring::No })
    }

    /// Whether the page has room for another vector.
    fn can_take<B: Bell>(&mut self, bell: &mut B) -> Result<bool, B::Error> {
        if bell.load(offset::VECTOR)? != 0 {
            // It was not taken yet. Should another wait by now, the guest must say when it is done.
            if self.given == Given::Silent && self.highest().is_some() {
                self.revoke(bell)?;
            }
            return Ok(false);
        }
        if self.given == Given::Silent && self.highest().is_some() {
            self.revoke(bell)?;
        }
        Ok(self.given == Given::Nothing)
    }

    /// Takes back that the guest need not say when it is done; if it is done already, so much the better.
    fn revoke<B: Bell>(&mut self, bell: &mut B) -> Result<(), B::Error> {
        let before = bell.swap(offset::NO_EOI, 0)?;
        self.given = if before & 1 == 0 {
            Given::Nothing
        } else {
            Given::UntilEoi
        };
        Ok(())
    }

    fn highest(&self) -> Option<Vector> {
        (31..=u8::MAX)
            .rev()
            .find(|vector| self.waits(*vector))
            .map(Vector)
    }

    /// The next below one.
    fn after(&self, highest: u8) -> Option<Vector> {
        (31..highest)
            .rev()
            .find(|vector| self.waits(*vector))
            .map(Vector)
    }

    fn waits(&self, vector: u8) -> bool {
        let word = self.waiting.get(usize::from(vector >> 5));
        word.is_some_and(|word| word >> (vector & 31) & 1 != 0)
    }

    fn clear(&mut self, vector: u8) {
        if let Some(word) = self.waiting.get_mut(usize::from(vector >> 5)) {
            *word &= !(1 << (vector & 31));
        }
    }
}
