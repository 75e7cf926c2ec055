//! The save area (VMSA) of a virtual processor whose registers are encrypted: its layout, its values after reset, and when
//! `VMRUN` refuses it (24593, "State Save Area", table of the VMSA layout for SEV-ES and SEV-SNP guests).

mod check;
mod features;
mod tweak;

pub use check::{Invalid, Processor, Refusal};
pub use features::{Injected, SevFeatures, VintrCtrl};
pub use tweak::TweakBitmap;

use core::mem::offset_of;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A segment register with its hidden part.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Segment {
    /// Its visible part.
    pub selector: U16,
    /// Type in bits 3:0, S in 4, DPL in 6:5, P in 7, AVL in 8, L in 9, D/B in 10, G in 11.
    pub attributes: U16,
    /// Its last offset, in bytes, whatever G says.
    pub limit: U32,
    /// Where it starts.
    pub base: U64,
}
const _: () = assert!(size_of::<Segment>() == 16);

impl Segment {
    /// L: code of 64 bits.
    pub const LONG: u16 = 1 << 9;
    /// D/B: operands and stack pointers of 32 bits.
    pub const DEFAULT_BIG: u16 = 1 << 10;

    /// A segment from its parts.
    #[must_use]
    pub const fn new(selector: u16, attributes: u16, limit: u32, base: u64) -> Self {
        Self {
            selector: U16::new(selector),
            attributes: U16::new(attributes),
            limit: U32::new(limit),
            base: U64::new(base),
        }
    }
}

/// The page that holds the registers of a virtual processor while it does not run.
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(
    missing_docs,
    reason = "fields are registers under their names in the specification"
)]
pub struct Vmsa {
    pub es: Segment,
    pub cs: Segment,
    pub ss: Segment,
    pub ds: Segment,
    pub fs: Segment,
    pub gs: Segment,
    pub gdtr: Segment,
    pub ldtr: Segment,
    pub idtr: Segment,
    pub tr: Segment,
    pub pl_ssp: [U64; 4],
    pub u_cet: U64,
    pub reserved_0c8: [u8; 2],
    pub vmpl: u8,
    pub cpl: u8,
    pub reserved_0cc: [u8; 4],
    pub efer: U64,
    pub reserved_0d8: [u8; 104],
    pub xss: U64,
    pub cr4: U64,
    pub cr3: U64,
    pub cr0: U64,
    pub dr7: U64,
    pub dr6: U64,
    pub rflags: U64,
    pub rip: U64,
    pub dr: [U64; 4],
    pub dr_mask: [U64; 4],
    pub reserved_1c0: [u8; 24],
    pub rsp: U64,
    pub s_cet: U64,
    pub ssp: U64,
    pub isst_addr: U64,
    pub rax: U64,
    pub star: U64,
    pub lstar: U64,
    pub cstar: U64,
    pub sfmask: U64,
    pub kernel_gs_base: U64,
    pub sysenter_cs: U64,
    pub sysenter_esp: U64,
    pub sysenter_eip: U64,
    pub cr2: U64,
    pub reserved_248: [u8; 32],
    pub g_pat: U64,
    pub dbgctl: U64,
    pub br_from: U64,
    pub br_to: U64,
    pub last_excp_from: U64,
    pub last_excp_to: U64,
    pub reserved_298: [u8; 72],
    pub spec_ctrl: U64,
    pub pkru: U32,
    pub tsc_aux: U32,
    pub tsc_scale: U64,
    pub tsc_offset: U64,
    pub reg_prot_nonce: U64,
    pub rcx: U64,
    pub rdx: U64,
    pub rbx: U64,
    pub secure_avic_ctl: U64,
    pub rbp: U64,
    pub rsi: U64,
    pub rdi: U64,
    /// R8 to R15.
    pub r8_15: [U64; 8],
    pub reserved_380: [u8; 16],
    pub exit_info_1: U64,
    pub exit_info_2: U64,
    pub exit_int_info: U64,
    pub nrip: U64,
    /// [`SevFeatures`].
    pub sev_features: U64,
    /// [`VintrCtrl`].
    pub vintr_ctrl: U64,
    pub exit_code: U64,
    pub virtual_tom: U64,
    pub tlb_id: U64,
    pub pcpu_id: U64,
    /// [`Injected`].
    pub event_inj: U64,
    pub xcr0: U64,
    /// Which parts of the extended state are valid, and reserved bytes.
    pub xsave_valid_bitmap: [u8; 16],
    pub x87_dp: U64,
    pub mxcsr: U32,
    pub x87_ftw: U16,
    pub x87_fsw: U16,
    pub x87_fcw: U16,
    pub x87_fop: U16,
    pub x87_ds: U16,
    pub x87_cs: U16,
    pub x87_rip: U64,
    /// ST0 to ST7, ten bytes each.
    pub fpreg_x87: [u8; 80],
    pub fpreg_xmm: [[u8; 16]; 16],
    /// The upper halves of YMM0 to YMM15.
    pub fpreg_ymm: [[u8; 16]; 16],
    pub lbr_stack: [u8; 256],
    pub lbr_select: U64,
    /// State of instruction-based sampling.
    pub ibs: [u8; 80],
    pub reserved_7c8: [u8; 440],
    /// The mask registers K0 to K7.
    pub fpreg_k: [U64; 8],
    /// The upper halves of ZMM0 to ZMM15.
    pub fpreg_zmm_high: [[u8; 32]; 16],
    /// ZMM16 to ZMM31.
    pub fpreg_high_zmm: [[u8; 64]; 16],
    pub reserved_fc0: [u8; 64],
}
const _: () = {
    assert!(size_of::<Vmsa>() == 4096);
    assert!(offset_of!(Vmsa, pl_ssp) == 0x0a0);
    assert!(offset_of!(Vmsa, u_cet) == 0x0c0);
    assert!(offset_of!(Vmsa, vmpl) == 0x0ca);
    assert!(offset_of!(Vmsa, efer) == 0x0d0);
    assert!(offset_of!(Vmsa, xss) == 0x140);
    assert!(offset_of!(Vmsa, rip) == 0x178);
    assert!(offset_of!(Vmsa, dr_mask) == 0x1a0);
    assert!(offset_of!(Vmsa, rsp) == 0x1d8);
    assert!(offset_of!(Vmsa, rax) == 0x1f8);
    assert!(offset_of!(Vmsa, cr2) == 0x240);
    assert!(offset_of!(Vmsa, g_pat) == 0x268);
    assert!(offset_of!(Vmsa, last_excp_to) == 0x290);
    assert!(offset_of!(Vmsa, spec_ctrl) == 0x2e0);
    assert!(offset_of!(Vmsa, tsc_scale) == 0x2f0);
    assert!(offset_of!(Vmsa, reg_prot_nonce) == 0x300);
    assert!(offset_of!(Vmsa, secure_avic_ctl) == 0x320);
    assert!(offset_of!(Vmsa, r8_15) == 0x340);
    assert!(offset_of!(Vmsa, exit_info_1) == 0x390);
    assert!(offset_of!(Vmsa, sev_features) == 0x3b0);
    assert!(offset_of!(Vmsa, virtual_tom) == 0x3c8);
    assert!(offset_of!(Vmsa, event_inj) == 0x3e0);
    assert!(offset_of!(Vmsa, x87_dp) == 0x400);
    assert!(offset_of!(Vmsa, x87_fcw) == 0x410);
    assert!(offset_of!(Vmsa, fpreg_x87) == 0x420);
    assert!(offset_of!(Vmsa, fpreg_xmm) == 0x470);
    assert!(offset_of!(Vmsa, fpreg_ymm) == 0x570);
    assert!(offset_of!(Vmsa, lbr_stack) == 0x670);
    assert!(offset_of!(Vmsa, ibs) == 0x778);
    assert!(offset_of!(Vmsa, fpreg_k) == 0x980);
    assert!(offset_of!(Vmsa, fpreg_zmm_high) == 0x9c0);
    assert!(offset_of!(Vmsa, fpreg_high_zmm) == 0xbc0);
};

impl Vmsa {
    /// EFER.SVME, which must be set for `VMRUN` to take a save area.
    pub const EFER_SVME: u64 = 1 << 12;

    /// A processor that starts at `entry` in real mode, as after a reset.
    ///
    /// The values are those with which KVM launches an SNP guest and which launch digests therefore hold: they differ from
    /// the architecture's in CR4 (MCE is set), CR0 (caches are on), and the x87 control word. RDX holds `signature`, the
    /// processor's (CPUID 1 EAX).
    #[must_use]
    pub fn reset(entry: u32, signature: u32, features: SevFeatures) -> Self {
        let mut vmsa: Self = FromZeros::new_zeroed();
        let data = Segment::new(0, 0x93, 0xffff, 0);
        let table = Segment::new(0, 0, 0xffff, 0);
        (vmsa.es, vmsa.ss, vmsa.ds, vmsa.fs, vmsa.gs) = (data, data, data, data, data);
        vmsa.cs = Segment::new(0xf000, 0x9b, 0xffff, u64::from(entry & 0xffff_0000));
        (vmsa.gdtr, vmsa.idtr) = (table, table);
        vmsa.ldtr = Segment::new(0, 0x82, 0xffff, 0);
        vmsa.tr = Segment::new(0, 0x8b, 0xffff, 0);
        vmsa.efer = U64::new(Self::EFER_SVME);
        vmsa.cr4 = U64::new(1 << 6);
        vmsa.cr0 = U64::new(1 << 4);
        vmsa.dr7 = U64::new(0x400);
        vmsa.dr6 = U64::new(0xffff_0ff0);
        vmsa.rflags = U64::new(2);
        vmsa.rip = U64::new(u64::from(entry & 0xffff));
        vmsa.g_pat = U64::new(0x0007_0406_0007_0406);
        vmsa.rdx = U64::new(u64::from(signature));
        vmsa.sev_features = U64::new(features.bits());
        vmsa.xcr0 = U64::new(1);
        vmsa.mxcsr = U32::new(0x1f80);
        vmsa.x87_fcw = U16::new(0x37f);
        vmsa
    }

    /// The features it asks for, known or not.
    #[must_use]
    pub const fn features(&self) -> SevFeatures {
        SevFeatures::from_bits_retain(self.sev_features.get())
    }

    /// Its virtual interrupt control.
    #[must_use]
    pub const fn vintr(&self) -> VintrCtrl {
        VintrCtrl::from_bits_retain(self.vintr_ctrl.get())
    }

    /// What `SEV_STATUS` (MSR C001_0131) reads on this processor.
    #[must_use]
    pub const fn sev_status(&self) -> u64 {
        // SEV and SEV-ES are on wherever there is a save area; the features follow.
        0b11 | self.sev_features.get() << 2
    }
}

#[cfg(test)]
mod tests;
