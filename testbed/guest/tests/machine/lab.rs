//! How a guest is run.

use core::time::Duration;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

use svsm_testbed::verdict::Crash;
use svsm_testbed::{Error, Outcome, Platform, Progress, Run, Verdict};
use svsm_testbed_guest::image::{self, Mode};
use tempfile::TempDir;

/// The two programs, if they were built.
pub(crate) fn programs() -> Option<(PathBuf, PathBuf)> {
    let built = env::var_os("SVSM_BARE_DIR").map_or_else(
        || {
            Path::new(env!("CARGO_TARGET_TMPDIR"))
                .parent()
                .unwrap()
                .join("bare/x86_64-unknown-none/firmware")
        },
        PathBuf::from,
    );
    let program = |name: &str| Some(built.join(name)).filter(|path| path.exists());
    let found = program("svsm-machine").zip(program("svsm-testbed-guest"));
    if found.is_none() {
        eprintln!(
            "skipped: svsm-machine and svsm-testbed-guest are not built in {}",
            built.display()
        );
    }
    found
}

/// Runs a guest; `None` if that cannot be done here.
pub(crate) fn run(name: &str, mode: Mode, settings: impl FnOnce(Run) -> Run) -> Option<Outcome> {
    run_image(name, |guest| image::native(guest, mode).unwrap(), settings)
}

/// Runs a guest of SEV-SNP.
pub(crate) fn run_snp(name: &str, settings: impl FnOnce(Run) -> Run) -> Option<Outcome> {
    let snp = |run: Run| settings(run.platform(Platform::Snp));
    run_image(name, |guest| image::snp(guest, false).unwrap(), snp)
}

pub(crate) fn run_image(
    name: &str,
    image: impl FnOnce(&[u8]) -> Vec<u8>,
    settings: impl FnOnce(Run) -> Run,
) -> Option<Outcome> {
    watch_image(name, image, settings, &mut |_| ())
}

pub(crate) fn watch_image(
    name: &str,
    image: impl FnOnce(&[u8]) -> Vec<u8>,
    settings: impl FnOnce(Run) -> Run,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Option<Outcome> {
    let (machine, guest) = programs()?;
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("guest.igvm");
    fs::write(&path, image(&fs::read(guest).unwrap())).unwrap();
    let run = Run::new(path)
        .machine_elf(machine)
        .command_line(name)
        .memory(64 << 20)
        .timeout(Duration::from_secs(60));
    match settings(run).start(progress) {
        Ok(outcome) => {
            tally(&outcome);
            Some(outcome)
        }
        Err(error @ (Error::QemuMissing { .. } | Error::QemuTooOld { .. })) => {
            eprintln!("skipped: {error}");
            None
        }
        Err(error) => panic!("{name}: {error}"),
    }
}

pub(crate) fn passes(name: &str, cpus: u32) -> Option<Outcome> {
    let outcome = run(name, Mode::Long, |run| {
        run.cpus(cpus).expect(format!("{name}: ok"))
    })?;
    must_pass(name, &outcome);
    Some(outcome)
}

/// Runs a guest of SEV-SNP that must pass; `None` if that cannot be done here.
pub(crate) fn passes_snp(name: &str, settings: impl FnOnce(Run) -> Run) -> Option<Outcome> {
    let outcome = run_snp(name, |run| settings(run).expect(format!("{name}: ok")))?;
    must_pass(name, &outcome);
    Some(outcome)
}

fn must_pass(name: &str, outcome: &Outcome) {
    assert!(
        outcome.verdict.is_passed(),
        "{name}: {:?}\n{:?}",
        outcome.verdict,
        outcome.log
    );
}

#[track_caller]
pub(crate) fn crashes(name: &str, cpus: u32, expected: Crash) -> Option<Outcome> {
    let outcome = run(name, Mode::Long, |run| run.cpus(cpus))?;
    match &outcome.verdict {
        Verdict::Crashed { how, .. } if *how == expected => Some(outcome),
        other => panic!("{name}: {other:?}\n{:?}", outcome.log),
    }
}

/// Notes for whoever runs all guests how many there were: a line for each run, with the number of clauses that it tried.
fn tally(outcome: &Outcome) {
    let Some(path) = env::var_os("SVSM_TALLY") else {
        return;
    };
    let tried = |message: &str| message.split_once(" clauses, ")?.0.parse().ok();
    let clauses: u64 = outcome
        .log
        .iter()
        .find_map(|line| tried(&line.message))
        .unwrap_or(1);
    let file = fs::OpenOptions::new().append(true).create(true).open(path);
    writeln!(file.unwrap(), "{clauses}").unwrap();
}
