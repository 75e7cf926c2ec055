//! Where everything goes in a guest's memory, and how its first processor starts.
//!
//! Everything small lies below 640 KiB, the kernel where it wants to be, the RAM disk at the end of memory.

use crate::error::{Error, Result, TableFault};
use crate::kernel::{ENTRY_64, Kernel};
use crate::params::{self, Pointers, Region, RegionKind, SnpSetupData};
use crate::{acpi, stub, tables};
use zerocopy::IntoBytes;

const PAGE: u64 = 4096;
const DESCRIPTORS: u64 = 0x8000;
const TABLES: u64 = 0x9000;
const PARAMETERS: u64 = 0x1_0000;
const COMMAND_LINE: u64 = 0x1_1000;
const COMMAND_LINE_BYTES: u64 = 0x1000;
const SETUP_DATA: u64 = 0x1_2000;
const SECRETS: u64 = 0x1_3000;
const CPUID: u64 = 0x1_4000;
const STUB: u64 = 0x1_5000;
/// The list of ranges behind the stub's code.
const RANGES: u64 = STUB + 0x400;
const TABLES_OF_ACPI: u64 = 0x2_0000;
const CALLING_AREA: u64 = TABLES_OF_ACPI + acpi::BYTES as u64;
const LOW_END: u64 = 0xa_0000;
/// Where old PCs have read-only memory, and kernels look for what it holds.
const LEGACY: u64 = 0xc_0000;
const LEGACY_BYTES: u32 = 0x4_0000;
const HIGH_START: u64 = 0x10_0000;
const _: () = assert!(LEGACY + LEGACY_BYTES as u64 == HIGH_START);
const LARGE: u64 = 2 << 20;
const LEAST_MEMORY: u64 = 64 << 20;
const MOST_MEMORY: u64 = 2 << 30;

/// What protects a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Nothing.
    None,
    /// SEV-SNP, with the C-bit at this position. Pages for secrets and for the CPUID table come from elsewhere, and the
    /// memory of the image is valid; the rest is validated by the stub.
    Snp {
        /// The position.
        c_bit: u8,
    },
    /// SEV-SNP below an SVSM, which has validated all memory and fills the pages for secrets and the CPUID table.
    Svsm {
        /// The position of the C-bit.
        c_bit: u8,
    },
}

impl Protection {
    /// The bit of a page-table entry that says private; 0 if there is none.
    const fn bit(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Snp { c_bit } | Self::Svsm { c_bit } => bit(c_bit),
        }
    }
}

/// Which ACPI tables a kernel gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acpi<'a> {
    /// Those of [`acpi`]: processors and power, and no devices.
    Own,
    /// What the host has made ([`table_loader`](crate::table_loader)). Their code (AML) is the host's, and the kernel runs it.
    Host {
        /// The tables; what counts before they are loaded is how many bytes they have.
        tables: &'a [u8],
        /// Where their root pointer is, from their start on.
        root: u64,
    },
}

impl<'a> Acpi<'a> {
    const fn tables(&self) -> &'a [u8] {
        match *self {
            Self::Own => &[],
            Self::Host { tables, .. } => tables,
        }
    }
}

/// A guest that is to start.
#[derive(Clone, Copy, Debug)]
pub struct Guest<'a> {
    /// The kernel.
    pub kernel: Kernel<'a>,
    /// The initial RAM disk; empty for none.
    pub initrd: &'a [u8],
    /// The kernel's command line.
    pub command_line: &'a str,
    /// Bytes of memory, from address zero on; a multiple of 2 MiB.
    pub memory: u64,
    /// The APIC ids of its processors, the first one's first.
    pub apic_ids: &'a [u32],
    /// Its ACPI tables.
    pub acpi: Acpi<'a>,
    /// What protects it.
    pub protection: Protection,
}

/// The registers with which the first processor starts, in 64-bit mode with paging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// RIP
    pub entry: u64,
    /// RSI: the boot parameters.
    pub rsi: u64,
    /// RDI: the stub's ranges, or zero.
    pub rdi: u64,
    /// RDX: where the stub goes on, or zero.
    pub rdx: u64,
    /// CR3, with the encryption bit if there is one.
    pub cr3: u64,
    /// The base of the global descriptor table, whose limit is [`Start::GDT_LIMIT`].
    pub gdt: u64,
}

impl Start {
    /// The limit of the global descriptor table.
    pub const GDT_LIMIT: u16 = 31;
    /// The selector of the flat 64-bit code segment.
    pub const CODE: u16 = 0x10;
    /// The selector of the flat data segment.
    pub const DATA: u16 = 0x18;
}

/// Where everything goes.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    kernel: u64,
    initrd: u64,
    /// Where memory for the kernel ends, and the host's tables start.
    tables: u64,
    memory: u64,
    start: Start,
}

impl Layout {
    /// Finds a place for everything.
    ///
    /// # Errors
    /// [`Error::Memory`], [`Error::NoRoom`], [`Error::CommandLine`], [`Error::ZeroByte`] or [`Error::Processors`].
    pub fn new(guest: &Guest<'_>) -> Result<Self> {
        let Guest { kernel, memory, .. } = *guest;
        let sized = (LEAST_MEMORY..=MOST_MEMORY).contains(&memory);
        if !sized || !memory.is_multiple_of(LARGE) {
            return Err(Error::Memory(memory));
        }
        let most = kernel
            .command_line_size()
            .min(usize::try_from(COMMAND_LINE_BYTES - 1).unwrap_or_default());
        let bytes = guest.command_line.len();
        if bytes > most {
            return Err(Error::CommandLine { bytes, most });
        }
        if guest.command_line.bytes().any(|byte| byte == 0) {
            return Err(Error::ZeroByte);
        }
        let count = guest.apic_ids.len();
        if count == 0 || count > acpi::MAX_PROCESSORS {
            return Err(Error::Processors(count));
        }
        let disk = (guest.initrd.len() as u64).next_multiple_of(PAGE);
        let tables = guest.acpi.tables().len() as u64;
        if let Acpi::Host { root, .. } = guest.acpi
            && root >= tables
        {
            return Err(Error::HostTables(TableFault::Root));
        }
        let tables = tables.next_multiple_of(PAGE);
        let needed = kernel
            .preferred()
            .checked_add(kernel.memory())
            .and_then(|end| end.checked_add(disk)?.checked_add(tables))
            .ok_or(Error::Placement)?;
        if needed > memory {
            return Err(Error::NoRoom { needed, memory });
        }
        let entry = kernel.preferred() + ENTRY_64;
        let (entry, rdi, rdx) = match guest.protection {
            Protection::None | Protection::Svsm { .. } => (entry, 0, 0),
            Protection::Snp { .. } => (STUB, RANGES, entry),
        };
        let bit = guest.protection.bit();
        Ok(Self {
            kernel: kernel.preferred(),
            initrd: memory - tables - disk,
            tables: memory - tables,
            memory,
            start: Start {
                entry,
                rsi: PARAMETERS,
                rdi,
                rdx,
                cr3: TABLES | bit,
                gdt: DESCRIPTORS,
            },
        })
    }

    /// Where the kernel's first byte is.
    #[must_use]
    pub const fn kernel(&self) -> u64 {
        self.kernel
    }

    /// Where the host's ACPI tables go, a multiple of 4096; the end of memory if there are none.
    #[must_use]
    pub const fn tables(&self) -> u64 {
        self.tables
    }

    /// How the first processor starts.
    #[must_use]
    pub const fn start(&self) -> Start {
        self.start
    }

    /// The page for secrets (SEV-SNP).
    #[must_use]
    pub const fn secrets(&self) -> u64 {
        SECRETS
    }

    /// The page for the CPUID table (SEV-SNP).
    #[must_use]
    pub const fn cpuid(&self) -> u64 {
        CPUID
    }

    /// The page through which the first processor calls its SVSM: the kernel is told that it is reserved.
    #[must_use]
    pub const fn calling_area(&self) -> u64 {
        CALLING_AREA
    }

    /// Memory that a guest of SEV-SNP needs although the memory map does not have it, its first byte and its length: kernels
    /// without EFI look for old firmware there, by private accesses.
    #[must_use]
    pub const fn legacy(&self) -> (u64, u32) {
        (LEGACY, LEGACY_BYTES)
    }

    /// Hands everything that has contents to `put`, with its guest physical address. Addresses are multiples of 4096; the
    /// last page of a piece may be short, and what is missing is zero.
    ///
    /// # Errors
    /// Those of `put`. What cannot be laid out was refused by [`Layout::new`].
    pub fn write<E>(
        &self,
        guest: &Guest<'_>,
        put: &mut impl FnMut(u64, &[u8]) -> core::result::Result<(), E>,
    ) -> core::result::Result<(), E> {
        let snp = guest.protection != Protection::None;
        let bit = guest.protection.bit();
        let mut page = [0; 4096];
        for (to, word) in page.chunks_exact_mut(8).zip(GDT) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        put(DESCRIPTORS, &page)?;
        for table in 0..tables::BYTES / PAGE {
            for (to, slot) in page.chunks_exact_mut(8).zip(0..) {
                let entry = tables::entry(TABLES, table * 512 + slot, self.memory, bit);
                to.copy_from_slice(&entry.to_le_bytes());
            }
            put(TABLES + table * PAGE, &page)?;
        }
        let rsdp = match guest.acpi {
            Acpi::Own => {
                let mut acpi = [0; acpi::BYTES];
                let bytes = acpi::build(&mut acpi, TABLES_OF_ACPI, guest.apic_ids);
                let tables = acpi.get(..bytes.unwrap_or_default());
                put(TABLES_OF_ACPI, tables.unwrap_or_default())?;
                TABLES_OF_ACPI
            }
            Acpi::Host { tables, root } => {
                put(self.tables, tables)?;
                self.tables + root
            }
        };
        let pointers = Pointers {
            command_line: COMMAND_LINE,
            initrd: if guest.initrd.is_empty() {
                0
            } else {
                self.initrd
            },
            initrd_bytes: guest.initrd.len() as u64,
            rsdp,
            setup_data: if snp { SETUP_DATA } else { 0 },
        };
        // The last region is that of the host's tables.
        let map = self.map();
        let regions = map.len() - usize::from(self.tables == self.memory);
        let map = map.get(..regions).unwrap_or_default();
        // Fails for addresses above 4 GiB and unsorted maps only, of which there are none here.
        let _ = params::fill(&mut page, &guest.kernel, &pointers, map);
        put(PARAMETERS, &page)?;
        page.fill(0);
        for (to, from) in page.iter_mut().zip(guest.command_line.bytes()) {
            *to = from;
        }
        put(COMMAND_LINE, &page)?;
        if snp && let Ok(data) = SnpSetupData::new(SETUP_DATA, SECRETS, CPUID) {
            put(SETUP_DATA, data.as_bytes())?;
        }
        if matches!(guest.protection, Protection::Snp { .. }) {
            put(STUB, &self.stub(guest))?;
        }
        put(self.kernel, guest.kernel.payload())?;
        if !guest.initrd.is_empty() {
            put(self.initrd, guest.initrd)?;
        }
        Ok(())
    }

    /// What the kernel is told of memory.
    fn map(&self) -> [Region; 5] {
        // The calling area is kept from the kernel with them.
        let acpi_end = CALLING_AREA + PAGE;
        let region = |start, end, kind| Region {
            start,
            bytes: end - start,
            kind,
        };
        [
            region(0, TABLES_OF_ACPI, RegionKind::Ram),
            region(TABLES_OF_ACPI, acpi_end, RegionKind::Acpi),
            region(acpi_end, LOW_END, RegionKind::Ram),
            region(HIGH_START, self.tables, RegionKind::Ram),
            region(self.tables, self.memory, RegionKind::Acpi),
        ]
    }

    /// What the image fills: pieces in ascending order, whole pages.
    fn filled(&self, guest: &Guest<'_>) -> [(u64, u64); 8] {
        let pages = |bytes: usize| (bytes as u64).next_multiple_of(PAGE);
        let acpi = match guest.acpi {
            Acpi::Own => acpi_bytes(guest.apic_ids),
            Acpi::Host { .. } => 0,
        };
        [
            (DESCRIPTORS, DESCRIPTORS + PAGE),
            (TABLES, TABLES + tables::BYTES),
            (PARAMETERS, STUB + PAGE),
            (TABLES_OF_ACPI, TABLES_OF_ACPI + pages(acpi)),
            // Video memory is no RAM.
            (LOW_END, LEGACY),
            (
                self.kernel,
                self.kernel + pages(guest.kernel.payload().len()),
            ),
            (self.initrd, self.initrd + pages(guest.initrd.len())),
            (self.tables, self.memory),
        ]
    }

    /// The stub, and the ranges that it validates: all memory that the image does not fill.
    fn stub(&self, guest: &Guest<'_>) -> [u8; 4096] {
        let mut page = [0; 4096];
        for (to, from) in page.iter_mut().zip(stub::CODE) {
            *to = from;
        }
        let ranges = page
            .get_mut(usize::try_from(RANGES - STUB).unwrap_or_default()..)
            .unwrap_or_default();
        let mut free = ranges.chunks_exact_mut(16);
        let mut start = 0;
        let last = (self.memory, self.memory);
        for (filled, end) in self.filled(guest).into_iter().chain([last]) {
            if start < filled
                && let Some(pair) = free.next()
            {
                let (first, second) = pair.split_at_mut(8);
                first.copy_from_slice(&start.to_le_bytes());
                second.copy_from_slice(&filled.to_le_bytes());
            }
            start = end;
        }
        page
    }
}

/// Nothing, nothing, flat 64-bit code, flat data.
const GDT: [u64; 4] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

const fn bit(position: u8) -> u64 {
    match 1_u64.checked_shl(position as u32) {
        Some(bit) => bit,
        None => 0,
    }
}

fn acpi_bytes(apic_ids: &[u32]) -> usize {
    let mut scratch = [0; acpi::BYTES];
    acpi::build(&mut scratch, TABLES_OF_ACPI, apic_ids).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::made;
    use std::collections::BTreeMap;
    use std::vec;
    use std::vec::Vec;

    fn guest<'a>(file: &'a [u8], initrd: &'a [u8], protection: Protection) -> Guest<'a> {
        Guest {
            kernel: Kernel::parse(file).unwrap(),
            initrd,
            command_line: "console=ttyS0",
            memory: 64 << 20,
            apic_ids: &[0, 1],
            acpi: Acpi::Own,
            protection,
        }
    }

    fn pages(layout: &Layout, guest: &Guest<'_>) -> BTreeMap<u64, Vec<u8>> {
        let mut pages = BTreeMap::new();
        let mut put = |gpa: u64, bytes: &[u8]| {
            assert_eq!(gpa % PAGE, 0);
            for (at, page) in (gpa..).step_by(4096).zip(bytes.chunks(4096)) {
                assert!(pages.insert(at, page.to_vec()).is_none(), "{at:#x} twice");
            }
            Ok::<_, ()>(())
        };
        layout.write(guest, &mut put).unwrap();
        pages
    }

    #[test]
    fn nothing_is_written_twice_or_outside_of_memory() {
        let file = made::kernel(3 << 20);
        let initrd = vec![7; 5000];
        for protection in [
            Protection::None,
            Protection::Snp { c_bit: 51 },
            Protection::Svsm { c_bit: 51 },
        ] {
            let guest = guest(&file, &initrd, protection);
            let layout = Layout::new(&guest).unwrap();
            let pages = pages(&layout, &guest);
            assert!(
                pages
                    .keys()
                    .all(|at| *at < LOW_END || (HIGH_START..64 << 20).contains(at))
            );
            assert_eq!(pages[&((64 << 20) - 0x2000)][0], 7);
            assert_eq!(&pages[&COMMAND_LINE][..14], b"console=ttyS0\0");
            let has_stub = matches!(protection, Protection::Snp { .. });
            assert_eq!(pages.contains_key(&STUB), has_stub);
            assert_eq!(
                layout.start().entry == layout.kernel() + ENTRY_64,
                !has_stub
            );
            assert!(!pages.contains_key(&layout.calling_area()));
        }
    }

    #[test]
    fn the_stub_validates_exactly_what_the_image_does_not_fill() {
        let file = made::kernel(3 << 20);
        let guest = guest(&file, b"disk", Protection::Snp { c_bit: 51 });
        let layout = Layout::new(&guest).unwrap();
        let pages = pages(&layout, &guest);
        let word = |at: usize| u64::from_le_bytes(pages[&STUB][at..at + 8].try_into().unwrap());
        let mut validated = Vec::new();
        for at in (0x400..).step_by(16) {
            let (start, end) = (word(at), word(at + 8));
            if start == end {
                break;
            }
            validated.extend((start..end).step_by(4096));
        }
        for page in (0..64 << 20).step_by(4096) {
            let is_ram = !(LOW_END..LEGACY).contains(&page);
            let filled = pages.contains_key(&page) || page == SECRETS || page == CPUID;
            assert_eq!(validated.contains(&page), is_ram && !filled, "{page:#x}");
        }
    }

    #[test]
    fn tables_of_the_host_lie_at_the_end_of_memory() {
        let file = made::kernel(3 << 20);
        let tables = vec![0xac; 0x2345];
        let root = 0x123;
        let own = guest(&file, b"disk", Protection::Svsm { c_bit: 51 });
        let guest = Guest {
            acpi: Acpi::Host {
                tables: &tables,
                root,
            },
            ..own
        };
        let layout = Layout::new(&guest).unwrap();
        let start = (64 << 20) - 0x3000;
        assert_eq!(layout.tables(), start);
        let pages = pages(&layout, &guest);
        assert_eq!(pages[&(start + 0x2000)].len(), 0x345);
        assert_eq!(&pages[&(start - PAGE)][..4], b"disk");
        assert!(!pages.contains_key(&TABLES_OF_ACPI));
        let params = &pages[&PARAMETERS];
        let word = |at: usize| u64::from_le_bytes(params[at..at + 8].try_into().unwrap());
        assert_eq!(word(0x70), start + root);
        // Five regions, the last of them ACPI's.
        let last = 0x2d0 + 4 * 20;
        assert_eq!((params[0x1e8], params[last + 16]), (5, 3));
        assert_eq!((word(last), word(last + 8)), (start, 0x3000));

        let own_layout = Layout::new(&own).unwrap();
        assert_eq!(own_layout.tables(), 64 << 20);
        let huge = vec![0; 62 << 20];
        let acpi = Acpi::Host {
            tables: &huge,
            root,
        };
        let refused = Layout::new(&Guest { acpi, ..own }).unwrap_err();
        assert!(matches!(refused, Error::NoRoom { .. }));
        let acpi = Acpi::Host {
            tables: &tables,
            root: 0x2345,
        };
        let refused = Layout::new(&Guest { acpi, ..own }).unwrap_err();
        assert_eq!(refused, Error::HostTables(TableFault::Root));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let file = made::kernel(3 << 20);
        let good = guest(&file, b"disk", Protection::None);
        let refused = |guest: Guest<'_>| Layout::new(&guest).unwrap_err();
        let memory = |memory| refused(Guest { memory, ..good });
        assert_eq!(memory(32 << 20), Error::Memory(32 << 20));
        assert_eq!(memory((64 << 20) + 4096), Error::Memory((64 << 20) + 4096));
        assert_eq!(memory(4 << 30), Error::Memory(4 << 30));
        let disk = vec![0; 60 << 20];
        assert!(matches!(
            refused(Guest {
                initrd: &disk,
                ..good
            }),
            Error::NoRoom { .. }
        ));
        let long = "x".repeat(3000);
        assert!(matches!(
            refused(Guest {
                command_line: &long,
                ..good
            }),
            Error::CommandLine {
                bytes: 3000,
                most: 2047
            }
        ));
        assert_eq!(
            refused(Guest {
                command_line: "a\0b",
                ..good
            }),
            Error::ZeroByte
        );
        assert_eq!(
            refused(Guest {
                apic_ids: &[],
                ..good
            }),
            Error::Processors(0)
        );
    }
}
