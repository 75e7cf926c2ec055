//! What the processor can do, told by CPUID.
//!
//! Where CPUID comes from is a seam ([`Cpuid`]): the instruction, a page that firmware has checked, or a table in a test.
//! The logic here knows the traps, such as a processor that answers an unknown leaf with the data of another.

use crate::seam::Hertz;

/// What CPUID answers for one leaf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Registers {
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
}

/// Answers CPUID leaves.
pub trait Cpuid {
    /// The answer for a leaf, as it is: also for leaves above the maximum, for which processors answer anything.
    fn raw(&self, leaf: u32, subleaf: u32) -> Registers;

    /// The answer for a leaf; zeros if there is no such leaf.
    fn leaf(&self, leaf: u32, subleaf: u32) -> Registers {
        let class = leaf & 0xffff_0000;
        let last = self.raw(class, 0).eax;
        if last & 0xffff_0000 == class && leaf <= last {
            self.raw(leaf, subleaf)
        } else {
            Registers::default()
        }
    }
}

impl<C: Cpuid + ?Sized> Cpuid for &C {
    fn raw(&self, leaf: u32, subleaf: u32) -> Registers {
        C::raw(self, leaf, subleaf)
    }
}

/// The processor's own CPUID instruction.
///
/// In a confidential guest the host can answer it; take the page that was checked instead.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, Default)]
pub struct Processor;

#[cfg(target_arch = "x86_64")]
impl Cpuid for Processor {
    fn raw(&self, leaf: u32, subleaf: u32) -> Registers {
        super::insn::cpuid(leaf, subleaf)
    }
}

/// A table of `(leaf, subleaf, answer)`; what it does not list is zero.
#[derive(Clone, Copy, Debug)]
pub struct CpuidTable<'a>(pub &'a [(u32, u32, Registers)]);

impl Cpuid for CpuidTable<'_> {
    fn raw(&self, leaf: u32, subleaf: u32) -> Registers {
        let found = self.0.iter().find(|(l, s, _)| (*l, *s) == (leaf, subleaf));
        found.map_or_else(Registers::default, |(_, _, answer)| *answer)
    }
}

bitflags::bitflags! {
    /// What the processor can do, as far as an SVSM asks. The bit positions are ours.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Features: u32 {
        /// Global pages.
        const PGE = 1 << 0;
        /// Process-context identifiers.
        const PCID = 1 << 1;
        /// INVPCID.
        const INVPCID = 1 << 2;
        /// No-execute pages.
        const NX = 1 << 3;
        /// Pages of 1 GiB.
        const PAGE_1G = 1 << 4;
        /// Five-level paging.
        const LA57 = 1 << 5;
        /// Supervisor-mode execution prevention.
        const SMEP = 1 << 6;
        /// Supervisor-mode access prevention.
        const SMAP = 1 << 7;
        /// User-mode instruction prevention: no SGDT, SIDT, SLDT, SMSW and STR in ring 3.
        const UMIP = 1 << 8;
        /// Protection keys for user pages.
        const PKU = 1 << 9;
        /// Shadow stacks.
        const SHSTK = 1 << 10;
        /// Indirect branch tracking.
        const IBT = 1 << 11;
        /// RDFSBASE and its kin.
        const FSGSBASE = 1 << 12;
        /// SYSCALL and SYSRET.
        const SYSCALL = 1 << 13;
        /// XSAVE and XCR0.
        const XSAVE = 1 << 14;
        /// The local APIC's MSR mode.
        const X2APIC = 1 << 15;
        /// APIC timer with a deadline.
        const TSC_DEADLINE = 1 << 16;
        /// A TSC that runs at one rate in all power states.
        const INVARIANT_TSC = 1 << 17;
        /// RDTSCP and TSC_AUX.
        const RDTSCP = 1 << 18;
        /// RDRAND.
        const RDRAND = 1 << 19;
        /// RDSEED.
        const RDSEED = 1 << 20;
        /// AMD's virtualization instructions.
        const SVM = 1 << 21;
        /// A hypervisor says that it is there.
        const HYPERVISOR = 1 << 22;
    }
}

enum Reg {
    Ebx,
    Ecx,
    Edx,
}

/// Where each feature stands (AMD64 Architecture Programmer's Manual Volume 3, appendix E; Intel SDM Volume 2, "CPUID").
const FEATURE_BITS: [(u32, Reg, u32, Features); 23] = [
    (1, Reg::Edx, 13, Features::PGE),
    (1, Reg::Ecx, 17, Features::PCID),
    (1, Reg::Ecx, 21, Features::X2APIC),
    (1, Reg::Ecx, 24, Features::TSC_DEADLINE),
    (1, Reg::Ecx, 26, Features::XSAVE),
    (1, Reg::Ecx, 30, Features::RDRAND),
    (1, Reg::Ecx, 31, Features::HYPERVISOR),
    (7, Reg::Ebx, 0, Features::FSGSBASE),
    (7, Reg::Ebx, 7, Features::SMEP),
    (7, Reg::Ebx, 10, Features::INVPCID),
    (7, Reg::Ebx, 18, Features::RDSEED),
    (7, Reg::Ebx, 20, Features::SMAP),
    (7, Reg::Ecx, 2, Features::UMIP),
    (7, Reg::Ecx, 3, Features::PKU),
    (7, Reg::Ecx, 7, Features::SHSTK),
    (7, Reg::Ecx, 16, Features::LA57),
    (7, Reg::Edx, 20, Features::IBT),
    (0x8000_0001, Reg::Ecx, 2, Features::SVM),
    (0x8000_0001, Reg::Edx, 11, Features::SYSCALL),
    (0x8000_0001, Reg::Edx, 20, Features::NX),
    (0x8000_0001, Reg::Edx, 26, Features::PAGE_1G),
    (0x8000_0001, Reg::Edx, 27, Features::RDTSCP),
    (0x8000_0007, Reg::Edx, 8, Features::INVARIANT_TSC),
];

impl Features {
    /// Collects the features that `cpuid` tells.
    #[must_use]
    pub fn of(cpuid: &impl Cpuid) -> Self {
        let mut found = Self::empty();
        let mut last = (0, Registers::default());
        for (leaf, register, bit, feature) in FEATURE_BITS {
            // The table is sorted by leaf: each is asked for once, which matters where asking is an exit.
            if last.0 != leaf {
                last = (leaf, cpuid.leaf(leaf, 0));
            }
            let word = match register {
                Reg::Ebx => last.1.ebx,
                Reg::Ecx => last.1.ecx,
                Reg::Edx => last.1.edx,
            };
            found.set(feature, word >> bit & 1 == 1);
        }
        found
    }
}

/// Bits of a physical address, encryption bit included; 36 if the processor does not say, at most 52.
#[must_use]
pub fn physical_bits(cpuid: &impl Cpuid) -> u8 {
    match cpuid.leaf(0x8000_0008, 0).eax.to_le_bytes() {
        [0, ..] => 36,
        [bits, ..] => bits.min(52),
    }
}

/// The x2APIC identifier of the processor that answers.
#[must_use]
pub fn apic_id(cpuid: &impl Cpuid) -> u32 {
    let topology = cpuid.leaf(0xb, 0);
    // A leaf without logical processors at its first level is not implemented.
    if topology.ebx & 0xffff != 0 {
        topology.edx
    } else {
        cpuid.leaf(1, 0).ebx >> 24
    }
}

/// The rate of the TSC, if CPUID tells it: by the crystal's ratio (leaf 0x15) or by the hypervisor's customary leaf 0x4000_0010.
#[must_use]
pub fn tsc_rate(cpuid: &impl Cpuid) -> Option<Hertz> {
    let Registers {
        eax: denominator,
        ebx: numerator,
        ecx: crystal,
        ..
    } = cpuid.leaf(0x15, 0);
    if denominator != 0 && numerator != 0 && crystal != 0 {
        // Two 32-bit factors fit in 64 bits.
        return Hertz::new(u64::from(crystal) * u64::from(numerator) / u64::from(denominator));
    }
    Hertz::new(u64::from(cpuid.leaf(0x4000_0010, 0).eax) * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registers(eax: u32, ebx: u32, ecx: u32, edx: u32) -> Registers {
        Registers { eax, ebx, ecx, edx }
    }

    #[test]
    fn leaves_above_the_maximum_are_zero() {
        // Intel processors answer an unknown basic leaf with the data of the last one.
        struct Echo;
        impl Cpuid for Echo {
            fn raw(&self, leaf: u32, _: u32) -> Registers {
                if leaf == 0 {
                    registers(1, 0, 0, 0)
                } else {
                    registers(!0, !0, !0, !0)
                }
            }
        }
        assert_eq!(Echo.leaf(1, 0).ebx, !0);
        assert_eq!(Echo.leaf(7, 0), Registers::default());
        assert!(!Features::of(&Echo).contains(Features::SMAP));
        // A class whose first leaf names another class as its maximum is not there at all.
        assert_eq!(Echo.leaf(0x8000_0001, 0), Registers::default());
    }

    #[test]
    fn feature_table_names_every_feature_once_in_leaf_order() {
        let mut seen = Features::empty();
        for (_, _, _, feature) in FEATURE_BITS {
            assert!(!seen.intersects(feature));
            seen |= feature;
        }
        assert_eq!(seen, Features::all());
        assert!(FEATURE_BITS.iter().map(|(leaf, ..)| leaf).is_sorted());
    }

    #[test]
    fn features_come_from_their_bits() {
        let table = [
            (0, 0, registers(7, 0, 0, 0)),
            (7, 0, registers(0, 1 << 7 | 1 << 20, 1 << 2, 0)),
            (0x8000_0000, 0, registers(0x8000_0008, 0, 0, 0)),
            (0x8000_0001, 0, registers(0, 0, 0, 1 << 20 | 1 << 26)),
            (0x8000_0008, 0, registers(0x3034, 0, 0, 0)),
        ];
        let cpuid = CpuidTable(&table);
        let expected =
            Features::SMEP | Features::SMAP | Features::UMIP | Features::NX | Features::PAGE_1G;
        assert_eq!(Features::of(&cpuid), expected);
        assert_eq!(physical_bits(&cpuid), 52);
    }

    #[test]
    fn empty_processor_has_the_architectural_minimum() {
        let cpuid = CpuidTable(&[]);
        assert_eq!(Features::of(&cpuid), Features::empty());
        assert_eq!(physical_bits(&cpuid), 36);
        assert_eq!(tsc_rate(&cpuid), None);
    }

    #[test]
    fn apic_id_is_wide_where_it_can_be() {
        let wide = [
            (0, 0, registers(0xb, 0, 0, 0)),
            (0xb, 0, registers(0, 1, 0, 0x1234)),
        ];
        assert_eq!(apic_id(&CpuidTable(&wide)), 0x1234);
        let narrow = [
            (0, 0, registers(1, 0, 0, 0)),
            (1, 0, registers(0, 0x0300_0000, 0, 0)),
        ];
        assert_eq!(apic_id(&CpuidTable(&narrow)), 3);
    }

    #[test]
    fn tsc_rate_prefers_the_crystal() {
        let table = [
            (0, 0, registers(0x15, 0, 0, 0)),
            (0x15, 0, registers(2, 200, 24_000_000, 0)),
            (0x4000_0000, 0, registers(0x4000_0010, 0, 0, 0)),
            (0x4000_0010, 0, registers(1_000_000, 0, 0, 0)),
        ];
        assert_eq!(
            tsc_rate(&CpuidTable(&table)).map(Hertz::as_u64),
            Some(2_400_000_000)
        );
        assert_eq!(
            tsc_rate(&CpuidTable(&table[2..])).map(Hertz::as_u64),
            Some(1_000_000_000)
        );
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn this_machine_has_what_every_64_bit_processor_has() {
        assert!(Features::of(&Processor).contains(Features::SYSCALL | Features::NX));
        assert!((36..=52).contains(&physical_bits(&Processor)));
    }
}
