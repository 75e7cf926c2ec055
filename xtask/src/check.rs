//! `cargo xtask test`: the whole check, for people and for machines.

use crate::setup::{self, Bare, Install};
use crate::{bare, book, features, proc, rules, tools, ui, workspace};
use anyhow::{Context, Result, bail};
use std::process::{Command, ExitCode};

/// Options of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run only the named stages (see --list).
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    only: Vec<String>,
    /// Leave the named stages out.
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    skip: Vec<String>,
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

const STAGES: &[Stage] = &[
    Stage {
        name: "setup",
        what: "tools are there",
        run: setup_stage,
    },
    Stage {
        name: "fmt",
        what: "the code is formatted",
        run: fmt,
    },
    Stage {
        name: "rules",
        what: "the house rules hold",
        run: rules_stage,
    },
    Stage {
        name: "clippy",
        what: "no lint warns",
        run: clippy,
    },
    Stage {
        name: "host",
        what: "tests on the host, doc tests included",
        run: host,
    },
    Stage {
        name: "loom",
        what: "every interleaving of the locks and queues",
        run: loom,
    },
    Stage {
        name: "docs",
        what: "documentation builds without a warning",
        run: docs,
    },
    Stage {
        name: "features",
        what: "every pair of features builds",
        run: features_stage,
    },
    Stage {
        name: "bare",
        what: "every library builds for the bare machine",
        run: bare_stage,
    },
    Stage {
        name: "package",
        what: "every crate can be packaged",
        run: package,
    },
    Stage {
        name: "deny",
        what: "licences, sources and duplicates of dependencies",
        run: deny,
    },
    Stage {
        name: "book",
        what: "the book builds",
        run: book_stage,
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
        (args.only.is_empty() || args.only.iter().any(|n| n == stage.name))
            && !args.skip.iter().any(|n| n == stage.name)
    };
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
        "test result: {word}. {passed} passed; {failed} failed; {skipped} ignored; 0 measured; 0 filtered out"
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

fn cargo(args: &[&str]) -> Command {
    let mut cargo = proc::cargo();
    cargo.args(args).current_dir(workspace::root());
    cargo
}

fn setup_stage() -> Result<Done> {
    let qemu = setup::qemu(Install::Allowed)?;
    Bare::find(Install::Allowed)?;
    passed(format!(
        "QEMU {}.{}, a bare-metal core and a linker",
        qemu.version.0, qemu.version.1
    ))
}

fn fmt() -> Result<Done> {
    proc::run(&mut cargo(&["fmt", "--all", "--check"]))?;
    passed("rustfmt")
}

fn rules_stage() -> Result<Done> {
    passed(format!("{} checks", rules::check()?))
}

fn clippy() -> Result<Done> {
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

fn host() -> Result<Done> {
    proc::run(&mut cargo(&[
        "test",
        "--quiet",
        "--workspace",
        "--all-features",
    ]))?;
    passed("all packages")
}

/// Crates with loom models: a test target named `loom…`, or unit tests under `cfg(loom)`.
fn loom() -> Result<Done> {
    let mut names = Vec::new();
    for package in workspace::packages()? {
        let manifest = std::fs::read_to_string(package.dir.join("Cargo.toml"))
            .context("cannot read a manifest")?;
        if package.is_crate() && manifest.contains("cfg(loom)") {
            let mut test = cargo(&[
                "test",
                "--quiet",
                "--release",
                "--tests",
                "-p",
                &package.name,
                "loom",
            ]);
            test.env("RUSTFLAGS", "--cfg loom")
                .env("LOOM_MAX_PREEMPTIONS", "3");
            test.arg("--target-dir")
                .arg(workspace::target_dir()?.join("loom"));
            proc::run(&mut test)?;
            names.push(package.name);
        }
    }
    passed(names.join(", "))
}

fn docs() -> Result<Done> {
    let mut doc = cargo(&[
        "doc",
        "--quiet",
        "--workspace",
        "--no-deps",
        "--all-features",
    ]);
    proc::run(doc.env("RUSTDOCFLAGS", "-Dwarnings"))?;
    passed("rustdoc")
}

fn features_stage() -> Result<Done> {
    passed(format!("{} sets", features::powerset()?))
}

fn bare_stage() -> Result<Done> {
    passed(format!(
        "{} libraries, without and with all features",
        bare::libraries(&Bare::find(Install::Allowed)?)?
    ))
}

fn package() -> Result<Done> {
    // The build of each package from its archive is what the stages above did from the tree.
    let mut package = cargo(&[
        "package",
        "--quiet",
        "--workspace",
        "--no-verify",
        "--allow-dirty",
    ]);
    for unpublished in workspace::packages()?
        .iter()
        .filter(|package| !package.published)
    {
        package.args(["--exclude", &unpublished.name]);
    }
    proc::run(&mut package)?;
    passed("cargo package")
}

fn deny() -> Result<Done> {
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

fn book_stage() -> Result<Done> {
    match tools::MDBOOK.find() {
        Ok(_) => book::build().and_then(|()| passed("mdbook")),
        Err(error) => Ok(Done::Skipped(error.to_string())),
    }
}
