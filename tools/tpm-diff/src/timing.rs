//! Whether the time of an answer tells which secret-dependent check failed: after the manner of dudect (Reparaz, Balasch, Verbauwhede,
//! "Dude, is my code constant time?", 2017).
//!
//! Two classes of commands fail alike but for different reasons. They come in random order, each is timed, and Welch's t tells how far apart
//! the means of the two classes are: as they are, and with the slowest measurements left out, which are the machine's noise.

mod blocks; // decrypted blocks whose padding is wrong
mod provider; // primitives, with RSA taken out of the way

use std::time::Instant;

use anyhow::{Result, ensure};
use serde::Serialize;
use svsm_vtpm::{
    Rc,
    crypto::{HashAlg, Hashing, RustCrypto},
};

use crate::{
    compare::code_of,
    generate::{external, plain, sized},
    measure::STARTUP,
    ours::Ours,
    peer::Peer,
    rng::Rng,
};
use blocks::Flaw;
use provider::Identity;

/// Commands of each class that are drawn from, so that it is not one command that is timed. All of them fit the first cache together.
const VARIANTS: usize = 16;
/// Of so many in a thousand measurements the fastest are looked at, each time.
const KEPT: [usize; 5] = [1000, 990, 950, 900, 500];
/// Above this, the classes differ by more than chance explains.
const THRESHOLD: f64 = 4.5;

const NULL: u32 = 0x4000_0007;
const PLATFORM: u32 = 0x4000_000C;
const FIRST: u32 = 0x8000_0000;
/// TPM2_ClearControl, which the platform authorizes.
const CLEAR_CONTROL: u16 = 0x127;

/// Two classes of commands that shall take the same time.
struct Subject {
    name: &'static str,
    classes: [&'static str; 2],
    commands: [Vec<Vec<u8>>; 2],
    /// What both are answered.
    code: Rc,
}

/// What was found. Times are nanoseconds.
#[derive(Serialize)]
struct Finding {
    subject: &'static str,
    classes: [&'static str; 2],
    runs: usize,
    medians: [f64; 2],
    /// Welch's t of all measurements.
    t: f64,
    /// The one farthest from zero, of those with and without the slowest measurements.
    t_most: f64,
}

/// Times everything, and prints the statistics.
pub(crate) fn run(runs: usize, json: bool) -> Result<()> {
    let mut findings = Vec::new();
    let mut tpm = Ours::with_crypto(&Identity)?;
    for subject in padding(&mut tpm)? {
        findings.push(examine(&mut tpm, &subject, runs)?);
    }
    for subject in authorization(&mut tpm)? {
        findings.push(examine(&mut tpm, &subject, runs)?);
    }
    let subject = control(&mut tpm)?;
    findings.push(examine(&mut tpm, &subject, runs)?);
    if json {
        println!("{}", serde_json::to_string(&findings)?);
        return Ok(());
    }
    println!(
        "{:24} {:42} {:>9} {:>9} {:>8} {:>8}",
        "nanoseconds", "one class, and the other", "median", "median", "t", "most t"
    );
    for finding in &findings {
        let [a, b] = finding.classes;
        let mark = if finding.t_most.abs() > THRESHOLD {
            " !"
        } else {
            ""
        };
        println!(
            "{:24} {:42} {:>9.0} {:>9.0} {:>8.2} {:>8.2}{mark}",
            finding.subject,
            format!("{a}, and {b}"),
            finding.medians[0],
            finding.medians[1],
            finding.t,
            finding.t_most
        );
    }
    println!(
        "{runs} runs of each class; a `t` beyond {THRESHOLD} that grows with the runs is a leak"
    );
    Ok(())
}

/// Answers to RSA_Decrypt, with padding that is wrong in one way or another.
fn padding(tpm: &mut Ours) -> Result<Vec<Subject>> {
    start(tpm)?;
    let params = [&external::rsa_decrypt()[..], &NULL.to_be_bytes()].concat();
    must(tpm, &plain(0x167, &[], 0, &params))?;
    // With the arithmetic as it is, the TPM tests it. From then on a block is what its cipher text says.
    decrypt(tpm, b"\0\x17\0\x0B", &[0; 256])?;
    Identity::take_rsa_away();
    let mut rng = Rng::new(7);
    let mut class = |scheme: &'static [u8], block: &dyn Fn(&mut Rng) -> Vec<u8>| -> Vec<Vec<u8>> {
        (0..VARIANTS)
            .map(|_| rsa_decrypt(scheme, &block(&mut rng)))
            .collect()
    };
    let mut subjects = Vec::new();
    for [a, b] in [
        [Flaw::First, Flaw::Label],
        [Flaw::Label, Flaw::NoMark],
        [Flaw::Label, Flaw::Filler],
        [Flaw::Label, Flaw::Everything],
    ] {
        subjects.push(Subject {
            name: "RSA_Decrypt, OAEP",
            classes: [a.name(), b.name()],
            commands: [a, b].map(|flaw| class(b"\0\x17\0\x0B", &|rng| blocks::oaep(flaw, rng))),
            code: Rc::VALUE.param(1),
        });
    }
    for [a, b] in [
        [Flaw::First, Flaw::Kind],
        [Flaw::Kind, Flaw::NoMark],
        [Flaw::Kind, Flaw::EarlyMark],
        [Flaw::Kind, Flaw::Everything],
    ] {
        subjects.push(Subject {
            name: "RSA_Decrypt, PKCS #1",
            classes: [a.name(), b.name()],
            commands: [a, b].map(|flaw| class(b"\0\x15", &|rng| blocks::pkcs1(flaw, rng))),
            code: Rc::VALUE.param(1),
        });
    }
    Ok(subjects)
}

/// Answers to a command whose password or HMAC is wrong in one place or another.
fn authorization(tpm: &mut Ours) -> Result<Vec<Subject>> {
    start(tpm)?;
    let secret = [0x5A; 32];
    must(tpm, &plain(0x129, &[PLATFORM], 1, &sized(&secret)))?;
    let hmac = session_hmac(tpm, &secret)?;
    let mut subjects = Vec::new();
    let by_password = |secret: &[u8]| clear_control(0x4000_0009, &[], secret);
    let by_hmac = |hmac: &[u8]| clear_control(0x0200_0000, &[2; 16], hmac);
    let mut rng = Rng::new(8);
    for (name, right) in [("password", &secret[..]), ("HMAC of a session", &hmac)] {
        let command = |value: &[u8]| match name {
            "password" => by_password(value),
            _ => by_hmac(value),
        };
        let mut wrong = |from: usize, to: usize| -> Vec<Vec<u8>> {
            (0..VARIANTS)
                .map(|n| {
                    let mut value = right.to_vec();
                    for byte in value.get_mut(from..to).unwrap_or_default() {
                        *byte = rng.next().to_be_bytes()[0];
                    }
                    // One of the bytes is wrong for sure.
                    let at = from + n % (to - from);
                    if let (Some(byte), Some(right)) = (value.get_mut(at), right.get(at)) {
                        *byte = !right;
                    }
                    command(&value)
                })
                .collect()
        };
        for (classes, places) in [
            (["wrong first byte", "wrong last byte"], [(0, 1), (31, 32)]),
            (["wrong first byte", "all wrong"], [(0, 1), (0, 32)]),
        ] {
            subjects.push(Subject {
                name,
                classes,
                commands: places.map(|(from, to)| wrong(from, to)),
                code: Rc::BAD_AUTH.session(1),
            });
        }
    }
    // What is taken for right must be: else a command would fail for another reason. Another TPM shows it, as a right HMAC is used up.
    let mut twin = Ours::with_crypto(&Identity)?;
    start(&mut twin)?;
    must(&mut twin, &plain(0x129, &[PLATFORM], 1, &sized(&secret)))?;
    must(&mut twin, &by_password(&secret))?;
    let hmac = session_hmac(&mut twin, &secret)?;
    must(&mut twin, &by_hmac(&hmac))?;
    Ok(subjects)
}

/// Starts a session, and gives the HMAC by which it authorizes the command that is timed.
fn session_hmac(tpm: &mut Ours, secret: &[u8]) -> Result<Vec<u8>> {
    let params = [&sized(&[1; 16])[..], &[0, 0, 0, 0, 0x10, 0, 0x0B]].concat();
    let started = must(tpm, &plain(0x176, &[NULL, NULL], 0, &params))?;
    let nonce = started.get(16..32).unwrap_or_default();
    let code = u32::from(CLEAR_CONTROL).to_be_bytes();
    let cp_hash = RustCrypto.hash(HashAlg::Sha256, &[&code, &PLATFORM.to_be_bytes(), &[0]]);
    let parts = [cp_hash.as_slice(), &[2; 16], nonce, &[1]];
    let hmac = RustCrypto.hmac(HashAlg::Sha256, secret, &parts);
    Ok(hmac.as_slice().to_vec())
}

/// Two hashes of which one has a block more to do: what a difference looks like.
fn control(tpm: &mut Ours) -> Result<Subject> {
    start(tpm)?;
    let hash = |len: u8| -> Vec<Vec<u8>> {
        (0..VARIANTS)
            .map(|n| {
                let data = vec![n.to_be_bytes()[7]; usize::from(len)];
                let params = [&sized(&data)[..], &[0, 0x0B], &NULL.to_be_bytes()].concat();
                plain(0x17D, &[], 0, &params)
            })
            .collect()
    };
    Ok(Subject {
        name: "control, has to differ",
        classes: ["Hash of 55 bytes", "of 56 bytes"],
        commands: [hash(55), hash(56)],
        code: Rc::SUCCESS,
    })
}

fn start(tpm: &mut Ours) -> Result<()> {
    tpm.reset()?;
    must(tpm, &STARTUP).map(drop)
}

fn must(tpm: &mut Ours, command: &[u8]) -> Result<Vec<u8>> {
    let response = tpm.execute(command)?;
    let code = Rc::from_u32(code_of(&response));
    ensure(code == Rc::SUCCESS, code)?;
    Ok(response)
}

fn ensure(held: bool, code: Rc) -> Result<()> {
    ensure!(held, "a command is answered {code}");
    Ok(())
}

fn rsa_decrypt(scheme: &[u8], block: &[u8]) -> Vec<u8> {
    let params = [&sized(block)[..], scheme, &[0, 0]].concat();
    plain(0x159, &[FIRST], 1, &params)
}

fn decrypt(tpm: &mut Ours, scheme: &[u8], block: &[u8]) -> Result<()> {
    tpm.execute(&rsa_decrypt(scheme, block)).map(drop)
}

fn clear_control(session: u32, nonce: &[u8], secret: &[u8]) -> Vec<u8> {
    let area = [
        &session.to_be_bytes()[..],
        &sized(nonce),
        &[1],
        &sized(secret),
    ]
    .concat();
    let size = u32::try_from(area.len()).unwrap_or(0).to_be_bytes();
    let body = [&PLATFORM.to_be_bytes()[..], &size, &area, &[0]].concat();
    let len = u32::try_from(body.len() + 10).unwrap_or(0).to_be_bytes();
    let code = u32::from(CLEAR_CONTROL).to_be_bytes();
    [&[0x80, 2][..], &len, &code, &body].concat()
}

/// Times both classes in random order.
fn examine(tpm: &mut Ours, subject: &Subject, runs: usize) -> Result<Finding> {
    let mut rng = Rng::new(9);
    let mut times = [(); 2].map(|()| Vec::with_capacity(runs));
    // The commands of both classes lie between each other, and each is timed from the same place, so that no class has a place of its own
    // in the caches.
    let len = subject.commands.iter().flatten().map(Vec::len).max();
    let stride = len.unwrap_or(0).next_multiple_of(64);
    let mut pool = vec![0; 2 * VARIANTS * stride];
    let order = (0..VARIANTS).flat_map(|n| subject.commands.each_ref().map(|c| c.get(n)));
    for (to, from) in pool.chunks_mut(stride).zip(order.flatten()) {
        to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    }
    let mut place = vec![0; stride];
    let warm = runs / 20;
    for run in 0..2 * (runs + warm) {
        let (class, variant) = (rng.below(2), rng.below(VARIANTS));
        let (Some(commands), Some(times)) = (subject.commands.get(class), times.get_mut(class))
        else {
            continue;
        };
        let at = (2 * variant + class) * stride;
        place.copy_from_slice(pool.get(at..at + stride).unwrap_or_default());
        let len = commands.get(variant).map_or(0, Vec::len);
        let command = place.get(..len).unwrap_or_default();
        let start = Instant::now();
        let code = tpm.answer(command)?;
        let spent = start.elapsed();
        ensure(code == subject.code.as_u32(), Rc::from_u32(code))?;
        if run >= 2 * warm {
            times.push(f64::from(
                u32::try_from(spent.as_nanos()).unwrap_or(u32::MAX),
            ));
        }
    }
    let mut all = times.concat();
    all.sort_by(f64::total_cmp);
    let t = |most: f64| {
        let kept = [0, 1].map(|class: usize| {
            let times = times.get(class).map(Vec::as_slice).unwrap_or_default();
            Sample::of(times.iter().copied().filter(|time| *time <= most))
        });
        welch(&kept)
    };
    let ts = KEPT.map(|kept| {
        let last = (all.len() * kept / 1000).saturating_sub(1);
        t(all.get(last).copied().unwrap_or(f64::INFINITY))
    });
    let medians = times.each_ref().map(|times| {
        let mut times = times.clone();
        times.sort_by(f64::total_cmp);
        times.get(times.len() / 2).copied().unwrap_or_default()
    });
    Ok(Finding {
        subject: subject.name,
        classes: subject.classes,
        runs,
        medians,
        t: ts.first().copied().unwrap_or_default(),
        t_most: ts
            .into_iter()
            .max_by(|a, b| a.abs().total_cmp(&b.abs()))
            .unwrap_or_default(),
    })
}

/// Mean and variance of what was measured.
struct Sample {
    count: f64,
    mean: f64,
    variance: f64,
}

impl Sample {
    fn of(times: impl Iterator<Item = f64>) -> Self {
        // Welford's way: no large sums.
        let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
        for time in times {
            count += 1.0;
            let delta: f64 = time - mean;
            mean += delta / count;
            squares += delta * (time - mean);
        }
        Self {
            count,
            mean,
            variance: squares / (count - 1.0_f64).max(1.0),
        }
    }
}

/// Welch's t: the distance of the means, by what chance makes of it.
fn welch([a, b]: &[Sample; 2]) -> f64 {
    let error = (a.variance / a.count.max(1.0) + b.variance / b.count.max(1.0)).sqrt();
    if error > 0.0 {
        (a.mean - b.mean) / error
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_that_differ_have_a_large_t_and_equal_ones_have_not() {
        let of = |plus: f64| Sample::of((0..1000).map(|n| f64::from(n % 10) + plus));
        assert!(welch(&[of(0.0), of(0.0)]).abs() < 1e-9);
        assert!(welch(&[of(0.0), of(1.0)]) < -THRESHOLD);
        assert!((of(0.0).mean - 4.5).abs() < 1e-9);
    }

    #[test]
    fn every_class_fails_as_it_shall() {
        // Few runs: what is looked at here are the codes, not the times.
        run(20, true).unwrap();
    }
}
