//! The CPUID page: answers that the host proposed and the security processor checked (56860, "CPUID Page").
//!
//! It stands for the CPUID instruction, which the host answers: [`CpuidPage`] is a [`Cpuid`], so that
//! [`Features::of`](crate::cpu::cpuid::Features::of) and its kin read it. The page has one answer for all CPUs. What differs from
//! CPU to CPU is zero in it (APIC ids) or as after a reset (what follows from CR4 and XCR0), until a CPU's own values are filled
//! in with [`CpuidPage::of_cpu`].

use core::fmt;

use zerocopy::{
    FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U32, U64},
};

use crate::{
    cpu::{
        cpuid::{Cpuid, Registers},
        cr::{Cr4, Xcr0},
    },
    encryption::BitPosition,
};

/// Encrypted memory: the leaf that only this page answers truly.
const ENCRYPTION: u32 = 0x8000_001f;
/// Topology of AMD processors.
const TOPOLOGY: u32 = 0x8000_001e;
/// XSAVE.
const XSAVE: u32 = 0xd;

/// One answer of the page.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct CpuidEntry {
    /// The leaf.
    pub eax_in: U32,
    /// The subleaf.
    pub ecx_in: U32,
    /// XCR0 when it was asked; matters to leaf Dh alone.
    pub xcr0_in: U64,
    /// `IA32_XSS` when it was asked; matters to leaf Dh alone.
    pub xss_in: U64,
    /// EAX of the answer.
    pub eax: U32,
    /// EBX of the answer.
    pub ebx: U32,
    /// ECX of the answer.
    pub ecx: U32,
    /// EDX of the answer.
    pub edx: U32,
    reserved: U64,
}
const _: () = assert!(size_of::<CpuidEntry>() == 48);

impl CpuidEntry {
    /// The answer `registers` to a leaf and subleaf.
    #[must_use]
    pub const fn new(leaf: u32, subleaf: u32, registers: Registers) -> Self {
        Self {
            eax_in: U32::new(leaf),
            ecx_in: U32::new(subleaf),
            xcr0_in: U64::ZERO,
            xss_in: U64::ZERO,
            eax: U32::new(registers.eax),
            ebx: U32::new(registers.ebx),
            ecx: U32::new(registers.ecx),
            edx: U32::new(registers.edx),
            reserved: U64::ZERO,
        }
    }

    /// The answer.
    #[must_use]
    pub const fn registers(&self) -> Registers {
        Registers {
            eax: self.eax.get(),
            ebx: self.ebx.get(),
            ecx: self.ecx.get(),
            edx: self.edx.get(),
        }
    }

    /// Whether the answer counts for its question. The sizes of leaf Dh were asked for with some set of components enabled; the
    /// entry for the smallest set is taken and its size computed anew.
    const fn is_usable(&self) -> bool {
        let sized = self.eax_in.get() == XSAVE && self.ecx_in.get() < 2;
        !sized || (matches!(self.xcr0_in.get(), 0 | 1 | 3) && self.xss_in.get() == 0)
    }
}

/// What precedes the entries.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    count: U32,
    reserved_04: U32,
    reserved_08: U64,
}
const _: () = assert!(size_of::<Header>() == 16);

/// All of it.
#[derive(FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Wire {
    header: Header,
    entries: [CpuidEntry; CpuidPage::MAX_ENTRIES],
    rest: [u8; 1008],
}
const _: () = assert!(size_of::<Wire>() == 4096);

/// The answers of a CPUID page.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CpuidPage<'p> {
    entries: &'p [CpuidEntry],
}

impl<'p> CpuidPage<'p> {
    /// As many entries as a page can have.
    pub const MAX_ENTRIES: usize = 64;
    /// Bit 28 of EAX of leaf 8000001Fh: an SVSM is there, and MSR C001F000h tells the calling area. No processor sets it.
    pub const SVSM_PRESENT: u32 = 1 << 28;

    /// The page in `bytes`, which must be private memory that the security processor filled, and that nobody writes.
    ///
    /// `None` if it has more entries than a page can have or than `bytes` have room for, or if its reserved fields are not zero.
    #[must_use]
    pub fn new(bytes: &'p [u8]) -> Option<Self> {
        let (header, rest) = Header::ref_from_prefix(bytes).ok()?;
        let count = usize::try_from(header.count.get()).ok()?;
        let reserved = header.reserved_04.get() != 0 || header.reserved_08.get() != 0;
        if reserved || count > Self::MAX_ENTRIES {
            return None;
        }
        let (entries, _) = <[CpuidEntry]>::ref_from_prefix_with_elems(rest, count).ok()?;
        Some(Self { entries })
    }

    /// A page of these entries; `None` if they are too many.
    #[must_use]
    pub const fn from_entries(entries: &'p [CpuidEntry]) -> Option<Self> {
        if entries.len() <= Self::MAX_ENTRIES {
            Some(Self { entries })
        } else {
            None
        }
    }

    /// The entries.
    #[must_use]
    pub const fn entries(&self) -> &'p [CpuidEntry] {
        self.entries
    }

    /// The answer to a leaf and, where the leaf has some, subleaf, as it stands in the page: also what the host told of one CPU.
    #[must_use]
    pub fn entry(&self, leaf: u32, subleaf: u32) -> Option<&'p CpuidEntry> {
        let mut candidates = self
            .entries
            .iter()
            .filter(|entry| entry.eax_in.get() == leaf && entry.is_usable());
        if is_indexed(leaf) {
            candidates.find(|entry| entry.ecx_in.get() == subleaf)
        } else {
            candidates.next()
        }
    }

    /// The position of the C-bit; `None` if the page does not tell one that can be.
    ///
    /// The host cannot lie here. A wrong position from elsewhere would make the SVSM show it what should be private.
    #[must_use]
    pub fn c_bit(&self) -> Option<BitPosition> {
        let leaf = self.leaf(ENCRYPTION, 0);
        let [low, ..] = leaf.ebx.to_le_bytes();
        let sev = leaf.eax & 1 << 1 != 0;
        BitPosition::new(low & 0x3f).filter(|_| sev)
    }

    /// How many privilege levels there are.
    #[must_use]
    pub fn levels(&self) -> u8 {
        let [_, high, ..] = self.leaf(ENCRYPTION, 0).ebx.to_le_bytes();
        high >> 4
    }

    /// The page with what one CPU adds to it.
    #[must_use]
    pub const fn of_cpu(self, cpu: CpuState) -> CpuidOfCpu<'p> {
        CpuidOfCpu { page: self, cpu }
    }

    /// Writes the page that a guest below an SVSM gets: the same answers, and [`Self::SVSM_PRESENT`].
    pub fn write_for_guest(&self, page: &mut [u8; 4096]) {
        let page: &mut Wire = zerocopy::transmute_mut!(page);
        page.zero();
        page.header.count = U32::new(self.entries.len().try_into().unwrap_or(0));
        for (to, from) in page.entries.iter_mut().zip(self.entries) {
            *to = *from;
            if to.eax_in.get() == ENCRYPTION {
                to.eax |= U32::new(Self::SVSM_PRESENT);
            }
        }
    }

    /// Leaf Dh for these enabled components: a size in EBX follows from the sizes of the components, which are entries too.
    fn xsave(&self, subleaf: u32, xcr0: Xcr0, xss: u64) -> Registers {
        let Some(mut answer) = self.entry(XSAVE, subleaf).map(CpuidEntry::registers) else {
            return Registers::default();
        };
        // XSAVEC or XSAVES; without them there is no compacted form that could have a size.
        let has_compacted = answer.eax & (1 << 1 | 1 << 3) != 0;
        match subleaf {
            0 => answer.ebx = self.area(xcr0.bits(), false),
            1 if has_compacted => answer.ebx = self.area(xcr0.bits() | xss, true),
            1 => answer.ebx = 0,
            _ => {}
        }
        answer
    }

    /// The length of an XSAVE area with these components, in bytes (AMD64 Architecture Programmer's Manual Volume 4, "XSAVE
    /// Area").
    fn area(&self, components: u64, compacted: bool) -> u32 {
        /// Legacy state and header.
        const BASE: u32 = 0x240;
        let sizes = (2..63)
            .filter(|component| components >> component & 1 == 1)
            .filter_map(|component| self.entry(XSAVE, component))
            .map(CpuidEntry::registers);
        if compacted {
            sizes.fold(BASE, |end, component| {
                // Bit 1 of ECX: starts on a 64-byte bound.
                let start = if component.ecx & 1 << 1 == 0 {
                    end
                } else {
                    end.checked_next_multiple_of(64).unwrap_or(u32::MAX)
                };
                start.saturating_add(component.eax)
            })
        } else {
            sizes.fold(BASE, |end, component| {
                end.max(component.ebx.saturating_add(component.eax))
            })
        }
    }
}

impl Cpuid for CpuidPage<'_> {
    /// The answer as it holds on every CPU: APIC ids are zero, and CR4, XCR0 and `IA32_XSS` are those after a reset.
    fn raw(&self, leaf: u32, subleaf: u32) -> Registers {
        self.of_cpu(CpuState::RESET).raw(leaf, subleaf)
    }
}

impl fmt::Debug for CpuidPage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CpuidPage")
            .field("entries", &self.entries.len())
            .finish_non_exhaustive()
    }
}

/// Whether the subleaf matters to a leaf.
const fn is_indexed(leaf: u32) -> bool {
    matches!(
        leaf,
        0x4 | 0x7
            | 0xb
            | 0xd
            | 0xf
            | 0x10
            | 0x12
            | 0x14
            | 0x17
            | 0x18
            | 0x1d
            | 0x1e
            | 0x1f
            | 0x23
            | 0x24
            | 0x8000_001d
            | 0x8000_0020
            | 0x8000_0026
    )
}

/// What CPUID takes from the state of one CPU.
///
/// The registers are our own facts. The identifiers come from the host and are its word: use them to name a CPU to the host, and
/// never to find memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuState {
    /// CR4: tells whether XSAVE and protection keys are switched on.
    pub cr4: Cr4,
    /// XCR0: decides how long an XSAVE area is.
    pub xcr0: Xcr0,
    /// `IA32_XSS`: decides how long a compacted XSAVE area is.
    pub xss: u64,
    /// The x2APIC identifier.
    pub apic_id: u32,
    /// The core, as leaf 8000001Eh tells it in EBX.
    pub core_id: u8,
    /// The node, as leaf 8000001Eh tells it in ECX.
    pub node_id: u8,
}

impl CpuState {
    /// A CPU after a reset, whose identifiers are all zero.
    pub const RESET: Self = Self {
        cr4: Cr4::empty(),
        xcr0: Xcr0::X87,
        xss: 0,
        apic_id: 0,
        core_id: 0,
        node_id: 0,
    };
}

/// A CPUID page as one CPU answers it.
#[derive(Clone, Copy, Debug)]
pub struct CpuidOfCpu<'p> {
    page: CpuidPage<'p>,
    cpu: CpuState,
}

impl Cpuid for CpuidOfCpu<'_> {
    fn raw(&self, leaf: u32, subleaf: u32) -> Registers {
        let Self { page, cpu } = self;
        if leaf == XSAVE {
            return page.xsave(subleaf, cpu.xcr0, cpu.xss);
        }
        let Some(mut answer) = page.entry(leaf, subleaf).map(CpuidEntry::registers) else {
            return Registers::default();
        };
        match (leaf, subleaf) {
            (1, _) => {
                // The field has eight bits; larger identifiers are told by leaf Bh.
                answer.ebx = answer.ebx & 0x00ff_ffff | cpu.apic_id << 24;
                set(&mut answer.ecx, 27, cpu.cr4.contains(Cr4::OSXSAVE));
            }
            (7, 0) => set(&mut answer.ecx, 4, cpu.cr4.contains(Cr4::PKE)),
            (0xb | 0x1f | 0x8000_0026, _) => answer.edx = cpu.apic_id,
            (TOPOLOGY, _) => {
                answer.eax = cpu.apic_id;
                answer.ebx = answer.ebx & !0xff | u32::from(cpu.core_id);
                answer.ecx = answer.ecx & !0xff | u32::from(cpu.node_id);
            }
            _ => {}
        }
        answer
    }
}

const fn set(word: &mut u32, bit: u32, value: bool) {
    *word = *word & !(1 << bit) | (value as u32) << bit;
}

#[cfg(test)]
mod tests;
