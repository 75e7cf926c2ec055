//! Builds an image of two tiny programs in memory and shows what is in it.
//!
//! A firmware's build would call `svsm_igvm::build`, which reads the files that
//! the manifest names, and write `image.bytes` to a file.

use std::io;
use std::path::Path;

use svsm_igvm::{Error, Loader, Manifest, Options, build_with, inspect};

const MANIFEST: &str = r#"
platforms = ["native"]

[svsm]
elf = "svsm.elf"
size = "1 MiB"
stack = "16 KiB"

[stage2]
elf = "stage2.elf"

[parameters]
vp_count = "4 KiB"
memory_map = "4 KiB"

[budgets]
pages = 64
"#;

fn main() -> Result<(), Error> {
    let manifest = Manifest::parse(MANIFEST, "tiny.toml")?;
    let image = build_with(&manifest, &Options::new(Loader::Machine), program)?;
    println!("{}", image.report);
    println!("{}", inspect(&image.bytes)?);
    Ok(())
}

fn program(path: &Path) -> io::Result<Vec<u8>> {
    match path.to_str() {
        Some("svsm.elf") => Ok(include_bytes!("programs/svsm.elf").to_vec()),
        Some("stage2.elf") => Ok(include_bytes!("programs/stage2.elf").to_vec()),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}
