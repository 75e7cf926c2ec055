//! The local APIC: what takes interrupts in for one CPU, and sends them to others.
//!
//! [`LocalApic`] is the seam: reading, writing and sending, however the platform does that.
//! [`X2Apic`] implements it over model-specific registers, which are instructions on an unprotected
//! machine and calls to the host or to the TDX module elsewhere. [`Apic`] is what one does with any
//! of them.

mod command;
mod register;
mod timer;
mod x2apic;

use core::fmt;

pub use command::{ApicId, Command, StartPage, Target};
pub use register::{ApicErrors, Register};
pub use timer::{Divide, TimerMode};
pub use x2apic::{ModeError, X2Apic};

use crate::Vector;

/// Access to the local APIC of the CPU that asks.
pub trait LocalApic {
    /// Why an access did not happen.
    type Error: Copy + fmt::Debug;

    /// Reads a register.
    ///
    /// # Errors
    /// Why it was not read.
    fn read(&mut self, register: Register) -> Result<u32, Self::Error>;

    /// Writes a register.
    ///
    /// # Errors
    /// Why it was not written.
    fn write(&mut self, register: Register, value: u32) -> Result<(), Self::Error>;

    /// Sends an interrupt to other CPUs, after everything this CPU has written before is visible to
    /// them.
    ///
    /// # Errors
    /// Why it was not sent.
    fn send(&mut self, command: Command) -> Result<(), Self::Error>;
}

impl<A: LocalApic + ?Sized> LocalApic for &mut A {
    type Error = A::Error;

    fn read(&mut self, register: Register) -> Result<u32, Self::Error> {
        A::read(self, register)
    }

    fn write(&mut self, register: Register, value: u32) -> Result<(), Self::Error> {
        A::write(self, register, value)
    }

    fn send(&mut self, command: Command) -> Result<(), Self::Error> {
        A::send(self, command)
    }
}

/// Software-enable bit of the spurious-interrupt vector register.
const SVR_ENABLE: u32 = 1 << 8;
/// Mask bit of local vector table entries.
const LVT_MASKED: u32 = 1 << 16;

/// A local APIC and what one does with it.
#[derive(Debug)]
pub struct Apic<A> {
    access: A,
}

impl<A: LocalApic> Apic<A> {
    /// Works on the local APIC behind `access`, in whatever state it is.
    pub const fn new(access: A) -> Self {
        Self { access }
    }

    /// The way to its registers.
    pub const fn access(&mut self) -> &mut A {
        &mut self.access
    }

    /// Makes it take interrupts: all local sources masked, no vector held back, errors cleared.
    ///
    /// An interrupt that vanishes while the CPU takes it arrives as `spurious`, which takes no
    /// [`eoi`](Self::eoi).
    ///
    /// # Errors
    /// Which access did not happen; the APIC may then be half set up.
    pub fn enable(&mut self, spurious: Vector) -> Result<(), A::Error> {
        // While software-disabled the APIC masks local entries and refuses to unmask them, so this
        // order never lets a leftover entry through.
        self.write(Register::SVR, u32::from(spurious.as_u8()))?;
        for entry in [
            Register::LVT_TIMER,
            Register::LVT_LINT0,
            Register::LVT_LINT1,
            Register::LVT_ERROR,
        ] {
            self.write(entry, LVT_MASKED)?;
        }
        self.write(Register::TIMER_INITIAL, 0)?;
        self.write(Register::TPR, 0)?;
        self.write(Register::SVR, SVR_ENABLE | u32::from(spurious.as_u8()))?;
        self.errors().map(drop)
    }

    /// Makes an error of the APIC itself raise `vector`; [`errors`](Self::errors) then tells which.
    ///
    /// # Errors
    /// Why it was not set.
    pub fn report_errors(&mut self, vector: Vector) -> Result<(), A::Error> {
        self.write(Register::LVT_ERROR, u32::from(vector.as_u8()))
    }

    /// The identity by which other CPUs reach this one.
    ///
    /// # Errors
    /// Why it was not read.
    pub fn id(&mut self) -> Result<ApicId, A::Error> {
        self.read(Register::ID).map(ApicId::new)
    }

    /// Ends the interrupt in service, so that others of its priority class and below can arrive.
    ///
    /// # Errors
    /// Why it was not written.
    pub fn eoi(&mut self) -> Result<(), A::Error> {
        self.write(Register::EOI, 0)
    }

    /// Sends an interrupt.
    ///
    /// # Errors
    /// Why it was not sent.
    pub fn send(&mut self, command: Command) -> Result<(), A::Error> {
        self.access.send(command)
    }

    /// Interrupts this CPU, as soon as it takes interrupts.
    ///
    /// # Errors
    /// Why it was not sent.
    pub fn send_to_self(&mut self, vector: Vector) -> Result<(), A::Error> {
        self.write(Register::SELF_IPI, u32::from(vector.as_u8()))
    }

    /// Whether the interrupt is being served: taken, and not yet ended.
    ///
    /// # Errors
    /// Why it was not read.
    pub fn is_in_service(&mut self, vector: Vector) -> Result<bool, A::Error> {
        self.bit(Register::ISR, vector)
    }

    /// Whether the interrupt waits to be taken.
    ///
    /// # Errors
    /// Why it was not read.
    pub fn is_requested(&mut self, vector: Vector) -> Result<bool, A::Error> {
        self.bit(Register::IRR, vector)
    }

    /// The errors since the last call.
    ///
    /// # Errors
    /// Why they were not read.
    pub fn errors(&mut self) -> Result<ApicErrors, A::Error> {
        // The write latches what happened since the last one.
        self.write(Register::ESR, 0)?;
        self.read(Register::ESR).map(ApicErrors::from_bits_retain)
    }

    fn bit(&mut self, bank: Register, vector: Vector) -> Result<bool, A::Error> {
        let word = self.read(bank.word_of(vector))?;
        Ok(word >> (vector.as_u8() % 32) & 1 != 0)
    }

    fn read(&mut self, register: Register) -> Result<u32, A::Error> {
        self.access.read(register)
    }

    fn write(&mut self, register: Register, value: u32) -> Result<(), A::Error> {
        self.access.write(register, value)
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
