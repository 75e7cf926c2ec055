//! The workspace as cargo describes it.

use crate::proc;
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// One package of the workspace.
#[derive(Debug)]
pub(crate) struct Package {
    /// Its name.
    pub(crate) name: String,
    /// The directory of its manifest.
    pub(crate) dir: PathBuf,
    /// Whether it goes to a registry.
    pub(crate) published: bool,
    /// Its features, without `default` and without those that cargo derives from optional dependencies.
    pub(crate) features: Vec<String>,
    /// Packages of the workspace that it depends on, tests excluded: name, and whether that is optional.
    pub(crate) ours: BTreeMap<String, bool>,
}

impl Package {
    /// Whether it is one of the published library family below `crates/`.
    pub(crate) fn is_crate(&self) -> bool {
        self.dir
            .parent()
            .is_some_and(|parent| parent.ends_with("crates"))
    }
}

/// The top directory of the workspace.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let meta = metadata()?;
    Ok(PathBuf::from(
        field(&meta, "target_directory")
            .as_str()
            .context("cargo names no target directory")?,
    ))
}

/// All packages, in the order of their names.
pub(crate) fn packages() -> Result<Vec<Package>> {
    let meta = metadata()?;
    let list = field(&meta, "packages")
        .as_array()
        .context("cargo lists no packages")?;
    let names: Vec<&str> = list
        .iter()
        .filter_map(|package| field(package, "name").as_str())
        .collect();
    let mut packages = list
        .iter()
        .map(|package| parse(package, &names))
        .collect::<Result<Vec<_>>>()?;
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(packages)
}

fn metadata() -> Result<Value> {
    let text = proc::capture(
        proc::cargo()
            .args(["metadata", "--format-version=1", "--no-deps"])
            .current_dir(root()),
    )?;
    serde_json::from_str(&text).context("cannot read the output of cargo metadata")
}

fn parse(package: &Value, members: &[&str]) -> Result<Package> {
    let name = field(package, "name")
        .as_str()
        .context("a package without a name")?
        .to_owned();
    let manifest = PathBuf::from(
        field(package, "manifest_path")
            .as_str()
            .context("a package without a manifest")?,
    );
    let dir = manifest
        .parent()
        .context("a manifest without a directory")?
        .to_path_buf();
    let features = field(package, "features")
        .as_object()
        .context("a package without features")?;
    let mut ours = BTreeMap::new();
    for dependency in field(package, "dependencies")
        .as_array()
        .context("a package without dependencies")?
    {
        let to = field(dependency, "name").as_str().unwrap_or_default();
        if field(dependency, "kind").as_str() != Some("dev") && members.contains(&to) {
            ours.insert(
                to.to_owned(),
                field(dependency, "optional").as_bool().unwrap_or(false),
            );
        }
    }
    Ok(Package {
        // `publish = false` shows as an empty list of registries.
        published: field(package, "publish")
            .as_array()
            .is_none_or(|registries| !registries.is_empty()),
        features: features
            .keys()
            .filter(|feature| *feature != "default")
            .cloned()
            .collect(),
        name,
        dir,
        ours,
    })
}

/// A field of a JSON object; null where it is missing.
fn field<'a>(object: &'a Value, name: &str) -> &'a Value {
    object.get(name).unwrap_or(&Value::Null)
}
