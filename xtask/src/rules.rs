//! What a program can check of the house rules: the direction of dependencies, no state in libraries,
//! documented features, the files that every crate has, and proofs that are not empty.

mod graph;
mod manifest;
mod source;
mod tree;

use crate::ui;
use crate::workspace::{self, Package};
use anyhow::{Result, bail};
use std::path::Path;
use std::process::ExitCode;

/// The oldest Rust, as the root manifest has it.
const MSRV: &str = env!("CARGO_PKG_RUST_VERSION");

/// `cargo xtask rules`.
pub(crate) fn command() -> Result<ExitCode> {
    let start = ui::step("house rules");
    let count = check()?;
    ui::note(&format!("{count} checks hold ({})", ui::elapsed(start)));
    Ok(ExitCode::SUCCESS)
}

/// Checks everything. Answers how many checks were made, or an error that lists what is broken.
pub(crate) fn check() -> Result<usize> {
    let packages = workspace::packages()?;
    let mut report = Report::default();
    graph::check(&packages, &mut report);
    for package in packages.iter().filter(|package| package.is_crate()) {
        files(package, &mut report);
    }
    tree::check(&packages, &mut report);
    for package in &packages {
        manifest::check(package, &mut report)?;
        source::check(package, &mut report)?;
    }
    if !report.broken.is_empty() {
        bail!(
            "{} house rules are broken:\n  {}",
            report.broken.len(),
            report.broken.join("\n  ")
        );
    }
    Ok(report.checks)
}

/// What was checked, and what does not hold.
#[derive(Debug, Default)]
pub(crate) struct Report {
    checks: usize,
    broken: Vec<String>,
}

impl Report {
    /// Notes one check; `what` says what is wrong where it does not hold.
    fn expect(&mut self, holds: bool, what: impl FnOnce() -> String) {
        self.checks += 1;
        if !holds {
            self.broken.push(what());
        }
    }
}

fn files(package: &Package, report: &mut Report) {
    for file in ["README.md", "CHANGELOG.md", "src/lib.rs"] {
        report.expect(package.dir.join(file).is_file(), || {
            format!("{}: has no {file}", package.name)
        });
    }
    let library = read(&package.dir.join("src/lib.rs"));
    report.expect(library.contains("include_str!(\"../README.md\")"), || {
        format!(
            "{}: the README is not the crate's documentation",
            package.name
        )
    });
    let std_by_design = package.name == "svsm-igvm";
    report.expect(std_by_design || library.contains("no_std"), || {
        format!("{}: is not no_std", package.name)
    });
    let readme = read(&package.dir.join("README.md"));
    report.expect(readme.contains("```"), || {
        format!("{}: its README shows no example", package.name)
    });
    report.expect(readme.contains(MSRV), || {
        format!(
            "{}: its README does not say that it needs Rust {MSRV}",
            package.name
        )
    });
    let examples = std::fs::read_dir(package.dir.join("examples"))
        .is_ok_and(|mut entries| entries.next().is_some());
    report.expect(examples, || {
        format!("{}: has no example program", package.name)
    });
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_default()
}
