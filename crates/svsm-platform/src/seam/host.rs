use core::fmt;

use crate::{
    addr::Gpa,
    cpu::{cpuid::Registers, msr::Msr},
};

/// The size of one access to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Width {
    /// 8 bits.
    Byte,
    /// 16 bits.
    Word,
    /// 32 bits.
    Dword,
}

impl Width {
    /// Size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u16 {
        match self {
            Self::Byte => 1,
            Self::Word => 2,
            Self::Dword => 4,
        }
    }
}

/// The size of one access to a device register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum MmioWidth {
    /// 8 bits.
    Byte,
    /// 16 bits.
    Word,
    /// 32 bits.
    Dword,
    /// 64 bits.
    Qword,
}

impl MmioWidth {
    /// Size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Byte => 1,
            Self::Word => 2,
            Self::Dword => 4,
            Self::Qword => 8,
        }
    }
}

/// I/O ports, whoever stands behind them.
///
/// What is read is the host's word. Only the bits of the width are looked at and answered.
pub trait PortCall {
    /// Why an access did not happen.
    type Error: Copy + fmt::Debug;

    /// Reads a port.
    ///
    /// # Errors
    /// Why it was not read.
    fn port_read(&mut self, port: u16, width: Width) -> Result<u32, Self::Error>;

    /// Writes a port.
    ///
    /// # Errors
    /// Why it was not written.
    fn port_write(&mut self, port: u16, width: Width, value: u32) -> Result<(), Self::Error>;

    /// Reads bytes from a port, one after the other. Where each access is a call to the host, one call may do for many.
    ///
    /// # Errors
    /// Why not all were read; how much of `bytes` is new is unknown.
    fn port_read_bytes(&mut self, port: u16, bytes: &mut [u8]) -> Result<(), Self::Error> {
        bytes.iter_mut().try_for_each(|byte| {
            let [value, ..] = self.port_read(port, Width::Byte)?.to_le_bytes();
            *byte = value;
            Ok(())
        })
    }

    /// Writes bytes to a port, one after the other. Where each access is a call to the host, one call may do for many.
    ///
    /// # Errors
    /// Why not all were written; which were is unknown.
    fn port_write_bytes(&mut self, port: u16, bytes: &[u8]) -> Result<(), Self::Error> {
        bytes
            .iter()
            .try_for_each(|byte| self.port_write(port, Width::Byte, (*byte).into()))
    }
}

/// Model-specific registers that the host emulates.
pub trait MsrCall {
    /// Why an access did not happen.
    type Error: Copy + fmt::Debug;

    /// Reads a register; the answer is the host's word.
    ///
    /// # Errors
    /// Why it was not read.
    fn msr_read(&mut self, msr: Msr) -> Result<u64, Self::Error>;

    /// Writes a register.
    ///
    /// # Errors
    /// Why it was not written.
    fn msr_write(&mut self, msr: Msr, value: u64) -> Result<(), Self::Error>;
}

/// Memory-mapped device registers.
///
/// Only the bits of the width are looked at and answered.
pub trait MmioCall {
    /// Why an access did not happen.
    type Error: Copy + fmt::Debug;

    /// Reads a device register; the answer is the host's word.
    ///
    /// # Errors
    /// Why it was not read.
    fn mmio_read(&mut self, at: Gpa, width: MmioWidth) -> Result<u64, Self::Error>;

    /// Writes a device register.
    ///
    /// # Errors
    /// Why it was not written.
    fn mmio_write(&mut self, at: Gpa, width: MmioWidth, value: u64) -> Result<(), Self::Error>;
}

/// CPUID leaves as the host tells them.
pub trait CpuidCall {
    /// Why there is no answer.
    type Error: Copy + fmt::Debug;

    /// Asks for a leaf; the answer is the host's word, even where it looks like the processor's.
    ///
    /// # Errors
    /// Why there is no answer.
    fn cpuid(&mut self, leaf: u32, subleaf: u32) -> Result<Registers, Self::Error>;
}

/// All ways to ask the host for a device's or a register's answer.
pub trait HostCall: PortCall + MsrCall + MmioCall + CpuidCall {}

impl<H: PortCall + MsrCall + MmioCall + CpuidCall> HostCall for H {}

macro_rules! by_reference {
    ($seam:ident { $(fn $method:ident($($name:ident: $kind:ty),*) -> $answer:ty;)+ }) => {
        impl<H: $seam + ?Sized> $seam for &mut H {
            type Error = H::Error;

            $(fn $method(&mut self, $($name: $kind),*) -> Result<$answer, H::Error> {
                H::$method(self, $($name),*)
            })+
        }
    };
}

by_reference!(PortCall {
    fn port_read(port: u16, width: Width) -> u32;
    fn port_write(port: u16, width: Width, value: u32) -> ();
    fn port_read_bytes(port: u16, bytes: &mut [u8]) -> ();
    fn port_write_bytes(port: u16, bytes: &[u8]) -> ();
});
by_reference!(MsrCall {
    fn msr_read(msr: Msr) -> u64;
    fn msr_write(msr: Msr, value: u64) -> ();
});
by_reference!(MmioCall {
    fn mmio_read(at: Gpa, width: MmioWidth) -> u64;
    fn mmio_write(at: Gpa, width: MmioWidth, value: u64) -> ();
});
by_reference!(CpuidCall {
    fn cpuid(leaf: u32, subleaf: u32) -> Registers;
});
