//! `tpm-diff`: the same random and damaged commands for the TPM of `svsm-vtpm` and for libtpms, and what they answer differently.

mod generate; // commands, whole and damaged
mod libtpms; // the other TPM: opened at run time, in a process of its own
mod ours; // our TPM
mod peer; // both, as somebody who answers commands
mod rng; // reproducible choices

use std::collections::BTreeMap;

use anyhow::Result;
use clap::Parser;
use svsm_vtpm::{Rc, command_name};

use generate::Generator;
use peer::Peer;

/// Compares response codes, and responses where they are determined, of two TPMs.
///
/// Ends with a list of differences, by command and codes, each with an example. Without libtpms it says so and ends well.
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

    /// Print every command of one sequence (the first)
    #[arg(long)]
    trace: bool,

    /// The library
    #[arg(long, default_value = "libtpms.so.0")]
    library: String,

    /// Be libtpms, on standard input and output
    #[arg(long, hide = true)]
    peer: bool,
}

fn code_of(response: &[u8]) -> u32 {
    response
        .get(6..10)
        .and_then(|b| b.try_into().ok())
        .map_or(u32::MAX, u32::from_be_bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn main() -> Result<()> {
    let options = Options::parse();
    if options.peer {
        return libtpms::serve(&options.library);
    }
    if let Err(why) = libtpms::check(&options.library) {
        println!("skipped: {} is not to be had ({why})", options.library);
        return Ok(());
    }
    let mut theirs = peer::Child::start(&options.library)?;
    let mut ours = ours::Ours::new()?;
    let mut differences: BTreeMap<(String, String, String), (u64, u64, String)> = BTreeMap::new();
    let (mut commands, mut successes) = (0u64, 0u64);
    for seed in options.seed..options.seed + options.sequences {
        let mut generator = Generator::new(seed);
        theirs.reset()?;
        ours.reset()?;
        for command in generate::preamble() {
            theirs.execute(&command)?;
            ours.execute(&command)?;
        }
        for _ in 0..options.length {
            let command = generator.next();
            let mut there = theirs.execute(&command)?;
            if code_of(&there) == Rc::RETRY.as_u32() {
                there = theirs.execute(&command)?;
            }
            let here = ours.execute(&command)?;
            commands += 1;
            successes += u64::from(code_of(&here) == 0);
            let code = command
                .get(6..10)
                .map_or(0, |b| b.iter().fold(0, |n, b| n << 8 | u32::from(*b)));
            let name = command_name(code).unwrap_or("unknown").to_owned();
            if options.trace {
                println!("{name} {}: {}", hex(&command), Rc::from_u32(code_of(&here)));
            }
            generator.learn(code, &here);
            let (a, b) = (code_of(&here), code_of(&there));
            if a != b
                || generate::is_determined(code)
                    && a == 0
                    && generate::determined(code, &here) != generate::determined(code, &there)
            {
                let text = |code| {
                    if a == b {
                        "other bytes".into()
                    } else {
                        Rc::from_u32(code).to_string()
                    }
                };
                let entry = differences
                    .entry((name, text(a), text(b)))
                    .or_insert_with(|| {
                        let bytes = if a == b {
                            format!(
                                "\n      ours   {}\n      theirs {}",
                                hex(&here),
                                hex(&there)
                            )
                        } else {
                            String::new()
                        };
                        (0, seed, format!("{}{bytes}", hex(&command)))
                    });
                entry.0 += 1;
                // From here on the two are in different states.
                if (a == 0) != (b == 0) {
                    break;
                }
            }
        }
    }
    for ((name, ours, theirs), (count, seed, example)) in &differences {
        println!("{count:6} {name}: ours {ours}, theirs {theirs}  (seed {seed})\n    {example}");
    }
    let total: u64 = differences.values().map(|(count, ..)| count).sum();
    println!(
        "{} sequences, {commands} commands, {successes} successes, {total} differences of {} kinds",
        options.sequences,
        differences.len()
    );
    Ok(())
}
