//! `cargo xtask machine-test`: the small guests of the software machine, each of which tries or dies of one thing.

use crate::firmware::Programs;
use crate::setup::{self, Bare, Install};
use crate::{proc, workspace};
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::{Command, ExitCode};

/// Options of `cargo xtask machine-test`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The software machine and its guests are built first. Each test prints what the guest said if it fails.

Examples:
  cargo xtask machine-test
  cargo xtask machine-test --list
  cargo xtask machine-test snp
  cargo xtask machine-test --exact nmis_arrive_once_and_are_masked_by_their_handler --repeat 20
  cargo xtask machine-test --exact snp::a_path_survives_exceptions_at_every_instruction")]
pub(crate) struct Args {
    /// Run only tests with one of these texts in their names.
    filters: Vec<String>,
    /// The filters are whole names, with or without the module.
    #[arg(long)]
    exact: bool,
    /// List the tests and stop; nothing is built for the bare machine.
    #[arg(long)]
    list: bool,
    /// Run all of it so many times, or until a test fails.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
}

/// `cargo xtask machine-test`.
pub(crate) fn command(args: &Args) -> Result<ExitCode> {
    let selection = args.selection()?;
    let selection: Vec<&str> = selection.iter().map(String::as_str).collect();
    if args.list {
        let mut list = harness();
        list.args(["--", "--list"]).args(&selection);
        proc::run(&mut list)?;
        return Ok(ExitCode::SUCCESS);
    }
    setup::qemu(Install::Allowed)?;
    let bare = Bare::find(Install::Allowed)?;
    let programs = Programs::build_machine(&bare)?;
    for turn in 1..=args.repeat {
        if args.repeat > 1 {
            println!("\nturn {turn} of {}", args.repeat);
        }
        run(&bare, programs.dir(), &selection)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds the guests and runs the tests that `selection` tells the test harness, on the machine in `programs`.
pub(crate) fn run(bare: &Bare, programs: &Path, selection: &[&str]) -> Result<()> {
    Programs::build_guests(bare)?;
    let scratch = tempfile::tempdir().context("cannot make a scratch directory")?;
    let tally = scratch.path().join("tally");
    let mut test = harness();
    test.args(["--", "--test-threads", "1"])
        .args(selection)
        .env("SVSM_BARE_DIR", programs)
        .env("SVSM_TALLY", &tally);
    proc::run(&mut test)?;
    // Nothing was noted if no test with a guest was selected.
    let (guests, clauses) = count(&std::fs::read_to_string(&tally).unwrap_or_default());
    println!("{guests} guests ran, and tried {clauses} clauses");
    Ok(())
}

/// The guests that noted themselves, a line each, and the clauses that they tried.
fn count(tally: &str) -> (usize, u64) {
    let clauses = tally.lines().filter_map(|line| line.parse::<u64>().ok());
    (tally.lines().count(), clauses.sum())
}

impl Args {
    /// What the test harness is told of the selection.
    fn selection(&self) -> Result<Vec<String>> {
        if !self.exact || self.filters.is_empty() {
            return Ok(self.filters.clone());
        }
        // The harness compares with the module, and is content if no test has such a name.
        let listed = proc::capture(harness().args(["--", "--list"]))?;
        let mut selection = vec![String::from("--exact")];
        for filter in &self.filters {
            selection.extend(named(&listed, filter)?);
        }
        Ok(selection)
    }
}

/// The tests of the harness's list with that name, with or without the module.
fn named(listed: &str, name: &str) -> Result<Vec<String>> {
    let tests = listed
        .lines()
        .filter_map(|line| line.strip_suffix(": test"));
    let found: Vec<String> = tests
        .filter(|test| *test == name || test.rsplit("::").next() == Some(name))
        .map(str::to_owned)
        .collect();
    if found.is_empty() {
        bail!("no test is called `{name}`; `cargo xtask machine-test --list` names them");
    }
    Ok(found)
}

fn harness() -> Command {
    let mut test = proc::cargo();
    test.args(["test", "--quiet"])
        .args(["-p", "svsm-testbed-guest", "--test", "machine"])
        .current_dir(workspace::root());
    test
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &[&str]) -> Result<Args, clap::Error> {
        let line = core::iter::once(&"machine-test").chain(line);
        Line::try_parse_from(line).map(|line| line.args)
    }

    #[test]
    fn the_harness_is_told_the_selection() {
        let selection = |line: &[&str]| parse(line).unwrap().selection().unwrap();
        assert!(selection(&[]).is_empty());
        assert!(selection(&["--exact"]).is_empty());
        assert_eq!(selection(&["snp", "nmi"]), ["snp", "nmi"]);
    }

    #[test]
    fn a_whole_name_needs_no_module() {
        let listed = "native::starts: test\nsnp::starts: test\nsnp::starts_again: test\n\n3 tests";
        let both = ["native::starts", "snp::starts"];
        assert_eq!(named(listed, "starts").unwrap(), both);
        assert_eq!(named(listed, "snp::starts").unwrap(), ["snp::starts"]);
        for none in ["start", "snp", "snp::start", "::starts", "3 tests", ""] {
            assert!(named(listed, none).is_err(), "{none}");
        }
    }

    #[test]
    fn guests_and_clauses_are_counted_apart() {
        assert_eq!(count(""), (0, 0));
        assert_eq!(count("1\n130\n1\n"), (3, 132));
    }

    #[test]
    fn no_turns_are_refused() {
        assert!(parse(&["--repeat", "0"]).is_err());
        assert_eq!(parse(&["--repeat", "3"]).unwrap().repeat, 3);
    }
}
