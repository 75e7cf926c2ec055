//! A disk that a guest reads, and in whose last block it leaves a word.

use anyhow::{Context, Result, ensure};
use std::path::PathBuf;

const BYTES: usize = 1 << 20;
const SECTOR: usize = 512;
/// Bytes of the block that the guest writes.
const BLOCK: usize = 4096;
const WORD: &[u8] = b"written by the guest";

/// A disk of one run's.
#[derive(Debug)]
pub(super) struct Disk {
    file: PathBuf,
}

impl Disk {
    /// Makes the file.
    pub(super) fn create(file: PathBuf) -> Result<Self> {
        std::fs::write(&file, content()).context("cannot write the disk")?;
        Ok(Self { file })
    }

    /// The file.
    pub(super) const fn file(&self) -> &PathBuf {
        &self.file
    }

    /// What the guest must say of it.
    pub(super) fn fact() -> String {
        format!("{BYTES} bytes, hash {:016x}", fnv(&content()))
    }

    /// Holds what is in the file now against what the guest had to write there.
    pub(super) fn check(&self) -> Result<()> {
        let is = std::fs::read(&self.file).context("cannot read the disk")?;
        let mut should = content();
        let end = BYTES - BLOCK;
        should.truncate(end);
        should.extend(WORD);
        should.resize(BYTES, 0);
        ensure!(
            is.get(end..) == should.get(end..),
            "the guest's word is not in the disk's last block"
        );
        ensure!(
            is == should,
            "the guest wrote where it had nothing to write"
        );
        Ok(())
    }
}

/// No sector is like another: each begins with its number.
fn content() -> Vec<u8> {
    let sector = |number: u64| {
        let fill = (8..SECTOR).map(move |at| u8::try_from(at * 7 % 251).unwrap_or_default());
        number.to_le_bytes().into_iter().chain(fill)
    };
    (0..).flat_map(sector).take(BYTES).collect()
}

/// The hash of Fowler, Noll and Vo (FNV-1a, 64 bits), as the guest computes it.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_sector_is_like_another() {
        let content = content();
        let sectors: std::collections::BTreeSet<_> = content.chunks(SECTOR).collect();
        assert_eq!((content.len(), sectors.len()), (BYTES, BYTES / SECTOR));
    }

    #[test]
    fn the_guests_word_and_nothing_else_is_new() {
        assert_eq!(fnv(b"a"), 0xaf63_dc4c_8601_ec8c);
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::create(dir.path().join("disk")).unwrap();
        assert!(disk.check().is_err());
        let mut bytes = std::fs::read(disk.file()).unwrap();
        bytes[BYTES - BLOCK..].fill(0);
        bytes[BYTES - BLOCK..][..WORD.len()].copy_from_slice(WORD);
        std::fs::write(disk.file(), &bytes).unwrap();
        disk.check().unwrap();
        bytes[5] ^= 1;
        std::fs::write(disk.file(), &bytes).unwrap();
        assert!(disk.check().is_err());
    }
}
