//! Rules about the workspace as a whole.

use super::{Report, read};
use crate::proc;
use crate::workspace::{self, Package};
use std::path::Path;
use std::process::Command;

/// What a workspace has at its root.
const ROOT_FILES: &[&str] = &[
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "rustfmt.toml",
    "clippy.toml",
    "deny.toml",
    ".cargo/config.toml",
];
/// How paths begin that exist on somebody's machine only.
const SOMEBODYS: &[&str] = &["/home/", "/root/", "/Users/"];

pub(super) fn check(packages: &[Package], report: &mut Report) {
    let root = workspace::root();
    for file in ROOT_FILES {
        report.expect(root.join(file).is_file(), || {
            format!("the workspace has no {file}")
        });
    }
    let toolchain = read(&root.join("rust-toolchain.toml"));
    report.expect(names_a_channel_only(&toolchain), || {
        String::from("rust-toolchain.toml asks for more than the stable channel")
    });
    let contributing = read(&root.join("CONTRIBUTING.md"));
    published_in_order(packages, &publishing_order(&contributing), report);
    paths(&root, report);
}

/// A pinned release or a list of targets makes every call of cargo fail where rustup may not install.
fn names_a_channel_only(toolchain: &str) -> bool {
    let keys = toolchain
        .lines()
        .filter(|line| line.contains('=') && !line.trim_start().starts_with('#'));
    keys.map(str::trim).eq(["channel = \"stable\""])
}

/// The crates of each step of the numbered list under "Publishing".
fn publishing_order(contributing: &str) -> Vec<Vec<&str>> {
    contributing
        .lines()
        .skip_while(|line| *line != "## Publishing")
        .filter(|line| line.starts_with(|c: char| c.is_ascii_digit()))
        .map(|line| line.split('`').skip(1).step_by(2).collect())
        .collect()
}

fn published_in_order(packages: &[Package], order: &[Vec<&str>], report: &mut Report) {
    let step = |name: &str| order.iter().position(|step| step.contains(&name));
    for package in packages.iter().filter(|package| package.published) {
        let own = step(&package.name);
        report.expect(own.is_some(), || {
            format!(
                "{}: CONTRIBUTING does not say when it is published",
                package.name
            )
        });
        for dependency in package.ours.keys() {
            report.expect(own.is_none() || step(dependency) < own, || {
                format!(
                    "{}: is published before {dependency}, which it needs",
                    package.name
                )
            });
        }
    }
}

fn paths(root: &Path, report: &mut Report) {
    // Outside of a clone, in an unpacked archive say, there is nobody to ask which files are ours.
    let mut git = Command::new("git");
    let list = proc::ask(git.args(["ls-files", "-z"]).current_dir(root)).unwrap_or_default();
    for name in list.split('\0').filter(|name| !name.is_empty()) {
        // This file names what it looks for.
        if name.ends_with("rules/tree.rs") {
            continue;
        }
        let text = read(&root.join(name));
        let found = text
            .lines()
            .position(|line| SOMEBODYS.iter().any(|path| line.contains(path)));
        report.expect(found.is_none(), || {
            let line = found.unwrap_or_default() + 1;
            format!("{name}:{line}: a path of somebody's machine")
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn package(name: &str, uses: &str) -> Package {
        Package {
            name: name.to_owned(),
            dir: format!("/x/crates/{name}").into(),
            published: true,
            features: vec![],
            ours: BTreeMap::from([(uses.to_owned(), false)]),
        }
    }

    #[test]
    fn a_crate_is_published_after_those_it_needs() {
        let text = "## Publishing\n\nText.\n\n1. `low`, `side`\n2. `high`\n";
        let order = publishing_order(text);
        assert_eq!(order, [vec!["low", "side"], vec!["high"]]);
        let broken = |package| {
            let mut report = Report::default();
            published_in_order(&[package], &order, &mut report);
            report.broken.len()
        };
        assert_eq!(broken(package("high", "low")), 0);
        assert_eq!(broken(package("low", "side")), 1);
        assert_eq!(broken(package("new", "low")), 1);
    }

    #[test]
    fn a_toolchain_file_names_the_channel_and_no_more() {
        assert!(names_a_channel_only("[toolchain]\nchannel = \"stable\"\n"));
        assert!(!names_a_channel_only("[toolchain]\nchannel = \"1.88\"\n"));
        assert!(!names_a_channel_only(
            "[toolchain]\nchannel = \"stable\"\ntargets = []\n"
        ));
    }
}
