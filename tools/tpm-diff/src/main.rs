//! `tpm-diff`: the same random and damaged commands for the TPM of `svsm-vtpm` and for libtpms, what they answer differently,
//! and how long they take.

mod compare; // sequences, and where the two part
mod explained; // the reviewed list of differences
mod generate; // commands, whole and damaged
#[cfg(feature = "pqc")]
mod lattice; // commands with post-quantum keys
mod libtpms; // the other TPM: opened at run time
mod measure; // how long operations take
mod ours; // our TPM
mod peer; // both, as somebody who answers commands
mod rng; // reproducible choices
mod storm; // commands of any bytes, very many
mod timing; // whether times tell secrets

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use compare::Tally;
use explained::Explained;
use ours::Ours;
use peer::Child;

/// Commands of a sequence with --storm.
const STORM: u32 = 2500;

/// Compares response codes, and responses where they are determined, of two TPMs.
///
/// Ends with the differences that the reviewed list (explained.toml) does not cover, by command and codes, each with an example,
/// and fails if there is one. Without libtpms it says so and ends well.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// Sequences of commands, each on freshly made TPMs
    #[arg(long, default_value_t = 1000)]
    sequences: u64,

    /// Commands in a sequence
    #[arg(long, default_value_t = 40)]
    length: u32,

    /// Where the first sequence's choices come from; each further one takes the next number
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Print every command, and both answers' codes
    #[arg(long)]
    trace: bool,

    /// Let our TPM alone answer, to see that nothing makes it panic
    #[arg(long, conflicts_with = "measure")]
    alone: bool,

    /// Let our TPM alone answer commands of any bytes, which are cheap: 2500 in a sequence
    #[arg(long, conflicts_with_all = ["measure", "alone", "length"])]
    storm: bool,

    /// Time operations instead: both TPMs in this process, in turn
    #[arg(long)]
    measure: bool,

    /// Look instead whether the time of our answers tells why a padding, an HMAC or a password is wrong
    #[arg(long, conflicts_with_all = ["measure", "alone"])]
    timing: bool,

    /// Runs of each operation, with --measure (60) and --timing (100000)
    #[arg(long)]
    runs: Option<usize>,

    /// End with a line of JSON
    #[arg(long)]
    json: bool,

    /// The library
    #[arg(long, default_value = "libtpms.so.0")]
    library: String,

    /// Do everything that is timed once, on a stack of so many bytes
    #[arg(long, hide = true)]
    stack: Option<usize>,

    /// Be libtpms, on standard input and output
    #[arg(long, hide = true)]
    peer: bool,
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    if options.peer {
        libtpms::serve(&options.library)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(bytes) = options.stack {
        measure::on_stack(bytes)?;
        return Ok(ExitCode::SUCCESS);
    }
    if options.timing {
        timing::run(options.runs.unwrap_or(100_000), options.json)?;
        return Ok(ExitCode::SUCCESS);
    }
    if !options.alone
        && !options.storm
        && let Err(why) = libtpms::check(&options.library)
    {
        println!("skipped: {} is not to be had ({why:#})", options.library);
        return Ok(ExitCode::SUCCESS);
    }
    if options.measure {
        measure::run(&options.library, options.runs.unwrap_or(60), options.json)?;
        return Ok(ExitCode::SUCCESS);
    }
    let list = Explained::load()?;
    let mut tally = Tally::new(&list);
    let seeds = options.seed..options.seed.saturating_add(options.sequences);
    if options.storm {
        for successes in storm::sequences(seeds, STORM)? {
            tally.add(STORM, successes);
        }
    } else if options.alone {
        let mut ours = Ours::new()?;
        for seed in seeds {
            tally.alone(seed, options.length, &mut ours)?;
        }
    } else {
        let mut ours = Ours::new()?;
        let mut theirs = Child::start(&options.library)?;
        for seed in seeds {
            tally.sequence(seed, options.length, &mut ours, &mut theirs, options.trace)?;
        }
    }
    tally.print(!options.alone && !options.storm);
    if options.json {
        println!("{}", serde_json::to_string(&tally.figures())?);
    }
    Ok(match tally.unexplained() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}
