//! The seeds of the fuzz targets and the programs of the examples are good inputs,
//! and come from these tests.
#![cfg(test)]

#[path = "support/elf.rs"]
mod elf;
#[path = "support/igvm.rs"]
mod igvm;

use std::path::{Path, PathBuf};

use elf::{EXECUTE, READ, WRITE, load};
use svsm_igvm::executable::Executable;
use svsm_igvm::{Manifest, inspect, manifest};

/// Holds a seed against its file; `BLESS=1` writes it anew. A published crate
/// has no seeds, and nothing to hold.
#[track_caller]
fn seed(target: &str, name: &str, bytes: &[u8]) {
    let corpus: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../../fuzz/corpus"]
        .iter()
        .collect();
    if !corpus.is_dir() {
        return;
    }
    let path = corpus.join(target).join(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new(""))).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }
    assert!(
        std::fs::read(&path).unwrap() == bytes,
        "{} is another",
        path.display()
    );
}

#[test]
fn images() {
    for version in [1, 2] {
        let raw = igvm::sample(version);
        inspect(&raw.bytes()).unwrap();
        seed("igvm_inspect", &format!("version-{version}"), &raw.bytes());
    }
}

#[test]
fn manifests() {
    let minimal = "platforms = [\"native\"]\nsvsm = { elf = \"a\" }\nstage2 = { elf = \"b\" }\n";
    for (name, text) in [("example", manifest::EXAMPLE), ("minimal", minimal)] {
        Manifest::parse(text, name).unwrap();
        seed("igvm_manifest", name, text.as_bytes());
    }
}

#[test]
fn programs() {
    let stage2 = elf::file(
        0x1_0000,
        &[
            load(READ | EXECUTE, 0x8000, &[0xfa], 1),
            load(READ | EXECUTE, 0x1_0000, &[0xf4], 1),
            load(READ | WRITE, 0x1_1000, b"", 0x1000),
        ],
    );
    for (name, file) in [
        ("svsm", elf::program(0xffff_ffff_8000_0000)),
        ("stage2", stage2),
        ("init", elf::program(0x40_0000)),
    ] {
        Executable::read(&file).unwrap();
        seed("igvm_elf", name, &file);
        let path = format!(
            "{}/examples/programs/{name}.elf",
            env!("CARGO_MANIFEST_DIR")
        );
        if name != "init" {
            if std::env::var_os("BLESS").is_some() {
                std::fs::write(&path, &file).unwrap();
            }
            assert!(std::fs::read(&path).unwrap() == file, "{path} is another");
        }
    }
}
