use core::fmt;

use super::Stopped;
use crate::addr::{Gpa, GpaRange};

bitflags::bitflags! {
    /// What a lower level may do with a page.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Rights: u8 {
        /// Read.
        const READ = 1 << 0;
        /// Write.
        const WRITE = 1 << 1;
        /// Execute in ring 3.
        const USER_EXECUTE = 1 << 2;
        /// Execute in rings 0 to 2.
        const SUPERVISOR_EXECUTE = 1 << 3;
        /// Use as supervisor shadow stack.
        const SHADOW_STACK = 1 << 4;
    }
}

/// Decides what lower levels may do with private memory.
pub trait GuestAccess {
    /// A level below the SVSM: a VMPL or an L2 virtual machine.
    type Level: Copy;
    /// Why an implementation stops.
    type Error: Copy + fmt::Debug;

    /// Gives `level` exactly `rights` over `range`.
    ///
    /// # Errors
    /// Where and why it stopped.
    fn grant(
        &mut self,
        range: GpaRange,
        level: Self::Level,
        rights: Rights,
    ) -> Result<(), Stopped<Self::Error>>;

    /// Takes all rights over `range` from `level`.
    ///
    /// # Errors
    /// Where and why it stopped.
    fn revoke(&mut self, range: GpaRange, level: Self::Level) -> Result<(), Stopped<Self::Error>>;

    /// The rights of `level` over the 4 KiB page at `page`.
    ///
    /// # Errors
    /// Why the platform did not say.
    fn rights(&mut self, page: Gpa, level: Self::Level) -> Result<Rights, Self::Error>;
}

/// Whose memory it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Owner {
    /// The guest below the SVSM.
    Guest,
    /// The SVSM; a guest that names it is attacking.
    Svsm,
    /// A device of the host.
    Device,
}

/// Knows who owns guest physical memory: what turns a [`Claim`](crate::claim::Claim) into a fact.
pub trait GuestMap {
    /// Who owns all of `range`; `None` if nobody does, or not one owner alone.
    fn owner(&self, range: GpaRange) -> Option<Owner>;
}

impl<M: GuestMap + ?Sized> GuestMap for &M {
    fn owner(&self, range: GpaRange) -> Option<Owner> {
        M::owner(self, range)
    }
}

/// The virtual CPU on which the SVSM runs, as its lower levels see it: their registers, and the switch to them.
pub trait Vcpu {
    /// A level below the SVSM: a VMPL or an L2 virtual machine.
    type Level: Copy;
    /// The registers from which a level starts and which an exit leaves.
    type Registers;
    /// Why a level stopped.
    type Exit;
    /// Why the platform refuses.
    type Error: Copy + fmt::Debug;

    /// Makes `level` runnable on this CPU, starting from `registers`.
    ///
    /// # Errors
    /// Why it is not.
    fn create(
        &mut self,
        level: Self::Level,
        registers: &Self::Registers,
    ) -> Result<(), Self::Error>;

    /// Makes `level` unrunnable. Only after this its registers are at rest.
    ///
    /// # Errors
    /// Why it still is.
    fn destroy(&mut self, level: Self::Level) -> Result<(), Self::Error>;

    /// The registers of `level`, which must not be running.
    ///
    /// # Errors
    /// Why they are unknown.
    fn registers(&self, level: Self::Level) -> Result<Self::Registers, Self::Error>;

    /// Replaces the registers of `level`, which must not be running.
    ///
    /// # Errors
    /// Why they are unchanged.
    fn set_registers(
        &mut self,
        level: Self::Level,
        registers: &Self::Registers,
    ) -> Result<(), Self::Error>;

    /// Runs `level` until it needs the SVSM.
    ///
    /// # Errors
    /// Why it did not run.
    fn enter(&mut self, level: Self::Level) -> Result<Self::Exit, Self::Error>;
}
