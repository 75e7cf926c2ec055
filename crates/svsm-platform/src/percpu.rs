//! What each CPU has of its own.
//!
//! The firmware owns one [`CpuSlot`] per CPU, in a slice that it puts where it likes. A [`PerCpu`] over that slice finds the
//! slot of the CPU it runs on by a [`CpuSource`]: the word at the base of GS, or whatever else a test wants to be.
//!
//! Neither a wrong index nor a task that moved to another CPU while it held a borrow can break memory safety: an exclusive
//! borrow marks its slot, and a marked slot is not borrowed again. So no promise of the source, of the scheduler or of
//! handlers that cannot be masked is needed; who breaks the rules gets [`Error::SlotBorrowed`].
//!
//! What is made of atomics needs none of this: share a plain slice of it and index that by [`CpuIndex`].
#![expect(
    unsafe_code,
    reason = "hands out the content of a cell to whoever marked it; reads the word at the base of GS"
)]

use core::{
    fmt,
    marker::PhantomData,
    ops::{Deref, DerefMut},
};

use crate::{
    Error, Result,
    irq::IrqCtl,
    sync::{AtomicBool, Ordering, UnsafeCell, const_fn},
};

/// The number of a CPU among those of the SVSM, counted from zero; not an APIC identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(transparent)]
pub struct CpuIndex(u32);

impl CpuIndex {
    /// The CPU that starts first.
    pub const BOOT: Self = Self(0);

    /// The CPU of that number.
    #[must_use]
    pub const fn new(index: u32) -> Self {
        Self(index)
    }

    /// The plain number.
    #[must_use]
    pub const fn as_u32(self) -> u32 {
        self.0
    }

    /// The plain number, to index with.
    #[must_use]
    pub const fn as_usize(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for CpuIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Knows which CPU it runs on.
pub trait CpuSource {
    /// This CPU. The answer is old as soon as interrupts can move the asking task to another.
    fn current(&self) -> CpuIndex;
}

/// Reads the index from the word at a fixed offset from the base of GS.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub struct GsIndex<const OFFSET: usize>(());

#[cfg(target_arch = "x86_64")]
impl<const OFFSET: usize> GsIndex<OFFSET> {
    /// Says that GS is set up.
    ///
    /// # Safety
    /// On every CPU that uses this source, whenever it does, the base of GS plus `OFFSET` is the address of a mapped `u32` that
    /// holds the CPU's index. In particular, entry code has executed SWAPGS before.
    #[must_use]
    pub const unsafe fn assume_set_up() -> Self {
        Self(())
    }
}

#[cfg(target_arch = "x86_64")]
impl<const OFFSET: usize> CpuSource for GsIndex<OFFSET> {
    fn current(&self) -> CpuIndex {
        let index: u32;
        // SAFETY: who made this source vouched for the word. (Volatile: after a switch of tasks it is another CPU's.)
        unsafe {
            core::arch::asm!(
                "mov {:e}, gs:[{}]", out(reg) index, const OFFSET,
                options(readonly, nostack, preserves_flags),
            );
        }
        CpuIndex(index)
    }
}

/// One CPU's own value, on cache lines of its own.
#[repr(align(128))] // two lines: processors fetch them in pairs
pub struct CpuSlot<T> {
    borrowed: AtomicBool, // a guard refers to `value`
    value: UnsafeCell<T>,
}

// SAFETY: a shared slot gives its value to one holder at a time, which moves it there: `Send` suffices.
unsafe impl<T: Send> Sync for CpuSlot<T> {}

impl<T> CpuSlot<T> {
    const_fn! {
        /// A slot that holds `value`.
        pub fn new(value: T) -> Self {
            Self { borrowed: AtomicBool::new(false), value: UnsafeCell::new(value) }
        }
    }
}

impl<T> fmt::Debug for CpuSlot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CpuSlot")
            .field("borrowed", &self.borrowed)
            .finish_non_exhaustive()
    }
}

/// Finds this CPU's slot among those of all. A handle: copy it freely.
///
/// ```
/// use svsm_platform::{irq::NoIrq, percpu::{CpuIndex, CpuSlot, CpuSource, PerCpu}};
///
/// /// A machine with one CPU. On others, `GsIndex` reads the index from the base of GS.
/// struct Uniprocessor;
///
/// impl CpuSource for Uniprocessor {
///     fn current(&self) -> CpuIndex {
///         CpuIndex::BOOT
///     }
/// }
///
/// let slots = [CpuSlot::new(0_u64)];
/// let exits = PerCpu::new(&slots, Uniprocessor, NoIrq);
/// *exits.borrow()? += 1;
/// assert_eq!(*exits.borrow()?, 1);
/// # Ok::<(), svsm_platform::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct PerCpu<'a, T, S, I> {
    slots: &'a [CpuSlot<T>],
    source: S,
    irq: I,
}

impl<'a, T, S: CpuSource, I: IrqCtl> PerCpu<'a, T, S, I> {
    /// A handle over the slots of all CPUs, in the order of their indices.
    #[must_use]
    pub const fn new(slots: &'a [CpuSlot<T>], source: S, irq: I) -> Self {
        Self { slots, source, irq }
    }

    /// Borrows this CPU's value, with interrupts masked until the guard is dropped.
    ///
    /// # Errors
    /// [`Error::SlotBorrowed`] if it is borrowed, by code that a handler interrupted or that moved away meanwhile;
    /// [`Error::NoSlot`] if this CPU has none.
    pub fn borrow(&self) -> Result<CpuGuard<'_, T, I>> {
        let state = self.irq.mask();
        let cpu = self.source.current();
        match self.mark(cpu) {
            Ok(slot) => Ok(CpuGuard {
                slot,
                cpu,
                irq: &self.irq,
                state,
                not_send: PhantomData,
            }),
            Err(error) => {
                self.irq.restore(state);
                Err(error)
            }
        }
    }

    fn mark(&self, cpu: CpuIndex) -> Result<&'a CpuSlot<T>> {
        let slot = self
            .slots
            .get(cpu.as_usize())
            .ok_or(Error::NoSlot { cpu })?;
        if slot.borrowed.swap(true, Ordering::Acquire) {
            Err(Error::SlotBorrowed { cpu })
        } else {
            Ok(slot)
        }
    }

    /// How many CPUs have a slot.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether no CPU has a slot.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

/// This CPU's value, borrowed; dropping it restores interrupts.
#[must_use = "the value is given back as soon as the guard is dropped"]
pub struct CpuGuard<'a, T, I: IrqCtl> {
    slot: &'a CpuSlot<T>,
    cpu: CpuIndex,
    irq: &'a I,
    state: I::State,
    not_send: PhantomData<*mut ()>, // the value is this CPU's
}

impl<T, I: IrqCtl> CpuGuard<'_, T, I> {
    /// Which CPU this is, for as long as the guard lives.
    #[must_use]
    pub const fn cpu(&self) -> CpuIndex {
        self.cpu
    }
}

impl<T, I: IrqCtl> Deref for CpuGuard<'_, T, I> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: this guard marked the slot, so no other refers to the value; `&self` excludes a `&mut` from this one.
        self.slot.value.with(|value| unsafe { &*value })
    }
}

impl<T, I: IrqCtl> DerefMut for CpuGuard<'_, T, I> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this guard marked the slot, so no other refers to the value; `&mut self` excludes others from this one.
        self.slot.value.with_mut(|value| unsafe { &mut *value })
    }
}

impl<T, I: IrqCtl> Drop for CpuGuard<'_, T, I> {
    fn drop(&mut self) {
        self.slot.borrowed.store(false, Ordering::Release);
        self.irq.restore(self.state);
    }
}

impl<T: fmt::Debug, I: IrqCtl> fmt::Debug for CpuGuard<'_, T, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CpuGuard")
            .field("cpu", &self.cpu)
            .field("value", &**self)
            .finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;

    use core::cell::Cell;
    use std::thread_local;

    use super::*;
    use crate::irq::{NoIrq, tests::CountingIrq};

    thread_local! {
        static INDEX: Cell<u32> = const { Cell::new(0) };
    }

    /// Threads are CPUs, numbered as they like.
    #[derive(Clone, Copy, Debug)]
    struct ThreadIndex;

    impl CpuSource for ThreadIndex {
        fn current(&self) -> CpuIndex {
            CpuIndex(INDEX.get())
        }
    }

    #[test]
    fn each_cpu_finds_its_own_value() {
        let slots = [CpuSlot::new(0), CpuSlot::new(0)];
        let own = PerCpu::new(&slots, ThreadIndex, NoIrq);
        std::thread::scope(|scope| {
            for cpu in 0..2 {
                scope.spawn(move || {
                    INDEX.set(cpu);
                    for _ in 0..100 {
                        *own.borrow().unwrap() += cpu + 1;
                    }
                    assert_eq!(*own.borrow().unwrap(), 100 * (cpu + 1));
                    assert_eq!(own.borrow().unwrap().cpu(), CpuIndex(cpu));
                });
            }
        });
    }

    #[test]
    fn borrowed_slot_is_not_borrowed_again() {
        let slots = [CpuSlot::new(())];
        let own = PerCpu::new(&slots, ThreadIndex, NoIrq);
        let guard = own.borrow().unwrap();
        assert_eq!(
            own.borrow().unwrap_err(),
            Error::SlotBorrowed {
                cpu: CpuIndex::BOOT
            }
        );
        drop(guard);
        assert!(own.borrow().is_ok());
    }

    #[test]
    fn lying_source_finds_nothing() {
        let slots = [CpuSlot::new(())];
        INDEX.set(u32::MAX);
        let own = PerCpu::new(&slots, ThreadIndex, NoIrq);
        assert_eq!(
            own.borrow().unwrap_err(),
            Error::NoSlot {
                cpu: CpuIndex(u32::MAX)
            }
        );
    }

    #[test]
    fn interrupts_are_masked_exactly_while_borrowed() {
        let slots = [CpuSlot::new(())];
        let own = PerCpu::new(&slots, ThreadIndex, CountingIrq::default());
        let guard = own.borrow().unwrap();
        assert!(own.borrow().is_err());
        assert_eq!(own.irq.depth(), 1);
        drop(guard);
        assert_eq!(own.irq.depth(), 0);
    }
}
