//! IGVM files of the guests.

use crate::layout;
use core::fmt;
use elf::ElfBytes;
use elf::abi::PT_LOAD;
use elf::endian::LittleEndian;
use igvm::snp_defs::{SevSelector, SevVmsa};
use igvm::{
    Arch, IgvmDirectiveHeader as Directive, IgvmFile, IgvmInitializationHeader, IgvmPlatformHeader,
    IgvmRevision,
};
use igvm_defs::{
    IGVM_VHS_PARAMETER, IGVM_VHS_PARAMETER_INSERT, IGVM_VHS_SUPPORTED_PLATFORM,
    IgvmNativeVpContextX64, IgvmPageDataFlags, IgvmPageDataType, IgvmPlatformType,
};
use zerocopy::FromZeros;

const MASK: u32 = 1;
const PAGE: usize = 4096;
/// The guests' policy: threads allowed, and the bit that is always set.
const POLICY: u64 = 3 << 16;

/// The mode that the first CPU starts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 64 bits, paging on: all guests by name.
    Long,
    /// 32 bits, paging off: a guest that says so and powers off.
    Protected,
    /// 16 bits: a guest that says so and powers off.
    Real,
}

/// Why there is no image.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The guests' ELF file cannot be read.
    Elf(elf::ParseError),
    /// It lacks a symbol.
    Symbol(&'static str),
    /// The image is not valid.
    Igvm(igvm::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Elf(error) => write!(f, "the guests' file is no ELF file: {error}"),
            Self::Symbol(name) => write!(f, "the guests' file has no symbol {name}"),
            Self::Igvm(error) => write!(f, "the image is not valid: {error}"),
        }
    }
}

impl core::error::Error for Error {}

impl From<elf::ParseError> for Error {
    fn from(error: elf::ParseError) -> Self {
        Self::Elf(error)
    }
}

impl From<igvm::Error> for Error {
    fn from(error: igvm::Error) -> Self {
        Self::Igvm(error)
    }
}

/// Makes an image of the guests' ELF file.
///
/// # Errors
/// The file is not that of the guests.
pub fn native(file: &[u8], mode: Mode) -> Result<Vec<u8>, Error> {
    let file = ElfBytes::<LittleEndian>::minimal_parse(file)?;
    let mut directives = contents(&file, |_, _| ())?;
    directives.push(Directive::X64NativeVpContext {
        compatibility_mask: MASK,
        vp_index: 0,
        context: Box::new(context(&file, mode)?),
    });
    serialize(IgvmPlatformType::NATIVE, vec![], directives)
}

/// Makes an image for SEV-SNP of the guests' ELF file: 64 bits, with the C-bit in all tables. `restricted`: the guest
/// takes no vectors from its host.
///
/// # Errors
/// The file is not that of the guests.
pub fn snp(file: &[u8], restricted: bool) -> Result<Vec<u8>, Error> {
    let file = ElfBytes::<LittleEndian>::minimal_parse(file)?;
    let (root, near) = (symbol(&file, "page_tables")?, symbol(&file, "near_pages")?);
    let (far, shared) = (symbol(&file, "far_pages")?, symbol(&file, "shared_pages")?);
    let user = symbol(&file, "user_pages")?;
    let gib = |index: usize| (index as u64) << 30 | 0x83;
    let mut directives = contents(&file, |gpa, data| {
        let table: Box<dyn Fn(usize) -> u64> = match gpa {
            _ if gpa == root => {
                let tables = [near, far, shared].map(|table| table | 3 | layout::C_BIT);
                let place = usize::try_from(layout::USER >> 39).unwrap_or_default();
                Box::new(move |index| match index {
                    _ if index == place => user | 7 | layout::C_BIT,
                    _ => tables.get(index).copied().unwrap_or_default(),
                })
            }
            _ if gpa == near => Box::new(move |index| gib(index) | layout::C_BIT),
            _ if gpa == far => Box::new(move |index| match index {
                0 => layout::FAR_MEMORY | 0x83 | layout::C_BIT,
                _ => 0,
            }),
            _ if gpa == shared => Box::new(gib),
            _ if gpa == user => Box::new(move |index| match index {
                0 => gib(0) | 4 | layout::C_BIT,
                _ => 0,
            }),
            _ => return,
        };
        *data = (0..512)
            .flat_map(|index| table(index).to_le_bytes())
            .collect();
    })?;
    for (gpa, data_type) in [
        (layout::SECRETS, IgvmPageDataType::SECRETS),
        (layout::CPUID, IgvmPageDataType::CPUID_DATA),
    ] {
        directives.push(Directive::PageData {
            gpa,
            compatibility_mask: MASK,
            flags: IgvmPageDataFlags::new(),
            data_type,
            data: vec![],
        });
    }
    let mut vmsa = Box::new(SevVmsa::new_zeroed());
    let data = SevSelector {
        selector: 16,
        attrib: 0xc93,
        limit: u32::MAX,
        base: 0,
    };
    (vmsa.ds, vmsa.es, vmsa.ss, vmsa.fs, vmsa.gs) = (data, data, data, data, data);
    vmsa.cs = SevSelector {
        selector: 8,
        attrib: 0xa9b,
        ..data
    };
    vmsa.efer = 0x1d00;
    (vmsa.cr0, vmsa.cr3, vmsa.cr4) = (0x8001_0033, root | layout::C_BIT, 0x20);
    (vmsa.rip, vmsa.rflags) = (file.ehdr.e_entry, 2);
    (vmsa.dr6, vmsa.dr7, vmsa.pat) = (0xffff_0ff0, 0x400, 0x0007_0406_0007_0406);
    (vmsa.xcr0, vmsa.mxcsr, vmsa.x87_fcw) = (1, 0x1f80, 0x37f);
    vmsa.sev_features.set_snp(true);
    vmsa.sev_features.set_restrict_injection(restricted);
    directives.push(Directive::SnpVpContext {
        gpa: layout::VMSA,
        compatibility_mask: MASK,
        vp_index: 0,
        vmsa,
    });
    let policy = IgvmInitializationHeader::GuestPolicy {
        policy: POLICY,
        compatibility_mask: MASK,
    };
    serialize(IgvmPlatformType::SEV_SNP, vec![policy], directives)
}

/// What is the same on all platforms. `change` may change pages of the program.
fn contents(
    file: &ElfBytes<'_, LittleEndian>,
    change: impl Fn(u64, &mut Vec<u8>),
) -> Result<Vec<Directive>, Error> {
    let mut directives = parameters();
    directives.push(Directive::RequiredMemory {
        gpa: layout::FAR_MEMORY,
        compatibility_mask: MASK,
        number_of_bytes: layout::FAR_MEMORY_BYTES,
        vtl2_protectable: false,
    });
    for segment in file
        .segments()
        .into_iter()
        .flatten()
        .filter(|s| s.p_type == PT_LOAD)
    {
        let data = file.segment_data(&segment)?;
        let mut chunks = data.chunks(PAGE);
        let pages = usize::try_from(segment.p_memsz).unwrap_or(0).div_ceil(PAGE);
        for gpa in (segment.p_paddr..).step_by(PAGE).take(pages) {
            let mut bytes = chunks.next().unwrap_or_default().to_vec();
            change(gpa, &mut bytes);
            directives.push(page(gpa, &bytes));
        }
    }
    let last = layout::FAR_MEMORY + u64::from(layout::FAR_MEMORY_BYTES) - PAGE as u64;
    directives.push(page(last, layout::FAR_DATA));
    Ok(directives)
}

fn serialize(
    platform_type: IgvmPlatformType,
    initialization: Vec<IgvmInitializationHeader>,
    directives: Vec<Directive>,
) -> Result<Vec<u8>, Error> {
    let platform = IgvmPlatformHeader::SupportedPlatform(IGVM_VHS_SUPPORTED_PLATFORM {
        compatibility_mask: MASK,
        highest_vtl: 0,
        platform_type,
        platform_version: 1,
        shared_gpa_boundary: 0,
    });
    let revision = IgvmRevision::V2 {
        arch: Arch::X64,
        page_size: 4096,
    };
    let mut bytes = Vec::new();
    IgvmFile::new(revision, vec![platform], initialization, directives)?.serialize(&mut bytes)?;
    Ok(bytes)
}

fn page(gpa: u64, data: &[u8]) -> Directive {
    Directive::PageData {
        gpa,
        compatibility_mask: MASK,
        flags: IgvmPageDataFlags::new(),
        data_type: IgvmPageDataType::NORMAL,
        data: data.to_vec(),
    }
}

fn parameters() -> Vec<Directive> {
    let at = |index, byte_offset| IGVM_VHS_PARAMETER {
        parameter_area_index: index,
        byte_offset,
    };
    let gpas = [
        layout::FACTS,
        layout::MEMORY_MAP,
        layout::MADT,
        layout::COMMAND_LINE,
        layout::DEVICE_TREE,
    ];
    let areas = (0..).zip(gpas).map(|(index, _)| Directive::ParameterArea {
        number_of_bytes: PAGE as u64,
        parameter_area_index: index,
        initial_data: vec![],
    });
    let contents = [
        Directive::VpCount(at(0, layout::VP_COUNT)),
        Directive::EnvironmentInfo(at(0, layout::ENVIRONMENT)),
        Directive::MmioRanges(at(0, layout::MMIO)),
        Directive::MemoryMap(at(1, 0)),
        Directive::Madt(at(2, 0)),
        Directive::CommandLine(at(3, 0)),
        Directive::DeviceTree(at(4, 0)),
    ];
    let inserts = (0..).zip(gpas).map(|(index, gpa)| {
        Directive::ParameterInsert(IGVM_VHS_PARAMETER_INSERT {
            gpa,
            compatibility_mask: MASK,
            parameter_area_index: index,
        })
    });
    areas.chain(contents).chain(inserts).collect()
}

/// Where a symbol of the program is.
fn symbol(file: &ElfBytes<'_, LittleEndian>, name: &'static str) -> Result<u64, Error> {
    let (table, strings) = file.symbol_table()?.ok_or(Error::Symbol(name))?;
    table
        .iter()
        .find(|symbol| {
            usize::try_from(symbol.st_name).is_ok_and(|at| strings.get(at).ok() == Some(name))
        })
        .map(|symbol| symbol.st_value)
        .ok_or(Error::Symbol(name))
}

fn context(file: &ElfBytes<'_, LittleEndian>, mode: Mode) -> Result<IgvmNativeVpContextX64, Error> {
    let symbol = |name| symbol(file, name);
    let mut context = IgvmNativeVpContextX64::new_zeroed();
    context.rflags = 2;
    context.code_selector = 8;
    context.data_selector = 16;
    (context.code_limit, context.data_limit) = (u32::MAX, u32::MAX);
    context.data_attributes = 0xc093;
    match mode {
        Mode::Long => {
            context.rip = file.ehdr.e_entry;
            context.code_attributes = 0xa09b;
            context.cr0 = 0x8001_0033;
            context.cr3 = symbol("page_tables")?;
            context.cr4 = 0x20;
            context.efer = 0xd00;
        }
        Mode::Protected => {
            context.rip = symbol("start32")?;
            context.code_attributes = 0xc09b;
            context.cr0 = 0x11;
        }
        Mode::Real => {
            let page = u16::try_from(layout::REAL_MODE >> 4).unwrap_or_default();
            context.rip = symbol("start16")? - layout::REAL_MODE;
            (context.code_selector, context.data_selector) = (page, page);
            (context.code_base, context.data_base) = (u32::from(page) << 4, u32::from(page) << 4);
            (context.code_limit, context.data_limit) = (0xffff, 0xffff);
            (context.code_attributes, context.data_attributes) = (0x9b, 0x93);
            context.cr0 = 0x10;
        }
    }
    Ok(context)
}
