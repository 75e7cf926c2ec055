//! The hand-off block as bytes.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The first eight bytes: `SVSMBOOT`.
pub const MAGIC: u64 = u64::from_le_bytes(*b"SVSMBOOT");

/// A block of another version is refused: builder, stage2 and SVSM are parts of one image.
///
/// Version 2 has [`WireHandoff::staged_svsm`] and [`WireHandoff::guest_level`].
pub const VERSION: u32 = 2;

/// How many segments of the SVSM the block can list.
pub const MAX_SEGMENTS: usize = 8;

/// What kind of machine the image is for.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
)]
#[repr(transparent)]
pub struct WirePlatform(pub U32);

impl WirePlatform {
    /// An unprotected machine.
    pub const NATIVE: Self = Self(U32::new(0));
    /// AMD SEV-SNP. The numbers are those of the IGVM format.
    pub const SEV_SNP: Self = Self(U32::new(2));
    /// Intel TDX.
    pub const TDX: Self = Self(U32::new(3));
}

/// How page-table entries say private or shared.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
)]
#[repr(transparent)]
pub struct WireEncryption(pub U32);

impl WireEncryption {
    /// They do not.
    pub const NONE: Self = Self(U32::new(0));
    /// A bit that says private; `encryption_value` is its position.
    pub const C_BIT: Self = Self(U32::new(1));
    /// A bit that says shared; `encryption_value` is its position.
    pub const SHARED_BIT: Self = Self(U32::new(2));
    /// A boundary; `encryption_value` is its address.
    pub const VTOM: Self = Self(U32::new(3));
}

/// What may be done with a segment's pages.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
)]
#[repr(transparent)]
pub struct WireRights(pub U32);

impl WireRights {
    /// Read.
    pub const READ: Self = Self(U32::new(0));
    /// Read and write.
    pub const READ_WRITE: Self = Self(U32::new(1));
    /// Read and execute.
    pub const READ_EXECUTE: Self = Self(U32::new(2));
}

/// Guest physical memory that is not mapped for the SVSM, or as a whole.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct WireRange {
    /// First address.
    pub gpa: U64,
    /// Length.
    pub len_bytes: U64,
}

/// Memory that is mapped for the SVSM. Absent: three zeros.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct WireArea {
    /// First address in guest physical memory.
    pub gpa: U64,
    /// The same byte's virtual address.
    pub gva: U64,
    /// Length.
    pub len_bytes: U64,
}

/// A segment of the SVSM's program.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct WireSegment {
    /// Where it is.
    pub area: WireArea,
    /// What may be done with it.
    pub rights: WireRights,
    /// Zero.
    pub reserved: U32,
}

/// The window for temporary mappings.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct WireWindow {
    /// Virtual address of the first slot; a multiple of 2 MiB.
    pub gva: U64,
    /// Virtual address of the page table whose first entry is the first slot's.
    pub table_gva: U64,
    /// Virtual address of the trampoline's page, executable.
    pub switch_gva: U64,
    /// How many slots are free.
    pub slots: U32,
    /// Zero.
    pub reserved: U32,
}

/// Where something staged arrives. Absent: zeros.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct WireStaged {
    /// First address of the memory in which it arrives; a multiple of the page size.
    pub gpa: U64,
    /// Length of what arrives.
    pub len_bytes: U64,
    /// SHA-384 of it.
    pub digest: [u8; 48],
}

/// The hand-off block, version 2. All numbers are little-endian.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct WireHandoff {
    /// [`MAGIC`].
    pub magic: U64,
    /// [`VERSION`].
    pub version: U32,
    /// Size of this structure.
    pub total_bytes: U32,
    /// The kind of machine.
    pub platform: WirePlatform,
    /// How page-table entries say private or shared.
    pub encryption: WireEncryption,
    /// Which bit or boundary; zero until stage2 fills it in.
    pub encryption_value: U64,
    /// Bit 0: debugging is allowed. Bit 1: stage2 has filled in what it knows.
    pub flags: U64,
    /// Time-stamp counter at stage2's first instructions; zero until stage2 fills it in.
    pub tsc_at_entry: U64,
    /// The SVSM's private region.
    pub svsm: WireRange,
    /// Stage2's region.
    pub stage2: WireRange,
    /// Stage2's page tables, the root first.
    pub stage2_tables: WireRange,
    /// Stage2's page table of the window.
    pub stage2_window_table_gpa: U64,
    /// The page from which other CPUs start.
    pub trampoline_gpa: U64,
    /// Root of the SVSM's page tables: the first page of `tables`.
    pub svsm_root_gpa: U64,
    /// The SVSM's first instruction.
    pub svsm_entry_gva: U64,
    /// This block.
    pub handoff: WireArea,
    /// The mailbox of starting CPUs.
    pub mailbox: WireArea,
    /// The SVSM's page tables.
    pub tables: WireArea,
    /// The SVSM's free memory.
    pub heap: WireArea,
    /// The first CPU's stack.
    pub boot_stack: WireArea,
    /// The window.
    pub window: WireWindow,
    /// What the loader deposits: VP count, memory map, MADT, device tree, command line.
    pub parameters: [WireArea; 5],
    /// The user-mode archive.
    pub archive: WireArea,
    /// The CPUID page (SEV-SNP).
    pub cpuid: WireArea,
    /// The secrets page (SEV-SNP).
    pub secrets: WireArea,
    /// How many of `segments` are used, from the first.
    pub segment_count: U32,
    /// I/O port of the console; zero if there is none.
    pub console_port: U16,
    /// I/O port of the PM1a control register; zero if there is none.
    pub power_port: U16,
    /// The SVSM's segments.
    pub segments: [WireSegment; MAX_SEGMENTS],
    /// Digest of the manifest from which the image was made.
    pub manifest_digest: [u8; 32],
    /// Where the archive arrives.
    pub staged: WireStaged,
    /// Where the SVSM's segments and page tables arrive.
    pub staged_svsm: WireStaged,
    /// The guest's VMPL, 1 to 3; zero if the image has no guest.
    pub guest_level: U32,
    /// Zero.
    pub reserved: U32,
}

/// Size of the hand-off block; it fits into one page.
pub const HANDOFF_BYTES: u32 = 904;

const _: () = assert!(size_of::<WireHandoff>() == HANDOFF_BYTES as usize);
