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

const WRITER: u32 = 1; // a writer holds the lock
const WAITING: u32 = 2; // a writer waits: no new readers
const READER: u32 = 4; // one reader; the bits from here on count them
const MOST: u32 = !0 - READER + 1; // state from which on no reader more can be counted

/// A lock for many readers or one writer.
///
/// A waiting writer keeps new readers out, so that readers, driven by a guest, cannot starve it. A CPU that reads must
/// therefore not ask to read again before it is done: a writer in between would wait for the first and block the second.
/// Writers among themselves have no order.
pub struct RwLock<T: ?Sized, I> {
    irq: I,
    state: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: a shared lock gives its value to one thread, which needs `Send`, or to several at once, which needs `Sync`.
unsafe impl<T: ?Sized + Send + Sync, I: Sync> Sync for RwLock<T, I> {}

impl<T, I: IrqCtl> RwLock<T, I> {
    const_fn! {
        /// A free lock around `value` that masks interrupts by `irq`.
        pub fn new(value: T, irq: I) -> Self {
            Self { irq, state: AtomicU32::new(0), value: UnsafeCell::new(value) }
        }
    }

    /// The value, which nobody can lock any more.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized, I: IrqCtl> RwLock<T, I> {
    /// Waits until there is no writer, and keeps writers away.
    pub fn read(&self) -> ReadGuard<'_, T, I> {
        let irq = self.irq.mask();
        while !self.enter() {
            spin_loop();
        }
        ReadGuard {
            lock: self,
            irq,
            not_send: PhantomData,
        }
    }

    /// Keeps writers away if there is none, not even a waiting one.
    pub fn try_read(&self) -> Option<ReadGuard<'_, T, I>> {
        let irq = self.irq.mask();
        if self.enter() {
            Some(ReadGuard {
                lock: self,
                irq,
                not_send: PhantomData,
            })
        } else {
            self.irq.restore(irq);
            None
        }
    }

    /// Waits until there are no readers and no other writer, and keeps all away.
    pub fn write(&self) -> WriteGuard<'_, T, I> {
        let irq = self.irq.mask();
        // Taking the lock clears the mark, also that of other waiting writers: each sets it again.
        while self.seize(0).is_err() && self.seize(WAITING).is_err() {
            self.state.fetch_or(WAITING, Ordering::Relaxed);
            spin_loop();
        }
        WriteGuard {
            lock: self,
            irq,
            not_send: PhantomData,
        }
    }

    /// Keeps all away if there is nobody.
    pub fn try_write(&self) -> Option<WriteGuard<'_, T, I>> {
        let irq = self.irq.mask();
        if self.seize(0).is_ok() {
            Some(WriteGuard {
                lock: self,
                irq,
                not_send: PhantomData,
            })
        } else {
            self.irq.restore(irq);
            None
        }
    }

    /// The value, without locking: `&mut` proves that nobody else is there.
    pub fn value_mut(&mut self) -> &mut T {
        // SAFETY: `&mut self` excludes guards, which borrow the lock, and other calls of this.
        self.value.with_mut(|value| unsafe { &mut *value })
    }

    /// Counts one reader more, unless a writer is there or waits. Fails only for such a reason, or if the count is full.
    fn enter(&self) -> bool {
        let more =
            |state| (state & (WRITER | WAITING) == 0 && state < MOST).then(|| state + READER);
        self.state
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, more)
            .is_ok()
    }

    fn seize(&self, from: u32) -> Result<u32, u32> {
        self.state
            .compare_exchange(from, WRITER, Ordering::Acquire, Ordering::Relaxed)
    }
}

impl<T: ?Sized + fmt::Debug, I: IrqCtl> fmt::Debug for RwLock<T, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.try_read() {
            Some(value) => f.debug_tuple("RwLock").field(&&*value).finish(),
            None => f.write_str("RwLock(<locked>)"),
        }
    }
}

/// Reads a [`RwLock`]'s value; dropping it lets writers in and restores interrupts.
#[must_use = "the lock is free again as soon as the guard is dropped"]
pub struct ReadGuard<'a, T: ?Sized, I: IrqCtl> {
    lock: &'a RwLock<T, I>,
    irq: I::State,
    not_send: PhantomData<*mut ()>, // interrupts are masked on this CPU
}

impl<T: ?Sized, I: IrqCtl> Deref for ReadGuard<'_, T, I> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: this guard is counted as a reader, so there is no writer; readers only give out `&T`.
        self.lock.value.with(|value| unsafe { &*value })
    }
}

impl<T: ?Sized, I: IrqCtl> Drop for ReadGuard<'_, T, I> {
    fn drop(&mut self) {
        self.lock.state.fetch_sub(READER, Ordering::Release);
        self.lock.irq.restore(self.irq);
    }
}

impl<T: ?Sized + fmt::Debug, I: IrqCtl> fmt::Debug for ReadGuard<'_, T, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Reads and writes a [`RwLock`]'s value; dropping it lets others in and restores interrupts.
#[must_use = "the lock is free again as soon as the guard is dropped"]
pub struct WriteGuard<'a, T: ?Sized, I: IrqCtl> {
    lock: &'a RwLock<T, I>,
    irq: I::State,
    not_send: PhantomData<*mut ()>, // interrupts are masked on this CPU
}

impl<T: ?Sized, I: IrqCtl> Deref for WriteGuard<'_, T, I> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: this guard is the only one; `&self` excludes a `&mut` from it.
        self.lock.value.with(|value| unsafe { &*value })
    }
}

impl<T: ?Sized, I: IrqCtl> DerefMut for WriteGuard<'_, T, I> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this guard is the only one; `&mut self` excludes other references from it.
        self.lock.value.with_mut(|value| unsafe { &mut *value })
    }
}

impl<T: ?Sized, I: IrqCtl> Drop for WriteGuard<'_, T, I> {
    fn drop(&mut self) {
        // Another writer may have set its mark meanwhile: only the own bit goes.
        self.lock.state.fetch_and(!WRITER, Ordering::Release);
        self.lock.irq.restore(self.irq);
    }
}

impl<T: ?Sized + fmt::Debug, I: IrqCtl> fmt::Debug for WriteGuard<'_, T, I> {
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
    fn readers_share_and_writers_do_not() {
        let lock = RwLock::new(0, NoIrq);
        let (one, two) = (lock.read(), lock.read());
        assert!(lock.try_write().is_none());
        drop((one, two));
        let mut writer = lock.write();
        *writer += 1;
        assert!(lock.try_read().is_none() && lock.try_write().is_none());
        drop(writer);
        assert_eq!(*lock.read(), 1);
    }

    #[test]
    fn waiting_writer_keeps_new_readers_out() {
        let lock = RwLock::new((), NoIrq);
        let reader = lock.read();
        lock.state.fetch_or(WAITING, Ordering::Relaxed);
        assert!(lock.try_read().is_none());
        drop(reader);
        drop(lock.write());
        assert!(lock.try_read().is_some());
    }

    #[test]
    fn reader_count_does_not_overflow_into_a_writer() {
        let lock = RwLock::new((), NoIrq);
        lock.state.store(MOST, Ordering::Relaxed);
        assert!(lock.try_read().is_none());
        lock.state.store(MOST - READER, Ordering::Relaxed);
        core::mem::drop(lock.try_read().unwrap());
    }

    #[test]
    fn interrupts_are_masked_exactly_while_a_lock_is_held() {
        let lock = RwLock::new((), CountingIrq::default());
        let reader = lock.read();
        assert!(lock.try_write().is_none());
        assert_eq!(lock.irq.depth(), 1);
        drop(reader);
        let writer = lock.write();
        assert!(lock.try_read().is_none());
        assert_eq!(lock.irq.depth(), 1);
        drop(writer);
        assert_eq!(lock.irq.depth(), 0);
    }

    #[test]
    fn threads_count_together() {
        let lock = RwLock::new(0_u32, NoIrq);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..1000).for_each(|_| *lock.write() += 1));
                scope.spawn(|| {
                    (0..1000).fold(0, |last, _| {
                        let now = *lock.read();
                        assert!(now >= last);
                        now
                    })
                });
            }
        });
        assert_eq!(lock.into_inner(), 2000);
    }
}
