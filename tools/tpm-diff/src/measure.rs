//! How long operations take on both TPMs, in one process, in turn.

mod operations; // what is timed

use core::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::{
    compare::{code_of, hex},
    libtpms::Libtpms,
    ours::Ours,
    peer::Peer,
};
pub(crate) use operations::STARTUP;
use operations::{OPERATIONS, Operation};

/// A TPM with a watch. The watch counts the processor's time of this thread: others do not count.
pub(crate) struct Bench<'a> {
    peer: &'a mut dyn Peer,
    spent: Duration,
}

fn now() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

impl Bench<'_> {
    /// A command that counts, and its response.
    fn timed(&mut self, command: &[u8]) -> Result<Vec<u8>> {
        let start = now();
        let response = self.peer.execute(command)?;
        let spent = now().saturating_sub(start);
        // libtpms says so once, when a value that dictionary attacks could guess is first used.
        if code_of(&response) == svsm_vtpm::Rc::RETRY.as_u32() {
            return self.timed(command);
        }
        self.spent += spent;
        good(command, response)
    }

    /// A command, many times; its average counts.
    fn repeated(&mut self, command: &[u8]) -> Result<()> {
        const TIMES: u32 = 50;
        self.plain(command)?;
        let start = now();
        for _ in 0..TIMES {
            self.peer.execute(command)?;
        }
        self.spent += now().saturating_sub(start) / TIMES;
        Ok(())
    }

    /// A command that does not count.
    fn plain(&mut self, command: &[u8]) -> Result<Vec<u8>> {
        let mut response = self.peer.execute(command)?;
        if code_of(&response) == svsm_vtpm::Rc::RETRY.as_u32() {
            response = self.peer.execute(command)?;
        }
        good(command, response)
    }

    fn reset(&mut self) -> Result<()> {
        let start = now();
        self.peer.reset()?;
        self.spent += now().saturating_sub(start);
        Ok(())
    }

    fn power_cycle(&mut self) -> Result<()> {
        let start = now();
        self.peer.power_cycle()?;
        self.spent += now().saturating_sub(start);
        Ok(())
    }
}

fn good(command: &[u8], response: Vec<u8>) -> Result<Vec<u8>> {
    ensure!(
        code_of(&response) == 0,
        "{} fails: {}",
        hex(command),
        svsm_vtpm::Rc::from_u32(code_of(&response))
    );
    Ok(response)
}

/// One line of the table. Times are nanoseconds.
#[derive(Serialize)]
struct Line {
    operation: &'static str,
    ours_median: u64,
    ours_p95: u64,
    theirs_median: u64,
    theirs_p95: u64,
    /// Ours by theirs, of the medians.
    ratio: f64,
}

#[derive(Serialize)]
struct Report {
    lines: Vec<Line>,
    ours_state: u64,
    theirs_state: u64,
    stack: usize,
}

/// Times everything, and prints it.
pub(crate) fn run(library: &str, runs: usize, json: bool) -> Result<()> {
    let (mut ours, mut theirs) = (Ours::new()?, Libtpms::new(library)?);
    let mut lines = Vec::new();
    for operation in OPERATIONS {
        let runs = (runs / operation.costs).max(5);
        let (mut a, mut b) = (Vec::new(), Vec::new());
        start(&mut ours)?;
        start(&mut theirs)?;
        let said = |whose| move || format!("{} on {whose}", operation.name);
        for run in 0..runs {
            a.push(one(&mut ours, operation, run).with_context(said("ours"))?);
            b.push(one(&mut theirs, operation, run).with_context(said("libtpms"))?);
        }
        let (ours_median, ours_p95) = middle(a);
        let (theirs_median, theirs_p95) = middle(b);
        // No figure here comes near the 52 bits that a float keeps.
        let ratio = u32::try_from(ours_median).map_or(f64::INFINITY, f64::from)
            / u32::try_from(theirs_median.max(1)).map_or(f64::INFINITY, f64::from);
        lines.push(Line {
            operation: operation.name,
            ours_median,
            ours_p95,
            theirs_median,
            theirs_p95,
            ratio,
        });
    }
    start(&mut ours)?;
    start(&mut theirs)?;
    let report = Report {
        lines,
        ours_state: u64::try_from(ours.state_len())?,
        theirs_state: theirs.state_len()?,
        stack: stack()?,
    };
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print(&report);
    }
    Ok(())
}

/// A TPM made anew, after Startup(CLEAR).
fn start(peer: &mut dyn Peer) -> Result<()> {
    peer.reset()?;
    peer.execute(&operations::STARTUP)?;
    Ok(())
}

fn one(peer: &mut dyn Peer, operation: &Operation, run: usize) -> Result<u64> {
    let mut bench = Bench {
        peer,
        spent: Duration::ZERO,
    };
    (operation.run)(&mut bench, run)?;
    Ok(u64::try_from(bench.spent.as_nanos())?)
}

/// Median, and the value that 95 of 100 stay below.
fn middle(mut times: Vec<u64>) -> (u64, u64) {
    times.sort_unstable();
    let at = |place: usize| times.get(place).copied().unwrap_or_default();
    (at(times.len() / 2), at(times.len() * 95 / 100))
}

fn print(report: &Report) {
    println!(
        "{:34} {:>11} {:>11} {:>11} {:>11} {:>6}",
        "microseconds of processor time", "ours", "p95", "libtpms", "p95", "ratio"
    );
    // Nanoseconds with their last three digits after a point.
    let us = |ns: u64| format!("{}.{:02}", ns / 1000, ns % 1000 / 10);
    for line in &report.lines {
        println!(
            "{:34} {:>11} {:>11} {:>11} {:>11} {:>6.2}",
            line.operation,
            us(line.ours_median),
            us(line.ours_p95),
            us(line.theirs_median),
            us(line.theirs_p95),
            line.ratio
        );
    }
    println!(
        "permanent state, new: ours {} bytes, libtpms {} bytes",
        report.ours_state, report.theirs_state
    );
    println!(
        "stack that all operations got along with: {} KiB",
        report.stack / 1024
    );
}

/// The smallest stack, in steps of 4 KiB, on which our TPM does everything that is timed. What overflows it ends its process:
/// so each size is tried in one of its own.
fn stack() -> Result<usize> {
    const PAGE: usize = 4096;
    let program = std::env::current_exe()?;
    let survives = |pages: usize| -> Result<bool> {
        let status = std::process::Command::new(&program)
            .args(["--stack", &(pages * PAGE).to_string()])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status()?;
        Ok(status.success())
    };
    let (mut low, mut high) = (4, 256);
    ensure!(survives(high)?, "a stack of 1 MiB is too small");
    while low < high {
        let middle = usize::midpoint(low, high);
        if survives(middle)? {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(high * PAGE)
}

/// Does everything once on a stack of so many bytes.
pub(crate) fn on_stack(bytes: usize) -> Result<()> {
    let mut ours = Ours::new()?;
    let work = move || -> Result<()> {
        for operation in OPERATIONS {
            start(&mut ours)?;
            one(&mut ours, operation, 0).with_context(|| operation.name)?;
        }
        Ok(())
    };
    std::thread::Builder::new()
        .stack_size(bytes)
        .spawn(work)?
        .join()
        .ok()
        .context("the thread panicked")?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_the_median() {
        assert_eq!(middle(vec![3, 1, 2]), (2, 3));
        assert_eq!(middle((1..=100).collect()), (51, 96));
    }

    #[test]
    fn our_tpm_does_every_operation() {
        let mut ours = Ours::new().unwrap();
        for operation in OPERATIONS.iter().filter(|operation| operation.costs < 4) {
            start(&mut ours).unwrap();
            for run in 0..2 {
                if let Err(error) = one(&mut ours, operation, run) {
                    panic!("{}: {error:#}", operation.name);
                }
            }
        }
    }
}
