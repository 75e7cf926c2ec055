//! The mailbox: how the SVSM tells a starting CPU what to become.
//!
//! A CPU that receives a SIPI knows nothing but its APIC id. The SVSM leaves an [`Order`] for that
//! id, sends the interrupts, and waits until the CPU has taken the order. One order is out at a
//! time. Id and progress share one word that both sides change by compare-and-exchange, so that
//!
//! - a CPU takes only what is meant for it: one that wakes up late, after the SVSM gave it up and
//!   ordered another, finds the other's id and stops;
//! - an order is carried out once: a second SIPI finds it claimed;
//! - a withdrawn order is dead: either the CPU claims it first, or it never can.
//!
//! The CPU's side is assembly (`entry::trampoline`); [`Mailbox::take`] does
//! the same in Rust.

#[cfg(target_arch = "x86_64")]
use core::mem::offset_of;

use svsm_platform::addr::{Gpa, Gva, PageSize};

use crate::error::{ApFault, Error, Result};

cfg_if::cfg_if! {
    if #[cfg(loom)] {
        use loom::sync::atomic::{AtomicU64, Ordering};
    } else {
        use core::sync::atomic::{AtomicU64, Ordering};
    }
}

// The lower half of the mailbox's word; the upper half is the APIC id.
const IDLE: u64 = 0;
const WRITING: u64 = 1;
const READY: u64 = 2;
const CLAIMED: u64 = 3;
const TAKEN: u64 = 4;

fn word(apic_id: u32, progress: u64) -> u64 {
    u64::from(apic_id) << 32 | progress
}

fn id_of(word: u64) -> u32 {
    u32::try_from(word >> 32).unwrap_or_default() // 32 bits are left
}

/// What a CPU becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Order {
    /// What it loads into CR3: the root of the SVSM's page tables, as it is encoded there.
    pub cr3: u64,
    /// What it loads into RSP before it pushes a return address of zero.
    pub stack_top: Gva,
    /// Where it goes: an `extern "C" fn(u64) -> !`.
    pub entry: Gva,
    /// What it passes.
    pub argument: u64,
}

/// The mailbox, in a page of its own.
///
/// All of it is atomic: the other side is another CPU.
#[derive(Debug)]
#[repr(C)]
pub struct Mailbox {
    word: AtomicU64,
    /// Root of stage2's page tables, below 4 GiB, with which a CPU enters 64-bit mode.
    low_root: AtomicU64,
    cr3: AtomicU64,
    stack_top: AtomicU64,
    entry: AtomicU64,
    argument: AtomicU64,
}

/// What the trampoline has to know.
#[cfg(target_arch = "x86_64")]
pub(crate) mod offsets {
    use super::{Mailbox, offset_of};
    pub(crate) const WORD: usize = offset_of!(Mailbox, word);
    pub(crate) const LOW_ROOT: usize = offset_of!(Mailbox, low_root);
    pub(crate) const CR3: usize = offset_of!(Mailbox, cr3);
    pub(crate) const STACK_TOP: usize = offset_of!(Mailbox, stack_top);
    pub(crate) const ENTRY: usize = offset_of!(Mailbox, entry);
    pub(crate) const ARGUMENT: usize = offset_of!(Mailbox, argument);
    pub(crate) const READY: u64 = super::READY;
    pub(crate) const CLAIMED: u64 = super::CLAIMED;
    pub(crate) const TAKEN: u64 = super::TAKEN;
}

impl Default for Mailbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Mailbox {
    /// A mailbox without an order: all zero, as the image has it.
    #[must_use]
    pub fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            word: AtomicU64::new(word(0, IDLE)),
            low_root: zero(),
            cr3: zero(),
            stack_top: zero(),
            entry: zero(),
            argument: zero(),
        }
    }

    /// Leaves `order` for the CPU with that APIC id. `low_root` is the root of stage2's tables.
    ///
    /// # Errors
    ///
    /// [`Error::Ap`]: [`Busy`](ApFault::Busy) while another order is out, whoever's it is,
    /// [`BadOrder`](ApFault::BadOrder) if the trampoline cannot load an address.
    pub fn post(&self, apic_id: u32, low_root: Gpa, order: &Order) -> Result<Posted<'_>> {
        let refuse = |fault| Error::Ap { apic_id, fault };
        let loadable = u32::try_from(low_root.as_u64()).is_ok()
            && low_root.is_aligned(PageSize::Size4K)
            && order.stack_top.as_u64().is_multiple_of(16);
        if !loadable {
            return Err(refuse(ApFault::BadOrder));
        }
        self.word
            .compare_exchange(
                word(0, IDLE),
                word(apic_id, WRITING),
                Ordering::Acquire,
                Ordering::Relaxed,
            )
            .map_err(|busy| {
                refuse(ApFault::Busy {
                    apic_id: id_of(busy),
                })
            })?;
        for (field, value) in [
            (&self.low_root, low_root.as_u64()),
            (&self.cr3, order.cr3),
            (&self.stack_top, order.stack_top.as_u64()),
            (&self.entry, order.entry.as_u64()),
            (&self.argument, order.argument),
        ] {
            field.store(value, Ordering::Relaxed);
        }
        self.word.store(word(apic_id, READY), Ordering::Release);
        Ok(Posted {
            mailbox: self,
            apic_id,
        })
    }

    /// Takes the order for that APIC id, if there is one: what the trampoline does.
    #[must_use]
    pub fn take(&self, apic_id: u32) -> Option<Order> {
        if !self.claim(apic_id) {
            return None;
        }
        let read = |field: &AtomicU64| field.load(Ordering::Relaxed);
        // What `post` wrote were addresses.
        let order = Order {
            cr3: read(&self.cr3),
            stack_top: Gva::new(read(&self.stack_top))?,
            entry: Gva::new(read(&self.entry))?,
            argument: read(&self.argument),
        };
        self.word.store(word(apic_id, TAKEN), Ordering::Release);
        Some(order)
    }

    /// From now on the fields are the claimant's to read.
    pub(crate) fn claim(&self, apic_id: u32) -> bool {
        let (ready, claimed) = (word(apic_id, READY), word(apic_id, CLAIMED));
        self.word
            .compare_exchange(ready, claimed, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }
}

/// An order that is out. Dropped, it stays out, and the mailbox is busy for good.
#[must_use = "the mailbox is busy until the order is finished or withdrawn"]
#[derive(Debug)]
pub struct Posted<'m> {
    mailbox: &'m Mailbox,
    apic_id: u32,
}

impl Posted<'_> {
    /// Whether the CPU has taken the order.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        // What the CPU read came before this, so the fields may be overwritten after it.
        self.mailbox.word.load(Ordering::Acquire) == word(self.apic_id, TAKEN)
    }

    /// Frees the mailbox, if the order was taken.
    ///
    /// # Errors
    ///
    /// The order, if it was not.
    pub fn finish(self) -> core::result::Result<(), Self> {
        self.free_from(TAKEN)
    }

    /// Frees the mailbox, if nobody has claimed the order; then nobody ever will.
    ///
    /// # Errors
    ///
    /// The order, if the CPU was faster.
    pub fn withdraw(self) -> core::result::Result<(), Self> {
        self.free_from(READY)
    }

    fn free_from(self, progress: u64) -> core::result::Result<(), Self> {
        let freed = self.mailbox.word.compare_exchange(
            word(self.apic_id, progress),
            word(0, IDLE),
            Ordering::AcqRel,
            Ordering::Relaxed,
        );
        if freed.is_ok() { Ok(()) } else { Err(self) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(argument: u64) -> Order {
        Order {
            cr3: 0x80_0010_0000,
            stack_top: Gva::new(0xffff_ffff_e000_4000).unwrap(),
            entry: Gva::new(0xffff_ffff_8000_0000).unwrap(),
            argument,
        }
    }

    fn low_root() -> Gpa {
        Gpa::new(0x2_0000).unwrap()
    }

    #[test]
    fn orders_are_taken_once_and_by_the_right_cpu() {
        let mailbox = Mailbox::new();
        let posted = mailbox.post(3, low_root(), &order(7)).unwrap();
        assert_eq!(mailbox.take(2), None);
        assert!(!posted.is_taken());
        assert_eq!(mailbox.take(3), Some(order(7)));
        assert_eq!(mailbox.take(3), None);
        assert!(posted.is_taken());
        posted.finish().unwrap();
        assert!(mailbox.post(4, low_root(), &order(8)).is_ok());
    }

    #[test]
    fn an_order_at_a_time() {
        let mailbox = Mailbox::new();
        let first = mailbox.post(3, low_root(), &order(7)).unwrap();
        let busy = Error::Ap {
            apic_id: 4,
            fault: ApFault::Busy { apic_id: 3 },
        };
        assert_eq!(mailbox.post(4, low_root(), &order(8)).unwrap_err(), busy);
        let first = first.finish().unwrap_err();
        first.withdraw().unwrap();
        assert_eq!(mailbox.take(3), None);
    }

    #[test]
    fn a_taken_order_cannot_be_withdrawn() {
        let mailbox = Mailbox::new();
        let posted = mailbox.post(0, low_root(), &order(7)).unwrap();
        assert!(mailbox.take(0).is_some());
        posted.withdraw().unwrap_err().finish().unwrap();
    }

    #[test]
    fn orders_that_cannot_be_loaded_are_refused() {
        let mailbox = Mailbox::new();
        let bad = Err(Error::Ap {
            apic_id: 1,
            fault: ApFault::BadOrder,
        });
        let post = |low_root, order| mailbox.post(1, low_root, &order).map(drop);
        assert_eq!(post(Gpa::new(1 << 32).unwrap(), order(0)), bad);
        assert_eq!(post(Gpa::new(0x2_0800).unwrap(), order(0)), bad);
        let stack_top = Gva::new(0x1008).unwrap();
        assert_eq!(
            post(
                low_root(),
                Order {
                    stack_top,
                    ..order(0)
                }
            ),
            bad
        );
    }

    #[test]
    fn a_zeroed_page_is_an_empty_mailbox() {
        assert_eq!(Mailbox::new().word.into_inner(), 0);
        assert_eq!(size_of::<Mailbox>(), 48);
        assert_eq!(align_of::<Mailbox>(), 8);
    }
}
