//! The hand-off block: what the builder tells stage2 and the SVSM.
//!
//! It lies in stage2's region, below 4 GiB and in one page, so that the 32-bit entry can read it
//! with paging off; the SVSM sees it read-only. It is measured. It is parsed as strictly as if it
//! were not, because a builder has bugs too, and this is where they are cheap to find.
//!
//! Stage2 fills in what is only known when it runs ([`RunTime`]), once.

use svsm_platform::addr::{Gpa, GpaRange, Gva, PageSize};
use svsm_platform::encryption::Encryption;
use svsm_platform::level::Vmpl;
use zerocopy::FromBytes;

use crate::error::{Error, Fault, Flaw, Result};
use crate::region::{Area, Parameter, Region, Rights};

mod check;
mod codec;
mod wire;

#[cfg(test)]
pub(crate) mod tests;

pub use wire::{
    HANDOFF_BYTES, MAGIC, MAX_SEGMENTS, VERSION, WireArea, WireEncryption, WireHandoff,
    WirePlatform, WireRange, WireRights, WireSegment, WireStaged, WireWindow,
};

/// The kind of machine an image is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Platform {
    /// An unprotected machine.
    Native,
    /// AMD SEV-SNP.
    Snp,
    /// Intel TDX.
    Tdx,
}

/// How page-table entries of an image's machine say private or shared.
///
/// Which bit it is depends on the processor: [`RunTime::encryption`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum EncryptionKind {
    /// They do not.
    None,
    /// A bit says private.
    CBit,
    /// A bit says shared.
    SharedBit,
    /// Shared memory has addresses above a boundary.
    Vtom,
}

impl EncryptionKind {
    /// The kind to which that rule belongs.
    #[must_use]
    pub const fn of(encryption: Encryption) -> Self {
        match encryption {
            Encryption::None => Self::None,
            Encryption::CBit(_) => Self::CBit,
            Encryption::SharedBit(_) => Self::SharedBit,
            Encryption::Vtom(_) => Self::Vtom,
        }
    }
}

/// What stage2 adds to the block when it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct RunTime {
    /// The rule by which the SVSM's page tables say private; they follow it already.
    pub encryption: Encryption,
    /// Time-stamp counter at stage2's first instructions.
    pub tsc_at_entry: u64,
}

/// A segment of the SVSM's program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Segment {
    /// Where it is.
    pub area: Area,
    /// What may be done with it.
    pub rights: Rights,
}

/// The segments of the SVSM's program: at least one, at most [`MAX_SEGMENTS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Segments([Option<Segment>; MAX_SEGMENTS]);

impl Segments {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self([None; MAX_SEGMENTS])
    }

    /// Adds one behind the others.
    ///
    /// # Errors
    ///
    /// [`Fault::TooMany`] if the list is full.
    pub fn push(&mut self, segment: Segment) -> Result<()> {
        let mut index = 0;
        for place in &mut self.0 {
            if place.is_none() {
                *place = Some(segment);
                return Ok(());
            }
            index += 1;
        }
        Err(Error::Region {
            region: Region::SvsmSegment(index),
            fault: Fault::TooMany,
        })
    }

    /// The segments, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Segment> + Clone {
        self.0.iter().flatten()
    }
}

/// The window for temporary mappings in the SVSM's address space.
///
/// Slot `n` is the page at `gva + n * 4096` and belongs to entry `n` of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct WindowArea {
    /// The first slot; the window is the 2 MiB that start here.
    pub gva: Gva,
    /// Where the window's own page table is mapped, writable.
    pub table: Gva,
    /// Where the trampoline's page is mapped, executable, as it is in stage2's address space.
    pub switch: Gva,
    /// How many slots are free, from the first on.
    pub slots: u16,
}

/// Payload that is not loaded where it belongs.
///
/// It arrives in memory that the host can see, so that it passes no launch, and a function of
/// [`staged`](crate::staged) puts it into its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Staged {
    /// Where it arrives: whole pages, outside of the SVSM's and of stage2's region. They are the
    /// host's, and stay the host's.
    pub source: GpaRange,
    /// SHA-384 of the payload. This is measured, and so the payload is what the image says.
    pub digest: [u8; 48],
}

/// What builder, stage2 and SVSM agree on.
///
/// A value that came from [`parse`](Self::parse) is consistent: every part lies in the region where
/// it belongs, no two share a byte in either kind of address, and the entry point is executable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct Handoff {
    /// The kind of machine.
    pub platform: Platform,
    /// How its page-table entries say private or shared.
    pub encryption: EncryptionKind,
    /// Whether the manifest allows debugging.
    pub debug: bool,
    /// What stage2 found out; `None` before it ran.
    pub run_time: Option<RunTime>,
    /// The SVSM's private region.
    pub svsm: GpaRange,
    /// Stage2's region.
    pub stage2: GpaRange,
    /// Stage2's page tables, the root first.
    pub stage2_tables: GpaRange,
    /// Stage2's page table of the window.
    pub stage2_window_table: Gpa,
    /// The page from which other CPUs start.
    pub trampoline: Gpa,
    /// The SVSM's first instruction.
    pub entry: Gva,
    /// This block.
    pub handoff: Area,
    /// The mailbox of starting CPUs.
    pub mailbox: Area,
    /// The SVSM's page tables; the root is the first page.
    pub tables: Area,
    /// The SVSM's free memory, mapped behind the tables. No image loads it: on SEV-SNP none of it is validated at
    /// start, and all that lies before it in the private region is, but for a staged archive.
    pub heap: Area,
    /// The first CPU's stack.
    pub boot_stack: Area,
    /// The window for temporary mappings.
    pub window: WindowArea,
    /// What the loader deposits, by [`Parameter::index`].
    pub parameters: [Option<Area>; Parameter::ALL.len()],
    /// The user-mode archive.
    pub archive: Option<Area>,
    /// Where the archive arrives, if it is not loaded where it belongs: then `archive` is mapped,
    /// but nothing is in it, and on SEV-SNP it is not validated at start.
    pub staged: Option<Staged>,
    /// Where the SVSM arrives, if it is not loaded where it belongs: the pages of its segments in order, then those of its
    /// page tables. Stage2 puts them into their places; until then, nothing is there.
    pub staged_svsm: Option<Staged>,
    /// The level at which the guest runs (SEV-SNP), never the SVSM's own; `None` if the image has no guest.
    pub guest_level: Option<Vmpl>,
    /// The CPUID page (SEV-SNP).
    pub cpuid: Option<Area>,
    /// The secrets page (SEV-SNP).
    pub secrets: Option<Area>,
    /// I/O port of the console, if there is one.
    pub console_port: Option<u16>,
    /// I/O port of the PM1a control register, if there is one.
    pub power_port: Option<u16>,
    /// The SVSM's segments.
    pub segments: Segments,
    /// Digest of the manifest from which the image was made.
    pub manifest_digest: [u8; 32],
}

impl Handoff {
    /// Reads a block. What follows it in `bytes` is ignored.
    ///
    /// # Errors
    ///
    /// [`Error::Handoff`] for a field that means nothing, [`Error::Region`] for a part that lies
    /// where it must not.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let flaw = |offset, flaw| Err(Error::Handoff { offset, flaw });
        let Ok((wire, _)) = WireHandoff::ref_from_prefix(bytes) else {
            return flaw(bytes.len(), Flaw::Truncated);
        };
        if wire.magic.get() != MAGIC {
            return flaw(core::mem::offset_of!(WireHandoff, magic), Flaw::Magic);
        }
        if wire.version.get() != VERSION {
            return flaw(core::mem::offset_of!(WireHandoff, version), Flaw::Version);
        }
        if wire.total_bytes.get() != HANDOFF_BYTES {
            return flaw(
                core::mem::offset_of!(WireHandoff, total_bytes),
                Flaw::Length,
            );
        }
        let handoff = codec::decode(wire)?;
        handoff.check()?;
        Ok(handoff)
    }

    /// Checks all that [`parse`](Self::parse) promises.
    ///
    /// # Errors
    ///
    /// [`Error::Region`] for a part that lies where it must not.
    pub fn check(&self) -> Result<()> {
        check::check(self)
    }

    /// The block as bytes.
    #[must_use]
    pub fn encode(&self) -> WireHandoff {
        codec::encode(self)
    }

    /// Where the loader deposits `parameter`, if it does.
    #[must_use]
    pub fn parameter(&self, parameter: Parameter) -> Option<Area> {
        self.parameters.get(parameter.index()).copied().flatten()
    }

    /// Root of the SVSM's page tables.
    #[must_use]
    pub const fn root(&self) -> Gpa {
        self.tables.gpa()
    }

    /// The pages of the SVSM that are staged together: its segments in order, then its page tables.
    pub fn svsm_pages(&self) -> impl Iterator<Item = Gpa> + Clone {
        let segments = self.segments.iter().map(|segment| segment.area);
        let parts = segments.chain(core::iter::once(self.tables));
        parts.flat_map(|part| {
            part.gpa_range()
                .pages(PageSize::Size4K)
                .into_iter()
                .flatten()
        })
    }

    /// How many bytes those pages have.
    #[must_use]
    pub fn svsm_bytes(&self) -> u64 {
        let segments = self
            .segments
            .iter()
            .map(|segment| segment.area.gpa_range().len_bytes());
        segments.fold(self.tables.gpa_range().len_bytes(), u64::saturating_add)
    }

    /// The address behind the first CPU's stack, where its stack pointer starts.
    #[must_use]
    pub const fn boot_stack_top(&self) -> Gva {
        self.boot_stack.gva_range().end()
    }
}
