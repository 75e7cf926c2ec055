//! What is said of an unprotected machine: its platform header, and how its
//! first processor starts.

use igvm::{IgvmDirectiveHeader, IgvmPlatformHeader};
use igvm_defs::{
    IGVM_NATIVE_PLATFORM_VERSION, IGVM_VHS_SUPPORTED_PLATFORM, IgvmNativeVpContextX64,
    IgvmPlatformType,
};
use svsm_stage2::layout;
use svsm_stage2::plan::Start;
use zerocopy::FromZeros;

/// The platform's bit in compatibility masks.
pub(super) const MASK: u32 = 1;

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

pub(super) const fn platform() -> IgvmPlatformHeader {
    IgvmPlatformHeader::SupportedPlatform(IGVM_VHS_SUPPORTED_PLATFORM {
        compatibility_mask: MASK,
        highest_vtl: 0,
        platform_type: IgvmPlatformType::NATIVE,
        platform_version: IGVM_NATIVE_PLATFORM_VERSION,
        shared_gpa_boundary: 0,
    })
}

/// The first processor at stage2's 64-bit entry. It has no descriptor tables
/// yet: an exception before stage2 loads its own is a shutdown.
pub(super) fn context(start: &Start) -> IgvmDirectiveHeader {
    let context = IgvmNativeVpContextX64 {
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
    };
    IgvmDirectiveHeader::X64NativeVpContext {
        compatibility_mask: MASK,
        vp_index: 0,
        context: Box::new(context),
    }
}
