//! What an image says of its guest.
#![cfg(test)]

#[path = "support/elf.rs"]
mod elf;
#[path = "support/image.rs"]
mod image;

use image::{image, manifest};
use svsm_igvm::file::{Body, ImageFile};
use svsm_igvm::manifest::{AcpiTables, Guest};
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
    let refused = image::image_for(&manifest, svsm_igvm::Loader::Machine).unwrap_err();
    assert!(refused.to_string().contains("guest.acpi"), "{refused}");
}
