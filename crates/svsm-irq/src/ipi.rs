//! Messages between CPUs: "do this", and knowing when it was done.
//!
//! Each CPU has a [`Mailbox`]. Whoever wants something of it posts a message, raises an interrupt
//! there through an [`IpiTransport`], and may wait until the message was served. What a message is,
//! the firmware decides: a range to flush from the TLB, a function to call, "stop".
//!
//! Two CPUs that wait for each other with interrupts masked would wait for ever, so whoever waits
//! serves its own mailbox meanwhile:
//!
//! ```
//! use svsm_irq::{Vector, ipi::{IpiTransport, Mailbox, wait}};
//! use svsm_platform::{irq::IrqCtl, percpu::CpuIndex};
//!
//! #[derive(Clone, Copy)]
//! enum Message {
//!     FlushAll,
//!     Stop,
//! }
//!
//! /// Has one CPU flush its TLB, and waits for it. `false` if it has too much to do already.
//! fn flush<I: IrqCtl, T: IpiTransport>(
//!     cpu: CpuIndex,
//!     its: &Mailbox<Message, 4, I>,
//!     mine: &Mailbox<Message, 4, I>,
//!     transport: &mut T,
//!     handle: fn(Message),
//! ) -> Result<bool, T::Error> {
//!     let Ok(ticket) = its.post(Message::FlushAll) else { return Ok(false) };
//!     transport.send(cpu, Vector::FIRST)?;
//!     wait(its, ticket, || { mine.serve(handle); });
//!     Ok(true)
//! }
//! # let _ = Message::Stop;
//! ```

use core::fmt;

use svsm_platform::{irq::IrqCtl, lock::SpinLock, percpu::CpuIndex};

use crate::{
    Vector,
    apic::{ApicId, Command, LocalApic, Target},
    sync::{AtomicBool, AtomicU64, Ordering, const_fn, spin_loop},
};

/// Raises interrupts on other CPUs: by the local APIC, by a call to the host, or by a test's word.
pub trait IpiTransport {
    /// Why none was raised.
    type Error;

    /// Raises `vector` on another CPU, after everything this CPU has written before is visible
    /// there.
    ///
    /// # Errors
    /// Why it was not raised.
    fn send(&mut self, cpu: CpuIndex, vector: Vector) -> Result<(), Self::Error>;
}

impl<T: IpiTransport + ?Sized> IpiTransport for &mut T {
    type Error = T::Error;

    fn send(&mut self, cpu: CpuIndex, vector: Vector) -> Result<(), T::Error> {
        T::send(self, cpu, vector)
    }
}

/// Raises interrupts through the local APIC of the CPU that sends.
#[derive(Debug)]
pub struct ApicTransport<'i, A> {
    apic: A,
    ids: &'i [ApicId],
}

impl<'i, A: LocalApic> ApicTransport<'i, A> {
    /// Reaches each CPU by its identity: `ids` has one for each index.
    pub const fn new(apic: A, ids: &'i [ApicId]) -> Self {
        Self { apic, ids }
    }
}

/// Why an interrupt was not raised on another CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum TransportError<E> {
    /// There is no CPU with that index.
    NoSuchCpu(CpuIndex),
    /// The local APIC was not reached.
    Access(E),
}

impl<E: fmt::Debug> fmt::Display for TransportError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchCpu(cpu) => write!(f, "no cpu {cpu}"),
            Self::Access(error) => write!(f, "apic not reached: {error:?}"),
        }
    }
}

impl<E: fmt::Debug> core::error::Error for TransportError<E> {}

impl<A: LocalApic> IpiTransport for ApicTransport<'_, A> {
    type Error = TransportError<A::Error>;

    fn send(&mut self, cpu: CpuIndex, vector: Vector) -> Result<(), Self::Error> {
        let id = self
            .ids
            .get(cpu.as_usize())
            .ok_or(TransportError::NoSuchCpu(cpu))?;
        let command = Command::fixed(Target::One(*id), vector);
        self.apic.send(command).map_err(TransportError::Access)
    }
}

/// What one CPU is asked to do: up to `N` messages that it has not taken yet, oldest first.
pub struct Mailbox<M, const N: usize, I> {
    queue: SpinLock<Queue<M, N>, I>,
    served: AtomicU64,
    serving: AtomicBool,
}

struct Queue<M, const N: usize> {
    messages: [Option<M>; N],
    posted: u64,
    taken: u64,
}

/// Which message it was, in one mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[must_use = "the message may not be served yet"]
pub struct Ticket(u64);

impl<M: Copy, const N: usize, I: IrqCtl> Mailbox<M, N, I> {
    const_fn! {
        /// An empty mailbox, which masks interrupts by `irq` while somebody has it open.
        pub fn new(irq: I) -> Self {
            Self {
                queue: SpinLock::new(Queue { messages: [None; N], posted: 0, taken: 0 }, irq),
                served: AtomicU64::new(0),
                serving: AtomicBool::new(false),
            }
        }
    }

    /// Leaves a message. The CPU has to be told.
    ///
    /// # Errors
    /// The message, if `N` others wait already.
    pub fn post(&self, message: M) -> Result<Ticket, M> {
        let mut queue = self.queue.lock();
        if queue.put(message) {
            Ok(Ticket(queue.posted))
        } else {
            Err(message)
        }
    }

    /// Whether a message was served.
    #[must_use]
    pub fn is_served(&self, ticket: Ticket) -> bool {
        // Pairs with the release in `serve`: what the handler wrote is visible to whoever sees
        // this.
        self.served.load(Ordering::Acquire) >= ticket.0
    }

    /// Serves the messages that are there, one by one and in order, until there are none. Answers
    /// with how many it served.
    ///
    /// Only the mailbox's own CPU calls this: in the handler of the interrupt, and while it waits.
    /// If it is interrupted in a handler, the inner call serves nothing and leaves the rest to the
    /// outer one, so that messages never overtake each other. Handlers therefore must not wait for
    /// messages themselves.
    pub fn serve(&self, mut handle: impl FnMut(M)) -> usize {
        let mut count = 0;
        // Look once more after giving up the mark: an inner call that saw it left a message to us.
        while self.has_messages() && !self.serving.swap(true, Ordering::Acquire) {
            while let Some(message) = self.take() {
                handle(message);
                count += 1;
                self.served.fetch_add(1, Ordering::Release);
            }
            self.serving.store(false, Ordering::Release);
        }
        count
    }

    // A function of its own, so that the lock is free again when a handler runs.
    fn take(&self) -> Option<M> {
        self.queue.lock().take()
    }

    fn has_messages(&self) -> bool {
        let queue = self.queue.lock();
        queue.posted != queue.taken
    }
}

impl<M: Copy, const N: usize> Queue<M, N> {
    fn place(&mut self, number: u64) -> Option<&mut Option<M>> {
        let place = number.checked_rem(N as u64)?;
        self.messages.get_mut(usize::try_from(place).ok()?)
    }

    fn put(&mut self, message: M) -> bool {
        match self.place(self.posted) {
            Some(place @ None) => {
                *place = Some(message);
                self.posted += 1;
                true
            }
            _ => false,
        }
    }

    fn take(&mut self) -> Option<M> {
        let message = self.place(self.taken)?.take()?;
        self.taken += 1;
        Some(message)
    }
}

impl<M, const N: usize, I: IrqCtl> fmt::Debug for Mailbox<M, N, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the messages: whoever prints this may hold the lock already.
        f.debug_struct("Mailbox")
            .field("served", &self.served)
            .finish_non_exhaustive()
    }
}

/// Waits until a message was served, doing `meanwhile` again and again: at least, serving one's own
/// mailbox.
pub fn wait<M: Copy, const N: usize, I: IrqCtl>(
    mailbox: &Mailbox<M, N, I>,
    ticket: Ticket,
    mut meanwhile: impl FnMut(),
) {
    while !mailbox.is_served(ticket) {
        meanwhile();
        spin_loop();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use core::sync::atomic::{AtomicU64, Ordering};
    use std::{thread, vec::Vec};

    use svsm_platform::{irq::NoIrq, percpu::CpuIndex};

    use super::{ApicTransport, IpiTransport, Mailbox, TransportError, wait};
    use crate::{
        Vector,
        apic::{ApicId, Command, LocalApic, Register},
    };

    #[test]
    fn the_apic_reaches_cpus_by_their_identity() {
        struct Sent(Vec<u64>);
        impl LocalApic for Sent {
            type Error = ();
            fn read(&mut self, _: Register) -> Result<u32, ()> {
                Err(())
            }
            fn write(&mut self, _: Register, _: u32) -> Result<(), ()> {
                Err(())
            }
            fn send(&mut self, command: Command) -> Result<(), ()> {
                self.0.push(command.as_u64());
                Ok(())
            }
        }
        let (mut sent, ids) = (Sent(Vec::new()), [ApicId::new(0), ApicId::new(8)]);
        let mut transport = ApicTransport::new(&mut sent, &ids);
        let cpu = CpuIndex::new;
        assert_eq!(transport.send(cpu(1), Vector::FIRST), Ok(()));
        let refused = transport.send(cpu(2), Vector::FIRST);
        assert_eq!(refused, Err(TransportError::NoSuchCpu(cpu(2))));
        assert_eq!(sent.0, [0x0000_0008_0000_4020]);
    }

    #[test]
    fn messages_are_served_in_order() {
        let mailbox = Mailbox::<u32, 4, NoIrq>::new(NoIrq);
        let tickets: Vec<_> = (0..4).map(|n| mailbox.post(n).unwrap()).collect();
        assert_eq!(mailbox.post(4), Err(4));
        let mut seen = Vec::new();
        assert_eq!(mailbox.serve(|message| seen.push(message)), 4);
        assert_eq!(seen, [0, 1, 2, 3]);
        assert!(tickets.into_iter().all(|ticket| mailbox.is_served(ticket)));
        assert!(!mailbox.is_served(mailbox.post(5).unwrap()));
    }

    #[test]
    fn an_interrupted_handler_is_not_overtaken() {
        let mailbox = Mailbox::<u32, 4, NoIrq>::new(NoIrq);
        let first = mailbox.post(1).unwrap();
        let mut seen = Vec::new();
        let served = mailbox.serve(|message| {
            if message == 1 {
                let _ = mailbox.post(2);
                assert_eq!(mailbox.serve(|_| unreachable!()), 0);
                assert!(!mailbox.is_served(first));
            }
            seen.push(message);
        });
        assert_eq!((served, seen), (2, std::vec![1, 2]));
    }

    #[test]
    fn cpus_that_want_something_of_each_other_both_get_it() {
        let mailboxes = [const { Mailbox::<u64, 2, NoIrq>::new(NoIrq) }; 2];
        let sums = [const { AtomicU64::new(0) }; 2];
        thread::scope(|scope| {
            for me in 0..2 {
                let (mine, other) = (&mailboxes[me], &mailboxes[1 - me]);
                let (sums, mailboxes) = (&sums, &mailboxes);
                scope.spawn(move || {
                    let serve = || {
                        mine.serve(|n| {
                            sums[me].fetch_add(n, Ordering::Relaxed);
                        });
                        thread::yield_now();
                    };
                    for n in 1..=1000 {
                        wait(other, other.post(n).unwrap(), serve);
                    }
                    // The other one may still want something.
                    while sums[me].load(Ordering::Relaxed) < 500_500 {
                        serve();
                    }
                    assert!(mailboxes[me].queue.lock().take().is_none());
                });
            }
        });
    }
}
