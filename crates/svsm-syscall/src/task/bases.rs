//! FS and GS base of a program, which the kernel leaves alone until it switches to another.
//!
//! A program changes them by WRFSBASE and WRGSBASE where `CR4.FSGSBASE` allows it, and by loading a
//! segment register anywhere. What one left must not reach the next.

#![expect(unsafe_code, reason = "writes model-specific registers")]

use svsm_platform::cpu::{insn, msr::Msr};

/// FS and GS base of one program that does not run; both 0 for one that never ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct UserBases {
    fs: u64,
    gs: u64,
}

impl UserBases {
    /// Those of the program that ran last on this CPU: in ring 0, while GS base is the kernel's and
    /// the program's is the one that SWAPGS keeps.
    #[must_use]
    pub fn save() -> Self {
        Self {
            fs: insn::rdmsr(Msr::FS_BASE),
            gs: insn::rdmsr(Msr::KERNEL_GS_BASE),
        }
    }

    /// Makes them those of the program that runs next on this CPU.
    ///
    /// # Safety
    /// GS base is the kernel's, and the kernel does not use FS base.
    pub unsafe fn restore(&self) {
        // SAFETY: a processor had the value in this register, so it is canonical; only programs use
        // it.
        unsafe { insn::wrmsr(Msr::FS_BASE, self.fs) };
        // SAFETY: as above; the kernel's own GS base is in the other register.
        unsafe { insn::wrmsr(Msr::KERNEL_GS_BASE, self.gs) };
    }
}
