//! `cargo xtask test`: the whole check, for people and for machines.

mod stages;

use crate::ui;
use anyhow::{Result, bail};
use std::process::ExitCode;
use std::time::Instant;

/// Options of `cargo xtask test`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask test
  cargo xtask test --only fmt,rules,clippy
  cargo xtask test --tpm-suites --only tpm-suites
  cargo xtask test --skip boot --keep-going")]
pub(crate) struct Args {
    /// Run only the named stages (see --list).
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    only: Vec<String>,
    /// Leave the named stages out.
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    skip: Vec<String>,
    /// Also run all of tpm2-tss' integration tests against the TPM, which are fetched and built first.
    #[arg(long)]
    tpm_suites: bool,
    /// Go on after a stage has failed.
    #[arg(long)]
    keep_going: bool,
    /// List the stages and stop.
    #[arg(long)]
    list: bool,
}

/// What a stage answers: a line for the summary, or that it was skipped and why.
enum Done {
    Passed(String),
    Skipped(String),
}

struct Stage {
    name: &'static str,
    what: &'static str,
    run: fn() -> Result<Done>,
}

/// The stage that runs only when it is asked for.
const SUITES: &str = "tpm-suites";

const STAGES: &[Stage] = &[
    Stage {
        name: "setup",
        what: "tools are there",
        run: stages::setup,
    },
    Stage {
        name: "fmt",
        what: "the code is formatted",
        run: stages::fmt,
    },
    Stage {
        name: "rules",
        what: "the house rules hold",
        run: stages::rules,
    },
    Stage {
        name: "clippy",
        what: "no lint warns",
        run: stages::clippy,
    },
    Stage {
        name: "host",
        what: "tests on the host, doc tests included",
        run: stages::host,
    },
    Stage {
        name: "tpm",
        what: "the TPM agrees with libtpms, with tpm2-tss' SYS tests, and with a Linux that is moved",
        run: stages::tpm,
    },
    Stage {
        name: SUITES,
        what: "all of tpm2-tss' tests, by both transports (with --tpm-suites)",
        run: stages::tpm_suites,
    },
    Stage {
        name: "loom",
        what: "every interleaving of the locks and queues",
        run: stages::loom,
    },
    Stage {
        name: "docs",
        what: "documentation builds without a warning",
        run: stages::docs,
    },
    Stage {
        name: "features",
        what: "every pair of features builds",
        run: stages::features,
    },
    Stage {
        name: "bare",
        what: "every library builds for the bare machine",
        run: stages::bare,
    },
    Stage {
        name: "package",
        what: "every crate can be packaged",
        run: stages::package,
    },
    Stage {
        name: "deny",
        what: "licences, sources and duplicates of dependencies",
        run: stages::deny,
    },
    Stage {
        name: "book",
        what: "the book builds",
        run: stages::book,
    },
    Stage {
        name: "fuzz",
        what: "parsers survive their seeds and what grows from them",
        run: stages::fuzz,
    },
    Stage {
        name: "boot",
        what: "the firmware boots on machines of all sizes, and every death has its verdict",
        run: stages::boot,
    },
    Stage {
        name: "linux",
        what: "stock Linux starts on the software machine, plain and as an SNP guest",
        run: stages::linux,
    },
];

/// `cargo xtask test`.
pub(crate) fn command(args: &Args) -> Result<ExitCode> {
    if args.list {
        for stage in STAGES {
            println!("{:10} {}", stage.name, stage.what);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(unknown) = args
        .only
        .iter()
        .chain(&args.skip)
        .find(|name| !STAGES.iter().any(|stage| stage.name == **name))
    {
        bail!("there is no stage `{unknown}`; `cargo xtask test --list` names them");
    }
    let wanted = |stage: &&Stage| {
        let named = args.only.iter().any(|n| n == stage.name);
        (named || args.only.is_empty() && (stage.name != SUITES || args.tpm_suites))
            && !args.skip.iter().any(|n| n == stage.name)
    };
    let begun = Instant::now();
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    let mut lines = Vec::new();
    for stage in STAGES.iter().filter(wanted) {
        let start = ui::step(&format!("{}: {}", stage.name, stage.what));
        let (verdict, detail) = match (stage.run)() {
            Ok(Done::Passed(detail)) => {
                passed += 1;
                ("ok", detail)
            }
            Ok(Done::Skipped(why)) => {
                skipped += 1;
                ("skipped", why)
            }
            Err(error) => {
                failed += 1;
                ui::failure(&format!("{error:#}"));
                ("FAILED", String::from("see above"))
            }
        };
        lines.push(format!(
            "stage {} ... {verdict} ({detail}; {})",
            stage.name,
            ui::elapsed(start)
        ));
        if failed > 0 && !args.keep_going {
            break;
        }
    }
    println!("\n{}\n", lines.join("\n"));
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "test result: {word}. {passed} passed; {failed} failed; {skipped} ignored; 0 measured; {} filtered out; finished in {}",
        STAGES.len() - STAGES.iter().filter(wanted).count(),
        ui::elapsed(begun)
    );
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn passed(detail: impl Into<String>) -> Result<Done> {
    Ok(Done::Passed(detail.into()))
}
