//! The documentation of all packages.

use crate::{proc, ui, workspace};
use anyhow::Result;
use std::process::ExitCode;

/// `cargo xtask docs`.
pub(crate) fn command() -> Result<ExitCode> {
    let start = ui::step("building the documentation");
    build()?;
    let index = workspace::target_dir()?.join("doc/svsm_platform/index.html");
    ui::note(&format!("{} ({})", index.display(), ui::elapsed(start)));
    Ok(ExitCode::SUCCESS)
}

/// Builds it into `target/doc`; a warning is an error.
pub(crate) fn build() -> Result<()> {
    let mut doc = proc::cargo();
    doc.args([
        "doc",
        "--quiet",
        "--workspace",
        "--no-deps",
        "--all-features",
    ])
    .env("RUSTDOCFLAGS", "-Dwarnings")
    .current_dir(workspace::root());
    proc::run(&mut doc)
}
