//! Features are additive: every one, every pair, none and all of them must build.

use crate::proc;
use crate::ui;
use crate::workspace::{self, Package};
use anyhow::{Result, bail};
use std::process::ExitCode;

/// `cargo xtask features`.
pub(crate) fn command() -> Result<ExitCode> {
    let start = ui::step("every pair of features of every crate");
    let count = powerset()?;
    ui::note(&format!(
        "{count} sets of features build ({})",
        ui::elapsed(start)
    ));
    Ok(ExitCode::SUCCESS)
}

/// Checks all sets of up to two features, and all features, of every crate. Answers how many sets that were.
pub(crate) fn powerset() -> Result<usize> {
    let mut count = 0;
    let mut failed = Vec::new();
    for package in workspace::packages()?
        .iter()
        .filter(|package| package.is_crate())
    {
        for set in sets(package) {
            let mut cargo = proc::cargo();
            cargo.args([
                "check",
                "--quiet",
                "--lib",
                "--no-default-features",
                "-p",
                &package.name,
            ]);
            cargo
                .args(["--features", &set.join(",")])
                .current_dir(workspace::root());
            count += 1;
            if proc::run_without_warnings(&mut cargo).is_err() {
                failed.push(format!("{} with `{}`", package.name, set.join(",")));
            }
        }
    }
    if !failed.is_empty() {
        bail!("these sets of features do not build: {}", failed.join("; "));
    }
    Ok(count)
}

fn sets(package: &Package) -> Vec<Vec<&str>> {
    let features: Vec<&str> = package.features.iter().map(String::as_str).collect();
    let mut sets = vec![vec![]];
    for (index, one) in features.iter().enumerate() {
        sets.push(vec![*one]);
        sets.extend(features.iter().skip(index + 1).map(|two| vec![*one, *two]));
    }
    if features.len() > 2 {
        sets.push(features);
    }
    sets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_none_each_pair_and_all() {
        let package = Package {
            name: String::new(),
            dir: Default::default(),
            published: true,
            features: ["a", "b", "c"].map(str::to_owned).to_vec(),
            ours: Default::default(),
        };
        assert_eq!(sets(&package).len(), 1 + 3 + 3 + 1);
    }
}
