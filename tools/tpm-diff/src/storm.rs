//! Commands of any bytes to our TPM alone: cheap ones, so that very many of them fit into a minute.
//!
//! Most are well-formed commands that were damaged more than once; some have a right head, and noise behind it; few are whole, so
//! that there are sessions, objects and indices that the others can hit; and now and then the power goes, the platform is reset, or the TPM is moved.

use anyhow::{Result, ensure};
use svsm_vtpm::{Rc, Resume, command_handles};

use crate::{
    compare::{code_of, hex},
    generate::{self, Generator, plain},
    ours::{Ours, TIMERS},
    peer::Peer as _,
    rng::Rng,
};

/// Commands of the table, and some around.
const CODES: core::ops::Range<usize> = 0x11E..0x1B0;
/// Bytes that a command may have.
pub(crate) const ROOM: usize = if cfg!(feature = "pqc") { 8192 } else { 4096 };
/// Numbers that are likely to be a bound.
const BOUNDS: [u16; 12] = [
    0, 1, 2, 8, 16, 0x20, 0x40, 0x80, 0x100, 0x400, 0x1000, 0xFFFF,
];
const HANDLES: [u32; 17] = [
    0x4000_0001,
    0x4000_0007,
    0x4000_0009,
    0x4000_000A,
    0x4000_000B,
    0x4000_000C,
    0x4000_0110,
    0x8000_0000,
    0x8000_0001,
    0x8000_0002,
    0x0150_0000,
    0x0180_0000,
    0x8100_0001,
    0x9000_0000,
    0x0200_0000,
    0x0300_0000,
    16,
];
const STARTUP: &[u8] = b"\x80\x01\0\0\0\x0C\0\0\x01\x44\0\0";
const STARTUP_STATE: &[u8] = b"\x80\x01\0\0\0\x0C\0\0\x01\x44\0\x01";
const SHUTDOWN_STATE: &[u8] = b"\x80\x01\0\0\0\x0C\0\0\x01\x45\0\x01";

struct Storm {
    rng: Rng,
    generator: Generator,
    /// The last whole commands, of which others are made.
    whole: [Vec<u8>; 16],
}

/// What signing and verifying with ML-DSA-87 gets along with in every profile.
const STACK: usize = 16 << 20;

/// Runs the sequence of each seed, and says how many commands succeeded.
pub(crate) fn sequences(seeds: core::ops::Range<u64>, length: u32) -> Result<Vec<u64>> {
    let run = move || {
        let mut ours = Ours::reproducible()?;
        seeds
            .map(|seed| sequence(seed, length, &mut ours))
            .collect()
    };
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(run)?;
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Runs the sequence of a seed on a TPM that is made anew, and says how many commands succeeded. Whatever it answers has the form of a
/// response, with a code that is one, and not the code of a TPM that found itself broken.
fn sequence(seed: u64, length: u32, ours: &mut Ours) -> Result<u64> {
    let mut storm = Storm {
        rng: Rng::new(seed ^ 0x5709),
        generator: Generator::new(seed),
        whole: [const { Vec::new() }; 16],
    };
    ours.begin(seed)?;
    for command in generate::preamble() {
        ours.execute(&command)?;
    }
    for at in 0..storm.whole.len() {
        let command = storm.compose();
        if let Some(place) = storm.whole.get_mut(at) {
            *place = command;
        }
    }
    let mut successes = 0;
    for _ in 0..length {
        if storm.rng.one_in(100) {
            storm.happen(ours)?;
        }
        let whole = storm.rng.one_in(10);
        let command = storm.next(whole);
        let locality = if storm.rng.one_in(16) {
            storm.rng.pick(&[1, 2, 3, 4, 5, 32, 255])
        } else {
            0
        };
        let response = ours.execute_from(locality, &command)?;
        check(seed, &command, response)?;
        if whole {
            storm.generator.learn(&command, response);
        }
        successes += u64::from(code_of(response) == 0);
    }
    Ok(successes)
}

fn check(seed: u64, command: &[u8], response: &[u8]) -> Result<()> {
    let size = response
        .get(2..6)
        .map(|b| b.iter().fold(0, |n, b| n << 8 | usize::from(*b)));
    let code = Rc::from_u32(code_of(response));
    let formed = size == Some(response.len()) && response.len() >= 10;
    ensure!(
        formed && code != Rc::FAILURE && code.name() != "UNKNOWN",
        "seed {seed}: {} is answered by {}",
        hex(command),
        hex(response)
    );
    Ok(())
}

impl Storm {
    /// What happens to a TPM beside its commands.
    fn happen(&mut self, ours: &mut Ours) -> Result<()> {
        match self.rng.below(32) {
            0 => {
                ours.power_cycle()?;
                if self.rng.one_in(2) {
                    ours.launch(b"early");
                }
                ours.execute(STARTUP).map(drop)?;
            }
            1 => ours.launch(b"launch"),
            2 => ours.set_physical_presence(true),
            3 => ours.set_physical_presence(false),
            4 => {
                ours.reset_platform()?;
                ours.execute(STARTUP).map(drop)?;
            }
            5 => {
                ours.execute(SHUTDOWN_STATE)?;
                if self.rng.one_in(2) {
                    ours.power_cycle()?;
                } else {
                    ours.reset_platform()?;
                }
                ours.execute(STARTUP_STATE)?;
                // If that could not be: a state that was not saved, a counter at its end.
                ours.execute(STARTUP).map(drop)?;
            }
            6 => ours.suspend_and_resume(if self.rng.one_in(2) {
                Resume::Exactly
            } else {
                Resume::Reseeded
            })?,
            _ => {
                let milliseconds = self.rng.next() >> (20 + self.rng.below(44));
                // Months, not ages: the clock must not come to its end.
                let signaled = ours.wait(milliseconds & 0xFFFF_FFFF);
                ensure!(
                    signaled >> TIMERS == 0,
                    "timers {signaled:#x} have signaled"
                );
            }
        }
        Ok(())
    }

    fn next(&mut self, whole: bool) -> Vec<u8> {
        if whole {
            let command = self.compose();
            let at = self.rng.below(self.whole.len());
            if let Some(place) = self.whole.get_mut(at) {
                place.clone_from(&command);
            }
            return command;
        }
        let mut command = match self.rng.below(8) {
            0 => self.noise(),
            1 => {
                let len = self.rng.below(64);
                let mut bytes = vec![0; len];
                self.fill(&mut bytes);
                bytes
            }
            _ => self.damaged(),
        };
        command.truncate(ROOM);
        if !self.rng.one_in(24) {
            let size = u32::try_from(command.len()).unwrap_or(0).to_be_bytes();
            let place = command.iter_mut().skip(2);
            place.zip(size).for_each(|(to, from)| *to = from);
        }
        command
    }

    /// A whole command.
    fn compose(&mut self) -> Vec<u8> {
        #[cfg(feature = "pqc")]
        if self.rng.one_in(3) {
            return crate::lattice::command(&mut self.rng);
        }
        self.generator.next()
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for part in bytes.chunks_mut(8) {
            let noise = self.rng.next().to_be_bytes();
            part.iter_mut().zip(noise).for_each(|(to, from)| *to = from);
        }
    }

    fn one_whole(&mut self) -> Vec<u8> {
        let at = self.rng.below(self.whole.len());
        self.whole.get(at).cloned().unwrap_or_default()
    }

    /// A right head with authorizations, and noise for parameters.
    fn noise(&mut self) -> Vec<u8> {
        let code = CODES.start + self.rng.below(CODES.len());
        let code = u16::try_from(code).unwrap_or(0);
        let count = command_handles(u32::from(code)).unwrap_or(0);
        let handles: Vec<u32> = (0..count).map(|_| self.rng.pick(&HANDLES)).collect();
        let mut params = vec![0; self.rng.below(48)];
        self.fill(&mut params);
        // Sizes that can be believed lead further.
        for at in (0..params.len()).step_by(2) {
            if self.rng.one_in(3) {
                let bound = self.rng.pick(&BOUNDS).to_be_bytes();
                let place = params.iter_mut().skip(at);
                place.zip(bound).for_each(|(to, from)| *to = from);
            }
        }
        let auths = self.rng.below(3);
        plain(code, &handles, auths, &params)
    }

    /// A whole command with up to four damages.
    fn damaged(&mut self) -> Vec<u8> {
        let mut bytes = self.one_whole();
        // Behind the header, a handle, or the authorizations too: what comes before is looked at first, and ends most commands.
        let front = self.rng.pick(&[0, 10, 27, 27, 31, 31]);
        for _ in 0..=self.rng.below(4) {
            let front = if front < bytes.len() { front } else { 0 };
            let at = front + self.rng.below(bytes.len() - front);
            match self.rng.below(8) {
                0 => bytes.truncate(at),
                1 => {
                    let mut more = vec![0; self.rng.below(16)];
                    self.fill(&mut more);
                    bytes.extend(more);
                }
                2 => {
                    // The rest of another one.
                    let other = self.one_whole();
                    let from = self.rng.below(other.len());
                    bytes.truncate(at);
                    bytes.extend(other.get(from..).unwrap_or_default());
                }
                3 => {
                    let bound = self.rng.pick(&BOUNDS).to_be_bytes();
                    let place = bytes.iter_mut().skip(at);
                    place.zip(bound).for_each(|(to, from)| *to = from);
                }
                4 => {
                    let handle = self.rng.pick(&HANDLES).to_be_bytes();
                    let place = bytes.iter_mut().skip(at);
                    place.zip(handle).for_each(|(to, from)| *to = from);
                }
                5 => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << self.rng.below(8);
                    }
                }
                _ => {
                    let value = self.rng.next().to_be_bytes()[0];
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte = value;
                    }
                }
            }
        }
        bytes
    }
}
