//! `cargo xtask measure`: figures that are counted, and what the software machine costs.

mod machine; // the software machine
mod snp; // the firmware on SEV-SNP
mod tpm; // the TPM, beside libtpms

use crate::bench::{self, Bench, Size};
use anyhow::{Context, Result, bail};
use core::fmt;
use elf::ElfBytes;
use elf::endian::LittleEndian;
use serde_json::{Value, json};
use std::process::ExitCode;
use svsm_testbed::Outcome;

/// Options of `cargo xtask measure`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Instructions are counted by QEMU on one processor: a tick is an instruction. Of the firmware's, what the
software machine itself executes is subtracted. None of these figures is a time, but for those of Linux
on the software machine, which are seconds of this computer and of no other.

Examples:
  cargo xtask measure
  cargo xtask measure machine
  cargo xtask measure snp
  cargo xtask measure tpm
  cargo xtask measure tpm-timing
  cargo xtask measure --json")]
pub(crate) struct Args {
    /// What is measured.
    #[arg(value_enum, default_value_t = Subject::Firmware)]
    subject: Subject,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Subject {
    /// The reference firmware: pages, bytes, instructions.
    Firmware,
    /// The software machine: what exits cost, how long Linux takes on it, how large it is.
    Machine,
    /// The firmware on SEV-SNP: pages of the launch, exits until there is a guest, the guest's calls, Linux below it.
    Snp,
    /// The TPM beside libtpms, both in one process: processor time of operations, stack, state, code.
    Tpm,
    /// Whether the TPM's answers take a time that tells why a padding, an HMAC or a password is wrong.
    TpmTiming,
}

/// One figure.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Figure {
    group: &'static str,
    what: String,
    value: u64,
}

/// `cargo xtask measure`.
pub(crate) fn command(args: &Args) -> Result<ExitCode> {
    let figures = match args.subject {
        Subject::Tpm => return tpm::command(args.json),
        Subject::TpmTiming => return tpm::timing(args.json),
        Subject::Firmware => firmware()?,
        Subject::Machine => machine::figures()?,
        Subject::Snp => snp::figures()?,
    };
    if args.json {
        println!("{:#}", to_json(&figures));
    } else {
        print!("{}", table(&figures));
    }
    Ok(ExitCode::SUCCESS)
}

fn firmware() -> Result<Vec<Figure>> {
    let bench = Bench::build()?;
    let mut figures = Vec::new();
    for line in &bench.image.report.kinds {
        figures.push(Figure::new("image pages", line.what, line.is));
    }
    for line in &bench.image.report.totals {
        figures.push(Figure::new("image", line.what, line.is));
    }
    sizes(&bench, &mut figures)?;
    instructions(&bench, &mut figures)?;
    Ok(figures)
}

impl Figure {
    fn new(group: &'static str, what: impl fmt::Display, value: u64) -> Self {
        Self {
            group,
            what: what.to_string(),
            value,
        }
    }
}

/// What of each program gets into memory: the sum of its loadable segments' bytes in the file.
fn sizes(bench: &Bench, figures: &mut Vec<Figure>) -> Result<()> {
    let mut sum = 0;
    for name in &bench.image.programs {
        let file = bench.programs.elf(name)?;
        let bytes =
            std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let size =
            loaded(&bytes).with_context(|| format!("{} is not as it must be", file.display()))?;
        sum += size;
        figures.push(Figure::new("stripped bytes", name, size));
    }
    figures.push(Figure::new("stripped bytes", "all programs", sum));
    Ok(())
}

fn loaded(bytes: &[u8]) -> Result<u64> {
    let elf = ElfBytes::<LittleEndian>::minimal_parse(bytes)?;
    let segments = elf.segments().context("it has no segments")?;
    Ok(segments
        .iter()
        .filter(|segment| segment.p_type == elf::abi::PT_LOAD)
        .map(|segment| segment.p_filesz)
        .sum())
}

fn instructions(bench: &Bench, figures: &mut Vec<Figure>) -> Result<()> {
    let run = bench.run(Size { cpus: 1, mib: 256 })?;
    let outcome = run
        .icount(true)
        .command_line("measure")
        .start(&mut |_| ())?;
    if !outcome.verdict.is_passed() {
        bail!(
            "the firmware did not pass while its instructions were counted: {}\n{}",
            outcome.verdict,
            bench::tail(&outcome)
        );
    }
    let said: Vec<(String, u64)> = outcome
        .log
        .iter()
        .filter_map(|line| parse(&line.message))
        .collect();
    if let Some(user) = said.iter().find(|(what, _)| what == USER_MODE) {
        let first = first_entry(&outcome).context("the machine did not say when it began")?;
        let until = user.1.saturating_sub(first);
        let machine = outcome.counters.sum("l0_ticks");
        // The machine's share is known for the whole run only, so that the firmware's lies between these.
        let group = "instructions";
        figures.push(Figure::new(group, "reset to user mode, at most", until));
        let least = until.saturating_sub(machine);
        figures.push(Figure::new(group, "reset to user mode, at least", least));
    }
    for (what, value) in said {
        if !what.ends_with("at tick") {
            figures.push(Figure::new("instructions", what, value));
        }
    }
    let group = "exits until power-off";
    figures.push(Figure::new(group, "all", outcome.counters.sum("total")));
    for (name, count) in outcome.counters.iter() {
        if let Some(reason) = name.strip_prefix("cpus.0.exits.")
            && count > 0
        {
            figures.push(Figure::new(group, reason, count));
        }
    }
    Ok(())
}

/// What the firmware calls the moment when its first process begins.
const USER_MODE: &str = "user mode at tick";

/// Reads `measure: <what>: <number>`, as the firmware logs it.
fn parse(message: &str) -> Option<(String, u64)> {
    let (what, number) = message.strip_prefix("measure: ")?.rsplit_once(':')?;
    Some((what.to_owned(), number.trim().parse().ok()?))
}

fn first_entry(outcome: &Outcome) -> Option<u64> {
    outcome.end.as_ref()?.more.get("first_entry_tsc")?.as_u64()
}

fn table(figures: &[Figure]) -> String {
    let mut text = String::new();
    let mut group = "";
    for figure in figures {
        if figure.group != group {
            group = figure.group;
            text.push_str(&format!("{group}\n"));
        }
        text.push_str(&format!("  {:44} {:>12}\n", figure.what, figure.value));
    }
    text
}

fn to_json(figures: &[Figure]) -> Value {
    let mut groups = json!({});
    for figure in figures {
        if let Some(group) = groups
            .as_object_mut()
            .map(|groups| groups.entry(figure.group).or_insert_with(|| json!({})))
            .and_then(Value::as_object_mut)
        {
            group.insert(figure.what.clone(), json!(figure.value));
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_the_log() {
        let line = "measure: null system call by int 0x80: 412";
        assert_eq!(
            parse(line),
            Some(("null system call by int 0x80".into(), 412))
        );
        assert_eq!(parse("measure: nothing"), None);
        assert_eq!(parse("the timer: 5"), None);
    }

    #[test]
    fn groups_are_objects_in_json_and_headings_in_a_table() {
        let figures = [
            Figure::new("image pages", "code", 3),
            Figure::new("image pages", "data", 4),
            Figure::new("bytes", "svsm", 5),
        ];
        assert_eq!(
            to_json(&figures),
            json!({"image pages": {"code": 3, "data": 4}, "bytes": {"svsm": 5}})
        );
        assert_eq!(table(&figures).lines().count(), 5);
    }
}
