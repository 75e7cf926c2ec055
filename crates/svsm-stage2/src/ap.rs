//! Starting the other CPUs from the SVSM.
//!
//! [`ApStart`] posts an order, has INIT and SIPI sent through a seam, and waits, never for ever.
//! When [`ApStart::start`] returns, the CPU has read its order and is about to leave the trampoline;
//! that it arrived is for the SVSM's own entry code to tell. Until all have, the trampoline, the
//! mailbox and stage2's page tables must stay as they are.

use core::fmt;

use svsm_platform::addr::Gpa;

use crate::error::{ApFault, Error, Result};
use crate::handoff::Handoff;
use crate::mailbox::{Mailbox, Order, Posted};

/// Sends the interrupts that start a CPU, and waits.
///
/// What was stored in memory before a call is visible to the CPU that the call's interrupt reaches
/// (a write to an x2APIC register alone does not see to that).
pub trait StartSignal {
    /// Why an interrupt was not sent.
    type Error: Copy + fmt::Debug;

    /// Sends INIT.
    ///
    /// # Errors
    ///
    /// Why it was not sent.
    fn init(&mut self, apic_id: u32) -> Result<(), Self::Error>;

    /// Sends a start-up interrupt that makes the CPU begin at `page`, in real mode.
    ///
    /// # Errors
    ///
    /// Why it was not sent.
    fn startup(&mut self, apic_id: u32, page: Gpa) -> Result<(), Self::Error>;

    /// Does nothing for at least so long.
    fn wait(&mut self, microseconds: u32);
}

/// How long to wait for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Timing {
    /// Between INIT and the first SIPI.
    pub after_init_us: u32,
    /// Between looks at the mailbox.
    pub poll_us: u32,
    /// How many looks before the second SIPI.
    pub polls_before_second: u32,
    /// How many looks after it.
    pub polls: u32,
}

impl Timing {
    /// What the manuals ask for at first (10 ms after INIT, 200 µs after the first SIPI), and up to
    /// two seconds afterwards: a host may be slow to run a CPU for the first time.
    pub const USUAL: Self = Self {
        after_init_us: 10_000,
        poll_us: 50,
        polls_before_second: 4,
        polls: 40_000,
    };
}

/// Starts CPUs one after the other.
#[derive(Debug)]
pub struct ApStart<'m> {
    mailbox: &'m Mailbox,
    trampoline: Gpa,
    low_root: Gpa,
    timing: Timing,
}

impl<'m> ApStart<'m> {
    /// A starter that uses the image's trampoline and stage2's page tables, which the hand-off
    /// names, and its mailbox, which the caller has mapped.
    #[must_use]
    pub const fn new(handoff: &Handoff, mailbox: &'m Mailbox, timing: Timing) -> Self {
        Self {
            mailbox,
            trampoline: handoff.trampoline,
            low_root: handoff.stage2_tables.start(),
            timing,
        }
    }

    /// Has the CPU with that APIC id carry out `order`, and returns when it has read it.
    ///
    /// After [`ApFault::NoAnswer`] and [`ApFault::NotSent`] the order is dead, and what it points
    /// to can be used otherwise; after [`ApFault::Stuck`] neither that nor the mailbox can.
    ///
    /// # Errors
    ///
    /// [`Error::Ap`] says how far the CPU got.
    pub fn start(
        &mut self,
        apic_id: u32,
        order: &Order,
        signal: &mut impl StartSignal,
    ) -> Result<()> {
        let posted = self.mailbox.post(apic_id, self.low_root, order)?;
        let sent = self.send(apic_id, &posted, signal).is_ok();
        if sent && self.poll(self.timing.polls, &posted, signal) {
            return posted.finish().map_err(|_| Error::Bug);
        }
        let fault = match posted.withdraw() {
            Ok(()) if sent => ApFault::NoAnswer,
            Ok(()) => ApFault::NotSent,
            // Claimed in this very moment: a few more instructions, unless the host stops it there.
            Err(posted) if self.poll(self.timing.polls, &posted, signal) => {
                return posted.finish().map_err(|_| Error::Bug);
            }
            Err(_) => ApFault::Stuck,
        };
        Err(Error::Ap { apic_id, fault })
    }

    fn send<S: StartSignal>(
        &self,
        apic_id: u32,
        posted: &Posted<'_>,
        signal: &mut S,
    ) -> Result<(), S::Error> {
        signal.init(apic_id)?;
        signal.wait(self.timing.after_init_us);
        signal.startup(apic_id, self.trampoline)?;
        if !self.poll(self.timing.polls_before_second, posted, signal) {
            signal.startup(apic_id, self.trampoline)?;
        }
        Ok(())
    }

    /// Looks up to `polls` times whether the order was taken.
    fn poll(&self, polls: u32, posted: &Posted<'_>, signal: &mut impl StartSignal) -> bool {
        for _ in 0..polls {
            if posted.is_taken() {
                return true;
            }
            signal.wait(self.timing.poll_us);
        }
        posted.is_taken()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::handoff::tests::sample;
    use std::vec::Vec;
    use svsm_platform::addr::Gva;

    const TIMING: Timing = Timing {
        after_init_us: 10,
        poll_us: 1,
        polls_before_second: 2,
        polls: 5,
    };

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Event {
        Init(u32),
        Startup(u32, u64),
        Wait(u32),
    }

    /// A CPU that does something when its time comes.
    struct Cpu<'m> {
        events: Vec<Event>,
        mailbox: &'m Mailbox,
        wakes_after: usize,
        refuses: bool,
        took: Option<Order>,
    }

    impl<'m> Cpu<'m> {
        fn new(mailbox: &'m Mailbox, wakes_after: usize) -> Self {
            Self {
                events: Vec::new(),
                mailbox,
                wakes_after,
                refuses: false,
                took: None,
            }
        }

        fn note(&mut self, event: Event) -> Result<(), ()> {
            self.events.push(event);
            let started = self
                .events
                .iter()
                .any(|event| matches!(event, Event::Startup(..)));
            if started && self.events.len() >= self.wakes_after && self.took.is_none() {
                self.took = self.mailbox.take(5);
            }
            if self.refuses { Err(()) } else { Ok(()) }
        }
    }

    impl StartSignal for Cpu<'_> {
        type Error = ();

        fn init(&mut self, apic_id: u32) -> Result<(), ()> {
            self.note(Event::Init(apic_id))
        }

        fn startup(&mut self, apic_id: u32, page: Gpa) -> Result<(), ()> {
            self.note(Event::Startup(apic_id, page.as_u64()))
        }

        fn wait(&mut self, microseconds: u32) {
            let _ = self.note(Event::Wait(microseconds));
        }
    }

    fn order() -> Order {
        Order {
            cr3: 0x1000,
            stack_top: Gva::new(0x4000).unwrap(),
            entry: Gva::new(0x5000).unwrap(),
            argument: 6,
        }
    }

    #[test]
    fn a_prompt_cpu_gets_one_startup() {
        let mailbox = Mailbox::new();
        let mut cpu = Cpu::new(&mailbox, 0);
        ApStart::new(&sample(), &mailbox, TIMING)
            .start(5, &order(), &mut cpu)
            .unwrap();
        assert_eq!(cpu.took, Some(order()));
        assert_eq!(
            cpu.events,
            [Event::Init(5), Event::Wait(10), Event::Startup(5, 0x8000)]
        );
    }

    #[test]
    fn a_slow_cpu_gets_two() {
        let mailbox = Mailbox::new();
        let mut start = ApStart::new(&sample(), &mailbox, TIMING);
        let mut cpu = Cpu::new(&mailbox, 8);
        start.start(5, &order(), &mut cpu).unwrap();
        let startups = cpu
            .events
            .iter()
            .filter(|event| matches!(event, Event::Startup(..)));
        assert_eq!(startups.count(), 2);
    }

    #[test]
    fn a_cpu_that_comes_too_late_gets_nothing() {
        let mailbox = Mailbox::new();
        let mut start = ApStart::new(&sample(), &mailbox, TIMING);
        let mut cpu = Cpu::new(&mailbox, 1000);
        let fault = Err(Error::Ap {
            apic_id: 5,
            fault: ApFault::NoAnswer,
        });
        assert_eq!(start.start(5, &order(), &mut cpu), fault);
        assert_eq!(mailbox.take(5), None);
        // The mailbox serves the next one.
        assert_eq!(start.start(5, &order(), &mut Cpu::new(&mailbox, 0)), Ok(()));
    }

    #[test]
    fn a_cpu_that_stops_half_way_keeps_the_mailbox() {
        /// Claims its order at the first look, and is never heard of again.
        struct Stopped<'m>(&'m Mailbox);

        impl StartSignal for Stopped<'_> {
            type Error = ();

            fn init(&mut self, _: u32) -> Result<(), ()> {
                Ok(())
            }

            fn startup(&mut self, apic_id: u32, _: Gpa) -> Result<(), ()> {
                self.0.claim(apic_id);
                Ok(())
            }

            fn wait(&mut self, _: u32) {}
        }

        let mailbox = Mailbox::new();
        let mut start = ApStart::new(&sample(), &mailbox, TIMING);
        let fault = |apic_id, fault| Err(Error::Ap { apic_id, fault });
        let stuck = start.start(5, &order(), &mut Stopped(&mailbox));
        assert_eq!(stuck, fault(5, ApFault::Stuck));
        let next = start.start(6, &order(), &mut Stopped(&mailbox));
        assert_eq!(next, fault(6, ApFault::Busy { apic_id: 5 }));
    }

    #[test]
    fn unsent_interrupts_kill_the_order() {
        let mailbox = Mailbox::new();
        let mut cpu = Cpu {
            refuses: true,
            ..Cpu::new(&mailbox, 1000)
        };
        let fault = Err(Error::Ap {
            apic_id: 5,
            fault: ApFault::NotSent,
        });
        let mut start = ApStart::new(&sample(), &mailbox, TIMING);
        assert_eq!(start.start(5, &order(), &mut cpu), fault);
        assert_eq!(mailbox.take(5), None);
    }
}
