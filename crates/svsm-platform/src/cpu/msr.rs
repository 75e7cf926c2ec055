//! Numbers of model-specific registers.

use core::fmt;

/// The number of a model-specific register.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Msr(u32);

/// Names as in the manuals of AMD and Intel.
impl Msr {
    /// Time-stamp counter.
    pub const TSC: Self = Self(0x10);
    /// Where the local APIC is, and in which mode.
    pub const APIC_BASE: Self = Self(0x1b);
    /// Page attribute table.
    pub const PAT: Self = Self(0x277);
    /// Shadow stacks and branch tracking in ring 3.
    pub const U_CET: Self = Self(0x6a0);
    /// Shadow stacks and branch tracking in rings 0 to 2.
    pub const S_CET: Self = Self(0x6a2);
    /// Shadow-stack pointer of ring 0.
    pub const PL0_SSP: Self = Self(0x6a4);
    /// Shadow-stack pointer of ring 3.
    pub const PL3_SSP: Self = Self(0x6a7);
    /// Shadow stacks of the ISTs.
    pub const INTERRUPT_SSP_TABLE: Self = Self(0x6a8);
    /// When the APIC timer fires.
    pub const TSC_DEADLINE: Self = Self(0x6e0);
    /// First register of the x2APIC.
    pub const X2APIC: Self = Self(0x800);
    /// What XSAVES saves.
    pub const XSS: Self = Self(0xda0);
    /// Long mode, SYSCALL, NX, SVM: see [`Efer`](super::cr::Efer).
    pub const EFER: Self = Self(0xc000_0080);
    /// Selectors for SYSCALL and SYSRET.
    pub const STAR: Self = Self(0xc000_0081);
    /// Target of SYSCALL from 64-bit code.
    pub const LSTAR: Self = Self(0xc000_0082);
    /// Target of SYSCALL from 32-bit code.
    pub const CSTAR: Self = Self(0xc000_0083);
    /// Flags that SYSCALL clears.
    pub const SFMASK: Self = Self(0xc000_0084);
    /// Base of FS.
    pub const FS_BASE: Self = Self(0xc000_0100);
    /// Base of GS.
    pub const GS_BASE: Self = Self(0xc000_0101);
    /// What SWAPGS exchanges with the base of GS.
    pub const KERNEL_GS_BASE: Self = Self(0xc000_0102);
    /// What RDTSCP and RDPID answer beside the time.
    pub const TSC_AUX: Self = Self(0xc000_0103);
    /// Whether SVM may be used.
    pub const VM_CR: Self = Self(0xc001_0114);
    /// Where VMRUN keeps the host's state.
    pub const VM_HSAVE_PA: Self = Self(0xc001_0117);
    /// The GHCB, or a request of the GHCB MSR protocol.
    pub const GHCB: Self = Self(0xc001_0130);
    /// Which SEV features are on; the host cannot change it.
    pub const SEV_STATUS: Self = Self(0xc001_0131);
    /// Nominal rate of a Secure TSC.
    pub const GUEST_TSC_FREQ: Self = Self(0xc001_0134);
    /// Boundary between private and shared addresses.
    pub const VIRTUAL_TOM: Self = Self(0xc001_0135);
    /// Where a guest finds its SVSM's calling area; no processor has this register.
    pub const SVSM_CAA: Self = Self(0xc001_f000);

    /// The register of that number, which need not exist.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The plain number.
    #[must_use]
    pub const fn as_u32(self) -> u32 {
        self.0
    }
}

impl fmt::Debug for Msr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Msr({:#x})", self.0)
    }
}

impl fmt::Display for Msr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}
