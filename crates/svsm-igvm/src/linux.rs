//! Images that start a Linux kernel directly: without firmware, and without a paravisor.

use igvm::snp_defs::{SevSelector, SevVmsa};
use igvm::{
    Arch, IgvmDirectiveHeader as Directive, IgvmFile, IgvmInitializationHeader, IgvmPlatformHeader,
    IgvmRevision,
};
use igvm_defs::{
    IGVM_VHS_SUPPORTED_PLATFORM, IgvmNativeVpContextX64, IgvmPageDataFlags, IgvmPageDataType,
    IgvmPlatformType,
};
use svsm_guest::kernel::Kernel;
use svsm_guest::layout::{Acpi, Guest, Layout, Protection, Start};
use zerocopy::FromZeros;

use crate::{Error, PAGE_SIZE, Result};

/// A Linux guest that an image starts.
#[derive(Clone, Debug)]
pub struct Linux<'a> {
    /// The kernel: a `bzImage`.
    pub kernel: &'a [u8],
    /// The initial RAM disk; empty for none.
    pub initrd: &'a [u8],
    /// The kernel's command line.
    pub command_line: &'a str,
    /// What protects the guest.
    pub platform: Platform,
    /// Bytes of memory; a multiple of 2 MiB, from 64 MiB to 2 GiB. The machine must have as much.
    pub memory: u64,
    /// How many processors the guest is told of.
    pub processors: u32,
}

/// What protects a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Platform {
    /// Nothing.
    Native,
    /// SEV-SNP: the guest at VMPL0, its memory validated by a stub.
    Snp,
}

const MASK: u32 = 1;
/// The position of the C-bit on all processors so far.
const C_BIT: u8 = 51;
/// Threads allowed, and the bit that is always set.
const POLICY: u64 = 3 << 16;
/// Where KVM has the first processor's save area.
const VMSA: u64 = 0xffff_ffff_f000;

const CR0: u64 = 0x8005_0033;
const CR4_PAE: u64 = 1 << 5;
/// Machine checks, which KVM turns on in every save area.
const CR4_MCE: u64 = 1 << 6;
/// LME, LMA, NXE.
const EFER: u64 = 0xd00;
const EFER_SVME: u64 = 1 << 12;
const CODE: u16 = 0xa9b;
const DATA: u16 = 0xc93;

/// Builds an image.
///
/// # Errors
/// [`Error::Guest`] if the parts do not fit together, [`Error::TooLarge`].
pub fn linux(linux: &Linux<'_>) -> Result<Vec<u8>> {
    let apic_ids: Vec<u32> = (0..linux.processors).collect();
    let guest = Guest {
        kernel: Kernel::parse(linux.kernel).map_err(Error::Guest)?,
        initrd: linux.initrd,
        command_line: linux.command_line,
        memory: linux.memory,
        apic_ids: &apic_ids,
        acpi: Acpi::Own,
        protection: match linux.platform {
            Platform::Native => Protection::None,
            Platform::Snp => Protection::Snp { c_bit: C_BIT },
        },
    };
    let layout = Layout::new(&guest).map_err(Error::Guest)?;
    let mut directives = Vec::new();
    let mut put = |gpa: u64, bytes: &[u8]| {
        for (at, page) in (gpa..).step_by(PAGE_SIZE).zip(bytes.chunks(PAGE_SIZE)) {
            directives.push(page_data(at, IgvmPageDataType::NORMAL, page));
        }
        Ok(())
    };
    layout.write::<Error>(&guest, &mut put)?;
    let start = layout.start();
    let (platform_type, initialization) = match linux.platform {
        Platform::Native => {
            directives.push(Directive::X64NativeVpContext {
                compatibility_mask: MASK,
                vp_index: 0,
                context: Box::new(context(&start)),
            });
            (IgvmPlatformType::NATIVE, vec![])
        }
        Platform::Snp => {
            let (gpa, number_of_bytes) = layout.legacy();
            directives.push(Directive::RequiredMemory {
                gpa,
                compatibility_mask: MASK,
                number_of_bytes,
                vtl2_protectable: false,
            });
            for (gpa, kind) in [
                (layout.secrets(), IgvmPageDataType::SECRETS),
                (layout.cpuid(), IgvmPageDataType::CPUID_DATA),
            ] {
                directives.push(page_data(gpa, kind, &[]));
            }
            directives.push(Directive::SnpVpContext {
                gpa: VMSA,
                compatibility_mask: MASK,
                vp_index: 0,
                vmsa: Box::new(save_area(&start)),
            });
            let policy = IgvmInitializationHeader::GuestPolicy {
                policy: POLICY,
                compatibility_mask: MASK,
            };
            (IgvmPlatformType::SEV_SNP, vec![policy])
        }
    };
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
    IgvmFile::new(revision, vec![platform], initialization, directives)
        .and_then(|file| file.serialize(&mut bytes))
        .map_err(|_| Error::TooLarge)?;
    Ok(bytes)
}

fn page_data(gpa: u64, data_type: IgvmPageDataType, data: &[u8]) -> Directive {
    Directive::PageData {
        gpa,
        compatibility_mask: MASK,
        flags: IgvmPageDataFlags::new(),
        data_type,
        data: data.to_vec(),
    }
}

fn context(start: &Start) -> IgvmNativeVpContextX64 {
    // Attributes are a descriptor's here, with four unused bits in their middle.
    let wide = |attributes: u16| attributes & 0xff | (attributes & 0xf00) << 4;
    let mut context = IgvmNativeVpContextX64::new_zeroed();
    context.rip = start.entry;
    (context.rsi, context.rdi, context.rdx) = (start.rsi, start.rdi, start.rdx);
    context.rflags = 2;
    (context.code_selector, context.code_attributes) = (Start::CODE, wide(CODE));
    (context.data_selector, context.data_attributes) = (Start::DATA, wide(DATA));
    (context.code_limit, context.data_limit) = (u32::MAX, u32::MAX);
    (context.gdtr_base, context.gdtr_limit) = (start.gdt, Start::GDT_LIMIT);
    (context.cr0, context.cr3, context.cr4) = (CR0, start.cr3, CR4_PAE);
    context.efer = EFER;
    context
}

fn save_area(start: &Start) -> SevVmsa {
    let segment = |selector, attrib| SevSelector {
        selector,
        attrib,
        limit: u32::MAX,
        base: 0,
    };
    let table = |base, limit: u16| SevSelector {
        selector: 0,
        attrib: 0,
        limit: u32::from(limit),
        base,
    };
    let mut vmsa = SevVmsa::new_zeroed();
    vmsa.cs = segment(Start::CODE, CODE);
    let data = segment(Start::DATA, DATA);
    (vmsa.ds, vmsa.es, vmsa.ss, vmsa.fs, vmsa.gs) = (data, data, data, data, data);
    vmsa.gdtr = table(start.gdt, Start::GDT_LIMIT);
    vmsa.idtr = table(0, 0xffff);
    vmsa.ldtr = SevSelector {
        attrib: 0x82,
        ..table(0, 0xffff)
    };
    vmsa.tr = SevSelector {
        attrib: 0x8b,
        ..table(0, 0xffff)
    };
    vmsa.efer = EFER | EFER_SVME;
    (vmsa.cr0, vmsa.cr3, vmsa.cr4) = (CR0, start.cr3, CR4_PAE | CR4_MCE);
    (vmsa.rip, vmsa.rflags) = (start.entry, 2);
    (vmsa.rsi, vmsa.rdi, vmsa.rdx) = (start.rsi, start.rdi, start.rdx);
    (vmsa.dr6, vmsa.dr7, vmsa.pat) = (0xffff_0ff0, 0x400, 0x0007_0406_0007_0406);
    (vmsa.xcr0, vmsa.mxcsr, vmsa.x87_fcw) = (1, 0x1f80, 0x37f);
    vmsa.sev_features.set_snp(true);
    vmsa
}
