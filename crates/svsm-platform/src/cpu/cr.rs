//! Control registers, EFER, RFLAGS and XCR0 as flag words.
//!
//! Bits without a name here are kept as they are: a register is read, changed and written back, and what a newer processor
//! has set must survive that.

use crate::addr::Gpa;

bitflags::bitflags! {
    /// CR0 (AMD64 Architecture Programmer's Manual Volume 2, "CR0 Register").
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Cr0: u64 {
        /// Protection enabled.
        const PE = 1 << 0;
        /// Monitor coprocessor.
        const MP = 1 << 1;
        /// No x87: its instructions fault.
        const EM = 1 << 2;
        /// Task switched: the next x87 or SSE instruction faults.
        const TS = 1 << 3;
        /// Always set.
        const ET = 1 << 4;
        /// x87 errors as exceptions.
        const NE = 1 << 5;
        /// Write protection holds in rings 0 to 2 too.
        const WP = 1 << 16;
        /// Alignment checks in ring 3.
        const AM = 1 << 18;
        /// Not write-through.
        const NW = 1 << 29;
        /// Cache disabled.
        const CD = 1 << 30;
        /// Paging.
        const PG = 1 << 31;

        const _ = !0;
    }

    /// CR4 (AMD64 Architecture Programmer's Manual Volume 2, "CR4 Register").
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Cr4: u64 {
        /// Virtual-8086 extensions.
        const VME = 1 << 0;
        /// Protected-mode virtual interrupts.
        const PVI = 1 << 1;
        /// RDTSC in ring 0 only.
        const TSD = 1 << 2;
        /// Debugging extensions.
        const DE = 1 << 3;
        /// Large pages outside long mode.
        const PSE = 1 << 4;
        /// Physical address extension; long mode needs it.
        const PAE = 1 << 5;
        /// Machine checks.
        const MCE = 1 << 6;
        /// Global pages.
        const PGE = 1 << 7;
        /// RDPMC in all rings.
        const PCE = 1 << 8;
        /// FXSAVE and SSE.
        const OSFXSR = 1 << 9;
        /// SSE errors as exceptions.
        const OSXMMEXCPT = 1 << 10;
        /// User-mode instruction prevention.
        const UMIP = 1 << 11;
        /// Five-level paging.
        const LA57 = 1 << 12;
        /// Intel's virtualization.
        const VMXE = 1 << 13;
        /// Intel's safer-mode extensions.
        const SMXE = 1 << 14;
        /// RDFSBASE and its kin, in all rings.
        const FSGSBASE = 1 << 16;
        /// Process-context identifiers.
        const PCIDE = 1 << 17;
        /// XSAVE and XCR0.
        const OSXSAVE = 1 << 18;
        /// Supervisor-mode execution prevention.
        const SMEP = 1 << 20;
        /// Supervisor-mode access prevention.
        const SMAP = 1 << 21;
        /// Protection keys for user pages.
        const PKE = 1 << 22;
        /// Control-flow enforcement: shadow stacks and branch tracking.
        const CET = 1 << 23;
        /// Protection keys for supervisor pages.
        const PKS = 1 << 24;
        /// Flexible return and event delivery.
        const FRED = 1 << 32;

        const _ = !0;
    }

    /// EFER (AMD64 Architecture Programmer's Manual Volume 2, "Extended Feature Enable Register").
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Efer: u64 {
        /// SYSCALL and SYSRET.
        const SCE = 1 << 0;
        /// Long mode, once paging is on.
        const LME = 1 << 8;
        /// Long mode is on; read-only.
        const LMA = 1 << 10;
        /// No-execute pages.
        const NXE = 1 << 11;
        /// AMD's virtualization; set in every SNP guest.
        const SVME = 1 << 12;
        /// Segment limits in long mode.
        const LMSLE = 1 << 13;
        /// Fast FXSAVE.
        const FFXSR = 1 << 14;
        /// Translation cache extension.
        const TCE = 1 << 15;
        /// Automatic IBRS.
        const AUTOIBRS = 1 << 21;

        const _ = !0;
    }

    /// RFLAGS (AMD64 Architecture Programmer's Manual Volume 2, "RFLAGS Register").
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct RFlags: u64 {
        /// Carry.
        const CF = 1 << 0;
        /// Always set.
        const FIXED = 1 << 1;
        /// Parity.
        const PF = 1 << 2;
        /// Auxiliary carry.
        const AF = 1 << 4;
        /// Zero.
        const ZF = 1 << 6;
        /// Sign.
        const SF = 1 << 7;
        /// Trap after each instruction.
        const TF = 1 << 8;
        /// Interrupts are accepted.
        const IF = 1 << 9;
        /// String instructions run downwards.
        const DF = 1 << 10;
        /// Overflow.
        const OF = 1 << 11;
        /// Lower bit of the I/O privilege level.
        const IOPL_LOW = 1 << 12;
        /// Upper bit of the I/O privilege level.
        const IOPL_HIGH = 1 << 13;
        /// Nested task.
        const NT = 1 << 14;
        /// Resume: no instruction breakpoint on the next instruction.
        const RF = 1 << 16;
        /// Virtual-8086 mode.
        const VM = 1 << 17;
        /// Alignment check; under SMAP: user pages may be accessed.
        const AC = 1 << 18;
        /// Virtual interrupt flag.
        const VIF = 1 << 19;
        /// Virtual interrupt pending.
        const VIP = 1 << 20;
        /// CPUID is there.
        const ID = 1 << 21;

        const _ = !0;
    }

    /// XCR0: what XSAVE saves (AMD64 Architecture Programmer's Manual Volume 2, "XFEATURE_ENABLED_MASK Register").
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Xcr0: u64 {
        /// x87; always set.
        const X87 = 1 << 0;
        /// XMM registers.
        const SSE = 1 << 1;
        /// Upper halves of YMM registers.
        const AVX = 1 << 2;
        /// AVX-512 mask registers.
        const OPMASK = 1 << 5;
        /// Upper halves of ZMM registers 0 to 15.
        const ZMM_HIGH256 = 1 << 6;
        /// ZMM registers 16 to 31.
        const HIGH16_ZMM = 1 << 7;
        /// Protection keys.
        const PKRU = 1 << 9;

        const _ = !0;
    }
}

/// CR3: the root of the page tables with the bits that go with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cr3(u64);

impl Cr3 {
    /// The register with that content.
    ///
    /// For a root page, take the address bits from [`Encryption::encode`](crate::encryption::Encryption::encode): with SEV
    /// the C-bit belongs into CR3 as into every entry.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The plain number.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The process-context identifier; meaningful if CR4.PCIDE is set.
    #[must_use]
    pub const fn pcid(self) -> u16 {
        (self.0 & 0xfff) as u16
    }

    /// The root page as `encryption` reads the address.
    #[must_use]
    pub const fn root(self, encryption: crate::encryption::Encryption) -> Gpa {
        encryption.decode(self.0).0
    }
}
