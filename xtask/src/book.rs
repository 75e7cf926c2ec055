//! The book.

use crate::{proc, tools, ui, workspace};
use anyhow::Result;
use std::process::{Command, ExitCode};

/// `cargo xtask book`.
pub(crate) fn command() -> Result<ExitCode> {
    let start = ui::step("building the book");
    build()?;
    let index = workspace::root().join("book/book/index.html");
    ui::note(&format!("{} ({})", index.display(), ui::elapsed(start)));
    Ok(ExitCode::SUCCESS)
}

/// Builds it into `book/book`.
pub(crate) fn build() -> Result<()> {
    let mdbook = tools::MDBOOK.find()?;
    proc::run(
        Command::new(mdbook)
            .arg("build")
            .arg(workspace::root().join("book")),
    )
}
