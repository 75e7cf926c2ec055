//! The file: headers in an order that every loader measures alike.
//!
//! What is no page comes first, because QEMU collects adjacent pages and loads
//! them late; processor contexts come last, because protected platforms measure
//! them last wherever they stand.

use igvm::{Arch, IgvmDirectiveHeader, IgvmFile, IgvmPlatformHeader, IgvmRevision};
use igvm_defs::{
    IGVM_NATIVE_PLATFORM_VERSION, IGVM_VHS_PARAMETER, IGVM_VHS_PARAMETER_INSERT,
    IGVM_VHS_SUPPORTED_PLATFORM, IgvmNativeVpContextX64, IgvmPageDataFlags, IgvmPageDataType,
    IgvmPlatformType,
};
use svsm_stage2::layout;
use svsm_stage2::plan::{Content, Plan, Start};
use svsm_stage2::region::Parameter;
use zerocopy::FromZeros;

use super::pages::Page;
use crate::error::{Error, Result};
use crate::manifest::Manifest;
use crate::{PAGE_BYTES, PAGE_SIZE};

/// The bit of the native platform.
const NATIVE: u32 = 1;

/// Flat segments as descriptors describe them. In 64-bit mode only the code
/// segment's L bit counts, but loaders check all of it.
mod segment {
    pub(super) const CODE_SELECTOR: u16 = 0x08;
    pub(super) const DATA_SELECTOR: u16 = 0x10;
    /// Granularity, long; present, code, readable, accessed.
    pub(super) const CODE_ATTRIBUTES: u16 = 0xa09b;
    /// Granularity, big; present, data, writable, accessed.
    pub(super) const DATA_ATTRIBUTES: u16 = 0xc093;
    pub(super) const LIMIT: u32 = u32::MAX;
}

/// The bit of RFLAGS that is always set. Interrupts are off.
const RFLAGS: u64 = 2;

/// The most that one REQUIRED_MEMORY header asks for; its size field has 32 bits.
const MAX_REQUIRED_BYTES: u64 = 1 << 31;

/// Writes the file.
pub(super) fn write(manifest: &Manifest, plan: &Plan, pages: &[Page]) -> Result<Vec<u8>> {
    // Offsets in the file have 32 bits, and a page costs its contents and a
    // header of 32 bytes. (The writer panics where this would end in an error.)
    let bytes = (pages.len() as u64).saturating_mul(PAGE_BYTES + 32);
    if bytes > u64::from(u32::MAX / 2) {
        return Err(Error::TooLarge);
    }
    let platform = IgvmPlatformHeader::SupportedPlatform(IGVM_VHS_SUPPORTED_PLATFORM {
        compatibility_mask: NATIVE,
        highest_vtl: 0,
        platform_type: IgvmPlatformType::NATIVE,
        platform_version: IGVM_NATIVE_PLATFORM_VERSION,
        shared_gpa_boundary: 0,
    });

    let mut directives = Vec::new();
    let svsm = plan.handoff.svsm;
    require(&mut directives, svsm.start().as_u64(), svsm.len_bytes())?;
    for memory in &manifest.required_memory {
        require(&mut directives, memory.base, memory.size.bytes())?;
    }
    deposit(&mut directives, plan)?;
    directives.extend(pages.iter().map(|page| IgvmDirectiveHeader::PageData {
        gpa: page.gpa.as_u64(),
        compatibility_mask: NATIVE,
        flags: IgvmPageDataFlags::new(),
        data_type: IgvmPageDataType::NORMAL,
        data: page.contents.to_vec(),
    }));
    directives.push(IgvmDirectiveHeader::X64NativeVpContext {
        compatibility_mask: NATIVE,
        vp_index: 0,
        context: Box::new(context(&plan.start)),
    });

    // Contexts of native processors came with the second version of the format.
    let page_size = u32::try_from(PAGE_SIZE).map_err(|_| Error::Bug)?;
    let revision = IgvmRevision::V2 {
        arch: Arch::X64,
        page_size,
    };
    let file = IgvmFile::new(revision, vec![platform], Vec::new(), directives);
    let mut bytes = Vec::new();
    file.and_then(|file| file.serialize(&mut bytes))
        .map_err(|_| Error::Bug)?;
    Ok(bytes)
}

/// Asks for memory.
fn require(directives: &mut Vec<IgvmDirectiveHeader>, gpa: u64, bytes: u64) -> Result<()> {
    let mut done = 0;
    while done < bytes {
        let part = (bytes - done).min(MAX_REQUIRED_BYTES);
        directives.push(IgvmDirectiveHeader::RequiredMemory {
            gpa: gpa + done,
            compatibility_mask: NATIVE,
            number_of_bytes: u32::try_from(part).map_err(|_| Error::Bug)?,
            vtl2_protectable: false,
        });
        done += part;
    }
    Ok(())
}

/// Parameter areas: all are declared, filled, and then put into memory.
fn deposit(directives: &mut Vec<IgvmDirectiveHeader>, plan: &Plan) -> Result<()> {
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
                compatibility_mask: NATIVE,
                parameter_area_index: index,
            },
        ));
    }
    directives.append(&mut fills);
    directives.append(&mut inserts);
    Ok(())
}

/// The first processor at stage2's 64-bit entry. It has no descriptor tables
/// yet: an exception before stage2 loads its own is a shutdown.
fn context(start: &Start) -> IgvmNativeVpContextX64 {
    IgvmNativeVpContextX64 {
        rip: start.entry64.as_u64(),
        rsp: start.stack_top.as_u64(),
        rdi: start.handoff.as_u64(),
        rflags: RFLAGS,
        cr0: layout::ENTRY_CR0.bits(),
        cr3: start.root.as_u64(),
        cr4: layout::ENTRY_CR4.bits(),
        efer: layout::ENTRY_EFER.bits(),
        code_selector: segment::CODE_SELECTOR,
        code_attributes: segment::CODE_ATTRIBUTES,
        code_limit: segment::LIMIT,
        data_selector: segment::DATA_SELECTOR,
        data_attributes: segment::DATA_ATTRIBUTES,
        data_limit: segment::LIMIT,
        ..IgvmNativeVpContextX64::new_zeroed()
    }
}
