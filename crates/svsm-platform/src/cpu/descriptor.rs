//! GDT, IDT and TSS of 64-bit mode (AMD64 Architecture Programmer's Manual Volume 2, "Segmented Virtual Memory" and "Task
//! Management").
//!
//! Tables are plain values; where they lie is the firmware's affair, which tells it when it asks for a pointer to load:
//!
//! ```
//! use svsm_platform::{
//!     addr::Gva,
//!     cpu::descriptor::{GdtTable, IdtEntry, IdtTable, Ist, Tss, TssLength},
//!     level::Cpl,
//! };
//!
//! let at = |address| Gva::new(address).ok_or("not canonical");
//!
//! let mut tss = Tss::new();
//! tss.set_kernel_stack(at(0xffff_ff00_0000_4000)?);
//! tss.set_ist(Ist::new(1).ok_or("no such stack")?, at(0xffff_ff00_0000_8000)?);
//! let gdt = GdtTable::new().with_tss(at(0xffff_ff00_0001_0000)?, TssLength::PLAIN);
//!
//! let mut idt = IdtTable::new();
//! let double_fault = IdtEntry::interrupt(at(0xffff_ffff_8000_1000)?);
//! idt.set(8, double_fault.on_stack(Ist::new(1).ok_or("no such stack")?));
//! idt.set(0x80, IdtEntry::interrupt(at(0xffff_ffff_8000_2000)?).open_to(Cpl::Ring3));
//! # Ok::<(), &str>(())
//! ```

use core::fmt;

use crate::{addr::Gva, level::Cpl};

mod idt;
mod tss;

pub use idt::{IdtEntry, IdtTable};
pub use tss::{Ist, Tss, TssLength, TssWithPorts};

/// Selects an entry of the GDT.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Selector(u16);

impl Selector {
    /// Selects nothing.
    pub const NULL: Self = Self(0);

    /// The entry of that number in the GDT, asked for by `ring`. `None` past the 8192 entries a GDT can have.
    #[must_use]
    pub const fn new(index: u16, ring: Cpl) -> Option<Self> {
        if index < 8192 {
            Some(Self(index << 3 | ring.as_u8() as u16))
        } else {
            None
        }
    }

    /// The plain number.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Selector({:#x})", self.0)
    }
}

/// What LGDT and LIDT read.
#[derive(Clone, Copy, Debug)]
#[repr(C, packed)]
pub struct TablePointer {
    limit: u16,
    base: u64,
}

const _: () = assert!(size_of::<TablePointer>() == 10);

impl TablePointer {
    /// No table at all: with this as IDT, the next exception is a triple fault.
    pub const EMPTY: Self = Self { limit: 0, base: 0 };

    /// A table of `len_bytes` at `base`; `None` if no such table can be.
    #[must_use]
    pub const fn new(base: Gva, len_bytes: u32) -> Option<Self> {
        match len_bytes.checked_sub(1) {
            Some(limit @ 0..=0xffff) => Some(Self {
                limit: (limit & 0xffff) as u16,
                base: base.as_u64(),
            }),
            _ => None,
        }
    }
}

/// The size of a table or segment, which the assertion lets no larger one have.
#[expect(clippy::cast_possible_truncation, reason = "asserted right here")]
const fn len_u16<T>() -> u16 {
    const { assert!(size_of::<T>() <= 0xffff) };
    size_of::<T>() as u16
}

// Bits of a segment descriptor.
const PRESENT: u64 = 1 << 47;
const NOT_SYSTEM: u64 = 1 << 44;
const RING_3: u64 = 3 << 45;
const CODE: u64 = 1 << 43 | NOT_SYSTEM | PRESENT | LONG;
const DATA: u64 = NOT_SYSTEM | PRESENT;
const READ_WRITE: u64 = 1 << 41; // of code: readable
const ACCESSED: u64 = 1 << 40; // set at once, so that the processor never writes the table
const LONG: u64 = 1 << 53;
const TSS_AVAILABLE: u64 = 0x9 << 40 | PRESENT;

/// A GDT with the segments that a 64-bit kernel needs, in the order that SYSCALL and SYSRET want.
///
/// The user's 32-bit code segment, which SYSRET would expect below the user's data, is not there: there is no 32-bit user mode,
/// and the kernel's data segment stands in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct GdtTable([u64; 7]);

impl GdtTable {
    /// Code of the kernel.
    pub const KERNEL_CODE: Selector = Selector(0x08);
    /// Data and stack of the kernel.
    pub const KERNEL_DATA: Selector = Selector(0x10);
    /// Data and stack of user mode.
    pub const USER_DATA: Selector = Selector(0x18 | 3);
    /// Code of user mode.
    pub const USER_CODE: Selector = Selector(0x20 | 3);
    /// The CPU's TSS.
    pub const TSS: Selector = Selector(0x28);

    /// The value of STAR that makes SYSCALL and SYSRET use these segments.
    ///
    /// SYSRET takes SS from 8 above its base and CS from 16 above. The base bears ring 3 because AMD processors take the
    /// ring of SS from it.
    pub const STAR: u64 =
        (Self::KERNEL_DATA.0 as u64 | 3) << 48 | (Self::KERNEL_CODE.0 as u64) << 32;

    /// The segments, without a TSS.
    #[must_use]
    pub const fn new() -> Self {
        let code = CODE | READ_WRITE | ACCESSED;
        let data = DATA | READ_WRITE | ACCESSED;
        Self([0, code, data, data | RING_3, code | RING_3, 0, 0])
    }

    /// Enters the TSS at `base`, not busy, with `len_bytes` of which the descriptor tells the processor.
    ///
    /// A TSS longer than itself has an I/O permission bitmap; see [`TssWithPorts`].
    #[must_use]
    pub const fn with_tss(self, base: Gva, len_bytes: TssLength) -> Self {
        let [null, kernel_code, kernel_data, user_data, user_code, _, _] = self.0;
        let base = base.as_u64();
        let limit = len_bytes.limit();
        let low = TSS_AVAILABLE | limit | (base & 0xff_ffff) << 16 | (base >> 24 & 0xff) << 56;
        Self([
            null,
            kernel_code,
            kernel_data,
            user_data,
            user_code,
            low,
            base >> 32,
        ])
    }

    /// What LGDT needs, if the table lies at `at`.
    #[must_use]
    pub const fn pointer(at: Gva) -> TablePointer {
        TablePointer {
            limit: len_u16::<Self>() - 1,
            base: at.as_u64(),
        }
    }

    /// The entries as the processor reads them.
    #[must_use]
    pub const fn entries(&self) -> &[u64; 7] {
        &self.0
    }
}

impl Default for GdtTable {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gva(value: u64) -> Gva {
        Gva::new(value).unwrap()
    }

    #[test]
    fn segments_are_flat_64_bit_code_and_data() {
        let table = GdtTable::new();
        assert_eq!(
            table.entries()[..5],
            [
                0,
                0x0020_9b00_0000_0000,
                0x0000_9300_0000_0000,
                0x0000_f300_0000_0000,
                0x0020_fb00_0000_0000,
            ]
        );
    }

    #[test]
    fn sysret_selectors_follow_from_star() {
        let base = u16::try_from(GdtTable::STAR >> 48).unwrap();
        assert_eq!(base + 8, GdtTable::USER_DATA.bits());
        assert_eq!((base + 16) | 3, GdtTable::USER_CODE.bits());
        let syscall = u16::try_from(GdtTable::STAR >> 32 & 0xffff).unwrap();
        assert_eq!(syscall, GdtTable::KERNEL_CODE.bits());
        assert_eq!(syscall + 8, GdtTable::KERNEL_DATA.bits());
    }

    #[test]
    fn tss_descriptor_holds_base_and_limit() {
        let table = GdtTable::new().with_tss(gva(0xffff_ff12_3456_7890), TssLength::PLAIN);
        assert_eq!(table.entries()[5], 0x3400_8956_7890_0067);
        assert_eq!(table.entries()[6], 0xffff_ff12);
        assert_eq!(TssLength::WITH_PORTS.limit() + 1, 104 + 8192 + 4);
    }

    #[test]
    fn tables_have_a_limit() {
        assert!(TablePointer::new(gva(0x1000), 0).is_none());
        assert!(TablePointer::new(gva(0x1000), 0x1_0001).is_none());
        let whole = TablePointer::new(gva(0x1000), 0x1_0000).unwrap();
        assert_eq!({ whole.limit }, 0xffff);
    }
}
