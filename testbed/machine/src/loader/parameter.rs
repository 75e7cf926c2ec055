//! The parameters: what a loader tells the image about the machine.

use super::error::Reason;
use super::plan::Area;
use crate::acpi::table;
use crate::addr::{Address, Gpa, GpaRange, PAGE};
use crate::fdt;
use crate::layout::GuestRam;
use crate::phys::GuestMemory;
use crate::range_set::RangeSet;
use igvm_defs::{
    IGVM_VHS_MEMORY_MAP_ENTRY, IGVM_VHS_MEMORY_RANGE, IGVM_VHS_MMIO_RANGES, IgvmEnvironmentInfo,
    IgvmVariableHeaderType, MemoryMapEntryType,
};
use zerocopy::IntoBytes;

/// The longest parameter that is made.
pub const MAX_PARAMETER: usize = 16 << 10;

/// What there is to tell.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The APIC ids of the CPUs, the first CPU's first.
    pub apic_ids: &'a [u32],
    /// RAM.
    pub ram: &'a GuestRam,
    /// The window of devices below 4 GiB.
    pub mmio: GpaRange,
    /// The command line.
    pub command_line: &'a str,
}

/// What a parameter says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    VpCount,
    EnvironmentInfo,
    MemoryMap,
    MmioRanges,
    Madt,
    Srat,
    Slit,
    Pptt,
    CommandLine,
    DeviceTree,
}

impl Kind {
    pub(super) const fn of(kind: IgvmVariableHeaderType) -> Option<Self> {
        use IgvmVariableHeaderType as T;
        Some(match kind {
            T::IGVM_VHT_VP_COUNT_PARAMETER => Self::VpCount,
            T::IGVM_VHT_ENVIRONMENT_INFO_PARAMETER => Self::EnvironmentInfo,
            T::IGVM_VHT_MEMORY_MAP => Self::MemoryMap,
            T::IGVM_VHT_MMIO_RANGES => Self::MmioRanges,
            T::IGVM_VHT_MADT => Self::Madt,
            T::IGVM_VHT_SRAT => Self::Srat,
            T::IGVM_VHT_SLIT => Self::Slit,
            T::IGVM_VHT_PPTT => Self::Pptt,
            T::IGVM_VHT_COMMAND_LINE => Self::CommandLine,
            T::IGVM_VHT_DEVICE_TREE => Self::DeviceTree,
            _ => return None,
        })
    }
}

/// All memory of the guest, sorted: RAM and what the image needs beside it.
type AllMemory = RangeSet<Gpa, 67>;

/// Writes a parameter into its area, if the area is inserted on this platform.
pub(super) fn deposit(
    kind: Kind,
    area: &Area,
    offset: u32,
    facts: &Facts<'_>,
    backed: impl Iterator<Item = GpaRange>,
    memory: &mut impl GuestMemory,
) -> Result<(), Reason> {
    let offset = u64::from(offset);
    let (Some(gpa), Some(has)) = (area.gpa, area.bytes.checked_sub(offset)) else {
        return Ok(());
    };
    let mut all = AllMemory::new();
    for range in facts.ram.iter().chain(backed) {
        all.insert(range).map_err(|_| Reason::TooManyRanges)?;
    }
    let mut buffer = [0; MAX_PARAMETER];
    let too_long = Reason::DoesNotFit {
        needs: MAX_PARAMETER as u64 + 1,
        has,
    };
    let bytes = encode(kind, facts, &all, &mut buffer).ok_or(too_long)?;
    if bytes.len() as u64 > has {
        return Err(Reason::DoesNotFit {
            needs: bytes.len() as u64,
            has,
        });
    }
    let at = gpa
        .checked_add(offset)
        .ok_or(Reason::Address(gpa.as_u64()))?;
    memory
        .write(at, bytes)
        .map_err(|error| Reason::NoMemory(error.0.as_u64()))
}

/// The bytes of a parameter; `None` if the buffer is too small.
fn encode<'b>(
    kind: Kind,
    facts: &Facts<'_>,
    all: &AllMemory,
    buffer: &'b mut [u8],
) -> Option<&'b [u8]> {
    let len = match kind {
        Kind::VpCount => put(
            buffer,
            0,
            &u32::try_from(facts.apic_ids.len()).ok()?.to_le_bytes(),
        )?,
        // Memory that the image did not fill is the guest's own from the start.
        Kind::EnvironmentInfo => put(buffer, 0, IgvmEnvironmentInfo::new().as_bytes())?,
        Kind::MemoryMap => memory_map(all, buffer)?,
        Kind::MmioRanges => {
            let window = IGVM_VHS_MEMORY_RANGE {
                starting_gpa_page_number: facts.mmio.start().as_u64() / PAGE,
                number_of_pages: facts.mmio.len_bytes() / PAGE,
            };
            let none = IGVM_VHS_MEMORY_RANGE {
                starting_gpa_page_number: 0,
                number_of_pages: 0,
            };
            put(
                buffer,
                0,
                IGVM_VHS_MMIO_RANGES {
                    mmio_ranges: [window, none],
                }
                .as_bytes(),
            )?
        }
        Kind::Madt => table::madt(facts.apic_ids, buffer)?,
        Kind::Srat => table::srat(facts.apic_ids, all.iter(), buffer)?,
        Kind::Slit => table::slit(buffer)?,
        Kind::Pptt => table::pptt(facts.apic_ids, buffer)?,
        Kind::CommandLine => {
            let end = put(buffer, 0, facts.command_line.as_bytes())?;
            put(buffer, end, &[0])?
        }
        Kind::DeviceTree => fdt::machine(facts.apic_ids, all.iter(), facts.command_line, buffer)?,
    };
    buffer.get(..len)
}

/// One entry for each range, and the empty entry that ends the list.
fn memory_map(all: &AllMemory, buffer: &mut [u8]) -> Option<usize> {
    let mut end = 0;
    let terminator = (0, 0);
    let ranges = all
        .iter()
        .map(|r| (r.start().as_u64() / PAGE, r.len_bytes() / PAGE));
    for (start, pages) in ranges.chain(core::iter::once(terminator)) {
        let entry = IGVM_VHS_MEMORY_MAP_ENTRY {
            starting_gpa_page_number: start,
            number_of_pages: pages,
            entry_type: MemoryMapEntryType::MEMORY,
            flags: 0,
            reserved: 0,
        };
        end = put(buffer, end, entry.as_bytes())?;
    }
    Some(end)
}

/// Copies bytes into a buffer and says where they end.
fn put(buffer: &mut [u8], at: usize, bytes: &[u8]) -> Option<usize> {
    let end = at.checked_add(bytes.len())?;
    buffer.get_mut(at..end)?.copy_from_slice(bytes);
    Some(end)
}
