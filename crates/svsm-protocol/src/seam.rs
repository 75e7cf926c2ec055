//! What services need of the machine below them: one trait per capability.

use core::fmt;

use svsm_platform::addr::{Gpa, PageSize};
use svsm_platform::level::Vmpl;
use svsm_platform::seam::Rights;

/// Memory that cannot be reached: it is not there, not valid, or the host has taken it away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Unreachable;

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("guest memory cannot be reached")
    }
}

impl core::error::Error for Unreachable {}

/// Reaches private memory of the guest, which the guest may write at the same time. Callers have checked whose memory it is.
pub trait GuestMemory {
    /// Copies bytes of one page out, each once.
    ///
    /// # Errors
    /// [`Unreachable`]; what `to` holds then is not to be used.
    fn read(&mut self, at: Gpa, to: &mut [u8]) -> Result<(), Unreachable>;

    /// Copies bytes into one page.
    ///
    /// # Errors
    /// [`Unreachable`]; some may have been written.
    fn write(&mut self, at: Gpa, from: &[u8]) -> Result<(), Unreachable>;

    /// Overwrites a page of 4 KiB or 2 MiB with zeros.
    ///
    /// # Errors
    /// [`Unreachable`]; some may have been written.
    fn clear(&mut self, page: Gpa, size: PageSize) -> Result<(), Unreachable>;
}

/// Why a page's state or rights are as they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum PageError {
    /// The instruction's return code, whatever it means.
    Code(u32),
    /// The page had that state already.
    Unchanged,
    /// The instruction raised an exception, or the page cannot be shown to it.
    Faulted,
}

/// Changes the state of guest pages of 4 KiB or 2 MiB, and who may do what with them.
pub trait GuestPages {
    /// PVALIDATE.
    ///
    /// # Errors
    /// Why nothing changed.
    fn validate(&mut self, page: Gpa, size: PageSize, valid: bool) -> Result<(), PageError>;

    /// RMPADJUST: exactly these rights for `level`, and whether the page is a save area.
    ///
    /// # Errors
    /// Why nothing changed.
    fn adjust(
        &mut self,
        page: Gpa,
        size: PageSize,
        level: Vmpl,
        rights: Rights,
        is_save_area: bool,
    ) -> Result<(), PageError>;

    /// Makes all processors forget all translations of all levels: nobody uses rights that were taken any more.
    fn flush(&mut self);
}

/// Stops virtual CPUs whose registers lie in a save area.
pub trait SaveAreas {
    /// Makes the save area one from which nobody runs, atomically. Answers whether nobody does now.
    ///
    /// # Errors
    /// [`Unreachable`].
    fn stop(&mut self, area: Gpa) -> Result<bool, Unreachable>;

    /// Takes that back.
    ///
    /// # Errors
    /// [`Unreachable`].
    fn resume(&mut self, area: Gpa) -> Result<(), Unreachable>;
}

/// All of them.
pub trait Machine: GuestMemory + GuestPages + SaveAreas {}

impl<M: GuestMemory + GuestPages + SaveAreas> Machine for M {}

macro_rules! by_reference {
    ($seam:ident { $(fn $method:ident($($name:ident: $kind:ty),*) $(-> $answer:ty)?;)+ }) => {
        impl<M: $seam + ?Sized> $seam for &mut M {
            $(fn $method(&mut self, $($name: $kind),*) $(-> $answer)? {
                M::$method(self, $($name),*)
            })+
        }
    };
}

by_reference!(GuestMemory {
    fn read(at: Gpa, to: &mut [u8]) -> Result<(), Unreachable>;
    fn write(at: Gpa, from: &[u8]) -> Result<(), Unreachable>;
    fn clear(page: Gpa, size: PageSize) -> Result<(), Unreachable>;
});
by_reference!(GuestPages {
    fn validate(page: Gpa, size: PageSize, valid: bool) -> Result<(), PageError>;
    fn adjust(page: Gpa, size: PageSize, level: Vmpl, rights: Rights, is_save_area: bool) -> Result<(), PageError>;
    fn flush();
});
by_reference!(SaveAreas {
    fn stop(area: Gpa) -> Result<bool, Unreachable>;
    fn resume(area: Gpa) -> Result<(), Unreachable>;
});
