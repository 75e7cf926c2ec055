use core::mem::offset_of;

use super::Vmsa;

/// A 64-bit field of a save area, to reach it in the page from which a virtual CPU runs: there only single accesses are right, as
/// hardware writes the page too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Field(u16);

macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident = $field:ident;)+) => {
        /// Names as in the manual.
        impl Field {
            $($(#[$doc])* pub const $name: Self = Self::at(offset_of!(Vmsa, $field));)+
        }
    };
}

fields! {
    /// EFER; without SVME in it the virtual CPU does not run.
    EFER = efer;
    /// CR4.
    CR4 = cr4;
    /// CR3.
    CR3 = cr3;
    /// CR0.
    CR0 = cr0;
    /// DR7.
    DR7 = dr7;
    /// DR6.
    DR6 = dr6;
    /// RFLAGS.
    RFLAGS = rflags;
    /// RIP.
    RIP = rip;
    /// RSP.
    RSP = rsp;
    /// RAX.
    RAX = rax;
    /// CR2.
    CR2 = cr2;
    /// Page attribute table.
    G_PAT = g_pat;
    /// Scale of a Secure TSC.
    TSC_SCALE = tsc_scale;
    /// Offset of a Secure TSC.
    TSC_OFFSET = tsc_offset;
    /// What blinded registers are blinded with.
    REG_PROT_NONCE = reg_prot_nonce;
    /// RCX.
    RCX = rcx;
    /// RDX.
    RDX = rdx;
    /// RBX.
    RBX = rbx;
    /// RBP.
    RBP = rbp;
    /// RSI.
    RSI = rsi;
    /// RDI.
    RDI = rdi;
    /// R8.
    R8 = r8;
    /// R9.
    R9 = r9;
    /// More about why the level stopped.
    GUEST_EXITINFO1 = guest_exit_info_1;
    /// More about why the level stopped.
    GUEST_EXITINFO2 = guest_exit_info_2;
    /// The event that was being delivered when the level stopped.
    GUEST_EXITINTINFO = guest_exit_int_info;
    /// The instruction after the one at which the level stopped.
    GUEST_NRIP = guest_nrip;
    /// SEV_FEATURES.
    SEV_FEATURES = sev_features;
    /// Virtual interrupts, and whether the area is in use.
    VINTR_CTRL = vintr_ctrl;
    /// Why the level stopped, where its features say that this is noted.
    GUEST_EXITCODE = guest_exit_code;
    /// Where shared memory begins.
    VIRTUAL_TOM = virtual_tom;
    /// Zero makes the next entry flush all translations.
    PCPU_ID = pcpu_id;
    /// The event to deliver at the next entry.
    EVENTINJ = event_inj;
    /// XCR0.
    XCR0 = xcr0;
}

impl Field {
    /// CPL and VMPL: the level in the third byte, the ring in the fourth.
    pub const LEVELS: Self = Self::at(offset_of!(Vmsa, vmpl) & !7);
    /// MXCSR, then x87's tag and status words.
    pub const MXCSR: Self = Self::at(offset_of!(Vmsa, mxcsr));
    /// x87's control word in the low 16 bits.
    pub const X87_FCW: Self = Self::at(offset_of!(Vmsa, x87_fcw));

    #[expect(clippy::cast_possible_truncation, reason = "asserted right here")]
    const fn at(offset: usize) -> Self {
        assert!(offset.is_multiple_of(8) && offset < size_of::<Vmsa>());
        Self(offset as u16)
    }

    /// Its offset in bytes.
    #[must_use]
    pub const fn offset(self) -> u16 {
        self.0
    }

    /// Its number among the 64-bit words of the page.
    #[must_use]
    pub const fn word(self) -> u16 {
        self.0 / 8
    }
}
