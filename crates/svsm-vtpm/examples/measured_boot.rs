//! Replays a measured-boot log into a TPM, and says whether its PCRs are what the log accounts for.
//!
//! The log is the crypto-agile one of the TCG's PC Client Platform Firmware Profile ("Event Logging"), which Linux shows as
//! `/sys/kernel/security/tpm0/binary_bios_measurements`. Without a file, a small log is made here.
//!
//! `cargo run -p svsm-vtpm --example measured_boot [LOG]`

use core::error::Error;
use std::{collections::BTreeMap, env, fs, time::Instant};

use sha2::{Digest, Sha256};
use svsm_vtpm::{
    Clock, Ephemeral, ObjectSlot, Random, SeamError, Seams, SessionSlot, Storage, Tpm,
    crypto::RustCrypto,
};

const SHA256: u16 = 0x0B;
/// What an event is that extends nothing.
const NO_ACTION: u32 = 3;
/// The signature of the first event's data, which name the algorithms of all others.
const SPEC_ID: &[u8] = b"Spec ID Event03\0";

/// Not random at all: an example needs none.
struct Example(u8);

impl Random for Example {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), SeamError> {
        for byte in out {
            self.0 = self.0.wrapping_mul(37).wrapping_add(11);
            *byte = self.0;
        }
        Ok(())
    }
}

struct Uptime(Instant);

impl Clock for Uptime {
    fn now_ms(&mut self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// What is left of a log. Its integers are in little endian.
struct Log<'l>(&'l [u8]);

impl<'l> Log<'l> {
    fn take(&mut self, len: usize) -> Result<&'l [u8], &'static str> {
        let (front, rest) = self.0.split_at_checked(len).ok_or("the log is cut")?;
        self.0 = rest;
        Ok(front)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let bytes = self.take(N)?.first_chunk();
        bytes.copied().ok_or("the log is cut")
    }

    fn short(&mut self) -> Result<u16, &'static str> {
        self.array().map(u16::from_le_bytes)
    }

    fn long(&mut self) -> Result<u32, &'static str> {
        self.array().map(u32::from_le_bytes)
    }

    /// What a 32-bit size precedes.
    fn sized(&mut self) -> Result<&'l [u8], &'static str> {
        let len = usize::try_from(self.long()?).map_err(|_| "the log is cut")?;
        self.take(len)
    }

    /// The first event, in the old layout: the algorithms and the lengths of their digests.
    fn algorithms(&mut self) -> Result<BTreeMap<u16, usize>, &'static str> {
        // PCR, type, a SHA-1 digest.
        self.take(4 + 4 + 20)?;
        let mut data = Log(self.sized()?);
        if data.take(SPEC_ID.len()) != Ok(SPEC_ID) {
            return Err("this is no crypto-agile log");
        }
        // Platform class, version, errata, size of integers.
        data.take(4 + 4)?;
        let count = data.long()?;
        (0..count)
            .map(|_| Ok((data.short()?, data.short()?.into())))
            .collect()
    }

    /// One event: its PCR, its type, its SHA-256 digest, its data.
    fn event(&mut self, algorithms: &BTreeMap<u16, usize>) -> Result<Event, &'static str> {
        let (pcr, kind, count) = (self.long()?, self.long()?, self.long()?);
        let mut found = None;
        for _ in 0..count {
            let algorithm = self.short()?;
            let len = algorithms.get(&algorithm);
            let digest = self.take(*len.ok_or("a digest of no algorithm that the log names")?)?;
            if algorithm == SHA256 {
                found = digest.first_chunk().copied();
            }
        }
        Ok(Event {
            pcr,
            kind,
            digest: found.ok_or("an event without a SHA-256 digest")?,
            bytes: self.sized()?.len(),
        })
    }
}

struct Event {
    pcr: u32,
    kind: u32,
    digest: [u8; 32],
    bytes: usize,
}

/// A command with one empty password, or without any authorization.
fn command(code: u16, handle: Option<u32>, params: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    if let Some(handle) = handle {
        body.extend(handle.to_be_bytes());
        body.extend(b"\0\0\0\x09\x40\0\0\x09\0\0\x01\0\0");
    }
    body.extend(params);
    let mut out = vec![0x80, if handle.is_some() { 2 } else { 1 }];
    out.extend(u32::try_from(body.len() + 10).unwrap_or(0).to_be_bytes());
    out.extend(u32::from(code).to_be_bytes());
    out.extend(body);
    out
}

/// The response, if it says success.
fn run<'t>(tpm: &'t mut Tpm<'_>, command: &[u8]) -> Result<&'t [u8], Box<dyn Error>> {
    let response = tpm.execute(0, command).map_err(|_| "the TPM is busy")?;
    match response.get(6..10) {
        Some([0, 0, 0, 0]) => Ok(response),
        code => Err(format!("the TPM answers {code:02x?}").into()),
    }
}

/// A log as firmware writes it: what was loaded, and the line that it was loaded with.
fn small_log() -> Vec<u8> {
    let mut log = [0_u32, NO_ACTION].map(u32::to_le_bytes).concat();
    log.extend([0; 20]);
    let mut data = SPEC_ID.to_vec();
    // Class 0, version 2.0, errata 0, 64-bit integers; one algorithm; no vendor data.
    data.extend([0, 0, 0, 0, 0, 2, 0, 2, 1, 0, 0, 0, 0x0B, 0, 32, 0, 0]);
    log.extend(u32::try_from(data.len()).unwrap_or(0).to_le_bytes());
    log.extend(data);
    for (pcr, kind, what) in [
        (0_u32, 0x8000_0008_u32, &b"firmware"[..]),
        (4, 0x8000_0003, b"boot loader"),
        (4, 0x8000_0003, b"kernel"),
        (5, NO_ACTION, b"nothing was done"),
        (8, 13, b"console=ttyS0"),
    ] {
        for word in [pcr, kind, 1] {
            log.extend(word.to_le_bytes());
        }
        log.extend(SHA256.to_le_bytes());
        log.extend(Sha256::digest(what));
        log.extend(u32::try_from(what.len()).unwrap_or(0).to_le_bytes());
        log.extend(what);
    }
    log
}

/// Replays the log, and gives the PCRs that the TPM has otherwise than the log accounts for.
fn replay(tpm: &mut Tpm<'_>, log: &[u8]) -> Result<Vec<u32>, Box<dyn Error>> {
    let mut log = Log(log);
    let algorithms = log.algorithms()?;
    let mut expected = BTreeMap::new();
    while !log.0.is_empty() {
        let event = log.event(&algorithms)?;
        println!(
            "PCR {:2}  type {:#010x}  {} bytes",
            event.pcr, event.kind, event.bytes
        );
        if event.kind == NO_ACTION {
            continue;
        }
        // PCR_Extend with one digest.
        let mut extend = vec![0, 0, 0, 1];
        extend.extend(SHA256.to_be_bytes());
        extend.extend(event.digest);
        run(tpm, &command(0x182, Some(event.pcr), &extend))?;
        let value = expected.entry(event.pcr).or_insert([0; 32]);
        *value = Sha256::digest([*value, event.digest].concat()).into();
    }
    let mut wrong = Vec::new();
    for (pcr, value) in expected {
        // PCR_Read of one PCR.
        let mut read = vec![0, 0, 0, 1];
        read.extend(SHA256.to_be_bytes());
        read.extend([3, 0, 0, 0]);
        let byte = usize::try_from(pcr / 8)?;
        *read.get_mut(7 + byte).ok_or("no such PCR")? = 1 << (pcr % 8);
        let response = run(tpm, &command(0x17E, None, &read))?;
        if !response.ends_with(&value) {
            wrong.push(pcr);
        }
    }
    Ok(wrong)
}

fn main() -> Result<(), Box<dyn Error>> {
    let log = match env::args_os().nth(1) {
        Some(path) => fs::read(path)?,
        None => small_log(),
    };
    let (mut random, mut clock, mut store) = (Example(1), Uptime(Instant::now()), Ephemeral);
    let (mut input, mut output) = ([0; 4096], [0; 4096]);
    let mut objects = [const { ObjectSlot::EMPTY }; 3 + Storage::EXTRA_OBJECTS];
    let mut sessions = [const { SessionSlot::EMPTY }; 3];
    let mut nv = [0; Storage::NV_HEAD + 4096];
    let mut tpm = Tpm::new(
        Seams {
            crypto: &RustCrypto,
            random: &mut random,
            clock: &mut clock,
            store: &mut store,
        },
        Storage {
            command: &mut input,
            response: &mut output,
            objects: &mut objects,
            sessions: &mut sessions,
            nv: &mut nv,
        },
    )
    .map_err(|_| "the TPM's memory is too small")?;
    tpm.power_on()
        .map_err(|_| "the TPM's state cannot be made")?;
    run(&mut tpm, &command(0x144, None, &[0, 0]))?;
    let wrong = replay(&mut tpm, &log)?;
    if wrong.is_empty() {
        println!("the log accounts for all PCRs that it names");
        Ok(())
    } else {
        Err(format!("the log does not account for PCRs {wrong:?}").into())
    }
}
