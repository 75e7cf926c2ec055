//! The firmware on SEV-SNP: what passes the launch, what happens until there is a guest, what the guest's calls cost, and how long
//! Linux takes below it.

use super::{Figure, parse};
use crate::bench::{self, Bench, Size};
use crate::linux::{self, Guest, Lab, Platform};
use anyhow::{Result, bail};
use core::time::Duration;
use svsm_testbed::{Outcome, Run};

/// How often Linux starts in each way; the median counts.
const STARTS: usize = 3;

const OPERATIONS: [(&str, &str); 5] = [
    ("pvalidate", "PVALIDATE"),
    ("rmpadjust", "RMPADJUST"),
    ("page-state-changes", "page-state changes"),
    ("calls", "requests to the host"),
    ("level-switches", "changes of the level"),
];

pub(super) fn figures() -> Result<Vec<Figure>> {
    let bench = Bench::build()?;
    let mut figures = Vec::new();
    for line in &bench.image.report.totals {
        figures.push(Figure::new("image", line.what, line.is));
    }
    until_the_guest(&bench, &mut figures)?;
    calls(&bench, &mut figures)?;
    starts(&mut figures)?;
    Ok(figures)
}

/// What VMPL0 does until the guest runs: of a guest that does nothing but its own start and end.
fn until_the_guest(bench: &Bench, figures: &mut Vec<Figure>) -> Result<()> {
    let outcome = passes(bench.run_caller(Size { cpus: 1, mib: 256 }, "")?)?;
    let group = "from reset to the end of a guest of 256 MiB that does nothing";
    for (reason, count) in outcome.counters.exits(Some(0)) {
        if count > 0 {
            figures.push(Figure::new(
                group,
                format!("exits of VMPL0, {reason}"),
                count,
            ));
        }
    }
    for (name, title) in OPERATIONS {
        let count = outcome.counters.sum(&format!("operations.{name}"));
        figures.push(Figure::new(group, title, count));
    }
    Ok(())
}

/// What the guest's calls cost, under counted instructions.
fn calls(bench: &Bench, figures: &mut Vec<Figure>) -> Result<()> {
    let size = Size { cpus: 1, mib: 1280 };
    let run = bench.run_caller(size, "figures=1024")?.icount(true);
    let outcome = passes(run.timeout(Duration::from_secs(600)))?;
    for (what, value) in outcome.log.iter().filter_map(|line| parse(&line.message)) {
        // What the firmware says of its own start is measured elsewhere.
        if line_of_guest(&what) {
            let group =
                "the guest's calls: instructions, the machine's included, unless a number of calls";
            figures.push(Figure::new(group, what, value));
        }
    }
    Ok(())
}

fn line_of_guest(what: &str) -> bool {
    what.contains("MiB") || what.starts_with("a call")
}

/// Milliseconds from the start of QEMU to its end.
fn starts(figures: &mut Vec<Figure>) -> Result<()> {
    const WAYS: [(Platform, &str); 3] = [
        (Platform::Plain, "plain"),
        (Platform::Snp, "as an SNP guest at VMPL0"),
        (Platform::Svsm, "below the SVSM"),
    ];
    let lab = Lab::build(None, None)?;
    let mut times = WAYS.map(|_| Vec::new());
    // In turn, so that a slow minute of this computer hits all of them.
    for _ in 0..STARTS {
        for ((platform, _), times) in WAYS.iter().zip(&mut times) {
            times.push(linux::passes(&lab, &Guest::of(*platform, 1))?.wall_time);
        }
    }
    let group = "Linux on the software machine from start to power-off, median ms";
    for ((_, name), mut times) in WAYS.into_iter().zip(times) {
        times.sort();
        let middle = times.get(STARTS / 2).copied().unwrap_or_default();
        let ms = u64::try_from(middle.as_millis()).unwrap_or(u64::MAX);
        figures.push(Figure::new(group, name, ms));
    }
    Ok(())
}

fn passes(run: Run) -> Result<Outcome> {
    let outcome = run.start(&mut |_| ())?;
    if !outcome.verdict.is_passed() {
        bail!("{}\n{}", outcome.verdict, bench::tail(&outcome));
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_lines_are_told_from_the_firmwares() {
        assert!(line_of_guest("validating 1024 MiB"));
        assert!(line_of_guest("a call that does nothing, core protocol"));
        assert!(!line_of_guest("null system call by SYSCALL"));
        assert!(!line_of_guest("stage2 at tick"));
    }
}
