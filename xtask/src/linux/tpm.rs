//! Linux with `tpm-sim` as its TPM: QEMU's emulator back end, Debian's kernel, and Debian's tpm2-tools in the RAM disk.

mod moved; // the guest and its TPM, moved into other processes

use super::{cpio, kernel};
use crate::setup::{self, Install, Sources};
use crate::{proc, tpm, ui, workspace};
use anyhow::{Context, Result, bail, ensure};
use core::time::Duration;
use elf::ElfBytes;
use elf::endian::LittleEndian;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use tempfile::TempDir;

/// The devices by which a guest may reach the TPM.
pub(crate) const DEVICES: [&str; 2] = ["tpm-crb", "tpm-tis"];
/// What the first process says at its good end.
const PASSED: &str = "guest: verdict: passed";
/// The first process.
const INIT: &str = include_str!("tpm-init.sh");

pub(super) fn command(timeout: u64, quiet: bool) -> Result<ExitCode> {
    let desk = Desk::lay(Parts::bring()?)?;
    for device in DEVICES {
        desk.run(device, Duration::from_secs(timeout), quiet)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What comes from elsewhere, and is not to be had on every machine.
pub(crate) struct Parts {
    qemu: PathBuf,
    kernel: PathBuf,
    tools: PathBuf,
}

impl Parts {
    /// Fetches what is missing.
    pub(crate) fn bring() -> Result<Self> {
        Ok(Self {
            qemu: setup::qemu(Install::Allowed)?.program,
            kernel: kernel::fetch()?.image,
            tools: tools()?,
        })
    }
}

/// Everything that a guest with a TPM is started from.
pub(crate) struct Desk {
    qemu: PathBuf,
    kernel: PathBuf,
    sim: PathBuf,
    scratch: TempDir,
}

impl Desk {
    /// Makes the rest: whatever fails here is ours.
    pub(crate) fn lay(parts: Parts) -> Result<Self> {
        let sim = tpm::tool("tpm-sim")?;
        let scratch = tempfile::tempdir().context("cannot make a scratch directory")?;
        std::fs::write(scratch.path().join("initrd"), ram_disk(&parts.tools)?)?;
        Ok(Self {
            qemu: parts.qemu,
            kernel: parts.kernel,
            sim,
            scratch,
        })
    }

    /// Starts the guest, moves it when it says so, and sees whether all went well.
    pub(crate) fn run(&self, device: &str, limit: Duration, quiet: bool) -> Result<()> {
        let start = ui::step(&format!("starting Linux with {device}"));
        let initrd = self.scratch.path().join("initrd");
        let command = |socket: &Path| {
            let mut run = Command::new(&self.qemu);
            run.args([
                "-nodefaults",
                "-no-user-config",
                "-display",
                "none",
                "-no-reboot",
            ])
            .args([
                "-machine", "q35", "-accel", "tcg", "-cpu", "max", "-m", "512M",
            ])
            .args(["-serial", "stdio", "-kernel"])
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(&initrd)
            .args(["-append", "console=ttyS0 panic=-1 quiet ima_policy=tcb"])
            .arg("-chardev")
            .arg(format!("socket,id=tpm,path={}.ctrl", socket.display()))
            .args(["-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device"])
            .arg(format!("{device},tpmdev=tpm0"));
            run
        };
        let base = self.scratch.path().join(device);
        let console = moved::Console::new(limit, quiet);
        let said = moved::run(&self.sim, &base, &command, console)?;
        ensure!(
            said.contains(PASSED),
            "Linux with {device} did not say `{PASSED}`"
        );
        ui::note(&format!("passed in {}", ui::elapsed(start)));
        Ok(())
    }
}

/// The simulator, ended with the run. It ends by itself when QEMU shuts it down.
struct Simulator(Child);

impl Simulator {
    fn start(program: &Path, socket: &Path) -> Result<Self> {
        let process = Command::new(program)
            .args(["--protocol", "swtpm", "--socket"])
            .arg(socket)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let mut simulator = Self(process);
        let mut control = socket.as_os_str().to_owned();
        control.push(".ctrl");
        for _ in 0..200 {
            if Path::new(&control).exists() {
                return Ok(simulator);
            }
            if !matches!(simulator.0.try_wait(), Ok(None)) {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!(
            "{} does not listen on {}",
            program.display(),
            socket.display()
        )
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Debian's tpm2-tools, its libraries and a shell, unpacked; nothing is installed.
fn tools() -> Result<PathBuf> {
    let dir = workspace::target_dir()?.join("linux").join("tpm-tools");
    let done = dir.join(".unpacked");
    if done.is_file() {
        return Ok(dir);
    }
    let start = ui::step("fetching tpm2-tools and its libraries");
    let release =
        std::fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let codename = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .context("/etc/os-release names no VERSION_CODENAME")?
        .trim_matches('"');
    let sources = Sources::of(&[codename])?;
    proc::run(sources.apt()?.args(["-qq", "update"]))?;
    let mut ask = sources.apt_cache()?;
    ask.args([
        "depends",
        "--recurse",
        "--no-recommends",
        "--no-suggests",
        "--no-conflicts",
    ]);
    ask.args([
        "--no-breaks",
        "--no-replaces",
        "--no-enhances",
        "tpm2-tools",
        "busybox-static",
    ]);
    let listed = proc::capture(&mut ask)?;
    let scratch = tempfile::tempdir().context("cannot make a scratch directory")?;
    let mut get = sources.apt()?;
    get.args(["-qq", "-o", "APT::Sandbox::User=root", "download"]);
    // The archive's version, which need not be the one that is installed here.
    get.args(
        wanted(&listed)
            .iter()
            .map(|name| format!("{name}/{codename}")),
    );
    proc::run(get.current_dir(scratch.path()))?;
    std::fs::create_dir_all(&dir)?;
    for archive in std::fs::read_dir(scratch.path())? {
        proc::run(
            Command::new("dpkg-deb")
                .arg("-x")
                .arg(archive?.path())
                .arg(&dir),
        )?;
    }
    std::fs::write(&done, "")?;
    ui::note(&format!("done in {}", ui::elapsed(start)));
    Ok(dir)
}

/// The programs and the libraries among what `apt-cache depends` lists.
fn wanted(listed: &str) -> BTreeSet<&str> {
    listed
        .lines()
        .filter(|line| !line.starts_with([' ', '<', '|']) && !line.contains(':'))
        .filter(|name| {
            name.starts_with("lib") || ["tpm2-tools", "busybox-static", "zlib1g"].contains(name)
        })
        .collect()
}

/// The RAM disk: shell, tools, and the libraries that these need.
fn ram_disk(tools: &Path) -> Result<Vec<u8>> {
    let mut found = BTreeMap::new();
    collect(tools, &mut found)?;
    let read = |name: &str| -> Result<Vec<u8>> {
        let path: &PathBuf = found
            .get(name)
            .with_context(|| format!("no package has {name}"))?;
        std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let mut files = vec![
        ("init".to_owned(), INIT.as_bytes().to_vec()),
        ("bin/busybox".to_owned(), read("busybox")?),
        ("usr/bin/tpm2".to_owned(), read("tpm2")?),
    ];
    let loader = "ld-linux-x86-64.so.2";
    files.push((format!("lib64/{loader}"), read(loader)?));
    // tpm2-tss opens the last one by name.
    let mut todo = needed(&read("tpm2")?)?;
    todo.push("libtss2-tcti-device.so.0".to_owned());
    let mut taken = BTreeSet::from([loader.to_owned()]);
    while let Some(name) = todo.pop() {
        if !taken.insert(name.clone()) {
            continue;
        }
        let library = read(&name)?;
        todo.extend(needed(&library)?);
        files.push((format!("lib/{name}"), library));
    }
    let directories = [
        "bin", "dev", "lib", "lib64", "proc", "sys", "tmp", "usr", "usr/bin",
    ];
    Ok(cpio::programs(&directories, &files))
}

/// Files by their name. Links are followed, but not out of the tree.
fn collect(dir: &Path, into: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_symlink() && std::fs::read_link(&path)?.is_absolute() {
            continue;
        }
        if path.is_dir() {
            if !path.is_symlink() {
                collect(&path, into)?;
            }
        } else if let Some(name) = path.file_name() {
            // Completions and the like have the names of programs too.
            let name = name.to_string_lossy().into_owned();
            let is_program = path.parent().is_some_and(|parent| parent.ends_with("bin"));
            let is_library = name.contains(".so");
            if is_program || is_library {
                into.insert(name, path);
            }
        }
    }
    Ok(())
}

/// The libraries that a program or library names.
fn needed(bytes: &[u8]) -> Result<Vec<String>> {
    let file = ElfBytes::<LittleEndian>::minimal_parse(bytes)?;
    let (Some(dynamic), Some((_, names))) = (file.dynamic()?, file.dynamic_symbol_table()?) else {
        return Ok(Vec::new());
    };
    dynamic
        .iter()
        .filter(|entry| entry.d_tag == elf::abi::DT_NEEDED)
        .map(|entry| Ok(names.get(usize::try_from(entry.d_val())?)?.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_and_libraries_are_wanted_and_virtual_packages_are_not() {
        let listed = "tpm2-tools\n  Depends: libc6\nlibc6\n<libgcc>\nudev\nlibc6:i386\n";
        assert_eq!(wanted(listed), BTreeSet::from(["libc6", "tpm2-tools"]));
    }

    #[test]
    fn this_program_needs_the_c_library() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let needed = needed(&own).unwrap();
        assert!(needed.iter().any(|name| name.starts_with("libc.so")));
    }
}
