extern crate std;

use super::*;
use crate::{
    cpu::cpuid::{Features, apic_id, physical_bits, tsc_rate},
    seam::Hertz,
};
use proptest::prelude::*;
use std::{vec, vec::Vec};

fn registers(eax: u32, ebx: u32, ecx: u32, edx: u32) -> Registers {
    Registers { eax, ebx, ecx, edx }
}

fn entry(leaf: u32, subleaf: u32, answer: Registers) -> CpuidEntry {
    CpuidEntry::new(leaf, subleaf, answer)
}

/// What a host would propose for a processor with AVX, protection keys and shadow stacks, as told by CPU 3.
fn entries() -> Vec<CpuidEntry> {
    let mut sizes = entry(XSAVE, 0, registers(0x207, 0x988, 0x988, 0));
    sizes.xcr0_in = U64::new(0x207);
    let mut smallest = entry(XSAVE, 0, registers(0x207, 0x240, 0x988, 0));
    smallest.xcr0_in = U64::new(1);
    let mut compacted = entry(XSAVE, 1, registers(0xf, 0x240, 0x1800, 0));
    compacted.xcr0_in = U64::new(3);
    vec![
        entry(0, 0, registers(0xd, 0x6874_7541, 0x444d_4163, 0x6974_6e65)),
        entry(
            1,
            0,
            registers(0x00a0_0f11, 0x0304_0800, 1 << 26 | 1 << 27, 1 << 13),
        ),
        entry(7, 0, registers(1, 1 << 7 | 1 << 20, 1 << 3 | 1 << 4, 0)),
        entry(7, 1, registers(0xdead, 0, 0, 0)),
        entry(0xb, 0, registers(0, 1, 0x100, 3)),
        sizes,
        smallest,
        compacted,
        entry(XSAVE, 2, registers(0x100, 0x240, 0, 0)),
        entry(XSAVE, 9, registers(8, 0x980, 0, 0)),
        entry(XSAVE, 11, registers(16, 0, 1 | 1 << 1, 0)),
        entry(0x8000_0000, 0, registers(0x8000_001f, 0, 0, 0)),
        entry(0x8000_0001, 0, registers(0, 0, 0, 1 << 20 | 1 << 11)),
        entry(0x8000_0008, 0, registers(0x3034, 0, 0, 0)),
        entry(TOPOLOGY, 0, registers(3, 0x0101, 0x0200, 0)),
        entry(ENCRYPTION, 0, registers(0x1a, 0x4173, 0x1fd, 1)),
    ]
}

fn page_of(entries: &[CpuidEntry]) -> [u8; 4096] {
    let mut page = [0; 4096];
    page[..4].copy_from_slice(&u32::try_from(entries.len()).unwrap().to_le_bytes());
    page[16..][..entries.len() * 48].copy_from_slice(entries.as_bytes());
    page
}

#[test]
fn the_page_is_a_processor() {
    let bytes = page_of(&entries());
    let page = CpuidPage::new(&bytes).unwrap();
    let expected = Features::PGE
        | Features::XSAVE
        | Features::SMEP
        | Features::SMAP
        | Features::PKU
        | Features::NX
        | Features::SYSCALL;
    assert_eq!(Features::of(&page), expected);
    assert_eq!(physical_bits(&page), 52);
    assert_eq!(page.c_bit().map(BitPosition::as_u8), Some(51));
    assert_eq!(page.levels(), 4);
    // Leaf 15h lies above the maximum, and there are no hypervisor leaves.
    assert_eq!(tsc_rate(&page), None);
}

#[test]
fn rate_of_the_counter_comes_from_its_leaf() {
    let list = [
        entry(0, 0, registers(0x15, 0, 0, 0)),
        entry(0x15, 0, registers(1, 100, 25_000_000, 0)),
    ];
    let page = CpuidPage::from_entries(&list).unwrap();
    assert_eq!(tsc_rate(&page), Hertz::new(2_500_000_000));
}

#[test]
fn identifiers_of_the_cpu_that_filled_the_page_reach_nobody() {
    let list = entries();
    let page = CpuidPage::from_entries(&list).unwrap();
    assert_eq!(apic_id(&page), 0);
    assert_eq!(page.raw(1, 0).ebx, 0x0004_0800);
    assert_eq!(page.raw(TOPOLOGY, 0), registers(0, 0x0100, 0x0200, 0));
    let seven = page.of_cpu(CpuState {
        apic_id: 0x107,
        core_id: 0x57,
        node_id: 2,
        ..CpuState::RESET
    });
    assert_eq!(apic_id(&seven), 0x107);
    assert_eq!(seven.raw(1, 0).ebx, 0x0704_0800);
    assert_eq!(seven.raw(TOPOLOGY, 0), registers(0x107, 0x0157, 0x0202, 0));
}

#[test]
fn what_control_registers_switch_on_is_told() {
    let list = entries();
    let page = CpuidPage::from_entries(&list).unwrap();
    let with = |cr4| {
        let cpu = page.of_cpu(CpuState {
            cr4,
            ..CpuState::RESET
        });
        (cpu.raw(1, 0).ecx >> 27 & 1, cpu.raw(7, 0).ecx >> 4 & 1)
    };
    assert_eq!(with(Cr4::empty()), (0, 0));
    assert_eq!(with(Cr4::OSXSAVE), (1, 0));
    assert_eq!(with(Cr4::PKE), (0, 1));
    // The second subleaf has no such bit.
    assert_eq!(page.raw(7, 1), registers(0xdead, 0, 0, 0));
}

#[test]
fn lengths_of_xsave_areas_follow_from_what_is_enabled() {
    let list = entries();
    let page = CpuidPage::from_entries(&list).unwrap();
    let length = |subleaf, xcr0, xss| {
        let cpu = CpuState {
            xcr0: Xcr0::from_bits_retain(xcr0),
            xss,
            ..CpuState::RESET
        };
        page.of_cpu(cpu).raw(XSAVE, subleaf).ebx
    };
    assert_eq!(length(0, 0x3, 0), 0x240);
    assert_eq!(length(0, 0x7, 0), 0x340);
    // The keys have their fixed place, whether there is something before them or not.
    assert_eq!(length(0, 0x203, 0), 0x988);
    assert_eq!(length(0, 0x207, 0), 0x988);
    assert_eq!(length(1, 0x203, 0), 0x248);
    assert_eq!(length(1, 0x207, 0), 0x348);
    // Shadow-stack state starts on a bound of 64 bytes.
    assert_eq!(length(1, 0x207, 1 << 11), 0x380 + 16);
    // The standard form has no supervisor state.
    assert_eq!(length(0, 0x3, 1 << 11), 0x240);
    // Sizes of components do not depend on what is enabled.
    assert_eq!(length(2, 0x3, 0), 0x240);
    assert_eq!(page.raw(XSAVE, 0).ecx, 0x988);
    assert_eq!(page.raw(XSAVE, 3), Registers::default());
}

#[test]
fn processors_without_the_compacted_form_give_it_no_length() {
    let list = [entry(XSAVE, 1, registers(1, 0x240, 0, 0))];
    let page = CpuidPage::from_entries(&list).unwrap();
    assert_eq!(page.raw(XSAVE, 1), registers(1, 0, 0, 0));
}

#[test]
fn subleaves_count_only_where_there_are_some() {
    let list = entries();
    let page = CpuidPage::from_entries(&list).unwrap();
    assert_eq!(page.raw(7, 2), Registers::default());
    assert_eq!(page.raw(0x8000_0008, 5).eax, 0x3034);
    assert_eq!(page.leaf(0x8000_0021, 0), Registers::default());
}

#[test]
fn a_c_bit_needs_sev_and_a_place() {
    for (eax, ebx, found) in [
        (2, 51, Some(51)),
        (2, 0x33 | 0xfc0, Some(51)),
        (2, 31, None),
        (2, 52, None),
        (2, 63, None),
        (0, 51, None),
    ] {
        let list = [
            entry(0x8000_0000, 0, registers(0x8000_001f, 0, 0, 0)),
            entry(ENCRYPTION, 0, registers(eax, ebx, 0, 0)),
        ];
        let c_bit = CpuidPage::from_entries(&list).unwrap().c_bit();
        assert_eq!(c_bit.map(BitPosition::as_u8), found);
    }
    assert_eq!(CpuidPage::from_entries(&[]).unwrap().c_bit(), None);
}

#[test]
fn only_checked_pages_are_read() {
    let good = page_of(&entries());
    assert!(CpuidPage::new(&good).is_some());
    for (offset, value) in [(0, 65), (3, 1), (4, 1), (8, 1), (15, 1)] {
        let mut bad = good;
        bad[offset] = value;
        assert_eq!(CpuidPage::new(&bad), None, "{offset:#x}");
    }
    let last = 16 + entries().len() * 48;
    assert!(CpuidPage::new(&good[..last]).is_some());
    assert_eq!(CpuidPage::new(&good[..last - 1]), None);
    assert_eq!(CpuidPage::new(&[]), None);
    let many = [entry(0, 0, Registers::default()); 65];
    assert_eq!(CpuidPage::from_entries(&many), None);
}

#[test]
fn the_guest_learns_of_the_svsm_and_nothing_else_changes() {
    let list = entries();
    let page = CpuidPage::from_entries(&list).unwrap();
    let mut bytes = [0xff; 4096];
    page.write_for_guest(&mut bytes);
    let mut expected = entries();
    expected.last_mut().unwrap().eax = U32::new(0x1000_001a);
    assert_eq!(bytes, page_of(&expected));
    assert!(CpuidPage::new(&bytes).is_some());
}

proptest! {
    #[test]
    fn no_page_makes_us_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..4096),
        count in 0_u8..=70,
        leaf in any::<u32>(),
        xcr0 in any::<u64>(),
        xss in any::<u64>(),
    ) {
        let mut bytes = bytes;
        for (index, byte) in bytes.iter_mut().take(16).enumerate() {
            *byte = if index == 0 { count } else { 0 };
        }
        let Some(page) = CpuidPage::new(&bytes) else { return Ok(()) };
        prop_assert_eq!(page.entries().len(), usize::from(count));
        let cpu = CpuState { xcr0: Xcr0::from_bits_retain(xcr0), xss, ..CpuState::RESET };
        for leaf in [leaf, 0, 1, 7, XSAVE, TOPOLOGY, ENCRYPTION] {
            for subleaf in 0..3 {
                let _ = page.of_cpu(cpu).leaf(leaf, subleaf);
            }
        }
        let _ = (page.c_bit(), page.levels());
    }

    #[test]
    fn areas_grow_with_their_components(
        sizes in prop::collection::vec((any::<u32>(), any::<u32>(), 0..4_u32), 1..40),
        smaller in any::<u64>(),
        more in any::<u64>(),
    ) {
        let list: Vec<_> = (2..).zip(&sizes).map(|(i, (eax, ebx, ecx))| entry(XSAVE, i, registers(*eax, *ebx, *ecx, 0))).collect();
        let page = CpuidPage::from_entries(&list).unwrap();
        for compacted in [false, true] {
            prop_assert!(page.area(smaller, compacted) <= page.area(smaller | more, compacted));
        }
    }
}
