use core::fmt;

use crate::Vector;

/// A register of the local APIC that x2APIC mode has (Intel SDM volume 3, table 13-6), by the
/// offset of its page.
///
/// There is no constant for the interrupt command register: [`super::LocalApic::send`] writes that.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Register(u16);

impl Register {
    /// Identity.
    pub const ID: Self = Self(0x020);
    /// Version and number of local vector table entries.
    pub const VERSION: Self = Self(0x030);
    /// Task priority: holds back interrupts of its class and below.
    pub const TPR: Self = Self(0x080);
    /// Processor priority: task priority or the class in service.
    pub const PPR: Self = Self(0x0a0);
    /// End of interrupt.
    pub const EOI: Self = Self(0x0b0);
    /// Logical destination.
    pub const LDR: Self = Self(0x0d0);
    /// Spurious-interrupt vector and software enable.
    pub const SVR: Self = Self(0x0f0);
    /// First of eight words: interrupts in service.
    pub const ISR: Self = Self(0x100);
    /// First of eight words: which of them are level-triggered.
    pub const TMR: Self = Self(0x180);
    /// First of eight words: interrupts requested.
    pub const IRR: Self = Self(0x200);
    /// Error status.
    pub const ESR: Self = Self(0x280);
    /// Local vector: timer.
    pub const LVT_TIMER: Self = Self(0x320);
    /// Local vector: performance counters.
    pub const LVT_PERFORMANCE: Self = Self(0x340);
    /// Local vector: pin 0.
    pub const LVT_LINT0: Self = Self(0x350);
    /// Local vector: pin 1.
    pub const LVT_LINT1: Self = Self(0x360);
    /// Local vector: errors.
    pub const LVT_ERROR: Self = Self(0x370);
    /// Timer: what it counts down from.
    pub const TIMER_INITIAL: Self = Self(0x380);
    /// Timer: where it is.
    pub const TIMER_CURRENT: Self = Self(0x390);
    /// Timer: clocks per count.
    pub const TIMER_DIVIDE: Self = Self(0x3e0);
    /// Interrupts this CPU.
    pub const SELF_IPI: Self = Self(0x3f0);

    /// Its offset in the page of xAPIC mode.
    #[must_use]
    pub const fn offset(self) -> u16 {
        self.0
    }

    /// Of the eight words that start here, the one with the vector's bit.
    #[must_use]
    pub(super) const fn word_of(self, vector: Vector) -> Self {
        Self(self.0 + (vector.as_u8() / 32) as u16 * 0x10)
    }
}

impl fmt::Debug for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Register({:#x})", self.0)
    }
}

bitflags::bitflags! {
    /// What the APIC itself found wrong (Intel SDM volume 3, section 13.5.3).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct ApicErrors: u32 {
        /// A redirectable command was sent where none are.
        const REDIRECTABLE_IPI = 1 << 4;
        /// We sent a vector below 16.
        const SEND_ILLEGAL_VECTOR = 1 << 5;
        /// We were sent a vector below 16.
        const RECEIVE_ILLEGAL_VECTOR = 1 << 6;
        /// A register that does not exist was touched.
        const ILLEGAL_REGISTER = 1 << 7;
        // The processor may say more.
        const _ = !0;
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for Register {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Register({=u16:#x})", self.0);
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for ApicErrors {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "ApicErrors({=u32:#x})", self.bits());
    }
}
