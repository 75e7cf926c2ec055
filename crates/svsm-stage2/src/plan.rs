//! Where everything goes: from the facts about an image to the place, rights and mapping of every
//! page, and the hand-off that tells of them.
//!
//! All of it is data. The builder loads what [`Plan::placements`] says, builds the page tables of
//! both [`AddressSpace`]s with any page-table code, stores [`Plan::handoff`], and starts the machine
//! as [`Plan::start`] says. Nothing is relocated at run time.

use alloc::vec::Vec;

use svsm_platform::addr::{Gpa, GpaRange, Gva, GvaRange, PageCount, PageSize};
use svsm_platform::level::Vmpl;

use crate::error::Result;
use crate::handoff::{EncryptionKind, Handoff, Platform};
use crate::layout;
use crate::params::MemoryRegion;
use crate::region::{Parameter, Region, Rights};

mod areas;
mod build;
mod high;
mod low;
mod tables;

#[cfg(test)]
mod tests;

/// A loadable segment of an ELF file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SegmentFacts {
    /// Where it is linked; stage2 runs at the physical addresses at which it is linked.
    pub address: u64,
    /// How many bytes it has in memory.
    pub mem_bytes: u64,
    /// How many of them come from the file; the others are zero.
    pub file_bytes: u64,
    /// Whether it may be written.
    pub writable: bool,
    /// Whether it may be executed.
    pub executable: bool,
}

/// A program: its segments and its first instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ProgramFacts<'a> {
    /// The segments in the file's order.
    pub segments: &'a [SegmentFacts],
    /// Address of the first instruction.
    pub entry: u64,
}

/// What an image shall consist of.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Request<'a> {
    /// The kind of machine.
    pub platform: Platform,
    /// How its page-table entries say private or shared.
    pub encryption: EncryptionKind,
    /// Whether debugging is allowed.
    pub debug: bool,
    /// Stage2. One segment is the trampoline's page, the others lie in stage2's region, and the
    /// 32-bit entry is that region's first byte.
    pub stage2: ProgramFacts<'a>,
    /// The SVSM.
    pub svsm: ProgramFacts<'a>,
    /// Start of the SVSM's private region; a multiple of 2 MiB.
    pub svsm_base: Gpa,
    /// Size of the SVSM's private region; whole pages.
    pub svsm_bytes: u64,
    /// Start of stage2's region.
    pub stage2_start: Gpa,
    /// End of stage2's region.
    pub stage2_end: Gpa,
    /// The page from which other CPUs start; the page behind it is their mailbox.
    pub trampoline: Gpa,
    /// Size of stage2's stack; whole pages.
    pub stage2_stack_bytes: u64,
    /// Size of the first CPU's stack in the SVSM; whole pages.
    pub boot_stack_bytes: u64,
    /// Room for what the loader deposits, by [`Parameter::index`]; zero for what is not wanted.
    pub parameter_bytes: [u64; Parameter::ALL.len()],
    /// Size of the user-mode archive; zero if there is none.
    pub archive_bytes: u64,
    /// Where the archive arrives, if it is not to be loaded where it belongs.
    pub staged: Option<Arrival>,
    /// The first page of the memory in which the SVSM arrives, if it is not to be loaded where it belongs.
    pub staged_svsm: Option<Gpa>,
    /// The level at which a guest runs, on SEV-SNP.
    pub guest_level: Option<Vmpl>,
    /// Whether there is a CPUID page.
    pub cpuid: bool,
    /// Whether there is a secrets page.
    pub secrets: bool,
    /// I/O port of the console.
    pub console_port: Option<u16>,
    /// I/O port of the PM1a control register.
    pub power_port: Option<u16>,
    /// Digest of the manifest.
    pub manifest_digest: [u8; 32],
    /// What memory the machine has, if that is known. It is somebody's claim: the plan follows it
    /// only by refusing places where no memory is said to be.
    pub memory: Option<&'a [MemoryRegion]>,
}

impl<'a> Request<'a> {
    /// An image of these programs for an unprotected machine, laid out as [`layout`] says, without
    /// parameters and archive.
    #[must_use]
    pub const fn new(stage2: ProgramFacts<'a>, svsm: ProgramFacts<'a>) -> Self {
        Self {
            platform: Platform::Native,
            encryption: EncryptionKind::None,
            debug: false,
            stage2,
            svsm,
            svsm_base: layout::SVSM_BASE,
            svsm_bytes: layout::SVSM_BYTES,
            stage2_start: layout::STAGE2_START,
            stage2_end: layout::STAGE2_END,
            trampoline: layout::TRAMPOLINE,
            stage2_stack_bytes: 0x6000,
            boot_stack_bytes: 0x8000,
            parameter_bytes: [0; Parameter::ALL.len()],
            archive_bytes: 0,
            staged: None,
            staged_svsm: None,
            guest_level: None,
            cpuid: false,
            secrets: false,
            console_port: Some(layout::CONSOLE_PORT),
            power_port: Some(layout::POWER_PORT),
            manifest_digest: [0; 32],
            memory: None,
        }
    }

    /// Makes room for what the loader deposits as `parameter`.
    pub fn deposit(&mut self, parameter: Parameter, len_bytes: u64) {
        if let Some(room) = self.parameter_bytes.get_mut(parameter.index()) {
            *room = len_bytes;
        }
    }
}

/// How a staged archive arrives: see [`Staged`](crate::handoff::Staged).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Arrival {
    /// The first page of the memory in which it arrives.
    pub start: Gpa,
    /// SHA-384 of the archive.
    pub digest: [u8; 48],
}

/// What a placement's pages hold when the machine starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Content {
    /// The first `file_bytes` of a segment, then zeros.
    Segment {
        /// How many bytes the file has.
        file_bytes: u64,
    },
    /// Zeros.
    Zero,
    /// Page tables that the builder makes.
    Tables,
    /// The hand-off block, then zeros.
    Handoff,
    /// The user-mode archive, then zeros.
    Archive {
        /// How many bytes the archive has.
        file_bytes: u64,
    },
    /// The same, in pages that the host can see; not measured.
    Staged {
        /// How many bytes the archive has.
        file_bytes: u64,
    },
    /// The pages of the SVSM's segments in order, then its page tables, in pages that the host can see; not measured.
    StagedSvsm,
    /// What the loader deposits; not measured.
    Deposited(Parameter),
    /// What the platform's firmware fills in.
    Platform,
    /// Nothing: the memory has to be there, and is not loaded.
    Free,
}

/// A run of pages with one purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Placement {
    /// Which part of the image it is.
    pub region: Region,
    /// Where it lies.
    pub gpa: GpaRange,
    /// Where the SVSM sees it, if it does.
    pub gva: Option<GvaRange>,
    /// What the one who uses it may do: the SVSM, or stage2 if the SVSM does not see it.
    pub rights: Rights,
    /// What it holds.
    pub content: Content,
}

/// A run of equal page-table entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Mapping {
    /// What is mapped.
    pub region: Region,
    /// Where the first page is seen.
    pub gva: Gva,
    /// Where it lies.
    pub gpa: Gpa,
    /// The size of each page; one entry maps one page.
    pub size: PageSize,
    /// How many pages.
    pub pages: PageCount,
    /// What may be done with them. All pages are private and supervisor's.
    pub rights: Rights,
}

/// Page tables that the builder makes.
///
/// It takes a zeroed page from `tables`, lowest first, whenever it needs one, the root before all
/// others, and makes the mappings in their order. Then all of `tables` is used, every table lies
/// above the one that points to it (which is what stage2 checks), and the window's table, for which
/// the first mapping is the first to ask, is at `window_table`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressSpace {
    /// The pages for the tables; the root is the first.
    pub tables: GpaRange,
    /// The page table of the window.
    pub window_table: Gpa,
    /// What is mapped, in the order of making.
    pub mappings: Vec<Mapping>,
}

impl AddressSpace {
    /// The root of the tables: what CR3 holds.
    #[must_use]
    pub const fn root(&self) -> Gpa {
        self.tables.start()
    }
}

/// How the first CPU starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Start {
    /// RIP of a start in 64-bit mode with CR0, CR4 and EFER as in [`layout`].
    pub entry64: Gva,
    /// EIP of a start in 32-bit protected mode with paging off.
    pub entry32: Gpa,
    /// CR3 of a start in 64-bit mode; the 32-bit entry takes it from the hand-off.
    pub root: Gpa,
    /// RSP or ESP.
    pub stack_top: Gva,
    /// RDI or EDI: the hand-off's address.
    pub handoff: Gpa,
}

/// An image, laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// Every run of pages, in the order of guest physical addresses.
    pub placements: Vec<Placement>,
    /// The address space in which stage2 runs.
    pub stage2: AddressSpace,
    /// The address space in which the SVSM starts.
    pub svsm: AddressSpace,
    /// How the first CPU starts.
    pub start: Start,
    /// The hand-off, as it is before stage2 runs. The digest of a staged SVSM is missing in it, since page tables are made of
    /// a plan: [`set_staged_svsm_digest`](Self::set_staged_svsm_digest) takes it.
    pub handoff: Handoff,
}

impl Plan {
    /// Lays out an image.
    ///
    /// # Errors
    ///
    /// [`Error::Region`](crate::Error::Region), with the name of the part that overlaps, is not
    /// aligned, wraps, is missing or does not fit.
    pub fn new(request: &Request<'_>) -> Result<Self> {
        build::plan(request)
    }

    /// Puts in the SHA-384 of what is placed as [`Content::StagedSvsm`]. Nothing happens if nothing is.
    pub const fn set_staged_svsm_digest(&mut self, digest: [u8; 48]) {
        if let Some(staged) = &mut self.handoff.staged_svsm {
            staged.digest = digest;
        }
    }

    /// The placement of that part, if the image has it.
    #[must_use]
    pub fn placement(&self, region: Region) -> Option<&Placement> {
        self.placements
            .iter()
            .find(|placement| placement.region == region)
    }
}
