//! What the firmware's build and its boot need beside a Rust toolchain: found, or installed where we may,
//! or named with the exact command that brings it.

use crate::proc;
use crate::ui;
use crate::workspace;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The target of everything that runs without an operating system.
pub(crate) const BARE_TARGET: &str = "x86_64-unknown-none";
/// The first QEMU whose TCG has an x2APIC.
const QEMU_OLDEST: (u32, u32) = (9, 0);
/// Where Debian keeps the keys of its archive.
const ARCHIVE_KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// The compiler that a distribution offers with the sources of its `core`.
const DISTRO_RUSTC: &str = "/usr/bin/rustc";

/// Options of `cargo xtask setup`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only look, and say what is missing; install nothing.
    #[arg(long)]
    check: bool,
}

/// `cargo xtask setup`.
pub(crate) fn command(args: &Args) -> Result<ExitCode> {
    let install = if args.check {
        Install::Never
    } else {
        Install::Allowed
    };
    let bare = Bare::find(install)?;
    ui::note(&format!("bare-metal core: {}", bare.describe()));
    ui::note(&format!("linker: {}", bare.linker.display()));
    let qemu = qemu(install)?;
    ui::note(&format!(
        "QEMU {}.{}: {}",
        qemu.version.0,
        qemu.version.1,
        qemu.program.display()
    ));
    Ok(ExitCode::SUCCESS)
}

/// Whether a missing tool may be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Install {
    /// Where we are able to (root and apt, or rustup).
    Allowed,
    /// Not even then: say what is missing.
    Never,
}

/// How code for the bare machine is compiled here.
#[derive(Debug)]
pub(crate) struct Bare {
    core: Core,
    linker: PathBuf,
}

#[derive(Debug)]
enum Core {
    /// The toolchain has the target's `core`.
    Installed,
    /// This distribution compiler builds `core` from its own sources.
    FromSource { rustc: PathBuf },
}

impl Bare {
    /// Finds a bare-metal `core` and a linker, or brings them.
    pub(crate) fn find(install: Install) -> Result<Self> {
        let core = find_core(install)?;
        let linker = find_linker(install)?;
        Ok(Self { core, linker })
    }

    fn describe(&self) -> String {
        match &self.core {
            Core::Installed => format!("target {BARE_TARGET} of the toolchain"),
            Core::FromSource { rustc } => format!("built from the sources of {}", rustc.display()),
        }
    }

    /// A cargo command for the bare-metal target, `verb` being `build` or `check`.
    pub(crate) fn cargo(&self, verb: &str) -> Result<Command> {
        let mut command = proc::cargo();
        command
            .arg(verb)
            .args(["--target", BARE_TARGET])
            .current_dir(workspace::root());
        // A directory of its own: another compiler must not throw away what the host's built.
        command
            .arg("--target-dir")
            .arg(workspace::target_dir()?.join("bare"));
        command.env("CARGO_TARGET_X86_64_UNKNOWN_NONE_LINKER", &self.linker);
        // These would replace the flags of the workspace's cargo configuration.
        command
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS");
        if let Core::FromSource { rustc } = &self.core {
            command.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
            command.args([
                "-Zbuild-std=core,alloc,compiler_builtins",
                "-Zbuild-std-features=compiler-builtins-mem",
            ]);
        }
        Ok(command)
    }
}

fn find_core(install: Install) -> Result<Core> {
    if has_target() {
        return Ok(Core::Installed);
    }
    let may_rustup = std::env::var("RUSTUP_AUTO_INSTALL").map_or(true, |value| value != "0");
    if install == Install::Allowed && may_rustup && proc::find("rustup").is_some() {
        ui::step(&format!("rustup target add {BARE_TARGET}"));
        // Without a network the distribution may still help.
        if proc::run(Command::new("rustup").args(["target", "add", BARE_TARGET])).is_ok()
            && has_target()
        {
            return Ok(Core::Installed);
        }
    }
    let rustc = PathBuf::from(DISTRO_RUSTC);
    if !has_sources(&rustc) {
        apt_install(
            install,
            &["rustc-web", "rust-web-src"],
            "a bare-metal `core`",
            &format!("rustup target add {BARE_TARGET}"),
        )?;
    }
    if !has_sources(&rustc) {
        bail!(
            "{DISTRO_RUSTC} has no sources of `core` beside it; run `rustup target add {BARE_TARGET}`"
        );
    }
    Ok(Core::FromSource { rustc })
}

fn has_target() -> bool {
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    proc::ask(rustc.args(["--print", "target-libdir", "--target", BARE_TARGET]))
        .is_some_and(|dir| Path::new(&dir).is_dir())
}

fn has_sources(rustc: &Path) -> bool {
    proc::ask(Command::new(rustc).args(["--print", "sysroot"])).is_some_and(|sysroot| {
        Path::new(&sysroot)
            .join("lib/rustlib/src/rust/library/Cargo.lock")
            .is_file()
    })
}

fn find_linker(install: Install) -> Result<PathBuf> {
    let sysroot = proc::ask(Command::new("rustc").args(["--print", "sysroot"]))
        .context("cannot ask rustc for its sysroot")?;
    let version =
        proc::ask(Command::new("rustc").arg("-vV")).context("cannot ask rustc for its host")?;
    let host = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .context("rustc names no host")?;
    let shipped = Path::new(&sysroot)
        .join("lib/rustlib")
        .join(host)
        .join("bin/rust-lld");
    if shipped.is_file() {
        return Ok(shipped);
    }
    if let Some(found) = proc::find("ld.lld") {
        return Ok(found);
    }
    apt_install(
        install,
        &["lld"],
        "the linker `ld.lld`",
        "install LLVM's lld",
    )?;
    proc::find("ld.lld").context("the package lld brought no `ld.lld`")
}

/// A QEMU that can run the software machine.
#[derive(Debug)]
pub(crate) struct Qemu {
    /// The program.
    pub(crate) program: PathBuf,
    /// Major and minor version.
    pub(crate) version: (u32, u32),
}

/// Finds QEMU, or brings it.
pub(crate) fn qemu(install: Install) -> Result<Qemu> {
    let found = find_qemu();
    if let Some(qemu) = found.as_ref().filter(|qemu| qemu.version >= QEMU_OLDEST) {
        return Ok(Qemu {
            program: qemu.program.clone(),
            version: qemu.version,
        });
    }
    let (major, minor) = QEMU_OLDEST;
    let missing = match &found {
        Some(old) => format!(
            "QEMU {major}.{minor} or newer ({}.{} is here, too old)",
            old.version.0, old.version.1
        ),
        None => format!("QEMU {major}.{minor} or newer"),
    };
    install_qemu(install, &missing)?;
    find_qemu()
        .filter(|qemu| qemu.version >= QEMU_OLDEST)
        .with_context(|| {
            format!(
                "this distribution has no QEMU {major}.{minor}; install one as `qemu-system-x86_64`"
            )
        })
}

fn find_qemu() -> Option<Qemu> {
    let program = proc::find("qemu-system-x86_64")?;
    let version = parse_version(&proc::ask(Command::new(&program).arg("--version"))?)?;
    Some(Qemu { program, version })
}

fn parse_version(banner: &str) -> Option<(u32, u32)> {
    let number = banner
        .split_whitespace()
        .skip_while(|word| *word != "version")
        .nth(1)?;
    let mut parts = number.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??))
}

/// Installs QEMU: the distribution's own where that is new enough, else the one of its backports, read
/// through a private list so that the machine's own sources stay as they are.
fn install_qemu(install: Install, missing: &str) -> Result<()> {
    const PACKAGE: &str = "qemu-system-x86";
    if !may_apt(install) {
        bail!(
            "{missing} is missing; as root on Debian: `apt-get install -t CODENAME-backports {PACKAGE}`"
        );
    }
    ui::step(&format!("{missing} is missing: installing {PACKAGE}"));
    apt(&[]).and_then(|mut apt| proc::run(apt.args(["-qq", "update"])))?;
    let policy = proc::ask(Command::new("apt-cache").args(["policy", PACKAGE])).unwrap_or_default();
    if candidate_major(&policy).is_some_and(|major| major >= QEMU_OLDEST.0) {
        return proc::run(apt(&[])?.args([
            "-qq",
            "-y",
            "install",
            "--no-install-recommends",
            PACKAGE,
        ]));
    }
    let release =
        std::fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let codename = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .context("/etc/os-release names no VERSION_CODENAME")?
        .trim_matches('"');
    let private = Sources::of(&[codename, &format!("{codename}-backports")])?;
    proc::run(private.apt()?.args(["-qq", "update"]))?;
    let backports = format!("{codename}-backports");
    proc::run(private.apt()?.args([
        "-qq",
        "-y",
        "install",
        "--no-install-recommends",
        "-t",
        &backports,
        PACKAGE,
    ]))
}

fn candidate_major(policy: &str) -> Option<u32> {
    let line = policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate:"))?;
    // An epoch may stand before the version: 1:10.0.2+ds-2.
    let version = line.trim().rsplit(':').next()?;
    version.split('.').next()?.parse().ok()
}

/// Package sources of our own, derived from the machine's: other suites of the same archive, with their
/// own lists, so that nothing of the machine's configuration changes.
#[derive(Debug)]
pub(crate) struct Sources {
    dir: PathBuf,
}

impl Sources {
    /// Sources for `suites` of the archive that serves this machine's release.
    pub(crate) fn of(suites: &[&str]) -> Result<Self> {
        let format = ["indextargets", "--format", "$(REPO_URI) $(RELEASE)"];
        let targets = proc::capture(Command::new("apt-get").args(format))?;
        let base = suites
            .first()
            .and_then(|suite| suite.split('-').next())
            .context("no suite was asked for")?;
        let uri = targets
            .lines()
            .find_map(|line| line.split_once(' ').filter(|(_, release)| *release == base))
            .map(|(uri, _)| uri)
            .with_context(|| format!("apt knows no archive that serves {base}"))?;
        let key = if Path::new(ARCHIVE_KEYS).is_file() {
            format!("[signed-by={ARCHIVE_KEYS}] ")
        } else {
            // Then the machine trusts the archive's keys for all sources.
            String::new()
        };
        let dir = workspace::target_dir()?.join("apt").join(suites.join("+"));
        std::fs::create_dir_all(dir.join("lists/partial"))?;
        let text: String = suites
            .iter()
            .map(|suite| format!("deb {key}{uri} {suite} main\n"))
            .collect();
        std::fs::write(dir.join("sources.list"), text)?;
        Ok(Self { dir })
    }

    /// Source code of a suite of the archive that serves this machine; its release may be another one.
    pub(crate) fn code_of(suite: &str) -> Result<Self> {
        Self::of_archive("deb-src", suite)
    }

    /// Packages of a suite of that archive, to be unpacked: they are for another release.
    pub(crate) fn packages_of(suite: &str) -> Result<Self> {
        Self::of_archive("deb", suite)
    }

    fn of_archive(kind: &str, suite: &str) -> Result<Self> {
        let format = ["indextargets", "--format", "$(REPO_URI) $(RELEASE)"];
        let targets = proc::capture(Command::new("apt-get").args(format))?;
        let uri = targets
            .lines()
            .filter_map(|line| line.split_once(' '))
            .find(|(uri, _)| !uri.contains("security"))
            .map(|(uri, _)| uri)
            .context("apt knows no archive")?;
        let dir = workspace::target_dir()?
            .join("apt")
            .join(format!("{kind}-{suite}"));
        std::fs::create_dir_all(dir.join("lists/partial"))?;
        std::fs::write(
            dir.join("sources.list"),
            format!("{kind} {uri} {suite} main\n"),
        )?;
        Ok(Self { dir })
    }

    /// Reads what the archive has.
    pub(crate) fn update(&self) -> Result<()> {
        proc::run(self.apt()?.args(["-qq", "update"]))
    }

    /// Fetches a package, and unpacks it into a directory.
    pub(crate) fn unpack(&self, package: &str, dir: &Path) -> Result<()> {
        for tool in ["apt-get", "dpkg-deb"] {
            if proc::find(tool).is_none() {
                bail!("there is no {tool} here to fetch Debian's package {package} with");
            }
        }
        let scratch = tempfile::tempdir().context("cannot make a scratch directory")?;
        proc::run(
            self.apt()?
                // The helper user of apt may not write there.
                .args(["-qq", "-o", "APT::Sandbox::User=root", "download", package])
                .current_dir(scratch.path()),
        )?;
        let archive = std::fs::read_dir(scratch.path())?
            .find_map(|entry| Some(entry.ok()?.path()))
            .with_context(|| format!("apt-get brought no file for {package}"))?;
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        proc::run(Command::new("dpkg-deb").arg("-x").arg(archive).arg(dir))
    }

    /// `apt-get` that reads these sources and no others.
    pub(crate) fn apt(&self) -> Result<Command> {
        self.command("apt-get")
    }

    /// `apt-cache` that reads these sources and no others.
    pub(crate) fn apt_cache(&self) -> Result<Command> {
        self.command("apt-cache")
    }

    fn command(&self, program: &str) -> Result<Command> {
        let list = format!(
            "Dir::Etc::SourceList={}",
            self.dir.join("sources.list").display()
        );
        let lists = format!("Dir::State::Lists={}", self.dir.join("lists").display());
        let parts = "Dir::Etc::SourceParts=/dev/null".to_owned();
        of_apt(program, &[list, parts, lists])
    }
}

fn apt(options: &[String]) -> Result<Command> {
    of_apt("apt-get", options)
}

fn of_apt(program: &str, options: &[String]) -> Result<Command> {
    let found = proc::find(program).with_context(|| format!("there is no {program} here"))?;
    let mut command = Command::new(found);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    for option in options {
        command.args(["-o", option]);
    }
    Ok(command)
}

fn may_apt(install: Install) -> bool {
    let root = proc::ask(Command::new("id").arg("-u")).is_some_and(|id| id == "0");
    install == Install::Allowed && root && proc::find("apt-get").is_some()
}

/// Sees that Debian's packages are installed, or says which are missing.
pub(crate) fn packages(install: Install, names: &[&str], what: &str) -> Result<()> {
    let is_there = |name: &&str| {
        let mut ask = Command::new("dpkg-query");
        ask.args(["-W", "-f", "${db:Status-Status}", name]);
        proc::ask(&mut ask).as_deref() == Some("installed")
    };
    let missing: Vec<&str> = names
        .iter()
        .copied()
        .filter(|name| !is_there(name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let otherwise = format!("apt-get install {}", missing.join(" "));
    apt_install(install, &missing, what, &otherwise)
}

fn apt_install(install: Install, packages: &[&str], what: &str, otherwise: &str) -> Result<()> {
    let names = packages.join(" ");
    if !may_apt(install) {
        bail!(
            "{what} is missing; run `{otherwise}`, or as root on Debian: `apt-get install {names}`"
        );
    }
    ui::step(&format!("{what} is missing: installing {names}"));
    proc::run(apt(&[])?.args(["-qq", "update"]))?;
    proc::run(
        apt(&[])?
            .args(["-qq", "-y", "install", "--no-install-recommends"])
            .args(packages),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_banners_of_distributions_and_of_upstream() {
        let debian =
            "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)\nCopyright";
        assert_eq!(parse_version(debian), Some((10, 0)));
        assert_eq!(parse_version("QEMU emulator version 9.2.0"), Some((9, 2)));
        assert_eq!(parse_version("something else"), None);
    }

    #[test]
    fn the_candidate_of_a_policy_may_have_an_epoch() {
        assert_eq!(
            candidate_major("qemu:\n  Installed: (none)\n  Candidate: 1:7.2+dfsg-7\n"),
            Some(7)
        );
        assert_eq!(candidate_major("  Candidate: 10.0.2-1"), Some(10));
        assert_eq!(candidate_major("  Candidate: (none)"), None);
    }
}
