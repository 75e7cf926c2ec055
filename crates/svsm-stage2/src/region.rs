//! Names of the parts of an image and their rights: what plan, hand-off and errors speak about.

use core::fmt;

use svsm_platform::addr::{AddrRange, Address, Gpa, GpaRange, Gva, GvaRange, PageCount, PageSize};

use crate::error::{Error, Fault};

/// What the loader deposits for the firmware; each has an area of its own. All of it is a claim of
/// the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Parameter {
    /// The number of virtual processors.
    VpCount,
    /// What kind of memory is where.
    MemoryMap,
    /// The ACPI table that lists the processors' APIC ids.
    Madt,
    /// A flattened device tree.
    DeviceTree,
    /// A line of text.
    CommandLine,
}

impl Parameter {
    /// All of them, in the order of the hand-off's table.
    pub const ALL: [Self; 5] = [
        Self::VpCount,
        Self::MemoryMap,
        Self::Madt,
        Self::DeviceTree,
        Self::CommandLine,
    ];

    /// The position in [`ALL`](Self::ALL).
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::VpCount => "vp count",
            Self::MemoryMap => "memory map",
            Self::Madt => "madt",
            Self::DeviceTree => "device tree",
            Self::CommandLine => "command line",
        })
    }
}

/// A part of the image or of the address space that has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Region {
    /// Stage2's region in low memory.
    Stage2,
    /// A loadable segment of stage2's ELF file.
    Stage2Segment(u8),
    /// The stack on which stage2 runs.
    Stage2Stack,
    /// The page tables with which stage2 runs.
    Stage2Tables,
    /// The page from which other CPUs start.
    Trampoline,
    /// The page that tells a starting CPU what to become.
    Mailbox,
    /// The hand-off block.
    Handoff,
    /// The CPUID page of SEV-SNP.
    Cpuid,
    /// The secrets page of SEV-SNP.
    Secrets,
    /// The SVSM's private region.
    Svsm,
    /// A loadable segment of the SVSM's ELF file.
    SvsmSegment(u8),
    /// The stack on which the SVSM's first CPU starts.
    BootStack,
    /// An area for what the loader deposits.
    Parameter(Parameter),
    /// The archive with the user-mode programs.
    Archive,
    /// Memory that the host can see, in which a staged archive arrives.
    Staging,
    /// Memory that the host can see, in which a staged SVSM arrives.
    SvsmStaging,
    /// The page tables with which the SVSM starts.
    Tables,
    /// The SVSM's free memory.
    Heap,
    /// The window for temporary mappings.
    Window,
    /// The address space for areas other than segments and free memory.
    Areas,
    /// The address space for the SVSM's segments.
    Image,
    /// The address space of the linear mapping.
    Linear,
    /// The SVSM's first instruction.
    Entry,
    /// Stage2's first instructions: the 64-bit one and the 32-bit one.
    Stage2Entry,
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Stage2Segment(index) => return write!(f, "stage2 segment {index}"),
            Self::SvsmSegment(index) => return write!(f, "svsm segment {index}"),
            Self::Parameter(parameter) => return write!(f, "{parameter} area"),
            Self::Stage2 => "stage2 region",
            Self::Stage2Stack => "stage2 stack",
            Self::Stage2Tables => "stage2 page tables",
            Self::Trampoline => "trampoline page",
            Self::Mailbox => "mailbox page",
            Self::Handoff => "hand-off block",
            Self::Cpuid => "cpuid page",
            Self::Secrets => "secrets page",
            Self::Svsm => "svsm region",
            Self::BootStack => "boot stack",
            Self::Archive => "archive",
            Self::Staging => "staging area",
            Self::SvsmStaging => "svsm staging area",
            Self::Tables => "svsm page tables",
            Self::Heap => "heap",
            Self::Window => "mapping window",
            Self::Areas => "address space for areas",
            Self::Image => "address space for svsm segments",
            Self::Linear => "address space of the linear mapping",
            Self::Entry => "svsm entry point",
            Self::Stage2Entry => "stage2 entry point",
        };
        f.write_str(name)
    }
}

/// What the SVSM may do with a page. There is no writable and executable one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Rights {
    /// Read.
    Read,
    /// Read and write.
    ReadWrite,
    /// Read and execute.
    ReadExecute,
}

impl Rights {
    /// Whether pages with these rights can be written.
    #[must_use]
    pub const fn is_writable(self) -> bool {
        matches!(self, Self::ReadWrite)
    }

    /// Whether pages with these rights can be executed.
    #[must_use]
    pub const fn is_executable(self) -> bool {
        matches!(self, Self::ReadExecute)
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "r--",
            Self::ReadWrite => "rw-",
            Self::ReadExecute => "r-x",
        })
    }
}

/// Memory of the SVSM: where it lies, where it is mapped, and how many bytes of it are meant.
///
/// Both addresses are page starts; the pages in which the bytes lie neither wrap nor leave the
/// address space, and there is at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Area {
    gpa: GpaRange, // whole pages
    gva: GvaRange, // as long as `gpa`
    len_bytes: u64,
}

impl Area {
    /// The area of that name; the name is for the error.
    ///
    /// # Errors
    ///
    /// [`Error::Region`] if the area is empty, starts inside a page, or leaves an address space.
    pub fn new(region: Region, gpa: Gpa, gva: Gva, len_bytes: u64) -> Result<Self, Error> {
        let gpa = pages_from(region, gpa, len_bytes)?;
        let gva = pages_from(region, gva, len_bytes)?;
        Ok(Self {
            gpa,
            gva,
            len_bytes,
        })
    }

    /// The first byte's place in guest physical memory.
    #[must_use]
    pub const fn gpa(&self) -> Gpa {
        self.gpa.start()
    }

    /// Where the SVSM sees the first byte.
    #[must_use]
    pub const fn gva(&self) -> Gva {
        self.gva.start()
    }

    /// How many bytes are meant; what follows in the last page is not.
    #[must_use]
    pub const fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// The pages in guest physical memory.
    #[must_use]
    pub const fn gpa_range(&self) -> GpaRange {
        self.gpa
    }

    /// The pages as the SVSM sees them.
    #[must_use]
    pub const fn gva_range(&self) -> GvaRange {
        self.gva
    }

    /// How many pages it takes.
    #[must_use]
    pub const fn pages(&self) -> PageCount {
        PageCount::covering(self.len_bytes, PageSize::Size4K)
    }
}

/// The whole pages that hold `len_bytes` from `start` on.
pub(crate) fn pages_from<A: Address>(
    region: Region,
    start: A,
    len_bytes: u64,
) -> Result<AddrRange<A>, Error> {
    let fault = |fault| Error::Region { region, fault };
    if len_bytes == 0 {
        return Err(fault(Fault::Empty));
    }
    if !start.is_aligned(PageSize::Size4K) {
        return Err(fault(Fault::Unaligned {
            address: start.as_u64(),
        }));
    }
    PageCount::covering(len_bytes, PageSize::Size4K)
        .len_bytes(PageSize::Size4K)
        .and_then(|whole| AddrRange::new(start, whole))
        .ok_or(fault(Fault::Wraps {
            address: start.as_u64(),
        }))
}

/// A part's addresses of one kind, as plain numbers.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    region: Region,
    start: u64,
    end: u64,
}

impl Span {
    pub(crate) fn of<A: Address>(region: Region, range: AddrRange<A>) -> Self {
        Self {
            region,
            start: range.start().as_u64(),
            end: range.end().as_u64(),
        }
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.start.max(other.start) < self.end.min(other.end)
    }
}

/// Checks that no two of `spans`, which are of one kind of address, overlap.
pub(crate) fn check_disjoint(spans: &[Span]) -> Result<(), Error> {
    for (index, span) in spans.iter().enumerate() {
        if let Some(other) = spans.iter().take(index).find(|other| span.overlaps(other)) {
            let fault = Fault::Overlaps(other.region);
            return Err(Error::Region {
                region: span.region,
                fault,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(gpa: u64, gva: u64, len_bytes: u64) -> Result<Area, Error> {
        Area::new(
            Region::Archive,
            Gpa::new(gpa).unwrap(),
            Gva::new(gva).unwrap(),
            len_bytes,
        )
    }

    #[test]
    fn areas_cover_whole_pages() {
        let area = area(0x1000, 0x8000, 4097).unwrap();
        assert_eq!(area.pages(), PageCount::new(2));
        assert_eq!(area.gpa_range().len_bytes(), 8192);
        assert_eq!(area.gva_range().end().as_u64(), 0xa000);
        assert_eq!(area.len_bytes(), 4097);
    }

    #[test]
    fn bad_areas_are_named() {
        let region = Region::Archive;
        for (result, fault) in [
            (area(0x1000, 0x8000, 0), Fault::Empty),
            (
                area(0x1001, 0x8000, 1),
                Fault::Unaligned { address: 0x1001 },
            ),
            (
                area(0x1000, 0x8010, 1),
                Fault::Unaligned { address: 0x8010 },
            ),
            (
                area(0x1000, 0x8000, u64::MAX),
                Fault::Wraps { address: 0x1000 },
            ),
            (
                area(0x1000, 0x7fff_ffff_f000, 1),
                Fault::Wraps {
                    address: 0x7fff_ffff_f000,
                },
            ),
        ] {
            assert_eq!(result, Err(Error::Region { region, fault }));
        }
    }

    #[test]
    fn parameters_know_their_place() {
        for (index, parameter) in Parameter::ALL.into_iter().enumerate() {
            assert_eq!(parameter.index(), index);
        }
    }
}
