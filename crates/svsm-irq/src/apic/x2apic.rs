#![expect(
    unsafe_code,
    reason = "fences that no intrinsic of a soft-float target emits"
)]

use core::fmt;

use svsm_platform::{cpu::msr::Msr, seam::MsrCall};

use super::{Command, LocalApic, Register};

/// A local APIC in x2APIC mode, where its registers are model-specific ones.
#[derive(Debug)]
pub struct X2Apic<M> {
    msrs: M,
}

/// Why an APIC did not go into x2APIC mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum ModeError<E> {
    /// An access did not happen.
    Access(E),
    /// The machine's fault: the APIC base register reads back as this, with x2APIC mode off.
    Refused(u64),
}

impl<E: fmt::Debug> fmt::Display for ModeError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Access(error) => write!(f, "apic register not reached: {error:?}"),
            Self::Refused(base) => write!(f, "apic base {base:#x} does not go into x2apic mode"),
        }
    }
}

impl<E: fmt::Debug> core::error::Error for ModeError<E> {}

const GLOBAL_ENABLE: u64 = 1 << 11;
const X2APIC_ENABLE: u64 = 1 << 10;
const ICR: Msr = Msr::new(0x830);

impl<M: MsrCall> X2Apic<M> {
    /// Takes the APIC of this CPU as it is: in x2APIC mode already, because
    /// [`enable`](Self::enable) did that, or because the platform has no other.
    pub const fn new(msrs: M) -> Self {
        Self { msrs }
    }

    /// Switches the APIC of this CPU into x2APIC mode.
    ///
    /// # Errors
    /// Which access did not happen, or that it had no effect.
    pub fn enable(mut msrs: M) -> Result<Self, ModeError<M::Error>> {
        let read = |msrs: &mut M| msrs.msr_read(Msr::APIC_BASE).map_err(ModeError::Access);
        let base = read(&mut msrs)?;
        if base & X2APIC_ENABLE == 0 {
            // The only way from off leads through xAPIC mode; skipping it is #GP.
            for mode in [GLOBAL_ENABLE, GLOBAL_ENABLE | X2APIC_ENABLE] {
                msrs.msr_write(Msr::APIC_BASE, base | mode)
                    .map_err(ModeError::Access)?;
            }
            let now = read(&mut msrs)?;
            if now & X2APIC_ENABLE == 0 {
                return Err(ModeError::Refused(now));
            }
        }
        Ok(Self::new(msrs))
    }

    /// Sets when the timer fires in deadline mode, in time-stamp counts; 0 disarms it.
    ///
    /// # Errors
    /// Why it was not set.
    pub fn set_deadline(&mut self, tsc: u64) -> Result<(), M::Error> {
        self.msrs.msr_write(Msr::TSC_DEADLINE, tsc)
    }
}

impl<M: MsrCall> LocalApic for X2Apic<M> {
    type Error = M::Error;

    fn read(&mut self, register: Register) -> Result<u32, M::Error> {
        // The upper half of every register but the command register reads as zero.
        #[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
        self.msrs
            .msr_read(msr_of(register))
            .map(|value| value as u32)
    }

    fn write(&mut self, register: Register, value: u32) -> Result<(), M::Error> {
        self.msrs.msr_write(msr_of(register), u64::from(value))
    }

    fn send(&mut self, command: Command) -> Result<(), M::Error> {
        fence();
        self.msrs.msr_write(ICR, command.as_u64())
    }
}

const fn msr_of(register: Register) -> Msr {
    Msr::new(Msr::X2APIC.as_u32() + (register.offset() >> 4) as u32)
}

/// Writes to x2APIC registers wait for nothing, not even for earlier stores to become visible
/// (Intel SDM volume 3, section 13.12.3). Without this the receiver could look before the message
/// is there.
fn fence() {
    // SAFETY: fences have no operands and change no state but the order of accesses.
    unsafe { core::arch::asm!("mfence", "lfence", options(nostack, preserves_flags)) };
}
