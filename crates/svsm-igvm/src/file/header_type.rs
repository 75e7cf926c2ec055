//! Types of variable headers.

use core::fmt;

use igvm_defs::{
    IGVM_VHT_OPTIONAL_BIT, IGVM_VHT_RANGE_DIRECTIVE, IGVM_VHT_RANGE_INIT, IGVM_VHT_RANGE_PLATFORM,
};

/// The type of a variable header, without the bit that says whether a loader
/// may pass over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeaderType(u32);

/// The three parts of the variable headers, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Section {
    /// Which platforms the file supports.
    Platform,
    /// What must be known before the guest is created.
    Initialization,
    /// What makes the guest, in order.
    Directive,
}

/// Declares the known types with their names.
macro_rules! header_types {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)*) => {
        impl HeaderType {
            $($(#[$doc])* pub const $name: Self = Self($value);)*

            /// The specification's name without its prefix, if the type is known.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

header_types! {
    /// A platform and its bit in compatibility masks.
    SUPPORTED_PLATFORM = 0x001;
    /// The launch policy.
    GUEST_POLICY = 0x101;
    /// A region that the loader may move.
    RELOCATABLE_REGION = 0x102;
    /// Page tables that the loader corrects when it moves a region.
    PAGE_TABLE_RELOCATION_REGION = 0x103;
    /// Reference values, as a document.
    CORIM_DOCUMENT = 0x104;
    /// The signature of the document.
    CORIM_SIGNATURE = 0x105;
    /// The launch policy of an Arm realm.
    CCA_POLICY = 0x106;
    /// The version of what is in the file, as text.
    VERSION_STRING = 0x107;
    /// Declares memory that parameters are put into.
    PARAMETER_AREA = 0x301;
    /// A page of the initial memory.
    PAGE_DATA = 0x302;
    /// Puts a parameter area into memory.
    PARAMETER_INSERT = 0x303;
    /// The initial registers of a virtual processor.
    VP_CONTEXT = 0x304;
    /// Memory that must be there.
    REQUIRED_MEMORY = 0x305;
    /// Parameter: the number of virtual processors.
    VP_COUNT = 0x307;
    /// Parameter: the ACPI table of memory affinity.
    SRAT = 0x308;
    /// Parameter: the ACPI table of processors.
    MADT = 0x309;
    /// Parameter: the two ranges for devices.
    MMIO_RANGES = 0x30a;
    /// A signed identity of the guest.
    SNP_ID_BLOCK = 0x30b;
    /// Parameter: the memory map.
    MEMORY_MAP = 0x30c;
    /// Memory through which early errors are told.
    ERROR_RANGE = 0x30d;
    /// Parameter: the command line.
    COMMAND_LINE = 0x30e;
    /// Parameter: the ACPI table of distances.
    SLIT = 0x30f;
    /// Parameter: the ACPI table of processor topology.
    PPTT = 0x310;
    /// A signed measurement for virtualization-based security.
    VBS_MEASUREMENT = 0x311;
    /// Parameter: a flattened device tree.
    DEVICE_TREE = 0x312;
    /// Parameter: what kind of place this is.
    ENVIRONMENT_INFO = 0x313;
}

impl HeaderType {
    /// Takes a type field apart: the type, and whether it is optional.
    #[must_use]
    pub const fn split(raw: u32) -> (Self, bool) {
        (
            Self(raw & !IGVM_VHT_OPTIONAL_BIT),
            raw & IGVM_VHT_OPTIONAL_BIT != 0,
        )
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The section that the type belongs to.
    #[must_use]
    pub fn section(self) -> Option<Section> {
        [
            (Section::Platform, IGVM_VHT_RANGE_PLATFORM),
            (Section::Initialization, IGVM_VHT_RANGE_INIT),
            (Section::Directive, IGVM_VHT_RANGE_DIRECTIVE),
        ]
        .into_iter()
        .find_map(|(section, range)| range.contains(&self.0).then_some(section))
    }
}

impl fmt::Display for HeaderType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "unknown type {:#x}", self.0),
        }
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Platform => "platform",
            Self::Initialization => "initialization",
            Self::Directive => "directive",
        })
    }
}
