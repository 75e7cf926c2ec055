//! Arrows between crates only point down.

use super::Report;
use crate::workspace::Package;

/// Which crate of the family may use which, features included.
const MAY_USE: &[(&str, &[&str])] = &[
    ("svsm-guest", &[]),
    (
        "svsm-igvm",
        &[
            "svsm-guest",
            "svsm-mm",
            "svsm-platform",
            "svsm-sim",
            "svsm-stage2",
        ],
    ),
    ("svsm-irq", &["svsm-platform"]),
    ("svsm-log", &[]),
    ("svsm-mm", &["svsm-platform"]),
    ("svsm-platform", &[]),
    ("svsm-protocol", &["svsm-mm", "svsm-platform"]),
    // The model's reading of the specification is its own; only the impls of our seams know us.
    ("svsm-sim", &["svsm-platform"]),
    ("svsm-stage2", &["svsm-mm", "svsm-platform"]),
    ("svsm-syscall", &["svsm-platform"]),
    ("svsm-vtpm", &[]),
];

/// Dependencies that must be optional, so that the crate stands without them.
const ONLY_BY_FEATURE: &[(&str, &str)] = &[("svsm-sim", "svsm-platform")];

pub(super) fn check(packages: &[Package], report: &mut Report) {
    for package in packages.iter().filter(|package| package.is_crate()) {
        let allowed = MAY_USE.iter().find(|(name, _)| *name == package.name);
        report.expect(allowed.is_some(), || {
            format!(
                "{}: has no place in the dependency graph of the rules",
                package.name
            )
        });
        report.expect(package.published, || {
            format!("{}: is not published", package.name)
        });
        for (to, optional) in &package.ours {
            let fits = allowed.is_some_and(|(_, targets)| targets.contains(&to.as_str()));
            report.expect(fits, || {
                format!("{}: must not depend on {to}", package.name)
            });
            let needs_feature = ONLY_BY_FEATURE.contains(&(package.name.as_str(), to.as_str()));
            report.expect(*optional || !needs_feature, || {
                format!("{}: may use {to} only behind a feature", package.name)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn package(name: &str, uses: &str, optional: bool) -> Package {
        Package {
            name: name.to_owned(),
            dir: format!("/x/crates/{name}").into(),
            published: true,
            features: vec![],
            ours: BTreeMap::from([(uses.to_owned(), optional)]),
        }
    }

    fn broken(package: Package) -> usize {
        let mut report = Report::default();
        check(&[package], &mut report);
        report.broken.len()
    }

    #[test]
    fn arrows_point_down_only() {
        assert_eq!(broken(package("svsm-mm", "svsm-platform", false)), 0);
        assert_eq!(broken(package("svsm-platform", "svsm-mm", false)), 1);
        assert_eq!(broken(package("svsm-new", "svsm-platform", false)), 2);
    }

    #[test]
    fn the_model_knows_us_behind_a_feature_only() {
        assert_eq!(broken(package("svsm-sim", "svsm-platform", true)), 0);
        assert_eq!(broken(package("svsm-sim", "svsm-platform", false)), 1);
    }
}
