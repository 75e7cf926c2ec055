//! What is in an IGVM file.

use core::fmt;
use std::collections::BTreeMap;

use serde::Serialize;

use crate::PAGE_BYTES;
use crate::file::{
    Architecture, Body, FileError, Header, ImageFile, PageData, PageType, ParameterInsert,
    PlatformType, Platforms, Section,
};
use crate::hex::{Hex, IdName};

mod remarks;
mod text;

/// What is in an IGVM file: its headers, and totals per platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Inspection {
    /// The version of the format.
    pub version: u32,
    /// The processors that the file is for.
    #[serde(serialize_with = "as_text")]
    pub architecture: Architecture,
    /// The checksum of the headers.
    pub checksum: u32,
    /// The size of the file.
    pub file_bytes: usize,
    /// The size of all headers.
    pub header_bytes: usize,
    /// The platforms, with what each is given.
    pub platforms: Vec<PlatformFacts>,
    /// Headers that count before the guest is created.
    pub initialization: Vec<HeaderFacts>,
    /// Headers that make the guest, in order.
    pub directives: Vec<HeaderFacts>,
    /// What is strange about the file, though it can be loaded.
    pub remarks: Vec<String>,
}

/// A platform, and what the file gives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PlatformFacts {
    /// Its name.
    pub platform: String,
    /// Its bit in compatibility masks.
    pub mask: u32,
    /// The version of its part of the format.
    pub version: u16,
    /// The highest virtual trust level.
    pub highest_vtl: u8,
    /// From where on memory is visible to the host; 0 if addresses do not tell.
    pub shared_gpa_boundary: u64,
    /// Pages that pass through the launch update.
    pub launch_pages: u64,
    /// Pages by class.
    pub pages: BTreeMap<Class, u64>,
}

/// What becomes of a page at launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Class {
    /// Contents of the file, measured.
    Measured,
    /// Contents of the file, not measured.
    Unmeasured,
    /// Contents of the file in pages that the host can see.
    Shared,
    /// The secrets page.
    Secrets,
    /// A CPUID page.
    Cpuid,
    /// Written by the loader, not measured.
    Parameters,
    /// A processor's registers.
    Context,
    /// Only has to be there.
    RequiredMemory,
}

impl Class {
    /// Whether such pages pass through the launch update.
    #[must_use]
    pub const fn launches(self) -> bool {
        !matches!(self, Self::Shared | Self::RequiredMemory)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Measured => "measured",
            Self::Unmeasured => "unmeasured",
            Self::Shared => "shared",
            Self::Secrets => "secrets",
            Self::Cpuid => "cpuid",
            Self::Parameters => "parameters",
            Self::Context => "context",
            Self::RequiredMemory => "required-memory",
        })
    }
}

/// What one variable header says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HeaderFacts {
    /// Its number in the file.
    pub index: usize,
    /// Its offset in the file.
    pub offset: usize,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The platforms that it is for; none if it is for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platforms: Option<String>,
    /// The memory that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// What becomes of that memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
    /// The rest, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<&'static str, String>,
}

/// A range of guest-physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// The first byte.
    pub gpa: u64,
    /// How many pages of 4 KiB.
    pub pages: u64,
}

impl Memory {
    const fn new(gpa: u64, bytes: u64) -> Self {
        Self {
            gpa,
            pages: bytes.div_ceil(PAGE_BYTES),
        }
    }

    /// The byte after the last.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.gpa
            .saturating_add(self.pages.saturating_mul(PAGE_BYTES))
    }
}

/// Tells what is in an IGVM file.
///
/// # Errors
/// A [`FileError`] names the place at which the file breaks the format.
pub fn inspect(bytes: &[u8]) -> Result<Inspection, FileError> {
    let file = ImageFile::read(bytes)?;
    let areas = Areas::of(&file);
    let facts = |section| {
        let headers = file.section(section);
        headers
            .map(|header| HeaderFacts::of(header, file.platforms(), &areas))
            .collect()
    };
    let directives: Vec<HeaderFacts> = facts(Section::Directive);
    let platforms = file.platforms().all().iter();
    let platforms = platforms.map(|platform| {
        let mut pages = BTreeMap::new();
        for (header, facts) in file.section(Section::Directive).zip(&directives) {
            let applies = header
                .body
                .mask()
                .is_none_or(|mask| mask & platform.mask != 0);
            if let (true, Some(class), Some(memory)) = (applies, facts.class, facts.memory) {
                let total: &mut u64 = pages.entry(class).or_default();
                *total = total.saturating_add(memory.pages);
            }
        }
        let launch = pages
            .iter()
            .filter(|(class, _)| class.launches())
            .map(|(_, pages)| pages);
        PlatformFacts {
            platform: platform.kind.to_string(),
            mask: platform.mask,
            version: platform.version,
            highest_vtl: platform.highest_vtl,
            shared_gpa_boundary: platform.shared_gpa_boundary,
            launch_pages: launch.fold(0, |sum, pages| sum.saturating_add(*pages)),
            pages,
        }
    });
    let fixed = file.fixed();
    Ok(Inspection {
        version: fixed.version,
        architecture: fixed.architecture,
        checksum: fixed.checksum,
        file_bytes: file.file_bytes(),
        header_bytes: fixed.variable_end(),
        platforms: platforms.collect(),
        initialization: facts(Section::Initialization),
        remarks: remarks::remarks(&file, &areas),
        directives,
    })
}

/// The sizes of parameter areas.
#[derive(Debug, Default)]
pub(crate) struct Areas(BTreeMap<u32, u64>);

impl Areas {
    pub(crate) fn of(file: &ImageFile<'_>) -> Self {
        let areas = file
            .headers()
            .iter()
            .filter_map(|header| match &header.body {
                Body::ParameterArea(area) => Some((area.area, area.bytes)),
                _ => None,
            });
        Self(areas.collect())
    }

    fn bytes(&self, area: u32) -> u64 {
        self.0.get(&area).copied().unwrap_or(0)
    }
}

impl HeaderFacts {
    pub(crate) fn of(header: &Header<'_>, platforms: &Platforms, areas: &Areas) -> Self {
        let mut facts = Self {
            index: header.index,
            offset: header.offset,
            kind: header.kind.to_string(),
            platforms: header.body.mask().map(|mask| platforms.describe(mask)),
            memory: None,
            class: None,
            details: BTreeMap::new(),
        };
        if header.optional {
            facts.detail("optional", "yes");
        }
        facts.fill(&header.body, areas);
        facts
    }

    fn detail(&mut self, name: &'static str, value: impl fmt::Display) {
        self.details.insert(name, value.to_string());
    }

    fn is(&mut self, class: Class, memory: Memory) {
        self.class = Some(class);
        self.memory = Some(memory);
    }

    fn fill(&mut self, body: &Body<'_>, areas: &Areas) {
        match body {
            Body::SupportedPlatform(_) | Body::CcaPolicy { .. } | Body::VbsMeasurement { .. } => {}
            Body::GuestPolicy { policy, .. } => self.detail("policy", format_args!("{policy:#x}")),
            Body::RelocatableRegion {
                base,
                bytes,
                alignment,
                allowed,
                ..
            } => {
                self.memory = Some(Memory::new(*base, *bytes));
                self.detail("alignment", format_args!("{alignment:#x}"));
                self.detail(
                    "allowed",
                    format_args!("{:#x}..{:#x}", allowed.start, allowed.end),
                );
            }
            Body::PageTableRelocation {
                base,
                bytes,
                used_bytes,
                ..
            } => {
                self.memory = Some(Memory::new(*base, *bytes));
                self.detail("used-bytes", used_bytes);
            }
            Body::Corim { data, .. } => self.detail("bytes", data.len()),
            Body::VersionString(version) => self.detail("version", version.escape_debug()),
            Body::ParameterArea(area) => {
                self.detail("area", area.area);
                self.detail("bytes", format_args!("{:#x}", area.bytes));
                if area.data.is_some() {
                    self.detail("starts-with", "file data");
                }
            }
            Body::Parameter { area, offset } => {
                self.detail("area", area);
                self.detail("area-offset", format_args!("{offset:#x}"));
            }
            Body::ParameterInsert(ParameterInsert { gpa, area, .. }) => {
                self.is(Class::Parameters, Memory::new(*gpa, areas.bytes(*area)));
                self.detail("area", area);
            }
            Body::PageData(page) => {
                self.is(class(page), Memory::new(page.gpa, page.bytes()));
                if page.large {
                    self.detail("size", "2 MiB");
                }
                if page.data.is_none() {
                    self.detail("data", "none");
                }
                if page.unmeasured && page.kind != PageType::Normal {
                    self.detail("unmeasured", "yes");
                }
            }
            Body::VpContext(context) => {
                self.detail("vp", context.vp_index);
                if matches!(context.platform, PlatformType::SNP | PlatformType::SEV_ES) {
                    self.is(Class::Context, Memory::new(context.gpa, PAGE_BYTES));
                }
                if context.platform == PlatformType::NATIVE {
                    self.native_registers(context.data);
                }
            }
            Body::RequiredMemory {
                gpa,
                bytes,
                vtl2_protectable,
                ..
            } => {
                self.is(Class::RequiredMemory, Memory::new(*gpa, (*bytes).into()));
                if *vtl2_protectable {
                    self.detail("vtl2-protectable", "yes");
                }
            }
            Body::ErrorRange { gpa, bytes, .. } => {
                self.memory = Some(Memory::new(*gpa, (*bytes).into()));
            }
            Body::SnpIdBlock(block) => {
                self.detail("launch-digest", Hex(*block.launch_digest));
                self.detail("guest-svn", block.guest_svn);
                for (name, id) in [("family-id", block.family_id), ("image-id", block.image_id)] {
                    if id != [0; 16] {
                        self.detail(name, IdName(id));
                    }
                }
                if block.author_key.is_some() {
                    self.detail("author-key", "yes");
                }
            }
            Body::Unknown(content) => self.detail("bytes", content.len()),
        }
    }

    /// The registers that say where and how a native processor starts.
    fn native_registers(&mut self, data: &[u8]) {
        let registers = [
            ("rsp", 32),
            ("rdi", 56),
            ("rip", 128),
            ("cr0", 200),
            ("cr3", 208),
            ("cr4", 216),
            ("efer", 224),
        ];
        for (name, offset) in registers {
            if let Some(value) = data.get(offset..).and_then(<[u8]>::first_chunk) {
                self.detail(name, format_args!("{:#x}", u64::from_le_bytes(*value)));
            }
        }
    }
}

fn class(page: &PageData<'_>) -> Class {
    match page.kind {
        PageType::Secrets => Class::Secrets,
        PageType::Cpuid | PageType::CpuidXf => Class::Cpuid,
        PageType::Normal if page.shared => Class::Shared,
        PageType::Normal if page.unmeasured => Class::Unmeasured,
        PageType::Normal => Class::Measured,
    }
}

fn as_text<S: serde::Serializer>(
    value: &impl fmt::Display,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
