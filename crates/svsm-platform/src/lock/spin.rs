#![expect(
    unsafe_code,
    reason = "hands out the content of a cell to whoever holds the lock"
)]

use core::{
    fmt,
    marker::PhantomData,
    ops::{Deref, DerefMut},
};

use crate::{
    irq::IrqCtl,
    sync::{AtomicU32, Ordering, UnsafeCell, const_fn, spin_loop},
};

/// A lock for one holder at a time, granted in the order of asking to those who have waited for a while.
///
/// It is a ticket lock with patience: who finds it taken tries again many times before drawing a ticket. Pure order would be
/// fatal under a host that runs more CPUs than it has: a waiter that is not scheduled holds up all behind it, and the lock
/// crawls at the pace of the host's time slices. Pure test-and-set would let a CPU starve while others, driven by a guest,
/// come back again and again; the ticket ends that. Against MCS, whose waiters each spin on a line of their own, neither needs
/// queue nodes, and a paravisor's locks are held for a few instructions by few CPUs.
pub struct SpinLock<T: ?Sized, I> {
    irq: I,
    next: AtomicU32,    // the ticket for whoever asks next
    serving: AtomicU32, // the ticket of the holder; equal to `next` if there is none
    value: UnsafeCell<T>,
}

/// How often to try before drawing a ticket: some tens of milliseconds, longer than a host's time slice.
#[cfg(not(loom))]
const PATIENCE: u32 = 1 << 20;
/// A model explores the queue, which is what needs it.
#[cfg(loom)]
const PATIENCE: u32 = 0;

// SAFETY: a shared lock gives its value to one thread at a time, which moves it there: `Send` suffices.
unsafe impl<T: ?Sized + Send, I: Sync> Sync for SpinLock<T, I> {}

impl<T, I: IrqCtl> SpinLock<T, I> {
    const_fn! {
        /// A free lock around `value` that masks interrupts by `irq`.
        pub fn new(value: T, irq: I) -> Self {
            Self { irq, next: AtomicU32::new(0), serving: AtomicU32::new(0), value: UnsafeCell::new(value) }
        }
    }

    /// The value, which nobody can lock any more.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized, I: IrqCtl> SpinLock<T, I> {
    /// Waits for the lock. A CPU that already holds it waits for ever.
    pub fn lock(&self) -> SpinGuard<'_, T, I> {
        // Before the ticket is drawn: an interrupt handler that asked after us would wait for us, and we for it.
        let irq = self.irq.mask();
        for _ in 0..PATIENCE {
            if let Some(ticket) = self.draw_if_free() {
                return self.guard(ticket, irq);
            }
            spin_loop();
        }
        let ticket = self.next.fetch_add(1, Ordering::Relaxed);
        while self.serving.load(Ordering::Acquire) != ticket {
            spin_loop();
        }
        self.guard(ticket, irq)
    }

    /// Takes the lock if it is free.
    pub fn try_lock(&self) -> Option<SpinGuard<'_, T, I>> {
        let irq = self.irq.mask();
        match self.draw_if_free() {
            Some(ticket) => Some(self.guard(ticket, irq)),
            None => {
                self.irq.restore(irq);
                None
            }
        }
    }

    /// Draws the ticket that is being served, if nobody has it: that makes us the holder.
    fn draw_if_free(&self) -> Option<u32> {
        let ticket = self.serving.load(Ordering::Acquire);
        // Looking first keeps the line shared among those who wait.
        if self.next.load(Ordering::Relaxed) != ticket {
            return None;
        }
        let after = ticket.wrapping_add(1);
        self.next
            .compare_exchange(ticket, after, Ordering::Relaxed, Ordering::Relaxed)
            .ok()
    }

    const fn guard(&self, ticket: u32, irq: I::State) -> SpinGuard<'_, T, I> {
        SpinGuard {
            lock: self,
            ticket,
            irq,
            not_send: PhantomData,
        }
    }

    /// The value, without locking: `&mut` proves that nobody else is there.
    pub fn value_mut(&mut self) -> &mut T {
        // SAFETY: `&mut self` excludes guards, which borrow the lock, and other calls of this.
        self.value.with_mut(|value| unsafe { &mut *value })
    }
}

impl<T: ?Sized + fmt::Debug, I: IrqCtl> fmt::Debug for SpinLock<T, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.try_lock() {
            Some(value) => f.debug_tuple("SpinLock").field(&&*value).finish(),
            None => f.write_str("SpinLock(<locked>)"),
        }
    }
}

/// Holds a [`SpinLock`]; dropping it frees the lock and restores interrupts.
#[must_use = "the lock is free again as soon as the guard is dropped"]
pub struct SpinGuard<'a, T: ?Sized, I: IrqCtl> {
    lock: &'a SpinLock<T, I>,
    ticket: u32,
    irq: I::State,
    not_send: PhantomData<*mut ()>, // interrupts are masked on this CPU
}

impl<T: ?Sized, I: IrqCtl> Deref for SpinGuard<'_, T, I> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: this guard holds the lock, so no other guard refers to the value; `&self` excludes a `&mut` from this one.
        self.lock.value.with(|value| unsafe { &*value })
    }
}

impl<T: ?Sized, I: IrqCtl> DerefMut for SpinGuard<'_, T, I> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this guard holds the lock, so no other guard refers to the value; `&mut self` excludes others from this one.
        self.lock.value.with_mut(|value| unsafe { &mut *value })
    }
}

impl<T: ?Sized, I: IrqCtl> Drop for SpinGuard<'_, T, I> {
    fn drop(&mut self) {
        // Only the holder writes here.
        self.lock
            .serving
            .store(self.ticket.wrapping_add(1), Ordering::Release);
        self.lock.irq.restore(self.irq);
    }
}

impl<T: ?Sized + fmt::Debug, I: IrqCtl> fmt::Debug for SpinGuard<'_, T, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;

    use super::*;
    use crate::irq::{NoIrq, tests::CountingIrq};

    #[test]
    fn held_lock_is_not_given_away() {
        let lock = SpinLock::new(1, NoIrq);
        let mut guard = lock.lock();
        *guard += 1;
        assert!(lock.try_lock().is_none());
        drop(guard);
        assert_eq!(*lock.try_lock().unwrap(), 2);
        assert_eq!(lock.into_inner(), 2);
    }

    #[test]
    fn interrupts_are_masked_exactly_while_a_lock_is_held() {
        let lock = SpinLock::new((), CountingIrq::default());
        let guard = lock.lock();
        assert_eq!(lock.irq.depth(), 1);
        assert!(lock.try_lock().is_none());
        assert_eq!(lock.irq.depth(), 1);
        drop(guard);
        assert_eq!(lock.irq.depth(), 0);
    }

    #[test]
    fn tickets_wrap() {
        let lock = SpinLock::new((), NoIrq);
        lock.next.store(u32::MAX, Ordering::Relaxed);
        lock.serving.store(u32::MAX, Ordering::Relaxed);
        drop(lock.lock());
        assert_eq!(lock.serving.load(Ordering::Relaxed), 0);
        assert!(lock.try_lock().is_some());
    }

    #[test]
    fn threads_count_together() {
        let lock = SpinLock::new(0_u32, NoIrq);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| *lock.lock() += 1));
            }
        });
        assert_eq!(lock.into_inner(), 4000);
    }
}
