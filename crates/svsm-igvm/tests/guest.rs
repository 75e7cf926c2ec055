//! What an image says of its guest.
#![cfg(test)]

#[path = "support/elf.rs"]
mod elf;
#[path = "support/image.rs"]
mod image;

use std::io;
use std::path::Path;

use image::{image, manifest};
use svsm_guest::firmware::Guid;
use svsm_igvm::file::{Body, ImageFile};
use svsm_igvm::manifest::{AcpiTables, Guest};
use svsm_igvm::{Error, Loader, Options, build_with};
use svsm_platform::level::Vmpl;
use svsm_stage2::handoff::Handoff;

/// The levels in the image's hand-offs, and whether its archive has a file of that name.
fn levels_and(bytes: &[u8], name: &str) -> (Vec<Option<Vmpl>>, bool) {
    let file = ImageFile::read(bytes).unwrap();
    let pages = || {
        file.headers()
            .iter()
            .filter_map(|header| match &header.body {
                Body::PageData(page) => page.data,
                _ => None,
            })
    };
    let handoffs = pages().filter_map(|data| Handoff::parse(data).ok());
    let contents: Vec<u8> = pages().flatten().copied().collect();
    let has_file = contents
        .windows(name.len())
        .any(|bytes| bytes == name.as_bytes());
    (
        handoffs.map(|handoff| handoff.guest_level).collect(),
        has_file,
    )
}

#[test]
fn the_guests_level_and_tables_are_measured() {
    let mut manifest = manifest();
    let without = image(&manifest);
    assert_eq!(
        levels_and(&without.bytes, "guest.kernel"),
        (vec![None; 2], false)
    );
    let mut digests = vec![without.report.snp.unwrap().launch_digest];
    for (vmpl, acpi) in [
        (2, AcpiTables::Own),
        (1, AcpiTables::Own),
        (3, AcpiTables::Host),
        (3, AcpiTables::Own),
    ] {
        let mut guest = Guest::of_kernel("kernel".into());
        if vmpl != 2 {
            guest.vmpl = vmpl;
        }
        guest.acpi = acpi;
        manifest.guest = Some(guest);
        let image = image(&manifest);
        let level = Vmpl::new(vmpl);
        let is_host = acpi == AcpiTables::Host;
        assert_eq!(
            levels_and(&image.bytes, "guest.acpi"),
            (vec![level; 2], is_host)
        );
        digests.push(image.report.snp.unwrap().launch_digest);
    }
    let count = digests.len();
    digests.sort_by_key(|digest| digest.0);
    digests.dedup();
    assert_eq!(digests.len(), count);
}

#[test]
fn firmware_brings_its_own_tables() {
    let mut manifest = manifest();
    let mut guest = Guest::of_firmware("firmware".into());
    guest.acpi = AcpiTables::Host;
    manifest.guest = Some(guest);
    let refused = image::image_for(&manifest, Loader::Machine).unwrap_err();
    assert!(refused.to_string().contains("guest.acpi"), "{refused}");
}

/// The programs of small images, and two kinds of firmware.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    match path.to_str() {
        Some("firmware") => Ok(firmware(true)),
        Some("old firmware") => Ok(firmware(false)),
        _ => image::read(path),
    }
}

/// Firmware as small as it can be; with or without a place for an SVSM's calling area.
fn firmware(knows_svsm: bool) -> Vec<u8> {
    let mut file = vec![0; 0x2000];
    let kind = if knows_svsm { 4 } else { 1 };
    let mut list = vec![u32::from_le_bytes(*b"ASEV"), 52, 1, 3];
    for (gpa, kind) in [(0x80_d000, 2), (0x80_e000, 3), (0x80_f000, kind)] {
        list.extend([gpa, 0x1000, kind]);
    }
    let list: Vec<u8> = list.iter().flat_map(|word| word.to_le_bytes()).collect();
    file[0x1000..][..list.len()].copy_from_slice(&list);
    let mut table = 0x1000_u32.to_le_bytes().to_vec();
    for (bytes, guid) in [(22_u16, Guid::SEV_METADATA), (40, Guid::FOOTER)] {
        table.extend(bytes.to_le_bytes());
        table.extend(guid.0);
    }
    file[0x2000 - 0x20 - table.len()..][..table.len()].copy_from_slice(&table);
    file
}

#[test]
fn the_guests_firmware_has_memory_below_four_gib_where_there_are_levels() {
    let mut manifest = manifest();
    manifest.guest = Some(Guest::of_firmware("firmware".into()));
    let image = build_with(&manifest, &Options::new(Loader::Machine), read).unwrap();
    let file = ImageFile::read(&image.bytes).unwrap();
    let asked = file.headers().iter().filter(|header| {
        matches!(
            header.body,
            Body::RequiredMemory {
                gpa: 0xffff_e000,
                bytes: 0x2000,
                ..
            }
        )
    });
    assert_eq!(asked.count(), 1);

    manifest.guest = Some(Guest::of_firmware("old firmware".into()));
    let error = build_with(&manifest, &Options::new(Loader::Machine), read).unwrap_err();
    assert_eq!(error.to_string(), "the firmware cannot start below an SVSM");

    manifest.guest = Some(Guest::of_firmware("firmware".into()));
    manifest.svsm.base = 0xff00_0000;
    let error = build_with(&manifest, &Options::new(Loader::Machine), read).unwrap_err();
    assert!(
        matches!(error, Error::GuestOverlap { base: 0xffff_e000 }),
        "{error}"
    );
}
