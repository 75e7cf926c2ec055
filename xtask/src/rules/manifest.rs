//! Rules that show in a manifest.

use super::{Report, read};
use crate::workspace::Package;
use anyhow::{Context, Result};
use toml::{Table, Value};

pub(super) fn check(package: &Package, report: &mut Report) -> Result<()> {
    let text = read(&package.dir.join("Cargo.toml"));
    let manifest: Table = text
        .parse()
        .with_context(|| format!("cannot read the manifest of {}", package.name))?;
    for dependency in stated_here(&manifest) {
        report.expect(false, || {
            format!(
                "{}: says itself which version of `{dependency}` it takes; the root manifest does",
                package.name
            )
        });
    }
    report.expect(inherits(&manifest, "lints"), || {
        format!("{}: does not take the workspace's lints", package.name)
    });
    if package.is_crate() {
        library(package, &manifest, report);
        features(package, &text, report);
    }
    Ok(())
}

fn library(package: &Package, manifest: &Table, report: &mut Report) {
    let in_package = |name: &str| manifest.get("package").and_then(|facts| facts.get(name));
    for fact in ["version", "edition", "rust-version", "license"] {
        let shared = in_package(fact).and_then(|value| value.get("workspace"));
        report.expect(shared == Some(&Value::Boolean(true)), || {
            format!("{}: states its own {fact}", package.name)
        });
    }
    let all_features = in_package("metadata")
        .and_then(|metadata| metadata.get("docs"))
        .and_then(|docs| docs.get("rs"))
        .and_then(|docs_rs| docs_rs.get("all-features"));
    report.expect(all_features == Some(&Value::Boolean(true)), || {
        format!("{}: docs.rs would not show all features", package.name)
    });
}

/// Dependencies whose version is stated outside of the root manifest.
fn stated_here(manifest: &Table) -> Vec<String> {
    let mut found = Vec::new();
    for (name, value) in manifest {
        let Some(table) = value.as_table() else {
            continue;
        };
        if name.ends_with("dependencies") {
            let stated = table.iter().filter(|(_, source)| {
                let shared = source.get("workspace") == Some(&Value::Boolean(true));
                // By path without a version: for tests, where crates would otherwise wait for each other.
                !shared && (source.get("path").is_none() || source.get("version").is_some())
            });
            found.extend(stated.map(|(dependency, _)| dependency.clone()));
        } else if name == "target" {
            let targets = table.values().filter_map(Value::as_table);
            found.extend(targets.flat_map(stated_here));
        }
    }
    found
}

fn inherits(manifest: &Table, section: &str) -> bool {
    manifest
        .get(section)
        .and_then(|table| table.get("workspace"))
        == Some(&Value::Boolean(true))
}

fn features(package: &Package, manifest: &str, report: &mut Report) {
    for feature in &package.features {
        report.expect(documented(manifest, feature), || {
            format!("{}: feature `{feature}` has no `##` comment", package.name)
        });
        let bad = feature.starts_with("no-")
            || feature.starts_with("use-")
            || feature.starts_with(|c: char| c.is_ascii_digit());
        report.expect(!bad, || {
            format!(
                "{}: feature `{feature}` is not a noun for what comes in",
                package.name
            )
        });
    }
}

fn documented(manifest: &str, feature: &str) -> bool {
    let mut previous = "";
    for line in manifest.lines() {
        let name = line
            .split('=')
            .next()
            .unwrap_or_default()
            .trim()
            .trim_matches('"');
        if line.contains('=') && name == feature {
            return previous.starts_with("## ");
        }
        previous = line.trim();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_needs_a_doc_comment_right_above_it() {
        let manifest = "[features]\n## Text.\ngood = []\n# not a doc\nbad = []\n";
        assert!(documented(manifest, "good"));
        assert!(!documented(manifest, "bad"));
        assert!(!documented(manifest, "missing"));
    }

    #[test]
    fn versions_are_stated_at_the_root_only() {
        let manifest = "
            [dependencies]
            shared.workspace = true
            stated = \"1\"
            [dev-dependencies]
            beside = { path = \"../beside\" }
            [target.'cfg(loom)'.dependencies]
            table = { version = \"1\" }
            ";
        let manifest = manifest.parse().unwrap();
        assert_eq!(stated_here(&manifest), ["stated", "table"]);
    }
}
