//! What is said of SEV-SNP: its platform header, its policy, and how its first processor starts.

use igvm::snp_defs::{SevSelector, SevVmsa};
use igvm::{IgvmDirectiveHeader, IgvmInitializationHeader, IgvmPlatformHeader};
use igvm_defs::{IGVM_VHS_SUPPORTED_PLATFORM, IgvmPlatformType};
use svsm_stage2::plan::Start;
use zerocopy::FromZeros;

use crate::loader::Loader;
use crate::manifest::Snp;

/// The platform's bit in compatibility masks.
pub(super) const MASK: u32 = 2;

/// The version of the platform's part of the format.
const VERSION: u16 = 1;

/// Where KVM has the first processor's save area, whatever the file says; others take the file's word.
const SAVE_AREA: u64 = 0xffff_ffff_f000;

/// Protected mode, extension type, numeric errors: paging is off, so all memory is private.
const CR0: u64 = 1 << 0 | 1 << 4 | 1 << 5;
/// Machine checks, which KVM turns on in every save area.
const CR4: u64 = 1 << 6;
/// SEV-SNP demands it.
const EFER_SVME: u64 = 1 << 12;

/// Flat 32-bit segments as save areas describe them: granularity and size, then present, type and access.
mod segment {
    pub(super) const CODE_SELECTOR: u16 = 0x08;
    pub(super) const DATA_SELECTOR: u16 = 0x10;
    pub(super) const CODE: u16 = 0xc9b;
    pub(super) const DATA: u16 = 0xc93;
    pub(super) const LDT: u16 = 0x82;
    pub(super) const BUSY_TASK: u16 = 0x8b;
}

pub(super) const fn platform(loader: Loader) -> IgvmPlatformHeader {
    IgvmPlatformHeader::SupportedPlatform(IGVM_VHS_SUPPORTED_PLATFORM {
        compatibility_mask: MASK,
        // Hyper-V calls the paravisor's level VTL 2; others have no such levels.
        highest_vtl: match loader {
            Loader::OpenVmm => 2,
            _ => 0,
        },
        platform_type: IgvmPlatformType::SEV_SNP,
        platform_version: VERSION,
        shared_gpa_boundary: 0,
    })
}

pub(super) const fn policy(snp: &Snp) -> IgvmInitializationHeader {
    IgvmInitializationHeader::GuestPolicy {
        policy: snp.policy,
        compatibility_mask: MASK,
    }
}

/// The first processor at stage2's 32-bit entry, at VMPL0. It has no descriptor tables yet.
pub(super) fn context(start: &Start, snp: &Snp) -> IgvmDirectiveHeader {
    IgvmDirectiveHeader::SnpVpContext {
        gpa: SAVE_AREA,
        compatibility_mask: MASK,
        vp_index: 0,
        vmsa: Box::new(save_area(start, snp)),
    }
}

fn save_area(start: &Start, snp: &Snp) -> SevVmsa {
    let segment = |selector, attrib| SevSelector {
        selector,
        attrib,
        limit: u32::MAX,
        base: 0,
    };
    let table = |attrib| SevSelector {
        selector: 0,
        attrib,
        limit: 0xffff,
        base: 0,
    };
    let mut area = SevVmsa::new_zeroed();
    area.cs = segment(segment::CODE_SELECTOR, segment::CODE);
    let data = segment(segment::DATA_SELECTOR, segment::DATA);
    (area.ds, area.es, area.ss, area.fs, area.gs) = (data, data, data, data, data);
    (area.gdtr, area.idtr) = (table(0), table(0));
    (area.ldtr, area.tr) = (table(segment::LDT), table(segment::BUSY_TASK));
    (area.cr0, area.cr4, area.efer) = (CR0, CR4, EFER_SVME);
    (area.rip, area.rflags) = (start.entry32.as_u64(), 2);
    (area.rsp, area.rdi) = (start.stack_top.as_u64(), start.handoff.as_u64());
    // What a reset leaves.
    (area.dr6, area.dr7, area.pat) = (0xffff_0ff0, 0x400, 0x0007_0406_0007_0406);
    (area.xcr0, area.mxcsr, area.x87_fcw) = (1, 0x1f80, 0x37f);
    area.sev_features.set_snp(true);
    if snp.restricted_injection {
        area.sev_features.set_restrict_injection(true);
    }
    area
}
