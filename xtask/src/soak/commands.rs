//! Random and damaged commands to the TPM, in chunks, so that a series goes on where it was stopped.

use super::{Args, fingerprint};
use crate::tpm::{self, Diff, Who};
use crate::{ui, workspace};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::fs::OpenOptions;
use std::io::Write;
use std::process::ExitCode;

/// Sequences of a chunk that both TPMs run; libtpms is the slower one.
const TOGETHER: u64 = 500;
/// Sequences of a chunk that ours runs alone.
const ALONE: u64 = 10_000;
/// Sequences of a chunk of commands of any bytes, of which each has 2500.
const STORM: u64 = 400;

pub(super) fn series(args: &Args, who: Who) -> Result<ExitCode> {
    if who == Who::Both
        && let Some(why) = tpm::library_missing()
    {
        bail!("the commands cannot be compared: {why}");
    }
    let (name, chunk) = match who {
        Who::Both => ("tpm-diff", TOGETHER),
        Who::Alone => ("tpm", ALONE),
        Who::Storm => ("tpm-storm", STORM),
    };
    let tool = match who {
        Who::Storm => tpm::storm_tool()?,
        Who::Both | Who::Alone => tpm::tool("tpm-diff")?,
    };
    let image = fingerprint(&tool)?;
    let dir = workspace::target_dir()?.join("soak");
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let file = dir.join(format!("{name}.jsonl"));
    if args.restart && file.exists() {
        std::fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    }
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    let mut total = Total::of(&text, &image);
    if total.chunks > 0 {
        ui::note(&format!("{} chunks were done before", total.chunks));
    }
    let unwritable = || format!("cannot write {}", file.display());
    let mut log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&file)
        .with_context(unwritable)?;
    let count = u64::try_from(args.count)?;
    for number in total.chunks..count {
        let start = std::time::Instant::now();
        let diff = tpm::diff(&tool, 1 + number * chunk, chunk, who)?;
        total.add(&diff);
        let line = json!({
            "image": image,
            "sequences": diff.sequences,
            "commands": diff.commands,
            "successes": diff.successes,
            "unexplained": diff.unexplained,
            "used": diff.used,
        });
        writeln!(log, "{line}").with_context(unwritable)?;
        println!(
            "chunk {}/{count}: {} commands, {} unexplained ({:.1} s)",
            number + 1,
            diff.commands,
            diff.unexplained,
            start.elapsed().as_secs_f64()
        );
        if diff.unexplained > 0 && !args.keep_going {
            break;
        }
    }
    println!("\n{}", total.summary(who != Who::Both));
    Ok(if total.unexplained == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The sum of all chunks.
#[derive(Debug, Default, PartialEq, Eq)]
struct Total {
    chunks: u64,
    sequences: u64,
    commands: u64,
    successes: u64,
    unexplained: u64,
    used: Vec<u64>,
}

impl Total {
    /// The chunks of this tool. A line that was cut short by a crash of ours counts as not done.
    fn of(text: &str, image: &str) -> Self {
        let mut total = Self::default();
        for line in text.lines() {
            let ours = serde_json::from_str::<Value>(line)
                .is_ok_and(|value| value.get("image").and_then(Value::as_str) == Some(image));
            if let Some(diff) = Diff::parse(line).filter(|_| ours) {
                total.add(&diff);
            }
        }
        total
    }

    fn add(&mut self, diff: &Diff) {
        self.chunks += 1;
        self.sequences += diff.sequences;
        self.commands += diff.commands;
        self.successes += diff.successes;
        self.unexplained += diff.unexplained;
        self.used.resize(self.used.len().max(diff.used.len()), 0);
        for (sum, more) in self.used.iter_mut().zip(&diff.used) {
            *sum += more;
        }
    }

    fn summary(&self, alone: bool) -> String {
        let all = format!(
            "{} sequences, {} commands, {} successes",
            self.sequences, self.commands, self.successes
        );
        if alone {
            return format!("{all}: each answered in the form of a response");
        }
        let unused = self.used.iter().filter(|count| **count == 0).count();
        format!(
            "{all}, {} differences explained, {} unexplained; {unused} of {} entries of the list unused",
            self.used.iter().sum::<u64>(),
            self.unexplained,
            self.used.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_add_up_and_broken_lines_do_not_count() {
        let line = |image| {
            format!(
                "{{\"image\":\"{image}\",\"sequences\":2,\"commands\":80,\"successes\":9,\
                 \"unexplained\":1,\"used\":[1,0]}}\n"
            )
        };
        let text = format!("{}{}{}{{\"image\":\"a", line("a"), line("b"), line("a"));
        let total = Total::of(&text, "a");
        assert_eq!(
            (total.chunks, total.commands, total.unexplained),
            (2, 160, 2)
        );
        assert!(total.summary(false).contains("2 differences explained"));
        assert!(
            total
                .summary(false)
                .ends_with("1 of 2 entries of the list unused")
        );
    }
}
