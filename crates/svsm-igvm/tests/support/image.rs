//! Manifests and programs of small images.

use std::io;
use std::path::Path;

use super::elf::{self, EXECUTE, READ, WRITE, load};
use svsm_igvm::{Image, Loader, Manifest, Options, Result, build_with};

pub(crate) const IMAGE: u64 = 0xffff_ffff_8000_0000;

const MANIFEST: &str = r#"
platforms = ["native", "snp"]
svsm = { elf = "svsm" }
stage2 = { elf = "stage2" }
[[service]]
name = "init"
elf = "init"
[parameters]
vp_count = "4 KiB"
memory_map = "8 KiB"
[snp.identity]
family_id = "test family"
image_id = "00112233445566778899aabbccddeeff"
guest_svn = 7
"#;

pub(crate) fn manifest() -> Manifest {
    Manifest::parse(MANIFEST, "image.toml").unwrap()
}

pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    match path.to_str() {
        Some("svsm") => Ok(elf::program(IMAGE)),
        Some("stage2") => Ok(elf::file(
            0x1_0010,
            &[
                load(READ | EXECUTE, 0x8000, &[0xfa; 0x80], 0x80),
                load(READ | EXECUTE, 0x1_0000, &[0xf4; 0x1234], 0x1234),
                load(READ | WRITE, 0x1_2000, b"", 0x1000),
            ],
        )),
        Some("init") => Ok(elf::program(0x40_0000)),
        Some("kernel") => Ok(b"a kernel".to_vec()),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

pub(crate) fn image(manifest: &Manifest) -> Image {
    image_for(manifest, Loader::Machine).unwrap()
}

pub(crate) fn image_for(manifest: &Manifest, loader: Loader) -> Result<Image> {
    build_with(manifest, &Options::new(loader), read)
}
