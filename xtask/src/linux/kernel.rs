//! Debian's kernel for clouds, fetched by the name of its package and unpacked; nothing is installed.

use crate::setup::Sources;
use crate::{proc, ui, workspace};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// The series of kernels with all that SEV-SNP guests need, and an SVSM below them.
const SERIES: &str = "6.12";

/// What a report needs (the interface, the driver and its cipher), and a disk. In the order in which they can be loaded.
const MODULES: [&str; 8] = [
    "configfs",
    "tsm",
    "crypto_null",
    "gf128mul",
    "ghash-generic",
    "gcm",
    "sev-guest",
    "virtio_blk",
];

/// An unpacked package.
#[derive(Debug)]
pub(super) struct Debian {
    /// The kernel.
    pub(super) image: PathBuf,
    dir: PathBuf,
}

impl Debian {
    /// The modules that the guest loads.
    pub(super) fn modules(&self) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        collect(&self.dir.join("lib/modules"), &mut files)?;
        let find = |name: &str| {
            let found = files.iter().find(|path| {
                let file = path.file_name().and_then(|file| file.to_str());
                file.and_then(|file| file.split_once(".ko"))
                    .is_some_and(|(stem, _)| stem == name)
            });
            found
                .cloned()
                .with_context(|| format!("the kernel's package has no module {name}"))
        };
        MODULES.into_iter().map(find).collect()
    }

    fn unpacked(dir: &Path) -> Option<Self> {
        let mut boot = std::fs::read_dir(dir.join("boot")).ok()?;
        let image = boot.find_map(|entry| {
            let path = entry.ok()?.path();
            let name = path.file_name()?.to_str()?;
            name.starts_with("vmlinuz-").then_some(path)
        })?;
        Some(Self {
            image,
            dir: dir.to_owned(),
        })
    }
}

/// The kernel that is there already, or a fresh one.
pub(super) fn fetch() -> Result<Debian> {
    let dir = workspace::target_dir()?.join("linux").join("debian");
    if let Some(found) = Debian::unpacked(&dir) {
        return Ok(found);
    }
    let start = ui::step(&format!("fetching Debian's cloud kernel {SERIES}"));
    for tool in ["apt-get", "apt-cache", "dpkg-deb"] {
        if proc::find(tool).is_none() {
            bail!(
                "there is no {tool} here to fetch a kernel with; --kernel and --initrd bring your own"
            );
        }
    }
    let release =
        std::fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let codename = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .context("/etc/os-release names no VERSION_CODENAME")?
        .trim_matches('"');
    let suites = [codename.to_owned(), format!("{codename}-backports")];
    let sources = Sources::of(&[&suites[0], &suites[1]])?;
    sources.update()?;
    let pattern = format!("^linux-image-{SERIES}\\..*-cloud-amd64$");
    let mut search = sources.apt_cache()?;
    search.args(["search", "--names-only", &pattern]);
    let listed = proc::capture(&mut search)?;
    let package = newest(&listed)
        .with_context(|| format!("the archive has no kernel {SERIES} for clouds"))?;
    sources.unpack(package, &dir)?;
    ui::note(&format!("{package}, in {}", ui::elapsed(start)));
    Debian::unpacked(&dir).with_context(|| format!("{package} has no kernel"))
}

/// The newest of packages that `apt-cache search` lists. Their names differ in the patch level.
fn newest(listed: &str) -> Option<&str> {
    let names = listed
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    names.max_by_key(|name| {
        let patch = name
            .strip_prefix("linux-image-")?
            .split(['.', '+', '-'])
            .nth(2)?;
        patch.parse::<u32>().ok()
    })
}

fn collect(dir: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
    let entries =
        std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            collect(&path, into)?;
        } else {
            into.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_has_the_highest_patch_level() {
        let listed = "linux-image-6.12.9+deb12-cloud-amd64 - Linux\n\
            linux-image-6.12.107+deb12-cloud-amd64 - Linux\n\
            linux-image-6.12.94+deb12-cloud-amd64 - Linux\n";
        assert_eq!(
            newest(listed),
            Some("linux-image-6.12.107+deb12-cloud-amd64")
        );
        assert_eq!(newest(""), None);
    }
}
