//! Debian's OVMF, fetched by the name of its package and unpacked; nothing is installed.

use crate::setup::Sources;
use crate::{ui, workspace};
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};

/// The release whose OVMF looks for an SVSM.
const SUITE: &str = "trixie";
/// The file of the package that starts without flash memory.
const FILE: &str = "usr/share/ovmf/OVMF.fd";
/// What asks for Debian's.
const DEBIAN: &str = "debian";

/// The file that `wanted` names, or Debian's.
pub(crate) fn find(wanted: &Path) -> Result<PathBuf> {
    if wanted != Path::new(DEBIAN) {
        return Ok(wanted.to_owned());
    }
    fetch()
}

/// Debian's, there already or fresh.
pub(crate) fn fetch() -> Result<PathBuf> {
    let dir = workspace::target_dir()?.join("linux").join("ovmf");
    let file = dir.join(FILE);
    if file.is_file() {
        return Ok(file);
    }
    let start = ui::step(&format!("fetching OVMF of Debian {SUITE}"));
    let sources = Sources::packages_of(SUITE)?;
    sources.update()?;
    sources.unpack("ovmf", &dir)?;
    ui::note(&format!("done in {}", ui::elapsed(start)));
    if !file.is_file() {
        bail!("Debian's package ovmf has no {FILE}");
    }
    Ok(file)
}
