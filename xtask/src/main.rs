//! Every chore of the workspace: `cargo xtask <verb>`.
//!
//! The two verbs that a newcomer needs are `boot` and `test`; both set up what they miss. The others are
//! the parts that `test` is made of, and what a maintainer does now and then.

mod bare;
mod bench;
mod book;
mod boot;
mod boots;
mod check;
mod docs;
mod features;
mod firmware;
mod fuzz;
mod image;
mod linux;
mod machine_test;
mod measure;
mod proc;
mod rules;
mod setup;
mod soak;
mod tools;
mod tpm;
mod ui;
mod workspace;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Builds, boots, tests and measures the SVSM crates and their reference firmware.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    version,
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Build the firmware and its image, boot it, show its log, end with its verdict.
    Boot(boot::Args),
    /// Start a stock Linux kernel on the software machine, plain or as an SNP guest.
    Linux(linux::Args),
    /// Run the small guests that try the software machine, all or some.
    MachineTest(machine_test::Args),
    /// Look for QEMU, a bare-metal `core` and a linker; install what is missing or name the command.
    Setup(setup::Args),
    /// Run every check: format, lints, tests, documentation, features, rules, packaging, fuzzing, boots.
    Test(check::Args),
    /// Build the firmware's image and say what it is made of.
    Image(image::Args),
    /// Count pages, bytes and instructions.
    Measure(measure::Args),
    /// Run a long series that the gate has no time for.
    Soak(soak::Args),
    /// Run the fuzz targets, each for a while.
    Fuzz(fuzz::Args),
    /// Check what a program can check of the house rules.
    Rules,
    /// Build the book into book/book.
    Book,
    /// Build the documentation of all packages into target/doc.
    Docs,
    /// Build every pair of features of every published crate.
    Features,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::Boot(args) => boot::command(&args),
        Verb::Linux(args) => linux::command(&args),
        Verb::MachineTest(args) => machine_test::command(&args),
        Verb::Setup(args) => setup::command(&args),
        Verb::Test(args) => check::command(&args),
        Verb::Image(args) => image::command(&args),
        Verb::Measure(args) => measure::command(&args),
        Verb::Soak(args) => soak::command(&args),
        Verb::Fuzz(args) => fuzz::command(&args),
        Verb::Rules => rules::command(),
        Verb::Book => book::command(),
        Verb::Docs => docs::command(),
        Verb::Features => features::command(),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            ui::failure(&format!("{error:#}"));
            ExitCode::from(2)
        }
    }
}
