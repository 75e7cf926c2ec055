//! Which claims of a host the security processor lets pass: none that promises a guest what the processor does not do.

use super::{CpuidEntry, CpuidPage};
use core::fmt;

/// What CPUID returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "registers")]
pub struct Registers {
    pub eax: u32,
    pub ebx: u32,
    pub ecx: u32,
    pub edx: u32,
}

/// The processor on which the guest will run: what CPUID really says there.
pub trait Host {
    /// The answer to a leaf and a subleaf; zeros where there is none.
    fn cpuid(&self, leaf: u32, subleaf: u32) -> Registers;
}

impl<F: Fn(u32, u32) -> Registers> Host for F {
    fn cpuid(&self, leaf: u32, subleaf: u32) -> Registers {
        self(leaf, subleaf)
    }
}

/// Why a page is refused. The firmware's status is `INVALID_PARAM` for all of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rejected {
    /// Reserved fields of the page are not zero, or there are too many entries; the page is as it was.
    Malformed,
    /// Entries claim too much. They are corrected; the host may try again with what is there now.
    Corrected {
        /// How many.
        entries: usize,
    },
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("the page is malformed"),
            Self::Corrected { entries } => {
                write!(
                    f,
                    "{entries} entries claim what the processor does not have"
                )
            }
        }
    }
}

impl core::error::Error for Rejected {}

impl CpuidPage {
    /// Checks each entry against the processor and replaces what it refuses.
    ///
    /// # Errors
    /// [`Rejected::Malformed`] or, after correction, [`Rejected::Corrected`].
    pub fn sanitize(&mut self, host: &impl Host) -> Result<(), Rejected> {
        let reserved = self.reserved_004.get() != 0 || self.reserved_008.get() != 0;
        let count = usize::try_from(self.count.get()).map_err(|_| Rejected::Malformed)?;
        let claimed = match self.entries.get_mut(..count) {
            Some(claimed) if !reserved => claimed,
            _ => return Err(Rejected::Malformed),
        };
        let wrong = claimed
            .iter_mut()
            .map(|entry| sanitize(entry, host))
            .filter(|fine| !fine)
            .count();
        match wrong {
            0 => Ok(()),
            entries => Err(Rejected::Corrected { entries }),
        }
    }
}

/// Checks and corrects one entry; whether it was fine.
fn sanitize(entry: &mut CpuidEntry, host: &impl Host) -> bool {
    // Leaves of hypervisors are nobody's business but theirs: guests must not trust them.
    if !matches!(entry.eax_in.get(), 0..=0xffff | 0x8000_0000..=0x8000_ffff) {
        return true;
    }
    let claimed = entry.out();
    let corrected = corrected(entry, host);
    entry.set_out(corrected);
    claimed == corrected && entry.reserved.get() == 0
}

/// How one register is judged.
#[derive(Clone, Copy)]
enum Rule {
    /// Anything goes: sizes of caches, names, places in the topology.
    Any,
    /// Only bits that the processor has.
    Bits,
    /// No more than the processor has.
    AtMost,
    /// What the processor has.
    Exact,
    /// Bits that the processor has, except for those of the mask, which may be anything.
    BitsBut(u32),
}

impl Rule {
    const fn apply(self, claimed: u32, real: u32) -> u32 {
        match self {
            Self::Any => claimed,
            Self::Bits => claimed & real,
            Self::AtMost if claimed > real => real,
            Self::AtMost => claimed,
            Self::Exact => real,
            Self::BitsBut(free) => claimed & (real | free),
        }
    }
}

/// CPUID 1 ECX: OSXSAVE follows CR4, and bit 31 says that there is a hypervisor.
const LEAF_1_FREE: u32 = 1 << 27 | 1 << 31;
/// CPUID 7 ECX: OSPKE follows CR4.
const LEAF_7_FREE: u32 = 1 << 4;

fn corrected(entry: &CpuidEntry, host: &impl Host) -> Registers {
    use Rule::{Any, AtMost, Bits, BitsBut, Exact};
    let (leaf, subleaf) = (entry.eax_in.get(), entry.ecx_in.get());
    let (claimed, real) = (entry.out(), host.cpuid(leaf, subleaf));
    let rules = match (leaf, subleaf) {
        (0 | 0x8000_0000, 0) => [AtMost, Any, Any, Any],
        (1, 0) => return leaf_1(claimed, real),
        (2 | 4 | 5 | 0xb | 0x8000_0002..=0x8000_0006 | 0x8000_001d | 0x8000_001e, _)
        | (0x8000_0026, 0..=3) => return claimed,
        (6, 0) => [Bits, Exact, Bits, Exact],
        (7, 0) => [AtMost, Bits, BitsBut(LEAF_7_FREE), Bits],
        (7, 1) => [Bits, Bits, Bits, Bits],
        (0xd, 0 | 1) => return leaf_d(entry, real, host),
        (0xd, _) => [Exact, Exact, Exact, Exact],
        (0x8000_0001, 0) => [AtMost, Any, Bits, Bits],
        (0x8000_0007, 0) => [Exact, Bits, Any, Bits],
        (0x8000_0008, 0) => return leaf_8000_0008(claimed, real),
        (0x8000_000a, 0) => [Any, Any, Exact, Bits],
        (0x8000_0019, 0) => [Any, Any, Exact, Exact],
        (0x8000_001a | 0x8000_001b, 0) => [Bits, Exact, Exact, Exact],
        (0x8000_001f, 0) => return leaf_8000_001f(claimed, real),
        (0x8000_0021 | 0x8000_0023, 0) => [Bits, Any, Exact, Exact],
        (0x8000_0022, 0) => [Bits, Any, Any, Exact],
        (0x8000_0024, 0) => [AtMost, Bits, Bits, Exact],
        (0x8000_0024, 1) => [Bits, Exact, Exact, Exact],
        // What no rule names must be zero.
        _ => return Registers::default(),
    };
    let [eax, ebx, ecx, edx] = rules;
    Registers {
        eax: eax.apply(claimed.eax, real.eax),
        ebx: ebx.apply(claimed.ebx, real.ebx),
        ecx: ecx.apply(claimed.ecx, real.ecx),
        edx: edx.apply(claimed.edx, real.edx),
    }
}

fn leaf_1(claimed: Registers, real: Registers) -> Registers {
    // The size of a cache line; the rest of EBX differs from processor to processor.
    const CLFLUSH: u32 = 0xff << 8;
    let newer = family_model_stepping(claimed.eax) > family_model_stepping(real.eax);
    Registers {
        eax: if newer { real.eax } else { claimed.eax },
        ebx: claimed.ebx & !CLFLUSH | real.ebx & CLFLUSH,
        ecx: Rule::BitsBut(LEAF_1_FREE).apply(claimed.ecx, real.ecx),
        edx: claimed.edx & real.edx,
    }
}

/// The family, model and stepping of a signature, in the order in which they compare.
const fn family_model_stepping(eax: u32) -> u32 {
    let family = (eax >> 8 & 0xf) + (eax >> 20 & 0xff);
    let model = eax >> 4 & 0xf | eax >> 12 & 0xf0;
    family << 16 | model << 8 | eax & 0xf
}

/// Leaf Dh, subleaves 0 and 1: EBX is the size of the area for the components that the entry names.
fn leaf_d(entry: &CpuidEntry, real: Registers, host: &impl Host) -> Registers {
    /// The x87 and SSE state, which is always there.
    const LEGACY: u32 = 0b11;
    const COMPACTED: u32 = 0x240;
    let claimed = entry.out();
    let first = entry.ecx_in.get() == 0;
    let components = entry.xcr0_in.get() | if first { 0 } else { entry.xss_in.get() };
    let mut size = COMPACTED;
    for component in (2..63_u32).filter(|bit| components >> bit & 1 == 1) {
        let part = host.cpuid(0xd, component);
        size = if first {
            size.max(part.eax.saturating_add(part.ebx))
        } else {
            size.saturating_add(part.eax)
        };
    }
    Registers {
        eax: if first {
            claimed.eax & real.eax | LEGACY
        } else {
            claimed.eax & real.eax
        },
        ebx: size,
        ecx: if first {
            claimed.ecx
        } else {
            claimed.ecx & real.ecx
        },
        edx: if first {
            real.edx
        } else {
            claimed.edx & real.edx
        },
    }
}

/// The field of `width` bits at `shift`, as claimed but no larger than it really is.
const fn at_most(claimed: u32, real: u32, shift: u32, width: u32) -> u32 {
    let mask = ((1 << width) - 1) << shift;
    Rule::AtMost.apply(claimed & mask, real & mask)
}

fn leaf_8000_0008(claimed: Registers, real: Registers) -> Registers {
    Registers {
        // Widths of physical, linear and guest physical addresses.
        eax: at_most(claimed.eax, real.eax, 0, 8)
            | at_most(claimed.eax, real.eax, 8, 8)
            | at_most(claimed.eax, real.eax, 16, 8),
        ebx: claimed.ebx & real.ebx,
        ecx: claimed.ecx,
        // The largest counts that INVLPGB and RDPRU take.
        edx: at_most(claimed.edx, real.edx, 0, 16) | at_most(claimed.edx, real.edx, 16, 16),
    }
}

fn leaf_8000_001f(claimed: Registers, real: Registers) -> Registers {
    /// Where the C-bit is, which a guest must not be wrong about.
    const C_BIT: u32 = 0x3f;
    /// Bits of physical addresses that encryption takes, which the host may choose.
    const REDUCTION: u32 = 0x3f << 6;
    Registers {
        eax: claimed.eax & real.eax,
        ebx: real.ebx & C_BIT | claimed.ebx & REDUCTION | at_most(claimed.ebx, real.ebx, 12, 4),
        ecx: claimed.ecx,
        edx: claimed.edx,
    }
}
