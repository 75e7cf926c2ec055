//! Where things lie unless an image says otherwise.
//!
//! Builder, stage2 and SVSM do not share these numbers by convention: the builder puts what it
//! chose into the [hand-off](crate::handoff), and the others read it there. Only what the processor
//! needs before it can read anything (the trampoline's page, the window's place, the control
//! registers) is known to code.

use svsm_platform::addr::{Gpa, Gva, GvaRange, PageSize};
use svsm_platform::cpu::cr::{Cr0, Cr4, Efer};

const fn gpa(value: u64) -> Gpa {
    match Gpa::new(value) {
        Some(gpa) => gpa,
        None => Gpa::ZERO,
    }
}

const fn gva(value: u64) -> Gva {
    match Gva::new(value) {
        Some(gva) => gva,
        None => Gva::ZERO,
    }
}

/// The page from which other CPUs start: real mode can only reach the first megabyte, and SIPI
/// names a page there.
pub const TRAMPOLINE: Gpa = gpa(0x8000);

/// The page through which the SVSM tells a starting CPU what to become: the one after the
/// trampoline's, where the trampoline looks for it.
#[must_use]
pub const fn mailbox(trampoline: Gpa) -> Option<Gpa> {
    trampoline.checked_add(PageSize::Size4K.bytes())
}

/// First address of stage2's region: its segments from the bottom, its stack, tables and the hand-off
/// above.
pub const STAGE2_START: Gpa = gpa(0x1_0000);

/// End of stage2's region; it stays below the 640 KiB line and the BIOS data above it.
pub const STAGE2_END: Gpa = gpa(0x9_0000);

/// Start of the SVSM's private region, unless the manifest moves it.
pub const SVSM_BASE: Gpa = gpa(0x80_0000_0000);

/// Size of the SVSM's private region, unless the manifest says otherwise.
pub const SVSM_BYTES: u64 = 16 << 20;

/// Where the SVSM's ELF file is linked: the top 2 GiB, as the kernel code model wants.
pub const IMAGE: Gva = gva(0xffff_ffff_8000_0000);

/// End of what the SVSM's segments may use.
pub const IMAGE_END: Gva = gva(0xffff_ffff_c000_0000);

/// The window for temporary mappings: 2 MiB behind one page table, at the same place in stage2's
/// and in the SVSM's address space.
pub const WINDOW: Gva = gva(0xffff_ffff_c000_0000);

/// How many slots of the window are free for temporary mappings.
pub const WINDOW_SLOTS: u16 = 510;

/// The window's slot behind the free ones: the trampoline's page, executable, in both address
/// spaces. A CPU changes from one to the other while it runs there.
pub const SWITCH: Gva = gva(0xffff_ffff_c01f_e000);

/// The window's last slot: the page table of the window itself, so that slots can be edited.
pub const WINDOW_TABLE: Gva = gva(0xffff_ffff_c01f_f000);

/// Where the fixed areas start: hand-off, mailbox, parameters, stack, archive, each with an
/// unmapped page on both sides.
pub const AREAS: Gva = gva(0xffff_ffff_c020_0000);

/// Where the fixed areas end. Above, nothing is mapped: the SVSM's own mappings (stacks of other
/// CPUs, devices) can go there.
pub const AREAS_END: Gva = gva(0xffff_ffff_e000_0000);

/// The SVSM's free address space: nothing here is mapped at boot.
///
/// The last 2 MiB stay out, so that no pointer arithmetic of a compiler or of ours wraps.
#[must_use]
pub fn runtime() -> Option<GvaRange> {
    GvaRange::from_bounds(AREAS_END, gva(0xffff_ffff_ffe0_0000))
}

/// The linear mapping of the SVSM's page tables and free memory: the page at `svsm.base + x` is
/// mapped at `LINEAR + x`. Never guest memory, never image text.
pub const LINEAR: Gva = gva(0xffff_ff00_0000_0000);

/// End of the linear mapping.
pub const LINEAR_END: Gva = gva(0xffff_ff80_0000_0000);

/// How many pages the SVSM's prebuilt page tables may take: stage2 keeps book of them on its stack.
pub const MAX_TABLES: usize = 1024;

/// CR0 with which 64-bit code starts, of stage2 and of the SVSM, on all CPUs.
pub const ENTRY_CR0: Cr0 = Cr0::PE
    .union(Cr0::ET)
    .union(Cr0::NE)
    .union(Cr0::WP)
    .union(Cr0::PG);

/// CR4 with which it starts.
pub const ENTRY_CR4: Cr4 = Cr4::PAE;

/// EFER with which it starts. SNP demands SVME on top.
pub const ENTRY_EFER: Efer = Efer::LME.union(Efer::LMA).union(Efer::NXE);

/// COM1 of an unprotected PC.
pub const CONSOLE_PORT: u16 = 0x3f8;

/// PM1a control port of QEMU's q35 machine.
pub const POWER_PORT: u16 = 0x604;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_is_one_page_table() {
        let slot = |n: u64| WINDOW.checked_add(n * 4096).unwrap();
        assert!(WINDOW.is_aligned(PageSize::Size2M));
        assert_eq!(slot(WINDOW_SLOTS.into()), SWITCH);
        assert_eq!(slot(511), WINDOW_TABLE);
        assert_eq!(slot(512), AREAS);
    }

    #[test]
    fn no_constant_fell_back_to_zero() {
        let gvas = [
            IMAGE,
            WINDOW,
            SWITCH,
            WINDOW_TABLE,
            AREAS,
            AREAS_END,
            LINEAR,
            LINEAR_END,
        ];
        assert!(!gvas.contains(&Gva::ZERO));
        let gpas = [TRAMPOLINE, STAGE2_START, STAGE2_END, SVSM_BASE];
        assert!(!gpas.contains(&Gpa::ZERO));
        assert!(runtime().is_some());
    }
}
