//! Why L0 does not get as far as its guest.

use crate::dma::UnitError;
use crate::paging::MapError;
use core::fmt;

/// Why L0 does not get as far as its guest.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum BootError {
    /// Not started by PVH.
    StartInfo,
    /// The command line is too long or no text.
    CommandLine,
    /// A feature that the CPU lacks.
    Lacks(&'static str),
    /// No image file was given.
    NoImage,
    /// L0's part of memory is too small, or something lies where it is not mapped.
    Memory,
    /// The table that describes what stands between devices and memory cannot be hidden.
    Tables,
    /// A CPU that was started does not answer.
    CpuSilent(u32),
    /// A debugger takes a CPU of its own.
    NoCpuForDebugger,
    /// The image wants a virtual top of memory that is no power of two.
    Boundary,
    /// Page tables.
    Map(MapError),
    /// What stands between devices and memory.
    Unit(UnitError),
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StartInfo => f.write_str("not started by the PVH protocol"),
            Self::CommandLine => f.write_str("the command line is too long, or no text"),
            Self::Lacks(what) => write!(f, "the CPU lacks {what}"),
            Self::NoImage => f.write_str("no image was given (-initrd)"),
            Self::Memory => f.write_str("L0's part of memory is too small"),
            Self::Tables => f.write_str("an ACPI table cannot be hidden from the guest"),
            Self::CpuSilent(id) => write!(f, "the CPU with APIC id {id} does not start"),
            Self::NoCpuForDebugger => f.write_str("a debugger takes one more CPU (-smp)"),
            Self::Boundary => f.write_str("the virtual top of memory is no power of two"),
            Self::Map(error) => error.fmt(f),
            Self::Unit(error) => error.fmt(f),
        }
    }
}

impl From<UnitError> for BootError {
    fn from(error: UnitError) -> Self {
        Self::Unit(error)
    }
}

impl From<MapError> for BootError {
    fn from(error: MapError) -> Self {
        Self::Map(error)
    }
}
