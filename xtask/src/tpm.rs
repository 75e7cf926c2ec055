//! What the TPM is held against: libtpms, and tpm2-tss' own tests.

pub(crate) mod suite; // tpm2-tss' integration tests

use crate::setup::{self, Install};
use crate::{proc, workspace};
use anyhow::{Context, Result};
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;

/// The library that the differential test opens.
const LIBRARY: &str = "libtpms.so.0";

/// Builds a tool of the workspace, optimized, and says where it is.
pub(crate) fn tool(name: &str) -> Result<PathBuf> {
    built(name, &[])
}

/// The `tpm-diff` whose storm has post-quantum keys. It is kept beside the one that compares, so that neither takes the other's place.
pub(crate) fn storm_tool() -> Result<PathBuf> {
    let tool = built("tpm-diff", &["--features", "pqc"])?;
    let kept = tool.with_file_name("tpm-storm");
    std::fs::copy(&tool, &kept)
        .with_context(|| format!("cannot copy {} to {}", tool.display(), kept.display()))?;
    Ok(kept)
}

fn built(name: &str, features: &[&str]) -> Result<PathBuf> {
    proc::run(
        proc::cargo()
            .args(["build", "--quiet", "--release", "-p", name])
            .args(features)
            .current_dir(workspace::root()),
    )?;
    Ok(workspace::target_dir()?.join("release").join(name))
}

/// Why the differential test is not possible here, if it is not. Installs the library where that is allowed.
pub(crate) fn library_missing() -> Option<String> {
    let dirs = ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib"];
    let found = || {
        let mut dirs = dirs.iter();
        dirs.any(|dir| std::path::Path::new(dir).join(LIBRARY).exists())
    };
    if found() {
        return None;
    }
    match setup::packages(Install::Allowed, &["libtpms0"], LIBRARY) {
        Ok(()) if found() => None,
        Ok(()) => Some(format!("the package libtpms0 brought no {LIBRARY}")),
        Err(error) => Some(format!("{error:#}")),
    }
}

/// Who answers the commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// Both TPMs, and the answers are compared.
    Both,
    /// Ours alone.
    Alone,
    /// Ours alone, and the commands are of any bytes.
    Storm,
}

/// What a run of `tpm-diff` found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Diff {
    pub(crate) sequences: u64,
    pub(crate) commands: u64,
    pub(crate) successes: u64,
    pub(crate) unexplained: u64,
    /// How often each entry of the reviewed list was needed.
    pub(crate) used: Vec<u64>,
}

impl Diff {
    /// Reads the figures that the tool prints as JSON.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(line).ok()?;
        let number = |name: &str| value.get(name)?.as_u64();
        Some(Self {
            sequences: number("sequences")?,
            commands: number("commands")?,
            successes: number("successes")?,
            unexplained: number("unexplained")?,
            used: value
                .get("used")?
                .as_array()?
                .iter()
                .filter_map(Value::as_u64)
                .collect(),
        })
    }
}

/// Runs sequences from a seed on, on both TPMs or on ours alone. Differences that nobody has explained are printed.
pub(crate) fn diff(tool: &PathBuf, seed: u64, sequences: u64, who: Who) -> Result<Diff> {
    let mut command = Command::new(tool);
    command.args(["--json", "--seed", &seed.to_string()]);
    command.args(["--sequences", &sequences.to_string()]);
    command.args(match who {
        Who::Both => None,
        Who::Alone => Some("--alone"),
        Who::Storm => Some("--storm"),
    });
    let output = command
        .output()
        .with_context(|| format!("cannot start {}", tool.display()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let figures = said.lines().next_back().and_then(Diff::parse);
    if !output.status.success() {
        print!("{said}");
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
    }
    figures.with_context(|| {
        format!(
            "tpm-diff ended without figures, at seed {seed} ({}): {}",
            output.status,
            said.lines().next_back().unwrap_or_default()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_and_text_is_not() {
        let line = r#"{"sequences":2,"commands":80,"successes":9,"unexplained":0,"used":[1,0]}"#;
        let diff = Diff::parse(line).unwrap();
        assert_eq!((diff.commands, diff.used), (80, vec![1, 0]));
        assert_eq!(Diff::parse("skipped: libtpms.so.0 is not to be had"), None);
    }
}
