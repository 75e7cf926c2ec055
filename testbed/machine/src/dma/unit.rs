//! The registers of a unit for DMA remapping (Intel VT-d, revision 4.1, chapter 11).

use super::{DOMAIN, Reach};
use crate::addr::Hpa;
use crate::personality::Hardware;
use core::fmt;
use svsm_sim::rmp::PageSize;

/// Offsets of registers.
mod register {
    pub(super) const CAPABILITIES: u64 = 0x08;
    pub(super) const MORE_CAPABILITIES: u64 = 0x10;
    pub(super) const COMMAND: u64 = 0x18;
    pub(super) const STATUS: u64 = 0x1c;
    pub(super) const ROOT: u64 = 0x20;
    pub(super) const CONTEXT_COMMAND: u64 = 0x28;
    pub(super) const FAULT_STATUS: u64 = 0x34;
}

/// In the command and the status: translation is on.
const TRANSLATION: u64 = 1 << 31;
/// In the command and the status: the table to begin with is set.
const ROOT_IS_SET: u64 = 1 << 30;
/// In invalidation commands: to be done, and not yet done.
const INVALIDATE: u64 = 1 << 63;
/// All contexts.
const ALL_CONTEXTS: u64 = 1 << 61;
/// All translations of all domains.
const ALL_TRANSLATIONS: u64 = 1 << 60;
/// Reads, and writes, that are under way are over before an invalidation is.
const DRAIN_READS: u64 = 1 << 49;
/// See [`DRAIN_READS`].
const DRAIN_WRITES: u64 = 1 << 48;
/// Those of one page, or of a power of two of pages, of one domain.
const OF_PAGE: u64 = 3 << 60;
/// An access was refused and noted.
const PENDING: u64 = 1 << 1;
/// One more was refused than could be noted.
const OVERFLOW: u64 = 1;
/// In a note: it holds something; writing it back gives the place free.
const NOTED: u64 = 1 << 63;
/// In a note: the device wanted to read.
const READ: u64 = 1 << 62;

/// How often L0 looks whether the unit has done something. QEMU's has, whenever the write is over.
const PATIENCE: u32 = 1_000_000;

/// Why a unit cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitError {
    /// It lacks something.
    Lacks(&'static str),
    /// It needs something that L0 does not do.
    Needs(&'static str),
    /// Somebody else has turned something of it on.
    InUse,
    /// It does not do what it is told.
    Silent,
}

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lacks(what) => write!(f, "the unit for DMA remapping lacks {what}"),
            Self::Needs(what) => write!(f, "the unit for DMA remapping needs {what}"),
            Self::InUse => f.write_str("the unit for DMA remapping is in use already"),
            Self::Silent => f.write_str("the unit for DMA remapping does not obey"),
        }
    }
}

impl core::error::Error for UnitError {}

/// A device's access that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Bus, device and function, as PCI packs them.
    pub device: u16,
    /// The page that it wanted.
    pub gpa: u64,
    /// Whether it wanted to write.
    pub write: bool,
}

/// A unit, by the address of its registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit(Hpa);

impl Unit {
    /// How long the window of its registers is.
    pub const BYTES: u64 = 0x1000;

    /// The unit at an address.
    #[must_use]
    pub const fn new(base: Hpa) -> Self {
        Self(base)
    }

    /// The address.
    #[must_use]
    pub const fn base(&self) -> Hpa {
        self.0
    }

    /// Lets no device reach more than `reach` allows, from now on.
    ///
    /// What is written to tables is not flushed from caches, whatever the unit says of coherency: QEMU's says nothing, but it is a
    /// program, and reads memory as CPUs do.
    ///
    /// # Errors
    /// The unit is another than this program expects.
    pub fn start(self, reach: &Reach, hardware: &mut impl Hardware) -> Result<Working, UnitError> {
        let capabilities = self.read(register::CAPABILITIES, hardware);
        for (mask, what) in [
            (1 << 10, "tables of four levels"),
            (3 << 34, "pages of 2 MiB and 1 GiB"),
            (1 << 39, "the invalidation of single pages"),
        ] {
            if capabilities & mask != mask {
                return Err(UnitError::Lacks(what));
            }
        }
        if capabilities >> 48 & 0x3f < 9 {
            return Err(UnitError::Lacks("the invalidation of 512 pages at once"));
        }
        for (bit, what) in [
            (4, "its write buffers flushed"),
            (7, "the invalidation of what was not there"),
        ] {
            if capabilities & 1 << bit != 0 {
                return Err(UnitError::Needs(what));
            }
        }
        let status = self.at(register::STATUS).ok_or(UnitError::Silent)?;
        // Commands would have to repeat what is on.
        if hardware.device_read(status, 4) != 0 {
            return Err(UnitError::InUse);
        }
        let mut drain = 0;
        for (bit, drains) in [(54, DRAIN_WRITES), (55, DRAIN_READS)] {
            if capabilities & 1 << bit != 0 {
                drain |= drains;
            }
        }
        let more = self.read(register::MORE_CAPABILITIES, hardware);
        let working = Working {
            unit: self,
            invalidation: (more >> 8 & 0x3ff) * 16,
            drain,
        };
        self.write(register::ROOT, reach.root().as_u64(), hardware);
        self.command(ROOT_IS_SET, hardware)?;
        self.write(
            register::CONTEXT_COMMAND,
            INVALIDATE | ALL_CONTEXTS,
            hardware,
        );
        self.wait(register::CONTEXT_COMMAND, INVALIDATE, 0, hardware)?;
        working.invalidate(ALL_TRANSLATIONS, hardware)?;
        self.command(TRANSLATION, hardware)?;
        Ok(working)
    }

    /// The next access that was refused and that nobody asked for yet.
    pub fn refused(&self, hardware: &mut impl Hardware) -> Option<Refused> {
        let status = hardware.device_read(self.at(register::FAULT_STATUS)?, 4);
        if status & (PENDING | OVERFLOW) == 0 {
            return None;
        }
        let capabilities = self.read(register::CAPABILITIES, hardware);
        let (first, count) = (capabilities >> 24 & 0x3ff, (capabilities >> 40 & 0xff) + 1);
        let noted = (0..count).find_map(|index| {
            let at = (first + index) * 16;
            let high = self.read(at + 8, hardware);
            if high & NOTED == 0 {
                return None;
            }
            let low = self.read(at, hardware);
            self.write(at + 8, NOTED, hardware);
            Some(Refused {
                device: (high & 0xffff) as u16,
                gpa: low & !0xfff,
                write: high & READ == 0,
            })
        });
        // Only what lay in the way of more notes is gone by now.
        if let (true, Some(at)) = (status & OVERFLOW != 0, self.at(register::FAULT_STATUS)) {
            hardware.device_write(at, 4, OVERFLOW);
        }
        noted
    }

    fn command(&self, bit: u64, hardware: &mut impl Hardware) -> Result<(), UnitError> {
        let at = self.at(register::COMMAND).ok_or(UnitError::Silent)?;
        hardware.device_write(at, 4, bit);
        let at = self.at(register::STATUS).ok_or(UnitError::Silent)?;
        until(|| hardware.device_read(at, 4) & bit != 0)
    }

    fn wait(
        &self,
        offset: u64,
        mask: u64,
        value: u64,
        hardware: &mut impl Hardware,
    ) -> Result<(), UnitError> {
        until(|| self.read(offset, hardware) & mask == value)
    }

    fn at(&self, offset: u64) -> Option<Hpa> {
        Hpa::new(self.0.as_u64().checked_add(offset)?)
    }

    fn read(&self, offset: u64, hardware: &mut impl Hardware) -> u64 {
        self.at(offset)
            .map_or(u64::MAX, |at| hardware.device_read(at, 8))
    }

    fn write(&self, offset: u64, value: u64, hardware: &mut impl Hardware) {
        if let Some(at) = self.at(offset) {
            hardware.device_write(at, 8, value);
        }
    }
}

/// A unit that translates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Working {
    unit: Unit,
    /// The offset of the registers for invalidation.
    invalidation: u64,
    /// What of all that is under way it can wait for.
    drain: u64,
}

impl Working {
    /// The unit.
    #[must_use]
    pub const fn unit(&self) -> Unit {
        self.unit
    }

    /// Forgets a page that went out of reach: no access that begins afterwards reaches it. Those that are under way are waited for
    /// as far as the unit can.
    ///
    /// # Errors
    /// [`UnitError::Silent`].
    pub fn forget(
        &self,
        gpa: u64,
        size: PageSize,
        hardware: &mut impl Hardware,
    ) -> Result<(), UnitError> {
        let order = match size {
            PageSize::Size4K => 0,
            PageSize::Size2M => 9,
        };
        let address = gpa & !(size.bytes() - 1) | order;
        self.unit.write(self.invalidation, address, hardware);
        self.invalidate(OF_PAGE | DOMAIN << 32, hardware)
    }

    fn invalidate(&self, what: u64, hardware: &mut impl Hardware) -> Result<(), UnitError> {
        let at = self.invalidation + 8;
        let command = INVALIDATE | what | self.drain;
        self.unit.write(at, command, hardware);
        self.unit.wait(at, INVALIDATE, 0, hardware)
    }
}

fn until(mut done: impl FnMut() -> bool) -> Result<(), UnitError> {
    for _ in 0..PATIENCE {
        if done() {
            return Ok(());
        }
        core::hint::spin_loop();
    }
    Err(UnitError::Silent)
}
