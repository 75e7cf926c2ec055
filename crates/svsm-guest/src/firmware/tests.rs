use super::*;
use proptest::prelude::*;
use std::vec::Vec;

fn word_of(count: usize) -> u32 {
    count.try_into().unwrap()
}

/// Firmware as small as it can be, with these sections.
fn made(sections: &[(u32, u32, u32)]) -> Vec<u8> {
    let mut file = Vec::from([0; 8192]);
    let list = 4096;
    let head = [
        u32::from_le_bytes(*b"ASEV"),
        word_of(DESCRIPTOR + SECTION * sections.len()),
        1,
        word_of(sections.len()),
    ];
    let body = sections.iter().flat_map(|s| [s.0, s.1, s.2]);
    for (to, from) in file[list..]
        .chunks_exact_mut(4)
        .zip(head.into_iter().chain(body))
    {
        to.copy_from_slice(&from.to_le_bytes());
    }
    let from_end = word_of(file.len() - list);
    let mut table = Vec::new();
    let entries = [
        (Guid::SEV_METADATA, from_end.to_le_bytes()),
        (Guid::RESET_BLOCK, [0x04, 0xb0, 0x80, 0x00]),
    ];
    for (guid, data) in entries {
        table.extend(data);
        table.extend(22_u16.to_le_bytes());
        table.extend(guid.0);
    }
    table.extend(&word_of(table.len() + TAIL).to_le_bytes()[..2]);
    table.extend(Guid::FOOTER.0);
    let end = file.len() - BEHIND_TABLE;
    file[end - table.len()..end].copy_from_slice(&table);
    file
}

/// What Debian's OVMF 2025.02 asks for.
const OVMF: [(u32, u32, u32); 6] = [
    (0x80_0000, 0x9000, 1),
    (0x80_a000, 0x3000, 1),
    (0x80_d000, 0x1000, 2),
    (0x80_e000, 0x1000, 3),
    (0x80_f000, 0x1000, 4),
    (0x81_0000, 0x1_0000, 1),
];

#[test]
fn a_guid_is_stored_as_firmware_stores_it() {
    let footer = [
        0xde, 0x82, 0xb5, 0x96, 0xb2, 0x1f, 0xf7, 0x45, 0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08,
        0x2d,
    ];
    assert_eq!(Guid::FOOTER.0, footer);
}

#[test]
fn firmware_says_what_it_needs() {
    let file = made(&OVMF);
    let firmware = Firmware::parse(&file).unwrap();
    assert_eq!(firmware.base(), 0xffff_e000);
    assert!(firmware.is_for_snp() && firmware.knows_svsm());
    assert_eq!(firmware.sections().count(), 6);
    assert_eq!(firmware.page(Contents::Secrets), Some(0x80_d000));
    assert_eq!(firmware.page(Contents::Cpuid), Some(0x80_e000));
    assert_eq!(firmware.page(Contents::CallingArea), Some(0x80_f000));
    assert_eq!(firmware.page(Contents::KernelHashes), None);
    let start = ApStart {
        ip: 0xb004,
        cs_base: 0x80_0000,
    };
    assert_eq!(firmware.ap_start(), Some(start));
    assert_eq!(firmware.entries().count(), 2);
    assert_eq!(firmware.entry(Guid::TDX_METADATA), None);
}

#[test]
fn memory_that_cannot_be_is_refused() {
    let refused = |section| {
        let file = made(&[OVMF[0], section]);
        Firmware::parse(&file).map(drop).unwrap_err()
    };
    assert_eq!(refused((0x10_0000, 0x1000, 5)), Error::SectionType(5));
    // Not whole pages, nothing, too long a page, over 4 GiB, in another section, in the image.
    for (gpa, bytes, kind) in [
        (0x10_0800, 0x1000, 1),
        (0x10_0000, 0x1800, 1),
        (0x10_0000, 0, 1),
        (0x10_0000, 0x2000, 2),
        (0xffff_f000, 0x1000, 1),
        (0xffff_e000, 0x1000, 1),
    ] {
        assert_eq!(refused((gpa, bytes, kind)), Error::Section(gpa), "{gpa:#x}");
    }
    assert_eq!(refused((0x80_8000, 0x1000, 1)), Error::Section(0x80_0000));
    // Next to another one is well.
    assert!(Firmware::parse(&made(&[OVMF[0], (0x80_9000, 0x1000, 1)])).is_ok());
}

#[test]
fn what_is_no_firmware_is_refused() {
    let is_not = |file: &[u8], error| assert_eq!(Firmware::parse(file).map(drop), Err(error));
    is_not(&[], Error::NotFirmware);
    is_not(&[0; 4096], Error::NotFirmware);
    let file = made(&OVMF);
    is_not(&file[1..], Error::NotFirmware);
    let with = |at: usize, byte: u8| {
        let mut file = file.clone();
        file[at] = byte;
        file
    };
    let length = file.len() - BEHIND_TABLE - TAIL;
    for wrong in [0, 17, 0x3f, 0xff] {
        is_not(&with(length, wrong), Error::FirmwareTable);
    }
    // The list's magic, length, version, count; where it is.
    for at in [4096, 4100, 4104, 4108] {
        is_not(&with(at, 0x7f), Error::FirmwareTable);
    }
    let offset = length - 44 + 2;
    is_not(&with(offset, 0xff), Error::FirmwareTable);
}

proptest! {
    #[test]
    fn no_bytes_bring_it_down(
        noise in proptest::collection::vec((4096_usize..8192, any::<u8>()), 0..8)
    ) {
        let mut file = made(&OVMF);
        for (at, byte) in noise {
            file[at] = byte;
        }
        if let Ok(firmware) = Firmware::parse(&file) {
            let sections: Vec<_> = firmware.sections().collect();
            for (n, section) in sections.iter().enumerate() {
                prop_assert!(section.end() <= firmware.base());
                prop_assert!(sections[n + 1..].iter().all(|other| !section.overlaps(other)));
            }
        }
    }
}

#[test]
fn firmware_below_an_svsm_has_one_place_for_each_page() {
    let places = [
        (0x80_d000, 0x1000, 2),
        (0x80_e000, 0x1000, 3),
        (0x80_f000, 0x1000, 4),
    ];
    assert!(Firmware::for_svsm(&made(&places)).is_ok());
    for (missing, error) in [
        (0, Error::NotForSnp),
        (1, Error::NotForSnp),
        (2, Error::KnowsNoSvsm),
    ] {
        let mut rest = places.to_vec();
        rest.remove(missing);
        assert_eq!(Firmware::for_svsm(&made(&rest)).unwrap_err(), error);
    }
    let mut two = places.to_vec();
    two.push((0x81_0000, 0x1000, 2));
    let second = Error::Section(0x81_0000);
    assert_eq!(Firmware::for_svsm(&made(&two)).unwrap_err(), second);
}
