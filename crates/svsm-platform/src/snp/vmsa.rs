//! The save area (VMSA) of a virtual CPU: its registers while it does not run (AMD64 Architecture Programmer's Manual Volume 2,
//! "VMSA Layout, State Save Area for SEV-ES and SEV-SNP Guests").
//!
//! An SVSM makes save areas of two kinds: those from which its own CPUs start ([`Vmsa::long_mode`]) and those of its guest's
//! ([`Vmsa::reset_vector`]). A guest makes more, which are its word until [`Vmsa::check_for_guest`].
//!
//! The processor writes a save area whenever its CPU stops, and a guest that shares rights over the page at any time. Make it a
//! save area first (RMPADJUST), and read it while the CPU is at rest.

mod field;
mod start;
mod words;

pub use field::Field;
pub use start::LongMode;
pub use words::{CallRegisters, Event, ExitCode, GuestExit, TweakBitmap, VintrCtrl};

use core::{fmt, mem::offset_of};

use zerocopy::{
    FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U16, U32, U64},
};

use super::SevFeatures;
use crate::{
    addr::{Gpa, PageSize},
    cpu::cr::Efer,
    error::Blame,
    level::Vmpl,
};

/// Whether a save area may be at `page`.
///
/// Processors with a known erratum treat a 2 MiB page that begins with a save area wrongly, so hosts refuse one there.
#[must_use]
pub const fn may_be_save_area(page: Gpa) -> bool {
    page.is_aligned(PageSize::Size4K) && !page.is_aligned(PageSize::Size2M)
}

/// A segment register with its hidden part.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Segment {
    /// The visible part.
    pub selector: U16,
    /// Type in bits 3:0, S in 4, DPL in 6:5, P in 7, AVL in 8, L in 9, D/B in 10, G in 11.
    pub attributes: U16,
    /// The last offset in bytes.
    pub limit: U32,
    /// The first address.
    pub base: U64,
}
const _: () = assert!(size_of::<Segment>() == 16);

impl Segment {
    /// A segment of these parts.
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

/// A save area.
///
/// This is an image of one, in memory of one's own. The page from which a virtual CPU runs is reached by [`Field`]s.
#[derive(Clone, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C, align(8))]
#[expect(
    missing_docs,
    reason = "the fields are registers under their names in the manual"
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
    pub pl0_ssp: U64,
    pub pl1_ssp: U64,
    pub pl2_ssp: U64,
    pub pl3_ssp: U64,
    pub u_cet: U64,
    reserved_0c8: [u8; 2],
    /// The privilege level at which the CPU runs.
    pub vmpl: u8,
    pub cpl: u8,
    reserved_0cc: [u8; 4],
    pub efer: U64,
    reserved_0d8: [u8; 104],
    pub xss: U64,
    pub cr4: U64,
    pub cr3: U64,
    pub cr0: U64,
    pub dr7: U64,
    pub dr6: U64,
    pub rflags: U64,
    pub rip: U64,
    pub dr0: U64,
    pub dr1: U64,
    pub dr2: U64,
    pub dr3: U64,
    pub dr0_mask: U64,
    pub dr1_mask: U64,
    pub dr2_mask: U64,
    pub dr3_mask: U64,
    reserved_1c0: [u8; 24],
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
    reserved_248: [u8; 32],
    pub g_pat: U64,
    pub dbgctl: U64,
    pub br_from: U64,
    pub br_to: U64,
    pub last_excp_from: U64,
    pub last_excp_to: U64,
    reserved_298: [u8; 72],
    pub spec_ctrl: U64,
    pub pkru: U32,
    pub tsc_aux: U32,
    pub tsc_scale: U64,
    pub tsc_offset: U64,
    /// What blinded registers are blinded with; see [`Vmsa::tweak`].
    pub reg_prot_nonce: U64,
    pub rcx: U64,
    pub rdx: U64,
    pub rbx: U64,
    pub secure_avic_ctl: U64,
    pub rbp: U64,
    pub rsi: U64,
    pub rdi: U64,
    pub r8: U64,
    pub r9: U64,
    pub r10: U64,
    pub r11: U64,
    pub r12: U64,
    pub r13: U64,
    pub r14: U64,
    pub r15: U64,
    reserved_380: [u8; 16],
    pub guest_exit_info_1: U64,
    pub guest_exit_info_2: U64,
    pub guest_exit_int_info: U64,
    pub guest_nrip: U64,
    /// [`SevFeatures`], which [`Self::features`] reads.
    pub sev_features: U64,
    /// [`VintrCtrl`], which [`Self::vintr`] reads.
    pub vintr_ctrl: U64,
    /// [`ExitCode`], which [`Self::exit`] reads.
    pub guest_exit_code: U64,
    pub virtual_tom: U64,
    pub tlb_id: U64,
    /// The processor on which the CPU ran last; zero has its translations flushed at the next entry.
    pub pcpu_id: U64,
    /// [`Event`].
    pub event_inj: U64,
    pub xcr0: U64,
    /// Which parts of the extended state are valid.
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
    /// XMM0 to XMM15.
    pub fpreg_xmm: [u8; 256],
    /// The upper halves of YMM0 to YMM15.
    pub fpreg_ymm: [u8; 256],
    pub lbr_stack_from_to: [u8; 256],
    pub lbr_select: U64,
    /// State of instruction-based sampling.
    pub ibs: [u8; 80],
    /// More vector state, on processors that have it.
    reserved_7c8: [u8; 2104],
}
const _: () = {
    assert!(size_of::<Vmsa>() == 4096);
    assert!(offset_of!(Vmsa, pl0_ssp) == 0x0a0);
    assert!(offset_of!(Vmsa, u_cet) == 0x0c0);
    assert!(offset_of!(Vmsa, vmpl) == 0x0ca);
    assert!(offset_of!(Vmsa, efer) == 0x0d0);
    assert!(offset_of!(Vmsa, xss) == 0x140);
    assert!(offset_of!(Vmsa, cr0) == 0x158);
    assert!(offset_of!(Vmsa, rip) == 0x178);
    assert!(offset_of!(Vmsa, dr0_mask) == 0x1a0);
    assert!(offset_of!(Vmsa, rsp) == 0x1d8);
    assert!(offset_of!(Vmsa, rax) == 0x1f8);
    assert!(offset_of!(Vmsa, cr2) == 0x240);
    assert!(offset_of!(Vmsa, g_pat) == 0x268);
    assert!(offset_of!(Vmsa, spec_ctrl) == 0x2e0);
    assert!(offset_of!(Vmsa, tsc_scale) == 0x2f0);
    assert!(offset_of!(Vmsa, reg_prot_nonce) == 0x300);
    assert!(offset_of!(Vmsa, secure_avic_ctl) == 0x320);
    assert!(offset_of!(Vmsa, r8) == 0x340);
    assert!(offset_of!(Vmsa, guest_exit_info_1) == 0x390);
    assert!(offset_of!(Vmsa, sev_features) == 0x3b0);
    assert!(offset_of!(Vmsa, guest_exit_code) == 0x3c0);
    assert!(offset_of!(Vmsa, virtual_tom) == 0x3c8);
    assert!(offset_of!(Vmsa, event_inj) == 0x3e0);
    assert!(offset_of!(Vmsa, x87_dp) == 0x400);
    assert!(offset_of!(Vmsa, x87_fcw) == 0x410);
    assert!(offset_of!(Vmsa, fpreg_x87) == 0x420);
    assert!(offset_of!(Vmsa, fpreg_xmm) == 0x470);
    assert!(offset_of!(Vmsa, lbr_stack_from_to) == 0x670);
    assert!(offset_of!(Vmsa, ibs) == 0x778);
};

impl Vmsa {
    /// The features of the CPU, known or not.
    #[must_use]
    pub const fn features(&self) -> SevFeatures {
        SevFeatures::from_bits_retain(self.sev_features.get())
    }

    /// Virtual interrupts, and whether the CPU runs right now.
    #[must_use]
    pub const fn vintr(&self) -> VintrCtrl {
        VintrCtrl::from_bits_retain(self.vintr_ctrl.get())
    }

    /// Whether VMRUN takes the save area: EFER.SVME is set.
    #[must_use]
    pub const fn is_runnable(&self) -> bool {
        self.efer.get() & Efer::SVME.bits() != 0
    }

    /// Whether a guest may have this save area for one of its CPUs; answers with the level at which that will run.
    ///
    /// `caller` is the level of the guest that asks, `features` are those with which it runs. The page must be out of the guest's
    /// reach already, or what was checked is not what will run (58019, "SVSM_CORE_CREATE_VCPU Call").
    ///
    /// # Errors
    /// Why not.
    pub fn check_for_guest(&self, caller: Vmpl, features: SevFeatures) -> Result<Vmpl, Refused> {
        let level = Vmpl::new(self.vmpl).ok_or(Refused::Level(self.vmpl))?;
        // Level 0 is the SVSM's own, and nobody starts code at a level above himself.
        if level == Vmpl::Vmpl0 || level.is_above(caller) {
            return Err(Refused::Level(self.vmpl));
        }
        if !self.is_runnable() {
            return Err(Refused::NotRunnable);
        }
        // Other features would change what protects the guest, and how the SVSM must treat it.
        if self.features() != features {
            return Err(Refused::Features(self.features()));
        }
        if self.vintr().contains(VintrCtrl::BUSY) {
            return Err(Refused::Busy);
        }
        Ok(level)
    }

    /// Why the CPU stopped, and where.
    #[must_use]
    pub const fn exit(&self) -> GuestExit {
        GuestExit {
            code: ExitCode(self.guest_exit_code.get()),
            info1: self.guest_exit_info_1.get(),
            info2: self.guest_exit_info_2.get(),
            int_info: Event::from_bits(self.guest_exit_int_info.get()),
            next_rip: self.guest_nrip.get(),
        }
    }

    /// The registers of a guest that calls. Under register protection they must be [in the clear](Self::tweak).
    #[must_use]
    pub const fn call_registers(&self) -> CallRegisters {
        CallRegisters {
            rax: self.rax.get(),
            rcx: self.rcx.get(),
            rdx: self.rdx.get(),
            r8: self.r8.get(),
            r9: self.r9.get(),
        }
    }

    /// Puts the results of a call into the registers of the guest that made it.
    pub const fn set_call_registers(&mut self, registers: CallRegisters) {
        self.rax = U64::new(registers.rax);
        self.rcx = U64::new(registers.rcx);
        self.rdx = U64::new(registers.rdx);
        self.r8 = U64::new(registers.r8);
        self.r9 = U64::new(registers.r9);
    }

    /// Blinds or reveals the registers that `bitmap` names, by XOR with the nonce in the page; does nothing unless the CPU runs
    /// with register protection. Doing it twice is doing nothing.
    pub fn tweak(&mut self, bitmap: &TweakBitmap) {
        if !self.features().contains(SevFeatures::VMSA_REG_PROT) {
            return;
        }
        let nonce = self.reg_prot_nonce.get();
        for (index, quadword) in self.as_mut_bytes().chunks_exact_mut(8).enumerate() {
            let mask = bitmap.mask_of(index, nonce).to_le_bytes();
            for (byte, mask) in quadword.iter_mut().zip(mask) {
                *byte ^= mask;
            }
        }
    }

    /// A field's value, as it is stored.
    #[must_use]
    pub fn get(&self, field: Field) -> u64 {
        self.words()
            .get(usize::from(field.word()))
            .map_or(0, |word| u64::from_le(*word))
    }

    /// The page, word by word.
    #[must_use]
    pub const fn words(&self) -> &[u64; 512] {
        zerocopy::transmute_ref!(self)
    }

    /// The page, byte by byte.
    #[must_use]
    pub const fn as_page(&self) -> &[u8; 4096] {
        zerocopy::transmute_ref!(self)
    }

    fn zeroed() -> Self {
        Self::new_zeroed()
    }
}

impl fmt::Debug for Vmsa {
    /// What a guest has in its registers is nobody's business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vmsa")
            .field("vmpl", &self.vmpl)
            .field("features", &self.features())
            .field("vintr", &self.vintr())
            .finish_non_exhaustive()
    }
}

/// Why a guest cannot have a save area.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Refused {
    /// Its level does not exist, is the SVSM's, or is above the caller's.
    Level(u8),
    /// EFER.SVME is clear.
    NotRunnable,
    /// Its features are not those with which the guest runs.
    Features(SevFeatures),
    /// It is marked as running.
    Busy,
}

impl Refused {
    /// Whose fault it is.
    #[must_use]
    pub const fn blame(&self) -> Blame {
        Blame::Guest
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Level(level) => write!(f, "a save area of level {level} is not the guest's"),
            Self::NotRunnable => f.write_str("EFER.SVME is clear"),
            Self::Features(features) => write!(
                f,
                "SEV_FEATURES {:#x} are not those of the guest",
                features.bits()
            ),
            Self::Busy => f.write_str("the save area is in use"),
        }
    }
}

impl core::error::Error for Refused {}

#[cfg(test)]
mod tests;
