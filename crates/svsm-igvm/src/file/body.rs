//! What variable headers say.

use core::fmt;
use core::ops::Range;

use crate::PAGE_BYTES;

mod read;

pub(super) use read::Data;

/// The size of the large pages that a file may have.
const LARGE_PAGE_BYTES: u64 = 2 << 20;

/// What a variable header says. Masks name platforms by their bits; addresses
/// are guest-physical.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Body<'a> {
    /// A platform.
    SupportedPlatform(SupportedPlatform),
    /// The launch policy of SEV-SNP or TDX.
    GuestPolicy {
        /// The platforms.
        mask: u32,
        /// The policy.
        policy: u64,
    },
    /// A region that the loader may move.
    RelocatableRegion {
        /// The platforms.
        mask: u32,
        /// Where it is by default.
        base: u64,
        /// Its size.
        bytes: u64,
        /// What its address must be a multiple of.
        alignment: u64,
        /// Where it may lie.
        allowed: Range<u64>,
    },
    /// Page tables that the loader corrects when it moves a region.
    PageTableRelocation {
        /// The platforms.
        mask: u32,
        /// Where they are by default.
        base: u64,
        /// Their size.
        bytes: u64,
        /// How much of it is used.
        used_bytes: u64,
    },
    /// Reference values or their signature, as a document.
    Corim {
        /// The platforms.
        mask: u32,
        /// The document.
        data: &'a [u8],
    },
    /// The launch policy of an Arm realm.
    CcaPolicy {
        /// The platforms.
        mask: u32,
    },
    /// The version of what is in the file.
    VersionString(&'a str),
    /// Memory that parameters are put into.
    ParameterArea(ParameterArea<'a>),
    /// A parameter, named by the header's type, that the loader writes.
    Parameter {
        /// The area.
        area: u32,
        /// Where in the area.
        offset: u32,
    },
    /// Puts an area into memory.
    ParameterInsert(ParameterInsert),
    /// A page of the initial memory.
    PageData(PageData<'a>),
    /// The initial registers of a processor.
    VpContext(VpContext<'a>),
    /// Memory that must be there.
    RequiredMemory {
        /// The platforms.
        mask: u32,
        /// Where.
        gpa: u64,
        /// How much.
        bytes: u32,
        /// Whether VTL 2 may protect it.
        vtl2_protectable: bool,
    },
    /// Memory through which early errors are told.
    ErrorRange {
        /// The platforms.
        mask: u32,
        /// Where.
        gpa: u64,
        /// How much.
        bytes: u32,
    },
    /// A signed identity of an SEV-SNP guest.
    SnpIdBlock(SnpIdBlock<'a>),
    /// A signed measurement for virtualization-based security.
    VbsMeasurement {
        /// The platforms.
        mask: u32,
    },
    /// A type that this version does not know.
    Unknown(&'a [u8]),
}

impl Body<'_> {
    /// The platforms that the header is for, if it says so.
    #[must_use]
    pub const fn mask(&self) -> Option<u32> {
        match self {
            Self::SupportedPlatform(SupportedPlatform { mask, .. })
            | Self::GuestPolicy { mask, .. }
            | Self::RelocatableRegion { mask, .. }
            | Self::PageTableRelocation { mask, .. }
            | Self::Corim { mask, .. }
            | Self::CcaPolicy { mask }
            | Self::ParameterInsert(ParameterInsert { mask, .. })
            | Self::PageData(PageData { mask, .. })
            | Self::VpContext(VpContext { mask, .. })
            | Self::RequiredMemory { mask, .. }
            | Self::ErrorRange { mask, .. }
            | Self::SnpIdBlock(SnpIdBlock { mask, .. })
            | Self::VbsMeasurement { mask } => Some(*mask),
            Self::VersionString(_)
            | Self::ParameterArea(_)
            | Self::Parameter { .. }
            | Self::Unknown(_) => None,
        }
    }
}

/// A platform and its bit in compatibility masks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SupportedPlatform {
    /// The bit.
    pub mask: u32,
    /// The platform.
    pub kind: PlatformType,
    /// The version of the platform's part of the format.
    pub version: u16,
    /// The highest virtual trust level.
    pub highest_vtl: u8,
    /// From where on memory is visible to the host; 0 if addresses do not tell.
    pub shared_gpa_boundary: u64,
}

/// The number of a platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PlatformType(u8);

impl PlatformType {
    /// No protection.
    pub const NATIVE: Self = Self(0);
    /// Virtualization-based security.
    pub const VSM: Self = Self(1);
    /// AMD SEV-SNP.
    pub const SNP: Self = Self(2);
    /// Intel TDX.
    pub const TDX: Self = Self(3);
    /// AMD SEV.
    pub const SEV: Self = Self(4);
    /// AMD SEV-ES.
    pub const SEV_ES: Self = Self(5);
    /// Arm CCA.
    pub const CCA: Self = Self(6);
}

impl fmt::Display for PlatformType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = ["native", "vsm", "snp", "tdx", "sev", "sev-es", "cca"];
        match names.get(usize::from(self.0)) {
            Some(name) => f.write_str(name),
            None => write!(f, "platform {}", self.0),
        }
    }
}

/// Memory that parameters are put into before it becomes part of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParameterArea<'a> {
    /// The number by which other headers name it.
    pub area: u32,
    /// Its size, whole pages.
    pub bytes: u64,
    /// What it starts with, if not with zeros.
    pub data: Option<&'a [u8]>,
}

/// Puts a parameter area into memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParameterInsert {
    /// The platforms.
    pub mask: u32,
    /// Where.
    pub gpa: u64,
    /// The area.
    pub area: u32,
}

/// A page of the initial memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageData<'a> {
    /// The platforms.
    pub mask: u32,
    /// Where.
    pub gpa: u64,
    /// What the page is for.
    pub kind: PageType,
    /// Whether the page is one of 2 MiB.
    pub large: bool,
    /// Whether the page's contents are left out of the measurement.
    pub unmeasured: bool,
    /// Whether the host can see the page.
    pub shared: bool,
    /// The contents, if not zeros.
    pub data: Option<&'a [u8]>,
}

impl PageData<'_> {
    /// The size of the page.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        if self.large {
            LARGE_PAGE_BYTES
        } else {
            PAGE_BYTES
        }
    }
}

/// What a page is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PageType {
    /// Contents of the file.
    Normal,
    /// The secrets page of SEV-SNP.
    Secrets,
    /// The CPUID page of SEV-SNP.
    Cpuid,
    /// The CPUID page for extended features.
    CpuidXf,
}

impl fmt::Display for PageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Normal => "normal",
            Self::Secrets => "secrets",
            Self::Cpuid => "cpuid",
            Self::CpuidXf => "cpuid-xf",
        })
    }
}

/// The initial registers of a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VpContext<'a> {
    /// The platforms.
    pub mask: u32,
    /// The platform that says how the data is laid out.
    pub platform: PlatformType,
    /// Where the context becomes a page of the guest; 0 if it does not.
    pub gpa: u64,
    /// The processor.
    pub vp_index: u16,
    /// The registers.
    pub data: &'a [u8],
}

/// A signed identity of an SEV-SNP guest (56860, "ID Block", "ID Authentication Information").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnpIdBlock<'a> {
    /// The platforms.
    pub mask: u32,
    /// The launch digest that it is for.
    pub launch_digest: &'a [u8; 48],
    /// The name of a family of images.
    pub family_id: [u8; 16],
    /// The name of the image.
    pub image_id: [u8; 16],
    /// The version of the block.
    pub version: u32,
    /// The security version number of the guest.
    pub guest_svn: u32,
    /// How the ID key and the author key sign.
    pub algorithms: [u32; 2],
    /// The ID key's signature of the block: R and S, 72 bytes each, little-endian.
    pub signature: &'a [u8; 144],
    /// The ID key: the curve, a reserved word, X and Y, 72 bytes each, little-endian.
    pub id_key: &'a [u8; 152],
    /// The author key's signature of the ID key, if there is an author key.
    pub author_signature: Option<&'a [u8; 144]>,
    /// The author key.
    pub author_key: Option<&'a [u8; 152]>,
}
