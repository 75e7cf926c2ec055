//! What each stage of the whole check does.

use super::{Done, passed};
use crate::linux::tpm::{DEVICES, Desk, Parts};
use crate::setup::{self, Bare, Install};
use crate::tpm::suite::{Extent, Suite, Transport};
use crate::{
    bare, book, boots, docs as documentation, features, fuzz, linux as stock, proc, rules, tools,
    tpm as vtpm, workspace,
};
use anyhow::{Result, ensure};
use core::time::Duration;
use std::process::Command;

/// How long the gate runs each fuzz target: enough to try every seed and some thousands of their kin.
const FUZZ_SECONDS: u32 = 5;

fn cargo(args: &[&str]) -> Command {
    let mut cargo = proc::cargo();
    cargo.args(args).current_dir(workspace::root());
    cargo
}

pub(super) fn setup() -> Result<Done> {
    let qemu = setup::qemu(Install::Allowed)?;
    Bare::find(Install::Allowed)?;
    passed(format!(
        "QEMU {}.{}, a bare-metal core and a linker",
        qemu.version.0, qemu.version.1
    ))
}

pub(super) fn fmt() -> Result<Done> {
    proc::run(&mut cargo(&["fmt", "--all", "--check"]))?;
    passed("rustfmt")
}

pub(super) fn rules() -> Result<Done> {
    passed(format!("{} checks", rules::check()?))
}

pub(super) fn clippy() -> Result<Done> {
    proc::run(&mut cargo(&[
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--",
        "-Dwarnings",
    ]))?;
    passed("all targets, all features")
}

pub(super) fn host() -> Result<Done> {
    let mut test = cargo(&["test", "--quiet", "--workspace", "--all-features"]);
    // Tests that need programs for the bare machine are skipped without them; those of an earlier build prove
    // nothing. The stage `boot` builds them and runs those tests.
    test.env("SVSM_BARE_DIR", workspace::target_dir()?.join("none"));
    proc::run(&mut test)?;
    passed("all packages")
}

/// How many sequences the gate compares: a minute's worth. `cargo xtask soak tpm-diff` compares many more.
const SEQUENCES: u64 = 200;

/// How long Linux may take with the TPM; as a rule it takes a quarter of a minute.
const LINUX: Duration = Duration::from_secs(180);

pub(super) fn tpm() -> Result<Done> {
    let mut said = Vec::new();
    match vtpm::library_missing() {
        Some(why) => said.push(format!("NOT compared with libtpms: {why}")),
        None => {
            let diff = vtpm::diff(&vtpm::tool("tpm-diff")?, 1, SEQUENCES, vtpm::Who::Both)?;
            ensure!(
                diff.unexplained == 0,
                "{} differences to libtpms that nobody has explained",
                diff.unexplained
            );
            said.push(format!(
                "{} sequences, {} commands as libtpms, {} differences explained",
                diff.sequences,
                diff.commands,
                diff.used.iter().sum::<u64>()
            ));
        }
    }
    let built = match Suite::found(Extent::All)? {
        Some(suite) => Ok(suite),
        None => Suite::bring(Extent::Sys),
    };
    match built {
        // It is somebody else's software, and not every machine can build it.
        Err(error) => said.push(format!("SYS tests NOT run: {error:#}")),
        Ok(suite) => {
            let sim = vtpm::tool("tpm-sim")?;
            let tally = suite.run(&sim, Transport::Mssim, Some("sys"))?;
            said.push(format!("SYS: {}", tally.check()?));
        }
    }
    match Parts::bring() {
        // What is only to be fetched may be out of reach. What is made of it is ours, and has to work.
        Err(error) => said.push(format!("Linux NOT started with it: {error:#}")),
        Ok(parts) => {
            let desk = Desk::lay(parts)?;
            let [device, _] = DEVICES;
            desk.run(device, LINUX, true)?;
            said.push("Linux used it, and was moved with it".into());
        }
    }
    if said
        .iter()
        .all(|line| line.contains(" NOT ") || line.starts_with("NOT "))
    {
        return Ok(Done::Skipped(said.join("; ")));
    }
    passed(said.join("; "))
}

/// Who asks for it wants it: what is missing is a failure.
pub(super) fn tpm_suites() -> Result<Done> {
    let suite = Suite::bring(Extent::All)?;
    let sim = vtpm::tool("tpm-sim")?;
    let mut said = Vec::new();
    for transport in Transport::ALL {
        let tally = suite.run(&sim, transport, None)?;
        said.push(format!("{}: {}", transport.name(), tally.check()?));
    }
    passed(said.join("; "))
}

/// Models are the test target `loom` of a crate: everything in it runs under `cfg(loom)` only.
pub(super) fn loom() -> Result<Done> {
    let mut names = Vec::new();
    for package in workspace::packages()? {
        if package.dir.join("tests/loom.rs").is_file() {
            names.push(package.name);
        }
    }
    ensure!(!names.is_empty(), "no crate has a loom model");
    let mut test = cargo(&["test", "--quiet", "--release", "--test", "loom"]);
    for name in &names {
        test.args(["-p", name]);
    }
    // Flags are part of what cargo calls a build: elsewhere, or everything else would be built anew.
    test.arg("--target-dir")
        .arg(workspace::target_dir()?.join("loom"))
        .env("RUSTFLAGS", "--cfg loom")
        .env("LOOM_MAX_PREEMPTIONS", "3");
    proc::run(&mut test)?;
    passed(names.join(", "))
}

pub(super) fn docs() -> Result<Done> {
    documentation::build()?;
    passed("rustdoc")
}

pub(super) fn features() -> Result<Done> {
    passed(format!("{} sets", features::powerset()?))
}

pub(super) fn bare() -> Result<Done> {
    passed(format!(
        "{} libraries, without and with all features",
        bare::libraries(&Bare::find(Install::Allowed)?)?
    ))
}

pub(super) fn package() -> Result<Done> {
    proc::run(&mut cargo(&[
        "package",
        "--quiet",
        "--workspace",
        // It is never published, and needs a package that is not either.
        "--exclude",
        "xtask",
        // The build of each package from its archive is what the other stages did from the tree.
        "--no-verify",
        // So that a change can be tried before it is committed.
        "--allow-dirty",
    ]))?;
    passed("cargo package")
}

pub(super) fn deny() -> Result<Done> {
    let tool = match tools::CARGO_DENY.find() {
        Ok(tool) => tool,
        Err(error) => return Ok(Done::Skipped(error.to_string())),
    };
    let mut deny = Command::new(tool);
    deny.args([
        "--log-level",
        "error",
        "check",
        "bans",
        "licenses",
        "sources",
    ]);
    proc::run(deny.current_dir(workspace::root()))?;
    passed("bans, licences, sources; the advisory database cannot be reached everywhere")
}

pub(super) fn book() -> Result<Done> {
    match tools::MDBOOK.find() {
        Ok(_) => book::build().and_then(|()| passed("mdbook")),
        Err(error) => Ok(Done::Skipped(error.to_string())),
    }
}

pub(super) fn fuzz() -> Result<Done> {
    if let Some(why) = fuzz::missing() {
        return Ok(Done::Skipped(why));
    }
    let targets = fuzz::targets()?;
    fuzz::run(&targets, FUZZ_SECONDS)?;
    passed(format!("{} targets, {FUZZ_SECONDS} s each", targets.len()))
}

pub(super) fn boot() -> Result<Done> {
    let tally = boots::suite()?;
    passed(format!("{} boots, and the small guests", tally.passed))
}

pub(super) fn linux() -> Result<Done> {
    if let Err(error) = stock::fetch_kernel() {
        return Ok(Done::Skipped(format!("no kernel: {error:#}")));
    }
    let lab = stock::Lab::build(None, None)?;
    let runs = stock::SIZES;
    println!("\nrunning {} starts of Linux", runs.len());
    for (platform, processors) in runs {
        let outcome = stock::passes(&lab, &stock::Guest::of(*platform, *processors))?;
        println!(
            "test {} Linux on {processors} processors ... ok ({:.1} s)",
            platform.name(),
            outcome.wall_time.as_secs_f64()
        );
    }
    println!(
        "\ntest result: ok. {} passed; 0 failed; 0 ignored\n",
        runs.len()
    );
    passed(format!("{} starts", runs.len()))
}
