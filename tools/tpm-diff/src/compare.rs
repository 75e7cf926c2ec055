//! Sequences of commands for two TPMs, and where they part.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde::Serialize;
use svsm_vtpm::{Rc, command_name};

use crate::{
    explained::Explained,
    generate::{self, Generator},
    peer::Peer,
};

/// What a difference looks like: command, our answer, theirs.
type Kind = (String, String, String);

/// A kind of difference, with one example.
struct Seen {
    count: u64,
    seed: u64,
    example: String,
}

/// What a run found.
pub(crate) struct Tally<'a> {
    explained: &'a Explained,
    sequences: u64,
    commands: u64,
    successes: u64,
    used: Vec<u64>,
    unexplained: BTreeMap<Kind, Seen>,
}

/// A run's figures, for programs.
#[derive(Serialize)]
pub(crate) struct Figures<'a> {
    sequences: u64,
    commands: u64,
    successes: u64,
    unexplained: u64,
    /// How often each entry of the list was needed.
    used: &'a [u64],
}

pub(crate) fn code_of(response: &[u8]) -> u32 {
    response
        .get(6..10)
        .and_then(|b| b.try_into().ok())
        .map_or(u32::MAX, u32::from_be_bytes)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

impl<'a> Tally<'a> {
    pub(crate) fn new(explained: &'a Explained) -> Self {
        Self {
            explained,
            sequences: 0,
            commands: 0,
            successes: 0,
            used: vec![0; explained.entries().len()],
            unexplained: BTreeMap::new(),
        }
    }

    /// Runs the sequence of a seed on TPMs that are made anew.
    pub(crate) fn sequence(
        &mut self,
        seed: u64,
        length: u32,
        ours: &mut dyn Peer,
        theirs: &mut dyn Peer,
        trace: bool,
    ) -> Result<()> {
        let mut generator = Generator::new(seed);
        theirs.reset()?;
        ours.reset()?;
        for command in generate::preamble() {
            theirs.execute(&command)?;
            ours.execute(&command)?;
        }
        self.sequences += 1;
        for _ in 0..length {
            let command = generator.next();
            let mut there = theirs.execute(&command)?;
            if code_of(&there) == Rc::RETRY.as_u32() {
                there = theirs.execute(&command)?;
            }
            let here = ours.execute(&command)?;
            let code = code_of(&command);
            let name = command_name(code).unwrap_or("unknown");
            if trace {
                println!(
                    "{name} {}: ours {}, theirs {}",
                    hex(&command),
                    Rc::from_u32(code_of(&here)),
                    Rc::from_u32(code_of(&there))
                );
            }
            self.commands += 1;
            self.successes += u64::from(code_of(&here) == 0);
            let (a, b) = (code_of(&here), code_of(&there));
            let differs = a != b || a == 0 && !generator.agree(&command, &here, &there);
            generator.learn(&command, &here);
            if differs {
                self.difference(name, seed, &command, &here, &there);
                // From here on the two are in different states.
                if (a == 0) != (b == 0) {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Runs the sequence of a seed on our TPM alone. Whatever it answers has the form of a response.
    pub(crate) fn alone(&mut self, seed: u64, length: u32, ours: &mut dyn Peer) -> Result<()> {
        let mut generator = Generator::new(seed);
        ours.reset()?;
        for command in generate::preamble() {
            ours.execute(&command)?;
        }
        self.sequences += 1;
        for _ in 0..length {
            let command = generator.next();
            let here = ours.execute(&command)?;
            let size = here
                .get(2..6)
                .map(|b| b.iter().fold(0, |n, b| n << 8 | usize::from(*b)));
            ensure!(
                size == Some(here.len()) && here.len() >= 10,
                "seed {seed}: {} is answered by {}",
                hex(&command),
                hex(&here)
            );
            self.commands += 1;
            self.successes += u64::from(code_of(&here) == 0);
            generator.learn(&command, &here);
        }
        Ok(())
    }

    /// Counts a sequence that somebody else ran.
    pub(crate) fn add(&mut self, commands: u32, successes: u64) {
        self.sequences += 1;
        self.commands += u64::from(commands);
        self.successes += successes;
    }

    fn difference(&mut self, name: &str, seed: u64, command: &[u8], here: &[u8], there: &[u8]) {
        let (a, b) = (code_of(here), code_of(there));
        let text = |code| match a == b {
            true => String::from("other bytes"),
            false => Rc::from_u32(code).to_string(),
        };
        let (ours, theirs) = (text(a), text(b));
        if let Some(entry) = self.explained.find(name, &ours, &theirs) {
            if let Some(used) = self.used.get_mut(entry) {
                *used += 1;
            }
            return;
        }
        let kind = (name.to_owned(), ours, theirs);
        let seen = self.unexplained.entry(kind).or_insert_with(|| {
            let mut example = hex(command);
            if a == b {
                example += &format!("\n      ours   {}\n      theirs {}", hex(here), hex(there));
            }
            Seen {
                count: 0,
                seed,
                example,
            }
        });
        seen.count += 1;
    }

    /// Differences that nobody has explained.
    pub(crate) fn unexplained(&self) -> u64 {
        self.unexplained.values().map(|seen| seen.count).sum()
    }

    pub(crate) fn figures(&self) -> Figures<'_> {
        Figures {
            sequences: self.sequences,
            commands: self.commands,
            successes: self.successes,
            unexplained: self.unexplained(),
            used: &self.used,
        }
    }

    /// Everything, for people.
    pub(crate) fn print(&self, compared: bool) {
        if !compared {
            println!(
                "{} sequences, {} commands, {} successes",
                self.sequences, self.commands, self.successes
            );
            return;
        }
        for ((name, ours, theirs), seen) in &self.unexplained {
            println!(
                "{:6} {name}: ours {ours}, theirs {theirs}  (seed {})\n    {}",
                seen.count, seen.seed, seen.example
            );
        }
        for (entry, used) in self.explained.entries().iter().zip(&self.used) {
            match used {
                0 => println!("unused entry of the list: {}", entry.describe()),
                n => println!("{n:6} explained: {}", entry.describe()),
            }
        }
        println!(
            "{} sequences, {} commands, {} successes, {} differences explained, {} unexplained of {} kinds",
            self.sequences,
            self.commands,
            self.successes,
            self.used.iter().sum::<u64>(),
            self.unexplained(),
            self.unexplained.len()
        );
    }
}
