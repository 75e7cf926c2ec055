//! An initial RAM disk: a cpio archive in the format "newc" (the kernel's "initramfs buffer format").

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

const DIRECTORY: u32 = 0o04_0755;
const FILE: u32 = 0o10_0644;
const PROGRAM: u32 = 0o10_0755;
const CHARACTER_DEVICE: u32 = 0o02_0600;

/// A RAM disk with a first process, and modules in the order in which it shall load them.
pub(super) fn initrd(init: &Path, modules: &[PathBuf]) -> Result<Vec<u8>> {
    let read = |path: &Path| {
        std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let mut archive = Archive::default();
    for directory in ["dev", "proc", "sys", "modules"] {
        archive.entry(directory, DIRECTORY, (0, 0), &[]);
    }
    archive.entry("dev/console", CHARACTER_DEVICE, (5, 1), &[]);
    archive.entry("init", PROGRAM, (0, 0), &read(init)?);
    for (number, module) in modules.iter().enumerate() {
        let name = module
            .file_name()
            .and_then(|name| name.to_str())
            .with_context(|| format!("{} has no name", module.display()))?;
        let name = format!("modules/{number:02}-{name}");
        archive.entry(&name, FILE, (0, 0), &read(module)?);
    }
    archive.entry("TRAILER!!!", 0, (0, 0), &[]);
    Ok(archive.bytes)
}

/// A RAM disk of programs, whose first is `init`: names with the directories they lie in, and contents.
pub(super) fn programs(directories: &[&str], files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = Archive::default();
    for directory in directories {
        archive.entry(directory, DIRECTORY, (0, 0), &[]);
    }
    archive.entry("dev/console", CHARACTER_DEVICE, (5, 1), &[]);
    for (name, contents) in files {
        archive.entry(name, PROGRAM, (0, 0), contents);
    }
    archive.entry("TRAILER!!!", 0, (0, 0), &[]);
    archive.bytes
}

#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    count: u32,
}

impl Archive {
    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), contents: &[u8]) {
        self.count += 1;
        let len = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
        // Inode, mode, user, group, links, time, size, device of the file (twice a number), its own device, length of
        // the name with its zero, checksum.
        let fields = [
            self.count,
            mode,
            0,
            0,
            1,
            0,
            len(contents.len()),
            0,
            0,
            device.0,
            device.1,
            len(name.len() + 1),
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_padded_to_words() {
        let mut archive = Archive::default();
        archive.entry("init", PROGRAM, (0, 0), b"abcde");
        let text = String::from_utf8_lossy(&archive.bytes);
        assert!(text.starts_with("07070100000001000081ED"));
        assert_eq!(&archive.bytes[110..115], b"init\0");
        // 110 + 5 bytes are padded to 116, and 5 bytes of contents to 8.
        assert_eq!(&archive.bytes[116..], b"abcde\0\0\0");
    }
}
