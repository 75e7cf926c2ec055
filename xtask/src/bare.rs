//! Building for the bare machine.

use crate::proc;
use crate::setup::Bare;
use crate::workspace;
use anyhow::Result;

/// Builds, without a warning, every published `no_std` library for the bare machine, with no feature and with all of them.
pub(crate) fn libraries(bare: &Bare) -> Result<usize> {
    let packages = workspace::packages()?;
    let libraries: Vec<&str> = packages
        .iter()
        .filter(|package| package.is_crate() && package.name != "svsm-igvm")
        .map(|package| package.name.as_str())
        .collect();
    for features in ["--no-default-features", "--all-features"] {
        let mut cargo = bare.cargo("build")?;
        cargo.args(["--profile", "firmware", "--quiet", features]);
        for name in &libraries {
            cargo.args(["-p", name]);
        }
        proc::run_without_warnings(&mut cargo)?;
    }
    Ok(libraries.len())
}
