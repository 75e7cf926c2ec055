use zerocopy::little_endian::{U16, U32, U64};

use super::{Segment, Vmsa};
use crate::{
    cpu::{
        cr::{Cr0, Cr4, Efer, RFlags, Xcr0},
        descriptor::GdtTable,
    },
    level::Vmpl,
    snp::SevFeatures,
};

// Attributes: present, and ...
const REAL_DATA: u16 = 0x93;
const REAL_CODE: u16 = 0x9b;
/// ... G and D/B.
const FLAT_DATA: u16 = 0xc93;
/// ... G and L.
const FLAT_CODE: u16 = 0xa9b;
const LDT: u16 = 0x82;
const BUSY_TSS: u16 = 0x8b;
/// Write-back, write-through, uncached-minus, uncached; twice.
const PAT_AFTER_RESET: u64 = 0x0007_0406_0007_0406;
const DR6_AFTER_RESET: u64 = 0xffff_0ff0;
const DR7_AFTER_RESET: u64 = 0x400;
const MXCSR_AFTER_RESET: u32 = 0x1f80;
/// All exceptions masked, as FNINIT leaves it.
const FCW_AFTER_INIT: u16 = 0x37f;

/// The start of 64-bit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct LongMode {
    /// RIP: the first instruction.
    pub rip: u64,
    /// RSP.
    pub rsp: u64,
    /// RDI: the first argument of a C function.
    pub rdi: u64,
    /// RSI: its second argument.
    pub rsi: u64,
    /// CR3: the C-bit belongs into it as into every entry.
    pub cr3: u64,
    /// CR0; protection and paging are added.
    pub cr0: Cr0,
    /// CR4; PAE is added.
    pub cr4: Cr4,
    /// EFER; SVME and long mode are added.
    pub efer: Efer,
}

impl Vmsa {
    /// A CPU that starts in real mode at `entry`, as after a reset: where the firmware of a guest expects it.
    ///
    /// Registers are as KVM starts a guest's first CPU and as launch digests therefore hold them. From a reset of the hardware
    /// they differ in CR0 (caches are on), CR4 (MCE is set) and the x87 control word. RDX holds `signature`, EAX of CPUID 1.
    #[must_use]
    pub fn reset_vector(entry: u32, signature: u32, level: Vmpl, features: SevFeatures) -> Self {
        let mut vmsa = Self::at_rest(level, features);
        let data = Segment::new(0, REAL_DATA, 0xffff, 0);
        for segment in vmsa.data_segments() {
            *segment = data;
        }
        vmsa.cs = Segment::new(0xf000, REAL_CODE, 0xffff, (entry & 0xffff_0000).into());
        vmsa.rip = U64::new((entry & 0xffff).into());
        vmsa.efer = U64::new(Efer::SVME.bits());
        vmsa.cr4 = U64::new(Cr4::MCE.bits());
        vmsa.cr0 = U64::new(Cr0::ET.bits());
        vmsa.rdx = U64::new(signature.into());
        vmsa
    }

    /// A CPU of `level` in 64-bit mode, with interrupts off, flat segments that [`GdtTable`] has under the same selectors, and the
    /// reset state of everything else.
    ///
    /// There are no descriptor tables behind the selectors: the code loads its own before anything can happen, or sets
    /// [`gdtr`](Self::gdtr) and [`idtr`](Self::idtr) here. With [`SevFeatures::VTOM`] set [`virtual_tom`](Self::virtual_tom), with
    /// [`SevFeatures::SECURE_TSC`] set [`tsc_scale`](Self::tsc_scale) and [`tsc_offset`](Self::tsc_offset): zero is right for none.
    #[must_use]
    pub fn long_mode(level: Vmpl, features: SevFeatures, start: &LongMode) -> Self {
        let mut vmsa = Self::at_rest(level, features);
        let data = Segment::new(GdtTable::KERNEL_DATA.bits(), FLAT_DATA, u32::MAX, 0);
        for segment in vmsa.data_segments() {
            *segment = data;
        }
        vmsa.cs = Segment::new(GdtTable::KERNEL_CODE.bits(), FLAT_CODE, u32::MAX, 0);
        let long = Efer::SVME.union(Efer::LME).union(Efer::LMA);
        vmsa.efer = U64::new(start.efer.union(long).bits());
        vmsa.cr0 = U64::new(start.cr0.union(Cr0::PE).union(Cr0::PG).bits());
        vmsa.cr3 = U64::new(start.cr3);
        vmsa.cr4 = U64::new(start.cr4.union(Cr4::PAE).bits());
        vmsa.rip = U64::new(start.rip);
        vmsa.rsp = U64::new(start.rsp);
        vmsa.rdi = U64::new(start.rdi);
        vmsa.rsi = U64::new(start.rsi);
        vmsa
    }

    const fn data_segments(&mut self) -> [&mut Segment; 5] {
        [
            &mut self.es,
            &mut self.ss,
            &mut self.ds,
            &mut self.fs,
            &mut self.gs,
        ]
    }

    /// What all CPUs start with.
    fn at_rest(level: Vmpl, features: SevFeatures) -> Self {
        let mut vmsa = Self::zeroed();
        vmsa.vmpl = level.as_u8();
        let table = Segment::new(0, 0, 0xffff, 0);
        (vmsa.gdtr, vmsa.idtr) = (table, table);
        vmsa.ldtr = Segment::new(0, LDT, 0xffff, 0);
        vmsa.tr = Segment::new(0, BUSY_TSS, 0xffff, 0);
        vmsa.sev_features = U64::new(features.bits());
        vmsa.rflags = U64::new(RFlags::FIXED.bits());
        vmsa.dr6 = U64::new(DR6_AFTER_RESET);
        vmsa.dr7 = U64::new(DR7_AFTER_RESET);
        vmsa.g_pat = U64::new(PAT_AFTER_RESET);
        vmsa.xcr0 = U64::new(Xcr0::X87.bits());
        vmsa.mxcsr = U32::new(MXCSR_AFTER_RESET);
        vmsa.x87_fcw = U16::new(FCW_AFTER_INIT);
        vmsa
    }
}
