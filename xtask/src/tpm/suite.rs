//! tpm2-tss' integration tests, unmodified, against `tpm-sim`: a fresh TPM for every test.

use crate::setup::{self, Install, Sources};
use crate::{proc, ui, workspace};
use anyhow::{Context, Result, bail, ensure};
use core::time::Duration;
use std::collections::VecDeque;
use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::{env, fs, thread};

/// Debian's suites that have the source, in the order in which they are tried.
const SUITES: [&str; 2] = ["trixie", "bookworm"];
const PACKAGE: &str = "tpm2-tss";
/// What the build needs beside a C compiler.
const BUILD: [&str; 17] = [
    "dpkg-dev",
    "gcc",
    "make",
    "autoconf",
    "automake",
    "libtool",
    "pkg-config",
    "autoconf-archive",
    "iproute2",
    "acl",
    "libssl-dev",
    "libjson-c-dev",
    "uthash-dev",
    "libcurl4-openssl-dev",
    "uuid-dev",
    "libltdl-dev",
    "swtpm",
];
/// Seconds that one test may take.
const LIMIT: &str = "120";
/// The exit status by which a test says that it was skipped.
const SKIPPED: i32 = 77;

/// Tests that may be skipped, and why. swtpm skips them, too, and the one of countdown timers.
const MAY_SKIP: [(&str, &str); 9] = [
    ("esys-field-upgrade.int", COMMAND_CODE),
    ("esys-firmware-read.int", COMMAND_CODE),
    ("esys-pp-commands.int", PRESENCE),
    (
        "fapi-key-create-policy-physical-presence-sign.fint",
        PRESENCE,
    ),
    ("fapi-data-crypt-persistent.fint", NOT_BROUGHT),
    ("fapi-data-crypt.fint", NOT_BROUGHT),
    ("fapi-provisioning-cert-error.fint", NOT_BROUGHT),
    ("fapi-provisioning-with-template-rsa.fint", NOT_BROUGHT),
    ("fapi-provisioning-with-template.fint", NOT_BROUGHT),
];
const COMMAND_CODE: &str = "asks for a command that the TPM does not have (TPM_RC_COMMAND_CODE)";
const PRESENCE: &str = "needs somebody who is physically present";
const NOT_BROUGHT: &str = "needs data or hardware that the suite does not bring";

/// How the tests reach the TPM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Mssim,
    Swtpm,
}

impl Transport {
    pub(crate) const ALL: [Self; 2] = [Self::Mssim, Self::Swtpm];

    /// tpm2-tss' name, and `tpm-sim`'s.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Mssim => "mssim",
            Self::Swtpm => "swtpm",
        }
    }
}

/// How much of the suite is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// The layer `sys`, which takes a minute.
    Sys,
    /// All layers.
    All,
}

impl Extent {
    const fn dir(self) -> &'static str {
        match self {
            Self::Sys => "tpm2-tss-sys",
            Self::All => "tpm2-tss",
        }
    }

    const fn options(self) -> &'static str {
        match self {
            Self::Sys => "--disable-esys --disable-fapi --disable-policy",
            Self::All => "",
        }
    }
}

/// The built suite.
#[derive(Debug)]
pub(crate) struct Suite {
    dir: PathBuf,
}

/// What a test said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed,
    Skipped,
}

/// The verdicts of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: Vec<String>,
    pub(crate) skipped: Vec<String>,
}

/// Why a test may be skipped, if it may.
fn reason(test: &str) -> Option<&'static str> {
    let mut known = MAY_SKIP.iter();
    known.find(|(name, _)| *name == test).map(|(_, why)| *why)
}

impl Tally {
    /// One line, and an error if a test failed, or was skipped without leave.
    pub(crate) fn check(&self) -> Result<String> {
        let unexpected: Vec<&str> = self
            .skipped
            .iter()
            .map(String::as_str)
            .filter(|name| reason(name).is_none())
            .collect();
        ensure!(
            unexpected.is_empty(),
            "skipped, and should not be: {}",
            unexpected.join(", ")
        );
        ensure!(
            self.failed.is_empty(),
            "failed: {} (logs in target/tpm-suites/logs)",
            self.failed.join(", ")
        );
        ensure!(self.passed > 0, "no test ran");
        Ok(format!(
            "{} passed, 0 failed, {} skipped",
            self.passed,
            self.skipped.len()
        ))
    }
}

impl Suite {
    /// The suite, if it was built before.
    pub(crate) fn found(extent: Extent) -> Result<Option<Self>> {
        let dir = workspace::target_dir()?
            .join("tpm-suites")
            .join(extent.dir());
        Ok(dir.join(".built").is_file().then_some(Self { dir }))
    }

    /// The suite; fetches and builds it if need be, which takes some minutes for all of it.
    pub(crate) fn bring(extent: Extent) -> Result<Self> {
        if let Some(suite) = Self::found(extent)? {
            return Ok(suite);
        }
        let work = workspace::target_dir()?.join("tpm-suites");
        fs::create_dir_all(&work)?;
        setup::packages(Install::Allowed, &BUILD, "what tpm2-tss is built with")?;
        let dir = work.join(extent.dir());
        if !dir.join("configure.ac").is_file() {
            fetch(&work, &dir)?;
        }
        let start = ui::step("building tpm2-tss and its tests");
        let log = work.join(format!("build-{}.log", extent.dir()));
        let file = File::create(&log)?;
        let script = format!(
            "set -e; [ -x configure ] || ./bootstrap; \
            ./configure --disable-doxygen-doc --disable-unit --enable-integration --with-integrationtcti=swtpm {} \
            --disable-tcti-spi-ftdi --disable-tcti-spi-ltt2go --disable-tcti-i2c-ftdi --disable-defaultflags CFLAGS=-O1; \
            make -j\"$(nproc)\" check-programs",
            extent.options()
        );
        let mut build = Command::new("sh");
        build
            .args(["-c", &script])
            .current_dir(&dir)
            .stdout(file.try_clone()?)
            .stderr(file);
        proc::run(&mut build).with_context(|| format!("see {}", log.display()))?;
        fs::write(dir.join(".built"), "")?;
        ui::note(&format!("done in {}", ui::elapsed(start)));
        Ok(Self { dir })
    }

    /// The tests of a layer (`sys`, `esys`, `fapi`, `policy`), or all.
    fn tests(&self, layer: Option<&str>) -> Result<Vec<PathBuf>> {
        let mut tests = Vec::new();
        for entry in fs::read_dir(self.dir.join("test/integration"))? {
            let path = entry?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            let is_test = name.ends_with(".int") || name.ends_with(".fint");
            let wanted = layer.is_none_or(|layer| name.split('-').next() == Some(layer));
            if is_test && wanted {
                tests.push(path);
            }
        }
        let client = self.dir.join("test/tpmclient/tpmclient.int");
        if client.is_file() && layer.is_none_or(|layer| layer == "sys") {
            tests.push(client);
        }
        tests.sort();
        Ok(tests)
    }

    /// Runs a layer, or all.
    pub(crate) fn run(
        &self,
        sim: &Path,
        transport: Transport,
        layer: Option<&str>,
    ) -> Result<Tally> {
        let start = ui::step(&format!(
            "tpm2-tss' tests against tpm-sim, by {}",
            transport.name()
        ));
        let logs = workspace::target_dir()?
            .join("tpm-suites/logs")
            .join(transport.name());
        fs::create_dir_all(&logs)?;
        let tests = self.tests(layer)?;
        let count = tests.len();
        let queue = Mutex::new(VecDeque::from(tests));
        let tally = Mutex::new(Tally::default());
        let jobs = thread::available_parallelism().map_or(1, usize::from);
        let work = || -> Result<()> {
            loop {
                let next = queue
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .pop_front();
                let Some(test) = next else { return Ok(()) };
                let name = test
                    .file_name()
                    .map(|name| name.to_string_lossy().into_owned())
                    .unwrap_or_default();
                let verdict = self.one(sim, transport, &test, &logs.join(format!("{name}.log")))?;
                let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                match verdict {
                    Verdict::Passed => tally.passed += 1,
                    Verdict::Failed => tally.failed.push(name),
                    Verdict::Skipped => tally.skipped.push(name),
                }
            }
        };
        thread::scope(|scope| -> Result<()> {
            let threads: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
            for thread in threads {
                match thread.join() {
                    Ok(result) => result?,
                    Err(_) => bail!("a runner panicked"),
                }
            }
            Ok(())
        })?;
        let mut tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
        tally.failed.sort();
        tally.skipped.sort();
        println!(
            "{count} tests by {}: {} passed, {} failed, {} skipped ({})",
            transport.name(),
            tally.passed,
            tally.failed.len(),
            tally.skipped.len(),
            ui::elapsed(start)
        );
        for name in &tally.skipped {
            let why = reason(name).unwrap_or("nobody knows why");
            println!("  skipped: {name} ({why})");
        }
        Ok(tally)
    }

    fn one(&self, sim: &Path, transport: Transport, test: &Path, log: &Path) -> Result<Verdict> {
        let server = Server::start(sim, transport)?;
        let file = File::create(log)?;
        let status = Command::new("timeout")
            .args(["-k", "5", LIMIT])
            .arg(test)
            .current_dir(&self.dir)
            .env(
                "TPM20TEST_TCTI",
                format!("{}:host=127.0.0.1,port={}", transport.name(), server.port),
            )
            .env("TCTI_PCAP_FILE", log.with_extension("pcap"))
            .env("srcdir", ".")
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .status()
            .context("cannot start `timeout`")?;
        Ok(match status.code() {
            Some(0) => Verdict::Passed,
            Some(SKIPPED) => Verdict::Skipped,
            _ => Verdict::Failed,
        })
    }
}

/// Debian's source, from the first suite that has it.
fn fetch(work: &Path, into: &Path) -> Result<()> {
    let start = ui::step("fetching the source of tpm2-tss");
    let mut last = None;
    for suite in SUITES {
        let dir = work.join(format!("source-{suite}"));
        match fetch_from(suite, &dir, into) {
            Ok(()) => {
                ui::note(&format!("of {suite}, in {}", ui::elapsed(start)));
                return Ok(());
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.context("no suite was tried")?)
        .context("Debian's source package tpm2-tss is not to be had")
}

fn fetch_from(suite: &str, dir: &Path, into: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    let sources = Sources::code_of(suite)?;
    proc::run(sources.apt()?.args(["-qq", "update"]))?;
    let mut get = sources.apt()?;
    get.args(["-qq", "-o", "APT::Sandbox::User=root", "source"]);
    proc::run(get.args(["--download-only", PACKAGE]).current_dir(dir))?;
    let description = fs::read_dir(dir)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|ending| ending == "dsc"))
        .context("apt-get brought no source")?;
    if into.exists() {
        fs::remove_dir_all(into)?;
    }
    proc::run(
        Command::new("dpkg-source")
            .args(["--no-check", "-x"])
            .arg(description)
            .arg(into),
    )
}

/// A simulator of its own, ended with the test.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    fn start(sim: &Path, transport: Transport) -> Result<Self> {
        for _ in 0..20 {
            let port = free_pair()?;
            let process = Command::new(sim)
                .args(["--protocol", transport.name(), "--port", &port.to_string()])
                .current_dir(env::temp_dir())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .with_context(|| format!("cannot start {}", sim.display()))?;
            let mut server = Self { process, port };
            if server.listens() {
                return Ok(server);
            }
        }
        bail!("{} does not listen", sim.display())
    }

    fn listens(&mut self) -> bool {
        for _ in 0..200 {
            let control = self.port.saturating_add(1);
            if TcpStream::connect(("127.0.0.1", control)).is_ok() {
                return true;
            }
            if !matches!(self.process.try_wait(), Ok(None)) {
                return false;
            }
            thread::sleep(Duration::from_millis(20));
        }
        false
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A port that is free now, and whose neighbour is.
fn free_pair() -> Result<u16> {
    for _ in 0..100 {
        let first = TcpListener::bind(("127.0.0.1", 0))?;
        let port = first.local_addr()?.port();
        let Some(next) = port.checked_add(1) else {
            continue;
        };
        if TcpListener::bind(("127.0.0.1", next)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no two free ports next to each other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_may_not_skip_is_a_failure() {
        let mut tally = Tally {
            passed: 3,
            failed: vec![],
            skipped: vec![MAY_SKIP[0].0.to_owned()],
        };
        assert_eq!(tally.check().unwrap(), "3 passed, 0 failed, 1 skipped");
        tally.skipped.push("esys-quote.int".to_owned());
        assert!(tally.check().is_err());
        tally.skipped.pop();
        tally.failed.push("esys-quote.int".to_owned());
        assert!(tally.check().is_err());
    }

    #[test]
    fn no_test_at_all_is_no_pass() {
        assert!(Tally::default().check().is_err());
    }
}
