//! The boot parameters of a Linux kernel, its "zero page".

use crate::error::{Error, Result};
use crate::kernel::Kernel;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The most lines of a memory map.
pub const MAX_REGIONS: usize = 128;

/// A line of the memory map (E820).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// The first byte.
    pub start: u64,
    /// How many bytes.
    pub bytes: u64,
    /// What it is.
    pub kind: RegionKind,
}

/// What a piece of memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum RegionKind {
    /// RAM, to be used.
    Ram = 1,
    /// Not to be used.
    Reserved = 2,
    /// ACPI tables; RAM once they were read.
    Acpi = 3,
}

/// Where a kernel finds what it is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pointers {
    /// The command line.
    pub command_line: u64,
    /// The RAM disk.
    pub initrd: u64,
    /// Bytes of the RAM disk; zero for none.
    pub initrd_bytes: u64,
    /// The root of the ACPI tables; zero for none.
    pub rsdp: u64,
    /// The first node of setup data; zero for none.
    pub setup_data: u64,
}

/// Fills a page with boot parameters.
///
/// # Errors
/// [`Error::MemoryMap`], [`Error::Placement`] for a RAM disk or a command line above 4 GiB.
pub fn fill(
    page: &mut [u8; 4096],
    kernel: &Kernel<'_>,
    pointers: &Pointers,
    map: &[Region],
) -> Result<()> {
    const LOADER: u8 = 0xff;
    page.fill(0);
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(to) = page.get_mut(at..at + bytes.len()) {
            to.copy_from_slice(bytes);
        }
    };
    put(0x1f1, kernel.header());
    let low = |value: u64| u32::try_from(value).map_err(|_| Error::Placement);
    put(0x070, &pointers.rsdp.to_le_bytes());
    put(0x210, &[LOADER]);
    put(0x218, &low(pointers.initrd)?.to_le_bytes());
    put(0x21c, &low(pointers.initrd_bytes)?.to_le_bytes());
    put(0x228, &low(pointers.command_line)?.to_le_bytes());
    put(0x250, &pointers.setup_data.to_le_bytes());
    let count = u8::try_from(map.len()).map_err(|_| Error::MemoryMap)?;
    if usize::from(count) > MAX_REGIONS {
        return Err(Error::MemoryMap);
    }
    put(0x1e8, &[count]);
    let mut end = 0;
    for (region, at) in map.iter().zip((0x2d0..).step_by(20)) {
        let next = region.start.checked_add(region.bytes);
        if region.start < end || region.bytes == 0 {
            return Err(Error::MemoryMap);
        }
        end = next.ok_or(Error::MemoryMap)?;
        put(at, &region.start.to_le_bytes());
        put(at + 8, &region.bytes.to_le_bytes());
        put(at + 16, &(region.kind as u32).to_le_bytes());
    }
    Ok(())
}

/// What tells a guest of SEV-SNP where its secrets and its CPUID table are: a node of setup data, and behind it the
/// description that the node points to.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct SnpSetupData {
    next: U64,
    kind: U32,
    length: U32,
    address: U32,
    reserved: U32,
    magic: U32,
    version: U16,
    reserved_1e: U16,
    secrets: U64,
    secrets_length: U32,
    reserved_2c: U32,
    cpuid: U64,
    cpuid_length: U32,
    reserved_3c: U32,
}
const _: () = assert!(size_of::<SnpSetupData>() == 64);

impl SnpSetupData {
    /// The node and its description, to be placed at `at`, for pages at `secrets` and `cpuid`.
    ///
    /// # Errors
    /// [`Error::Placement`] if `at` is above 4 GiB.
    pub fn new(at: u64, secrets: u64, cpuid: u64) -> Result<Self> {
        const CC_BLOB: u32 = 7;
        const MAGIC: u32 = u32::from_le_bytes(*b"AMDE");
        let address = u32::try_from(at + 24).map_err(|_| Error::Placement)?;
        let mut data = Self::new_zeroed();
        (data.kind, data.length) = (U32::new(CC_BLOB), U32::new(4));
        data.address = U32::new(address);
        (data.magic, data.version) = (U32::new(MAGIC), U16::new(1));
        (data.secrets, data.secrets_length) = (U64::new(secrets), U32::new(4096));
        (data.cpuid, data.cpuid_length) = (U64::new(cpuid), U32::new(4096));
        Ok(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::made;

    const RAM: Region = Region {
        start: 0,
        bytes: 0x9_f000,
        kind: RegionKind::Ram,
    };

    #[test]
    fn the_kernel_finds_what_it_is_given() {
        let file = made::kernel(16);
        let kernel = Kernel::parse(&file).unwrap();
        let mut page = [0xff; 4096];
        let pointers = Pointers {
            command_line: 0x1_1000,
            initrd: 0x200_0000,
            initrd_bytes: 77,
            rsdp: 0x2_0000,
            setup_data: 0x1_2000,
        };
        let more = Region {
            start: 0x10_0000,
            kind: RegionKind::Reserved,
            ..RAM
        };
        fill(&mut page, &kernel, &pointers, &[RAM, more]).unwrap();
        let long = |at: usize| u32::from_le_bytes(page[at..at + 4].try_into().unwrap());
        assert_eq!(&page[0x202..0x206], b"HdrS");
        assert_eq!(
            (long(0x228), long(0x218), long(0x21c)),
            (0x1_1000, 0x200_0000, 77)
        );
        assert_eq!(
            (long(0x250), long(0x70), page[0x210]),
            (0x1_2000, 0x2_0000, 0xff)
        );
        assert_eq!((page[0x1e8], page[0x1ef]), (2, 0));
        assert_eq!((long(0x2d0 + 20), long(0x2d0 + 36)), (0x10_0000, 2));
    }

    #[test]
    fn memory_maps_are_sorted() {
        let file = made::kernel(16);
        let kernel = Kernel::parse(&file).unwrap();
        let mut page = [0; 4096];
        let mut with = |map: &[Region]| fill(&mut page, &kernel, &Pointers::default(), map);
        assert_eq!(with(&[RAM, RAM]), Err(Error::MemoryMap));
        let empty = Region { bytes: 0, ..RAM };
        assert_eq!(with(&[empty]), Err(Error::MemoryMap));
        let wraps = Region {
            start: u64::MAX,
            ..RAM
        };
        assert_eq!(with(&[wraps]), Err(Error::MemoryMap));
        let above = Pointers {
            initrd: 1 << 32,
            ..Pointers::default()
        };
        assert_eq!(
            fill(&mut page, &kernel, &above, &[RAM]),
            Err(Error::Placement)
        );
    }

    #[test]
    fn the_description_lies_behind_its_node() {
        let data = SnpSetupData::new(0x1_2000, 0x1_3000, 0x1_4000).unwrap();
        let bytes = data.as_bytes();
        let long = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!((long(8), long(12), long(16)), (7, 4, 0x1_2018));
        assert_eq!((long(24), long(28)), (0x4544_4d41, 1));
        assert_eq!(
            (long(32), long(40), long(48), long(56)),
            (0x1_3000, 4096, 0x1_4000, 4096)
        );
    }
}
