//! The file: headers in an order that every loader measures alike.
//!
//! What is no page comes first, because QEMU collects adjacent pages and loads
//! them late; processor contexts come last, because protected platforms measure
//! them last wherever they stand.

use igvm::{Arch, IgvmDirectiveHeader, IgvmFile, IgvmRevision};
use igvm_defs::{
    IGVM_VHS_PARAMETER, IGVM_VHS_PARAMETER_INSERT, IgvmPageDataFlags, IgvmPageDataType,
};
use svsm_stage2::plan::{Content, Plan};
use svsm_stage2::region::Parameter;

use super::pages::{Contents, Page};
use super::target::Target;
use super::{native, snp};
use crate::error::{Error, Result};
use crate::loader::Loader;
use crate::manifest::Manifest;
use crate::{PAGE_BYTES, PAGE_SIZE};

/// The most that one REQUIRED_MEMORY header asks for; its size field has 32 bits.
const MAX_REQUIRED_BYTES: u64 = 1 << 31;

/// The most pages that a file is written with. Offsets in a file have 32 bits,
/// a page costs its contents and a header of 32 bytes, and the writer panics
/// where an offset does not fit.
pub(super) const MAX_PAGES: u64 = (1 << 31) / (PAGE_BYTES + 32);

/// Writes the file; `pages` are at most [`MAX_PAGES`], and `guest` is where the guest's firmware goes.
pub(super) fn write(
    manifest: &Manifest,
    loader: Loader,
    targets: &[Target],
    plan: &Plan,
    pages: &[Page],
    guest: Option<(u64, u64)>,
) -> Result<Vec<u8>> {
    let all = targets.iter().fold(0, |mask, target| mask | target.mask());
    let mut directives = Vec::new();
    let svsm = plan.handoff.svsm;
    require(
        &mut directives,
        all,
        svsm.start().as_u64(),
        svsm.len_bytes(),
    )?;
    for memory in &manifest.required_memory {
        require(&mut directives, all, memory.base, memory.size.bytes())?;
    }
    if let (Some((base, bytes)), true) = (guest, targets.contains(&Target::Snp)) {
        require(&mut directives, Target::Snp.mask(), base, bytes)?;
    }
    deposit(&mut directives, all, plan)?;
    directives.extend(pages.iter().map(|page| {
        let shared = matches!(page.contents, Contents::Shared(_));
        let (data_type, data) = match &page.contents {
            Contents::File(contents) | Contents::Shared(contents) => {
                (IgvmPageDataType::NORMAL, contents.to_vec())
            }
            Contents::Cpuid => (IgvmPageDataType::CPUID_DATA, Vec::new()),
            Contents::Secrets => (IgvmPageDataType::SECRETS, Vec::new()),
        };
        IgvmDirectiveHeader::PageData {
            gpa: page.gpa.as_u64(),
            compatibility_mask: page.mask,
            flags: IgvmPageDataFlags::new().with_shared(shared),
            data_type,
            data,
        }
    }));
    let (mut platforms, mut initialization) = (Vec::new(), Vec::new());
    for target in targets {
        match target {
            Target::Native => {
                platforms.push(native::platform());
                directives.push(native::context(&plan.start));
            }
            Target::Snp => {
                platforms.push(snp::platform(loader));
                initialization.push(snp::policy(&manifest.snp));
                directives.push(snp::context(&plan.start, &manifest.snp));
            }
        }
    }

    // Contexts of native processors came with the second version of the format.
    let page_size = u32::try_from(PAGE_SIZE).map_err(|_| Error::Bug)?;
    let revision = IgvmRevision::V2 {
        arch: Arch::X64,
        page_size,
    };
    let file = IgvmFile::new(revision, platforms, initialization, directives);
    let mut bytes = Vec::new();
    file.and_then(|file| file.serialize(&mut bytes))
        .map_err(|_| Error::Bug)?;
    Ok(bytes)
}

/// Asks for memory.
fn require(
    directives: &mut Vec<IgvmDirectiveHeader>,
    mask: u32,
    gpa: u64,
    bytes: u64,
) -> Result<()> {
    let mut done = 0;
    while done < bytes {
        let part = (bytes - done).min(MAX_REQUIRED_BYTES);
        directives.push(IgvmDirectiveHeader::RequiredMemory {
            gpa: gpa + done,
            compatibility_mask: mask,
            number_of_bytes: u32::try_from(part).map_err(|_| Error::Bug)?,
            vtl2_protectable: false,
        });
        done += part;
    }
    Ok(())
}

/// Parameter areas: all are declared, filled, and then put into memory.
fn deposit(directives: &mut Vec<IgvmDirectiveHeader>, mask: u32, plan: &Plan) -> Result<()> {
    let mut inserts = Vec::new();
    let mut fills = Vec::new();
    for placement in &plan.placements {
        let Content::Deposited(parameter) = placement.content else {
            continue;
        };
        let index = u32::try_from(inserts.len()).map_err(|_| Error::Bug)?;
        directives.push(IgvmDirectiveHeader::ParameterArea {
            number_of_bytes: placement.gpa.len_bytes(),
            parameter_area_index: index,
            initial_data: Vec::new(),
        });
        let at = IGVM_VHS_PARAMETER {
            parameter_area_index: index,
            byte_offset: 0,
        };
        fills.push(match parameter {
            Parameter::VpCount => IgvmDirectiveHeader::VpCount(at),
            Parameter::MemoryMap => IgvmDirectiveHeader::MemoryMap(at),
            Parameter::Madt => IgvmDirectiveHeader::Madt(at),
            Parameter::DeviceTree => IgvmDirectiveHeader::DeviceTree(at),
            Parameter::CommandLine => IgvmDirectiveHeader::CommandLine(at),
        });
        inserts.push(IgvmDirectiveHeader::ParameterInsert(
            IGVM_VHS_PARAMETER_INSERT {
                gpa: placement.gpa.start().as_u64(),
                compatibility_mask: mask,
                parameter_area_index: index,
            },
        ));
    }
    directives.append(&mut fills);
    directives.append(&mut inserts);
    Ok(())
}
