//! The #HV doorbell: how a host that may inject nothing else says what is pending (GHCB specification 56421, "#HV Doorbell
//! Page").
//!
//! Under restricted injection a CPU takes no vector from its host. The host writes what is pending into a page that both share,
//! and raises #HV, once, until the CPU says that it has heard. #HV comes whatever the interrupt flag says, at any instruction;
//! whoever handles it leaves the page alone, and looks at it where an interrupt would be taken:
//!
//! ```
//! use svsm_irq::{Vector, doorbell::{DoorbellPage, Ended}};
//!
//! fn look(page: &DoorbellPage, mut handle: impl FnMut(Vector), mut write_eoi: impl FnMut()) {
//!     for _ in 0..16 {
//!         let heard = page.answer();
//!         let Some(taken) = page.take() else { break };
//!         let vector = taken.vector();
//!         if page.end(taken) == Ended::WithEoi {
//!             write_eoi();
//!         }
//!         if let Some(vector) = vector {
//!             handle(vector); // or drop it: see `policy`
//!         }
//!         # let _ = heard;
//!     }
//! }
//! # let page = DoorbellPage::new();
//! # look(&page, |_| (), || ());
//! ```
//!
//! The host may write anything at any time. All that comes of it is what a host can have anyway: interrupts that nobody
//! sent, and interrupts that are lost.

use crate::Vector;
use crate::sync::{AtomicU8, Ordering, const_fn};

bitflags::bitflags! {
    /// What waits beside a vector.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Heard: u8 {
        /// An NMI.
        const NMI = 1 << 0;
        /// A machine check.
        const MACHINE_CHECK = 1 << 1;
        /// The host has rung, and does not ring again before it was answered.
        const RUNG = 1 << 7;
    }
}

/// The page. All of its first bytes change under us.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct DoorbellPage {
    vector: AtomicU8,
    flags: AtomicU8,
    no_eoi: AtomicU8,
    // Loom's atomics have another size, and models another page.
    #[cfg(not(loom))]
    reserved: [AtomicU8; 4093],
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<DoorbellPage>() == 4096);

/// What stood in the place of the vector.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "whoever takes a vector ends it: see `DoorbellPage::end`"]
pub struct Taken(u8);

impl Taken {
    /// The vector; `None` for a number that no interrupt has.
    #[must_use]
    pub const fn vector(&self) -> Option<Vector> {
        Vector::new(self.0)
    }
}

/// How an interrupt ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "an interrupt that waits for its end keeps all others away"]
pub enum Ended {
    /// It has.
    Silently,
    /// By a write of the local APIC's register.
    WithEoi,
}

impl DoorbellPage {
    const_fn! {
        /// A page on which nothing waits.
        #[must_use]
        pub fn new() -> Self {
            Self {
                vector: AtomicU8::new(0),
                flags: AtomicU8::new(0),
                no_eoi: AtomicU8::new(0),
                #[cfg(not(loom))]
                reserved: [const { AtomicU8::new(0) }; 4093],
            }
        }
    }

    /// Whether there is anything to look at.
    #[must_use]
    pub fn has_events(&self) -> bool {
        self.vector.load(Ordering::Acquire) != 0 || self.flags.load(Ordering::Acquire) != 0
    }

    /// What waits beside a vector, without an answer.
    #[must_use]
    pub fn waiting(&self) -> Heard {
        Heard::from_bits_retain(self.flags.load(Ordering::Acquire))
    }

    /// Answers the door: takes what waits beside a vector, and lets the host ring again. Before [`take`](Self::take): whatever
    /// the host writes behind our back is then rung for.
    pub fn answer(&self) -> Heard {
        Heard::from_bits_retain(self.flags.swap(0, Ordering::AcqRel))
    }

    /// Takes the vector, if there is one.
    pub fn take(&self) -> Option<Taken> {
        match self.vector.swap(0, Ordering::AcqRel) {
            0 => None,
            vector => Some(Taken(vector)),
        }
    }

    /// Ends what was taken; the host says how.
    pub fn end(&self, _taken: Taken) -> Ended {
        if self.no_eoi.swap(0, Ordering::AcqRel) & 1 != 0 {
            Ended::Silently
        } else {
            Ended::WithEoi
        }
    }
}

/// The host's side, for models.
#[cfg(loom)]
impl DoorbellPage {
    /// Puts a vector into its place if that is free. Answers whether it was.
    pub fn post(&self, vector: u8) -> bool {
        self.vector
            .compare_exchange(0, vector, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Rings. Answers whether #HV is raised for it: only if the last ring was answered.
    pub fn ring(&self) -> bool {
        let before = self.flags.fetch_or(Heard::RUNG.bits(), Ordering::AcqRel);
        before & Heard::RUNG.bits() == 0
    }
}

impl Default for DoorbellPage {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(vector: u8, flags: u8, no_eoi: u8) -> DoorbellPage {
        let page = DoorbellPage::new();
        page.vector.store(vector, Ordering::Relaxed);
        page.flags.store(flags, Ordering::Relaxed);
        page.no_eoi.store(no_eoi, Ordering::Relaxed);
        page
    }

    #[test]
    fn what_was_answered_and_taken_is_gone() {
        let page = page(0x41, 0x81, 1);
        assert!(page.has_events() && page.waiting().contains(Heard::NMI));
        assert_eq!(page.answer(), Heard::NMI | Heard::RUNG);
        let taken = page.take().unwrap();
        assert_eq!(taken.vector(), Vector::new(0x41));
        assert_eq!(page.end(taken), Ended::Silently);
        assert!(!page.has_events());
        assert_eq!((page.answer(), page.take()), (Heard::empty(), None));
        // The permission was for one.
        assert_eq!(page.end(Taken(0x41)), Ended::WithEoi);
    }

    #[test]
    fn junk_is_no_interrupt() {
        for number in 1..32 {
            let page = page(number, 0x7c, 0xfe);
            assert_eq!(page.answer().bits(), 0x7c);
            let taken = page.take().unwrap();
            assert_eq!(taken.vector(), None);
            assert_eq!(page.end(taken), Ended::WithEoi);
        }
    }
}
