//! Save areas: the registers of a virtual CPU at one level (AMD64 Architecture Programmer's Manual Volume 2, "Layout of VMCB",
//! state save area for SEV-ES).

use super::SevFeatures;
use crate::{
    addr::{Gpa, PageSize},
    cpu::cr::{Cr0, Cr4, Efer},
    level::Vmpl,
};

/// A 64-bit field of a save area: its offset in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Field(u16);

/// Names as in the manual.
impl Field {
    /// CPL and VMPL: the level in the third byte, the ring in the fourth.
    pub const LEVELS: Self = Self(0xc8);
    /// EFER; without SVME in it the virtual CPU does not run.
    pub const EFER: Self = Self(0xd0);
    /// CR4.
    pub const CR4: Self = Self(0x148);
    /// CR3.
    pub const CR3: Self = Self(0x150);
    /// CR0.
    pub const CR0: Self = Self(0x158);
    /// DR7.
    pub const DR7: Self = Self(0x160);
    /// DR6.
    pub const DR6: Self = Self(0x168);
    /// RFLAGS.
    pub const RFLAGS: Self = Self(0x170);
    /// RIP.
    pub const RIP: Self = Self(0x178);
    /// RSP.
    pub const RSP: Self = Self(0x1d8);
    /// RAX.
    pub const RAX: Self = Self(0x1f8);
    /// Page attribute table.
    pub const G_PAT: Self = Self(0x268);
    /// Scale of a Secure TSC.
    pub const TSC_SCALE: Self = Self(0x2f0);
    /// Offset of a Secure TSC.
    pub const TSC_OFFSET: Self = Self(0x2f8);
    /// RCX.
    pub const RCX: Self = Self(0x308);
    /// RDX.
    pub const RDX: Self = Self(0x310);
    /// RBX.
    pub const RBX: Self = Self(0x318);
    /// RBP.
    pub const RBP: Self = Self(0x328);
    /// RSI.
    pub const RSI: Self = Self(0x330);
    /// RDI.
    pub const RDI: Self = Self(0x338);
    /// R8.
    pub const R8: Self = Self(0x340);
    /// R9.
    pub const R9: Self = Self(0x348);
    /// Why the level stopped, where its features say that this is noted.
    pub const GUEST_EXITCODE: Self = Self(0x3c0);
    /// SEV_FEATURES.
    pub const SEV_FEATURES: Self = Self(0x3b0);
    /// Virtual interrupts, and whether the area is in use.
    pub const VINTR_CTRL: Self = Self(0x3b8);
    /// Zero makes the next entry flush all translations.
    pub const PCPU_ID: Self = Self(0x3d8);
    /// XCR0.
    pub const XCR0: Self = Self(0x3e8);
    /// MXCSR, then x87's tag and status words.
    pub const MXCSR: Self = Self(0x408);
    /// x87's control word in the low 16 bits.
    pub const X87_FCW: Self = Self(0x410);

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

/// A segment register as a save area has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Segment {
    /// The selector.
    pub selector: u16,
    /// Attributes: type, S, DPL, P, AVL, L, D/B and G, without a gap.
    pub attributes: u16,
    /// The last byte's offset.
    pub limit: u32,
    /// The first byte's address.
    pub base: u64,
}

/// A segment register of a save area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[expect(missing_docs, reason = "the registers' names")]
pub enum SegmentRegister {
    Es = 0,
    Cs = 1,
    Ss = 2,
    Ds = 3,
    Fs = 4,
    Gs = 5,
    Gdtr = 6,
    Ldtr = 7,
    Idtr = 8,
    Tr = 9,
}

/// The start of 64-bit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct LongMode {
    /// RIP.
    pub rip: u64,
    /// RSP.
    pub rsp: u64,
    /// RDI.
    pub rdi: u64,
    /// RSI.
    pub rsi: u64,
    /// CR3.
    pub cr3: u64,
    /// CR0; it has paging and protection.
    pub cr0: Cr0,
    /// CR4; it has PAE.
    pub cr4: Cr4,
    /// EFER; SVME is added.
    pub efer: Efer,
}

/// What a reset leaves in the page attribute table.
const RESET_PAT: u64 = 0x0007_0406_0007_0406;
/// Present, code, readable, accessed; long; granularity.
const CODE64: u16 = 0xa9b;
/// Present, data, writable, accessed; big; granularity.
const DATA: u16 = 0xc93;
const LDT: u16 = 0x82;
const BUSY_TASK: u16 = 0x8b;

/// An image of a save area, in memory of one's own. The page from which a virtual CPU runs is reached by [`Field`]s.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaveArea([u64; 512]);

impl SaveArea {
    /// All zeros.
    #[must_use]
    pub const fn zeroed() -> Self {
        Self([0; 512])
    }

    /// A virtual CPU of `level` in 64-bit mode, with flat segments and the reset state of everything else. Its descriptor tables
    /// are empty: it loads its own before anything can happen.
    #[must_use]
    pub fn long_mode(level: Vmpl, features: SevFeatures, start: &LongMode) -> Self {
        let mut area = Self::zeroed();
        area.set_segment(
            SegmentRegister::Cs,
            Segment {
                selector: 8,
                attributes: CODE64,
                limit: u32::MAX,
                base: 0,
            },
        );
        for register in [
            SegmentRegister::Es,
            SegmentRegister::Ss,
            SegmentRegister::Ds,
            SegmentRegister::Fs,
            SegmentRegister::Gs,
        ] {
            let data = Segment {
                selector: 16,
                attributes: DATA,
                limit: u32::MAX,
                base: 0,
            };
            area.set_segment(register, data);
        }
        for (register, attributes) in [
            (SegmentRegister::Gdtr, 0),
            (SegmentRegister::Idtr, 0),
            (SegmentRegister::Ldtr, LDT),
            (SegmentRegister::Tr, BUSY_TASK),
        ] {
            let table = Segment {
                selector: 0,
                attributes,
                limit: 0xffff,
                base: 0,
            };
            area.set_segment(register, table);
        }
        for (field, value) in [
            (Field::LEVELS, u64::from(level.as_u8()) << 16),
            (Field::EFER, start.efer.bits() | Efer::SVME.bits()),
            (Field::CR4, start.cr4.bits()),
            (Field::CR3, start.cr3),
            (Field::CR0, start.cr0.bits()),
            (Field::DR7, 0x400),
            (Field::DR6, 0xffff_0ff0),
            (Field::RFLAGS, 2),
            (Field::RIP, start.rip),
            (Field::RSP, start.rsp),
            (Field::RDI, start.rdi),
            (Field::RSI, start.rsi),
            (Field::G_PAT, RESET_PAT),
            (Field::SEV_FEATURES, features.bits()),
            (Field::XCR0, 1),
            (Field::MXCSR, 0x1f80),
            (Field::X87_FCW, 0x37f),
        ] {
            area.set(field, value);
        }
        area
    }

    /// A field's value.
    #[must_use]
    pub fn get(&self, field: Field) -> u64 {
        self.0.get(usize::from(field.word())).copied().unwrap_or(0)
    }

    /// Sets a field.
    pub fn set(&mut self, field: Field, value: u64) {
        if let Some(word) = self.0.get_mut(usize::from(field.word())) {
            *word = value;
        }
    }

    /// Sets a segment register.
    pub fn set_segment(&mut self, register: SegmentRegister, segment: Segment) {
        let at = register as usize * 2;
        let first = u64::from(segment.selector)
            | u64::from(segment.attributes) << 16
            | u64::from(segment.limit) << 32;
        for (word, value) in self.0.iter_mut().skip(at).zip([first, segment.base]) {
            *word = value;
        }
    }

    /// The page, word by word.
    #[must_use]
    pub const fn words(&self) -> &[u64; 512] {
        &self.0
    }
}

/// Whether a page may be a save area. Some processors take another page than the one they are told, where it starts 2 MiB.
#[must_use]
pub const fn may_be_save_area(page: Gpa) -> bool {
    page.is_aligned(PageSize::Size4K) && !page.is_aligned(PageSize::Size2M)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_where_the_manual_has_them() {
        let start = LongMode {
            rip: 1,
            rsp: 2,
            rdi: 3,
            rsi: 4,
            cr3: 5,
            cr0: Cr0::PE | Cr0::PG,
            cr4: Cr4::PAE,
            efer: Efer::LME | Efer::LMA,
        };
        let area = SaveArea::long_mode(Vmpl::Vmpl2, SevFeatures::SNP_ACTIVE, &start);
        let word = |offset: usize| area.words()[offset / 8];
        assert_eq!(word(0x10), 0xffff_ffff_0a9b_0008);
        assert_eq!(word(0x90), 0x0000_ffff_008b_0000);
        assert_eq!(word(0xc8), 2 << 16);
        assert_eq!(word(0xd0), 0x1500);
        assert_eq!(word(0x178), 1);
        assert_eq!(word(0x3b0), 1);
        assert_eq!(word(0x408), 0x1f80);
        assert_eq!(area.get(Field::RDI), 3);
    }

    #[test]
    fn no_save_area_starts_two_mebibytes() {
        for (page, fits) in [
            (0x1000, true),
            (0x20_0000, false),
            (0x20_1000, true),
            (0x20_1008, false),
        ] {
            assert_eq!(may_be_save_area(Gpa::new(page).unwrap()), fits);
        }
    }
}
