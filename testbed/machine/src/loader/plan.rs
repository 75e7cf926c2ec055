//! What an image wants, checked before anything is done.

use super::error::{LoadError, Reason};
use super::file::{File, Header};
use super::launch::{Launch, PageKind};
use super::parameter::{Facts, Kind, deposit};
use crate::addr::{Address, Gpa, GpaRange, PAGE};
use crate::cmdline::Platform;
use crate::layout::GuestRam;
use crate::phys::GuestMemory;
use crate::range_set::{InsertError, RangeSet};
use igvm_defs::{
    IGVM_VHS_ERROR_RANGE, IGVM_VHS_GUEST_POLICY, IGVM_VHS_PAGE_DATA, IGVM_VHS_PARAMETER,
    IGVM_VHS_PARAMETER_AREA, IGVM_VHS_PARAMETER_INSERT, IGVM_VHS_REQUIRED_MEMORY,
    IGVM_VHS_SNP_ID_BLOCK, IGVM_VHS_VBS_MEASUREMENT, IGVM_VHS_VP_CONTEXT, IgvmNativeVpContextX64,
    IgvmPageDataType, IgvmVariableHeaderType,
};
use zerocopy::{FromBytes, Immutable, KnownLayout};

mod rules; // for headers, whatever they ask for

use rules::{check_section, mask};

const AREAS: usize = 32;
const PAGE_BYTES: usize = 4096;

/// The devices that every q35 has and the guest must keep: I/O APIC, HPET, local APIC.
const DEVICES: (u64, u64) = (0xfec0_0000, 0xfef0_0000);

/// Guest memory that is not RAM of the machine and must come from L0's own part.
pub type Backed = RangeSet<Gpa, 64>;

/// How many pages of which kind an image has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageCounts {
    /// Measured pages with data.
    pub data: u64,
    /// Measured pages of zeros.
    pub zero: u64,
    /// Pages that are not measured.
    pub unmeasured: u64,
    /// Pages that the host can see.
    pub shared: u64,
    /// Pages of parameter areas.
    pub parameter: u64,
}

/// An image that was checked in full.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    file: File<'a>,
    mask: u32,
    imports: RangeSet<Gpa, 256>,
    backed: Backed,
    areas: [Option<Area>; AREAS],
    platform: Platform,
    context: Option<Context>,
    area_data: Option<&'a [u8]>,
    policy: u64,
    id_block: Option<IGVM_VHS_SNP_ID_BLOCK>,
    pages: PageCounts,
}

/// How the first CPU starts.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one of them, and no allocator to put it elsewhere"
)]
pub enum Context {
    /// With these registers.
    Native(IgvmNativeVpContextX64),
    /// With those of the save area at this address.
    Snp(Gpa),
}

/// A parameter area.
#[derive(Clone, Copy, Debug)]
pub(super) struct Area {
    index: u32,
    pub(super) bytes: u64,
    /// Where it is inserted on the chosen platform.
    pub(super) gpa: Option<Gpa>,
    /// Whether the pass that runs has met the insertion already.
    inserted: bool,
}

/// A directive that applies.
enum Directive {
    Area(IGVM_VHS_PARAMETER_AREA),
    Page(IGVM_VHS_PAGE_DATA),
    Insert(IGVM_VHS_PARAMETER_INSERT),
    Context(IGVM_VHS_VP_CONTEXT),
    Memory { gpa: u64, bytes: u32 },
    Parameter(Kind, IGVM_VHS_PARAMETER),
}

impl<'a> Plan<'a> {
    /// Checks a file.
    ///
    /// # Errors
    /// The first header that is wrong, or that is missing.
    pub fn new(file: File<'a>, platform: Platform, ram: &GuestRam) -> Result<Self, LoadError> {
        let mut plan = Self {
            file,
            mask: mask(&file, platform)?,
            imports: RangeSet::new(),
            backed: RangeSet::new(),
            areas: [None; AREAS],
            platform,
            context: None,
            area_data: None,
            policy: 0,
            id_block: None,
            pages: PageCounts::default(),
        };
        let mut version_seen = false;
        let mut section = 0;
        for header in file.headers() {
            let header = header?;
            let fail = |reason| LoadError {
                offset: header.offset,
                reason,
            };
            check_section(&header, &mut section).map_err(fail)?;
            plan.note_policy(&header).map_err(fail)?;
            if header.kind == IgvmVariableHeaderType::IGVM_VHT_VERSION_STRING.0 {
                if version_seen {
                    return Err(fail(Reason::Second(header.kind)));
                }
                version_seen = true;
                core::str::from_utf8(header.body).map_err(|_| fail(Reason::Text))?;
            }
            if let Some(directive) = plan.directive(&header).map_err(fail)? {
                plan.survey(&directive, ram).map_err(fail)?;
            }
        }
        if plan.context.is_none() {
            return Err(LoadError {
                offset: file.headers_end(),
                reason: Reason::NoContext,
            });
        }
        Ok(plan)
    }

    /// The memory beside RAM that [`Self::apply`] needs.
    #[must_use]
    pub const fn backed(&self) -> &Backed {
        &self.backed
    }

    /// How many pages of which kind there are.
    #[must_use]
    pub const fn pages(&self) -> PageCounts {
        self.pages
    }

    /// The file.
    #[must_use]
    pub const fn file(&self) -> &File<'a> {
        &self.file
    }

    /// The first CPU's save area, on a platform that has such.
    #[must_use]
    pub const fn first_area(&self) -> Option<&'a [u8]> {
        self.area_data
    }

    /// The guest's policy, as the image has it for the chosen platform; zero if it has none.
    #[must_use]
    pub const fn policy(&self) -> u64 {
        self.policy
    }

    /// The signed statement of who the guest is, if there is one.
    #[must_use]
    pub const fn id_block(&self) -> Option<&IGVM_VHS_SNP_ID_BLOCK> {
        self.id_block.as_ref()
    }

    /// Carries the directives out, and says how the first CPU starts.
    ///
    /// # Errors
    /// A parameter that does not fit, memory that is not there, or what the launch refuses.
    pub fn apply(
        &mut self,
        facts: &Facts<'_>,
        memory: &mut impl GuestMemory,
        launch: &mut impl Launch,
    ) -> Result<Context, LoadError> {
        for area in self.areas.iter_mut().flatten() {
            area.inserted = false;
        }
        for header in self.file.headers() {
            let header = header?;
            let fail = |reason| LoadError {
                offset: header.offset,
                reason,
            };
            if let Some(directive) = self.directive(&header).map_err(fail)? {
                self.carry_out(&directive, facts, memory, launch)
                    .map_err(fail)?;
            }
        }
        let offset = self.file.headers_end();
        self.context.ok_or(LoadError {
            offset,
            reason: Reason::NoContext,
        })
    }

    /// What a header asks for, if it asks for anything on this platform.
    fn directive(&self, header: &Header<'_>) -> Result<Option<Directive>, Reason> {
        use IgvmVariableHeaderType as T;
        let applies = |mask: u32| mask & self.mask != 0;
        let directive = match T(header.kind) {
            T::IGVM_VHT_PARAMETER_AREA => Directive::Area(body(header)?),
            T::IGVM_VHT_PAGE_DATA => {
                let page: IGVM_VHS_PAGE_DATA = body(header)?;
                if !applies(page.compatibility_mask) {
                    return Ok(None);
                }
                Directive::Page(page)
            }
            T::IGVM_VHT_PARAMETER_INSERT => {
                let insert: IGVM_VHS_PARAMETER_INSERT = body(header)?;
                if !applies(insert.compatibility_mask) {
                    return Ok(None);
                }
                Directive::Insert(insert)
            }
            T::IGVM_VHT_VP_CONTEXT => {
                let context: IGVM_VHS_VP_CONTEXT = body(header)?;
                if !applies(context.compatibility_mask) {
                    return Ok(None);
                }
                Directive::Context(context)
            }
            T::IGVM_VHT_REQUIRED_MEMORY => {
                let memory: IGVM_VHS_REQUIRED_MEMORY = body(header)?;
                if !applies(memory.compatibility_mask) {
                    return Ok(None);
                }
                if memory.reserved != 0 || memory.flags.reserved() != 0 {
                    return Err(Reason::Reserved);
                }
                Directive::Memory {
                    gpa: memory.gpa,
                    bytes: memory.number_of_bytes,
                }
            }
            T::IGVM_VHT_ERROR_RANGE => {
                let range: IGVM_VHS_ERROR_RANGE = body(header)?;
                if !applies(range.compatibility_mask) {
                    return Ok(None);
                }
                Directive::Memory {
                    gpa: range.gpa,
                    bytes: range.size_bytes,
                }
            }
            T::IGVM_VHT_SNP_ID_BLOCK => {
                let block: IGVM_VHS_SNP_ID_BLOCK = body(header)?;
                let wrong = applies(block.compatibility_mask) && self.platform != Platform::Snp;
                return refuse(header.kind, wrong);
            }
            T::IGVM_VHT_VBS_MEASUREMENT => {
                let measurement: IGVM_VHS_VBS_MEASUREMENT = body(header)?;
                return refuse(header.kind, applies(measurement.compatibility_mask));
            }
            kind => match Kind::of(kind) {
                Some(parameter) => Directive::Parameter(parameter, body(header)?),
                None => return Ok(None),
            },
        };
        Ok(Some(directive))
    }

    /// Keeps what the image says about the guest as a whole.
    fn note_policy(&mut self, header: &Header<'_>) -> Result<(), Reason> {
        match IgvmVariableHeaderType(header.kind) {
            IgvmVariableHeaderType::IGVM_VHT_GUEST_POLICY => {
                let policy: IGVM_VHS_GUEST_POLICY = body(header)?;
                if policy.compatibility_mask & self.mask != 0 {
                    self.policy = policy.policy;
                }
            }
            IgvmVariableHeaderType::IGVM_VHT_SNP_ID_BLOCK => {
                let block: IGVM_VHS_SNP_ID_BLOCK = body(header)?;
                if block.compatibility_mask & self.mask != 0
                    && self.id_block.replace(block).is_some()
                {
                    return Err(Reason::Second(header.kind));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// First pass: is the directive sound, and what does it need?
    fn survey(&mut self, directive: &Directive, ram: &GuestRam) -> Result<(), Reason> {
        match directive {
            Directive::Area(area) => self.declare(area),
            Directive::Page(page) => self.survey_page(page, ram),
            Directive::Insert(insert) => {
                let gpa = aligned(insert.gpa)?;
                let area = self.area(insert.parameter_area_index)?;
                (area.gpa, area.inserted) = (Some(gpa), true);
                let bytes = area.bytes;
                self.pages.parameter += bytes / PAGE;
                self.import(range(gpa, bytes)?, ram)
            }
            Directive::Context(context) => self.survey_context(context, ram),
            Directive::Memory { gpa, bytes } => {
                let gpa = aligned(*gpa)?;
                let bytes = u64::from(*bytes);
                if bytes % PAGE != 0 {
                    return Err(Reason::Unaligned(bytes));
                }
                self.need(range(gpa, bytes)?, ram)
            }
            Directive::Parameter(_, parameter) => {
                let area = self.area(parameter.parameter_area_index)?;
                let offset = u64::from(parameter.byte_offset);
                if offset >= area.bytes {
                    return Err(Reason::DoesNotFit { needs: 1, has: 0 });
                }
                Ok(())
            }
        }
    }

    fn declare(&mut self, area: &IGVM_VHS_PARAMETER_AREA) -> Result<(), Reason> {
        let (index, bytes) = (area.parameter_area_index, area.number_of_bytes);
        if bytes % PAGE != 0 {
            return Err(Reason::Unaligned(bytes));
        }
        if self
            .areas
            .iter()
            .flatten()
            .any(|known| known.index == index)
        {
            return Err(Reason::SecondArea(index));
        }
        if area.file_offset != 0 {
            self.initial_data(area)?;
        }
        let free = self.areas.iter_mut().find(|slot| slot.is_none());
        *free.ok_or(Reason::TooManyAreas)? = Some(Area {
            index,
            bytes,
            gpa: None,
            inserted: false,
        });
        Ok(())
    }

    fn survey_page(&mut self, page: &IGVM_VHS_PAGE_DATA, ram: &GuestRam) -> Result<(), Reason> {
        if page.reserved != 0 || page.flags.reserved() != 0 {
            return Err(Reason::Reserved);
        }
        if page.flags.is_2mb_page() {
            return Err(Reason::LargePage);
        }
        self.kind(page)?;
        self.page_data(page)?;
        let counter = match page {
            _ if page.flags.shared() => &mut self.pages.shared,
            _ if page.flags.unmeasured() => &mut self.pages.unmeasured,
            _ if page.file_offset == 0 => &mut self.pages.zero,
            _ => &mut self.pages.data,
        };
        *counter += 1;
        self.import(range(aligned(page.gpa)?, PAGE)?, ram)
    }

    /// What a page is to the launch. Secrets and CPUID pages are SEV-SNP's.
    fn kind(&self, page: &IGVM_VHS_PAGE_DATA) -> Result<PageKind, Reason> {
        let plain = !page.flags.shared() && !page.flags.unmeasured();
        match (page.data_type, self.platform) {
            (IgvmPageDataType::NORMAL, _) if page.flags.shared() => Ok(PageKind::Shared),
            (IgvmPageDataType::NORMAL, _) if page.flags.unmeasured() => Ok(PageKind::Unmeasured),
            (IgvmPageDataType::NORMAL, _) => Ok(PageKind::Normal),
            (IgvmPageDataType::SECRETS, Platform::Snp) if plain => Ok(PageKind::Secrets),
            (IgvmPageDataType::CPUID_DATA, Platform::Snp) if plain => Ok(PageKind::Cpuid),
            (other, _) => Err(Reason::PageType(other.0)),
        }
    }

    fn survey_context(
        &mut self,
        header: &IGVM_VHS_VP_CONTEXT,
        ram: &GuestRam,
    ) -> Result<(), Reason> {
        let has_page = self.platform == Platform::Snp;
        if header.reserved != 0 || (!has_page && header.gpa.get() != 0) {
            return Err(Reason::Reserved);
        }
        // APs are the image's own business: the format knows one context a platform.
        if header.vp_index != 0 {
            return Err(Reason::VpIndex(header.vp_index));
        }
        if self.context.is_some() {
            return Err(Reason::Second(
                IgvmVariableHeaderType::IGVM_VHT_VP_CONTEXT.0,
            ));
        }
        let data = self
            .file
            .data(header.file_offset, PAGE_BYTES)
            .ok_or(Reason::Data(header.file_offset))?;
        if has_page {
            let gpa = aligned(header.gpa.get())?;
            (self.context, self.area_data) = (Some(Context::Snp(gpa)), Some(data));
            return self.import(range(gpa, PAGE)?, ram);
        }
        let (context, rest) = IgvmNativeVpContextX64::read_from_prefix(data)
            .map_err(|_| Reason::Data(header.file_offset))?;
        let attributes = context.code_attributes | context.data_attributes;
        let reserved = context.reserved.iter().any(|word| *word != 0);
        if reserved || attributes & 0xf00 != 0 || rest.iter().any(|byte| *byte != 0) {
            return Err(Reason::Reserved);
        }
        self.context = Some(Context::Native(context));
        Ok(())
    }

    /// Notes memory that the image fills.
    fn import(&mut self, range: GpaRange, ram: &GuestRam) -> Result<(), Reason> {
        self.imports
            .insert_new(range)
            .map_err(|error| match error {
                InsertError::Overlap => Reason::Overlap(range.start().as_u64()),
                InsertError::Full => Reason::TooManyRanges,
            })?;
        self.need(range, ram)
    }

    /// Notes memory that must be there.
    fn need(&mut self, range: GpaRange, ram: &GuestRam) -> Result<(), Reason> {
        let devices = GpaRange::from_u64(DEVICES.0, DEVICES.1);
        if let Some(hit) = devices.and_then(|devices| devices.intersection(&range)) {
            return Err(Reason::OverDevice(hit.start().as_u64()));
        }
        for gap in ram.gaps(range) {
            self.backed.insert(gap).map_err(|_| Reason::TooManyRanges)?;
        }
        Ok(())
    }

    /// Second pass.
    fn carry_out(
        &mut self,
        directive: &Directive,
        facts: &Facts<'_>,
        memory: &mut impl GuestMemory,
        launch: &mut impl Launch,
    ) -> Result<(), Reason> {
        match directive {
            // The area's memory is filled where it will be inserted: no two directives
            // fill the same memory, so nobody can tell the difference.
            Directive::Area(area) => {
                let Some(gpa) = self.area(area.parameter_area_index)?.gpa else {
                    return Ok(());
                };
                let done = if area.file_offset == 0 {
                    memory.zero(gpa, area.number_of_bytes)
                } else {
                    memory.write(gpa, self.initial_data(area)?)
                };
                done.map_err(|error| Reason::NoMemory(error.0.as_u64()))
            }
            Directive::Page(page) => {
                let gpa = aligned(page.gpa)?;
                let done = match self.page_data(page)? {
                    Some(data) => memory.write(gpa, data),
                    None => memory.zero(gpa, PAGE),
                };
                done.map_err(|error| Reason::NoMemory(error.0.as_u64()))?;
                launch.page(gpa, self.kind(page)?, memory)
            }
            Directive::Insert(insert) => {
                let area = self.area(insert.parameter_area_index)?;
                area.inserted = true;
                let bytes = area.bytes;
                let gpa = aligned(insert.gpa)?;
                for offset in (0..bytes).step_by(PAGE_BYTES) {
                    let page = gpa.checked_add(offset).ok_or(Reason::Address(insert.gpa))?;
                    launch.page(page, PageKind::Unmeasured, memory)?;
                }
                Ok(())
            }
            Directive::Parameter(kind, parameter) => {
                let area = *self.area(parameter.parameter_area_index)?;
                deposit(
                    *kind,
                    &area,
                    parameter.byte_offset,
                    facts,
                    self.described(),
                    memory,
                )
            }
            Directive::Context(context) => {
                let Some(Context::Snp(gpa)) = self.context else {
                    return Ok(());
                };
                let data = self
                    .file
                    .data(context.file_offset, PAGE_BYTES)
                    .ok_or(Reason::Data(context.file_offset))?;
                memory
                    .write(gpa, data)
                    .map_err(|error| Reason::NoMemory(error.0.as_u64()))?;
                launch.page(gpa, PageKind::Vmsa, memory)
            }
            Directive::Memory { .. } => Ok(()),
        }
    }

    /// The memory beside RAM that the image is told of: all but the page that holds its first registers.
    fn described(&self) -> impl Iterator<Item = GpaRange> {
        let hidden = match self.context {
            Some(Context::Snp(gpa)) => Some(gpa),
            _ => None,
        };
        self.backed
            .iter()
            .filter(move |range| Some(range.start()) != hidden)
    }

    fn area(&mut self, index: u32) -> Result<&mut Area, Reason> {
        let found = self
            .areas
            .iter_mut()
            .flatten()
            .find(|area| area.index == index);
        found
            .filter(|area| !area.inserted)
            .ok_or(Reason::Area(index))
    }

    fn initial_data(&self, area: &IGVM_VHS_PARAMETER_AREA) -> Result<&'a [u8], Reason> {
        usize::try_from(area.number_of_bytes)
            .ok()
            .and_then(|bytes| self.file.data(area.file_offset, bytes))
            .ok_or(Reason::Data(area.file_offset))
    }

    fn page_data(&self, page: &IGVM_VHS_PAGE_DATA) -> Result<Option<&'a [u8]>, Reason> {
        match page.file_offset {
            0 => Ok(None),
            offset => self
                .file
                .data(offset, PAGE_BYTES)
                .map(Some)
                .ok_or(Reason::Data(offset)),
        }
    }
}

fn refuse(kind: u32, applies: bool) -> Result<Option<Directive>, Reason> {
    if applies {
        Err(Reason::NotForPlatform(kind))
    } else {
        Ok(None)
    }
}

fn body<T: FromBytes + KnownLayout + Immutable>(header: &Header<'_>) -> Result<T, Reason> {
    T::read_from_bytes(header.body).map_err(|_| Reason::Length {
        kind: header.kind,
        bytes: u32::try_from(header.body.len()).unwrap_or(u32::MAX),
    })
}

fn aligned(gpa: u64) -> Result<Gpa, Reason> {
    let at = Gpa::new(gpa).ok_or(Reason::Address(gpa))?;
    if at.is_aligned(PAGE) {
        Ok(at)
    } else {
        Err(Reason::Unaligned(gpa))
    }
}

fn range(gpa: Gpa, bytes: u64) -> Result<GpaRange, Reason> {
    GpaRange::new(gpa, bytes).ok_or(Reason::Address(gpa.as_u64()))
}
