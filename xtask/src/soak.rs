//! `cargo xtask soak`: long series, too long for the gate. They keep what they did in target/soak and go on there
//! when they are started again.

mod commands; // commands to the TPM

use crate::bench::{self, Bench, SIZES, Size};
use crate::linux::{self, Guest, Lab, SIZES as SIZES_OF_LINUX};
use crate::tpm::Who;
use crate::{ui, workspace};
use anyhow::{Context, Result, bail};
use core::hash::{Hash, Hasher};
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::hash::DefaultHasher;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// Options of `cargo xtask soak`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A series that was stopped goes on where it was, as long as the image is the same.

Examples:
  cargo xtask soak --list
  cargo xtask soak boot
  cargo xtask soak boot --count 500 --keep-going
  cargo xtask soak tpm-diff --count 200")]
pub(crate) struct Args {
    /// The series (see --list).
    #[arg(required_unless_present = "list")]
    name: Option<String>,
    /// How many runs the series has.
    #[arg(long, value_name = "N", default_value_t = 50)]
    count: usize,
    /// Go on after a run has failed.
    #[arg(long)]
    keep_going: bool,
    /// Forget what was done before.
    #[arg(long)]
    restart: bool,
    /// List the series and stop.
    #[arg(long)]
    list: bool,
}

/// The series: name, and what it is.
const SERIES: &[(&str, &str)] = &[
    (
        "boot",
        "boots the firmware in a row, on 1, 2 and 4 processors with 64 MiB to 4 GiB in turn",
    ),
    (
        "linux",
        "starts stock Linux in a row, plain and as an SNP guest, on 1 and 2 processors in turn; begins anew each time",
    ),
    (
        "tpm-diff",
        "random and damaged commands to our TPM and to libtpms, --count times 500 sequences of 40 commands",
    ),
    (
        "tpm",
        "the same to our TPM alone, --count times 10000 sequences: no panic, no overflow, no malformed response",
    ),
    (
        "tpm-storm",
        "commands of any bytes to our TPM alone, --count times a million",
    ),
];

/// `cargo xtask soak`.
pub(crate) fn command(args: &Args) -> Result<ExitCode> {
    if args.list {
        for (name, what) in SERIES {
            println!("{name:10} {what}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    match args.name.as_deref() {
        Some("boot") => boot(args),
        Some("linux") => linux(args),
        Some("tpm-diff") => commands::series(args, Who::Both),
        Some("tpm") => commands::series(args, Who::Alone),
        Some("tpm-storm") => commands::series(args, Who::Storm),
        other => bail!(
            "there is no series `{}`; `cargo xtask soak --list` names them",
            other.unwrap_or_default()
        ),
    }
}

/// One boot of a series, as its file keeps it.
#[derive(Clone, Debug, PartialEq)]
struct Entry {
    passed: bool,
    seconds: f64,
}

fn boot(args: &Args) -> Result<ExitCode> {
    let bench = Bench::build()?;
    let image = fingerprint(&bench.image.file)?;
    let dir = workspace::target_dir()?.join("soak");
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let file = dir.join("boot.jsonl");
    if args.restart && file.exists() {
        std::fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    }
    let mut done = std::fs::read_to_string(&file).map_or_else(
        // Nothing was done yet.
        |_| Vec::new(),
        |text| entries(&text, &image),
    );
    if !done.is_empty() {
        ui::note(&format!("{} runs were done before", done.len()));
    }
    let mut log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&file)
        .with_context(|| format!("cannot write {}", file.display()))?;
    for (number, size) in (0..args.count).zip(SIZES.iter().cycle()).skip(done.len()) {
        let entry = one(&bench, *size, number, args.count, &dir)?;
        record(&mut log, &image, *size, &entry)
            .with_context(|| format!("cannot write {}", file.display()))?;
        let stop = !entry.passed && !args.keep_going;
        done.push(entry);
        if stop {
            break;
        }
    }
    let summary = summary(&done);
    println!("\n{summary}");
    Ok(if done.iter().all(|entry| entry.passed) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn linux(args: &Args) -> Result<ExitCode> {
    let lab = Lab::build(None, None)?;
    let mut done = Vec::new();
    for (number, (platform, processors)) in (1..=args.count).zip(SIZES_OF_LINUX.iter().cycle()) {
        let start = std::time::Instant::now();
        let result = linux::passes(&lab, &Guest::of(*platform, *processors));
        let seconds = start.elapsed().as_secs_f64();
        let what = format!("{} Linux, {processors} processors", platform.name());
        let passed = result.is_ok();
        match result {
            Ok(_) => println!(
                "start {number}/{}: {what}: passed ({seconds:.2} s)",
                args.count
            ),
            Err(error) => println!("start {number}/{}: {what}: {error:#}", args.count),
        }
        done.push(Entry { passed, seconds });
        if !passed && !args.keep_going {
            break;
        }
    }
    println!("\n{}", summary(&done));
    Ok(if done.iter().all(|entry| entry.passed) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn one(bench: &Bench, size: Size, number: usize, count: usize, dir: &Path) -> Result<Entry> {
    let outcome = bench.run(size)?.start(&mut |_| ())?;
    let passed = outcome.verdict.is_passed();
    println!(
        "boot {}/{count}: {size}: {} ({:.2} s)",
        number + 1,
        outcome.verdict,
        outcome.wall_time.as_secs_f64()
    );
    if !passed {
        let file = dir.join(format!("boot-{}.json", number + 1));
        let all = serde_json::to_vec_pretty(&outcome)?;
        std::fs::write(&file, all).with_context(|| format!("cannot write {}", file.display()))?;
        print!("{}", bench::tail(&outcome));
        println!("    all about it: {}", file.display());
    }
    Ok(Entry {
        passed,
        seconds: outcome.wall_time.as_secs_f64(),
    })
}

fn record(log: &mut File, image: &str, size: Size, entry: &Entry) -> std::io::Result<()> {
    let line = json!({
        "image": image,
        "cpus": size.cpus,
        "memory_mib": size.mib,
        "passed": entry.passed,
        "seconds": entry.seconds,
    });
    writeln!(log, "{line}")
}

/// The runs of this image. A line that was cut short by a crash of ours counts as not done.
fn entries(text: &str, image: &str) -> Vec<Entry> {
    let lines = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines
        .filter(|line| line.get("image").and_then(Value::as_str) == Some(image))
        .filter_map(|line| {
            Some(Entry {
                passed: line.get("passed")?.as_bool()?,
                seconds: line.get("seconds")?.as_f64()?,
            })
        })
        .collect()
}

/// Tells images apart. It need not be the same with another compiler: then the series begins anew.
fn fingerprint(image: &Path) -> Result<String> {
    let bytes = std::fs::read(image).with_context(|| format!("cannot read {}", image.display()))?;
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}

fn summary(done: &[Entry]) -> String {
    let failed = done.iter().filter(|entry| !entry.passed).count();
    let mut seconds: Vec<f64> = done.iter().map(|entry| entry.seconds).collect();
    seconds.sort_by(f64::total_cmp);
    let at = |place: usize| seconds.get(place).copied().unwrap_or_default();
    format!(
        "{} boots, {failed} failed; seconds each: {:.2} least, {:.2} median, {:.2} most",
        done.len(),
        at(0),
        at(seconds.len() / 2),
        at(seconds.len().saturating_sub(1)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_another_image_and_broken_lines_do_not_count() {
        let text = "{\"image\":\"a\",\"passed\":true,\"seconds\":1.5}\n\
                    {\"image\":\"b\",\"passed\":true,\"seconds\":1.5}\n\
                    {\"image\":\"a\",\"pas";
        let one = Entry {
            passed: true,
            seconds: 1.5,
        };
        assert_eq!(entries(text, "a"), [one]);
    }

    #[test]
    fn a_summary_has_the_middle_and_both_ends() {
        let entry = |seconds| Entry {
            passed: true,
            seconds,
        };
        assert_eq!(
            summary(&[entry(3.0), entry(1.0), entry(2.0)]),
            "3 boots, 0 failed; seconds each: 1.00 least, 2.00 median, 3.00 most"
        );
    }
}
