//! `cargo xtask fuzz`: the fuzz targets, each for a while, from its seeds.

use crate::{proc, ui, workspace};
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The host; named so that instrumentation stays out of build scripts.
const HOST: &str = "x86_64-unknown-linux-gnu";
/// What libFuzzer needs to see where an input leads. Stable compilers take all of it; only sanitizers would
/// need a nightly one.
const INSTRUMENTATION: &[&str] = &[
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];

/// How many lines of the engine's log are shown when it found something.
const SHOWN: usize = 40;

/// Options of `cargo xtask fuzz`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
What is found goes to fuzz/corpus-found and fuzz/artifacts, the engine's log to target/fuzz/TARGET.log. An input that fails is run again by
  target/fuzz/x86_64-unknown-linux-gnu/release/TARGET FILE

Examples:
  cargo xtask fuzz
  cargo xtask fuzz igvm_inspect --seconds 600")]
pub(crate) struct Args {
    /// Run only this target (see --list).
    target: Option<String>,
    /// How long each target runs.
    #[arg(long, value_name = "N", default_value_t = 30)]
    seconds: u32,
    /// List the targets and stop.
    #[arg(long)]
    list: bool,
}

/// `cargo xtask fuzz`.
pub(crate) fn command(args: &Args) -> Result<ExitCode> {
    let mut targets = targets()?;
    if args.list {
        println!("{}", targets.join("\n"));
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(wanted) = &args.target {
        targets.retain(|target| target == wanted);
        if targets.is_empty() {
            bail!("there is no fuzz target `{wanted}`; `cargo xtask fuzz --list` names them");
        }
    }
    if let Some(why) = missing() {
        bail!("{why}");
    }
    run(&targets, args.seconds)?;
    Ok(ExitCode::SUCCESS)
}

/// Why fuzzing is not possible here, if it is not.
pub(crate) fn missing() -> Option<String> {
    let compilers = ["c++", "g++", "clang++"];
    let found = std::env::var_os("CXX").is_some()
        || compilers.iter().any(|name| proc::find(name).is_some());
    (!found)
        .then(|| String::from("libFuzzer needs a C++ compiler; `apt-get install g++` brings one"))
}

/// The targets, by name.
pub(crate) fn targets() -> Result<Vec<String>> {
    let dir = root().join("fuzz_targets");
    let mut names = Vec::new();
    let entries =
        std::fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
    for entry in entries {
        let path = entry
            .with_context(|| format!("cannot read {}", dir.display()))?
            .path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(
                path.file_stem()
                    .map(|name| name.to_string_lossy().into_owned()),
            );
        }
    }
    names.sort();
    Ok(names)
}

/// Builds the targets and runs each for so many seconds.
pub(crate) fn run(targets: &[String], seconds: u32) -> Result<()> {
    let out = workspace::target_dir()?.join("fuzz");
    let mut build = proc::cargo();
    build
        .args(["build", "--release", "--quiet", "--target", HOST])
        .arg("--manifest-path")
        .arg(root().join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&out)
        .env("CARGO_ENCODED_RUSTFLAGS", INSTRUMENTATION.join("\x1f"));
    proc::run(&mut build)?;
    for target in targets {
        let start = ui::step(&format!("fuzzing {target} for {seconds} s"));
        let program = out.join(HOST).join("release").join(target);
        one(
            &program,
            target,
            seconds,
            &out.join(format!("{target}.log")),
        )?;
        ui::note(&format!("nothing found ({})", ui::elapsed(start)));
    }
    Ok(())
}

/// Runs one target. What the engine says goes to `log`, and is shown where it found something.
fn one(program: &Path, target: &str, seconds: u32, log: &Path) -> Result<()> {
    let found = root().join("corpus-found").join(target);
    let artifacts = root().join("artifacts").join(target);
    for dir in [&found, &artifacts] {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let mut fuzz = Command::new(program);
    fuzz.arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .args(["-timeout=20", "-rss_limit_mb=2048"])
        .arg(&found);
    let seeds = root().join("corpus").join(target);
    if seeds.is_dir() {
        fuzz.arg(seeds);
    }
    let unwritable = || format!("cannot write {}", log.display());
    let file = File::create(log).with_context(unwritable)?;
    fuzz.stderr(file.try_clone().with_context(unwritable)?)
        .stdout(file);
    proc::run(&mut fuzz).inspect_err(|_| {
        let said = std::fs::read(log).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<&str> = said.lines().collect();
        for line in lines.iter().skip(lines.len().saturating_sub(SHOWN)) {
            ui::note(line);
        }
    })
}

fn root() -> PathBuf {
    workspace::root().join("fuzz")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_built_and_has_seeds() {
        let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
        let targets = targets().unwrap();
        assert!(!targets.is_empty());
        for target in targets {
            assert!(
                manifest.contains(&format!("name = \"{target}\"")),
                "{target} is not in fuzz/Cargo.toml"
            );
            let seeds = std::fs::read_dir(root().join("corpus").join(&target));
            assert!(
                seeds.is_ok_and(|mut seeds| seeds.next().is_some()),
                "{target} has no seeds"
            );
        }
    }
}
