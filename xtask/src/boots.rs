//! The whole, end to end: the firmware's image on machines of all sizes, and deaths that must end in the
//! right verdict.

use crate::bench::{self, Bench, RESTRICTED, SIZES, Size};
use crate::firmware::Variant;
use crate::machine_test;
use crate::setup::{Bare, Install};
use crate::ui;
use anyhow::{Context, Result, bail};
use core::time::Duration;
use std::path::Path;
use std::time::Instant;
use svsm_igvm::file::{Body, ImageFile};
use svsm_sim::fault::{Fault, Platforms};
use svsm_stage2::handoff::{Handoff, Staged};
use svsm_testbed::campaign::judge;
use svsm_testbed::images::TraceEntry;
use svsm_testbed::verdict::Crash;
use svsm_testbed::{Cancel, FaultPlan, Images, Outcome, Platform, Run, Verdict};

/// How many runs of the suite did as they should.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// Those that did.
    pub(crate) passed: usize,
    failed: usize,
}

/// A run that must end in a certain way.
struct Case {
    name: String,
    run: Run,
    /// What the end must be, in words.
    wanted: &'static str,
    ends_so: fn(&Outcome) -> bool,
}

/// Runs the suite, one line a run. Fails if one of them ends as it should not.
pub(crate) fn suite() -> Result<Tally> {
    let bench = Bench::build()?;
    let scratch = tempfile::tempdir().context("cannot make a scratch directory")?;
    let mut cases = Vec::new();
    for size in SIZES {
        let name = format!("boots with {size}");
        cases.push(Case::new(&name, bench.run(*size)?, "passed", |outcome| {
            outcome.verdict.is_passed() && outcome.dropped_records == 0
        }));
    }
    for size in SNP_SIZES {
        let name = format!("boots on SEV-SNP with {size}");
        let run = bench.run(*size)?.platform(Platform::Snp);
        cases.push(Case::new(&name, run, "passed", |outcome| {
            outcome.verdict.is_passed() && outcome.dropped_records == 0
        }));
    }
    cases.extend(restricted(&bench)?);
    cases.extend(guests(&bench)?);
    cases.extend(refusals(&bench, scratch.path())?);
    cases.extend(endings(&bench)?);
    cases.extend(deaths(&bench)?);
    cases.extend(lies(&bench)?);
    cases.extend(late_lies(&bench)?);
    println!("\nrunning {} boots", cases.len());
    let mut tally = Tally::default();
    for case in cases {
        let start = Instant::now();
        let outcome = case.run.start(&mut |_| ());
        let (word, detail) = match &outcome {
            Ok(outcome) if (case.ends_so)(outcome) => {
                tally.passed += 1;
                ("ok", String::new())
            }
            Ok(outcome) => {
                tally.failed += 1;
                let (wanted, is) = (case.wanted, &outcome.verdict);
                let log = bench::tail(outcome);
                ("FAILED", format!("    wanted: {wanted}; is: {is}\n{log}"))
            }
            Err(error) => {
                tally.failed += 1;
                ("FAILED", format!("    {error}\n"))
            }
        };
        println!("test {} ... {word} ({})", case.name, ui::elapsed(start));
        print!("{detail}");
    }
    let word = if tally.failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {} passed; {} failed\n",
        tally.passed, tally.failed
    );
    if tally.failed > 0 {
        bail!("{} boots did not end as they should", tally.failed);
    }
    let bare = Bare::find(Install::Allowed)?;
    machine_test::run(&bare, bench.programs.dir(), &[])?;
    Ok(tally)
}

impl Case {
    fn new(name: &str, run: Run, wanted: &'static str, ends_so: fn(&Outcome) -> bool) -> Self {
        Self {
            name: name.to_owned(),
            run,
            wanted,
            ends_so,
        }
    }
}

/// Machines with SEV-SNP.
const SNP_SIZES: &[Size] = &[
    Size { cpus: 1, mib: 64 },
    Size { cpus: 2, mib: 256 },
    Size { cpus: 4, mib: 4096 },
];

/// Machines whose host may raise nothing but #HV: interrupts come by the doorbell, also where the host rings for nothing, for
/// junk, or not at all.
fn restricted(bench: &Bench) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for size in SNP_SIZES {
        let run = bench.run_restricted(*size)?;
        let run = run.expect("interrupts are taken: true");
        cases.push(Case::new(
            &format!("takes interrupts by the doorbell with {size}"),
            run,
            "passed, with interrupts",
            |outcome| outcome.verdict.is_passed() && outcome.counters.sum("exits.interrupt") > 0,
        ));
    }
    for fault in [
        Fault::StrayDoorbell,
        Fault::DoorbellJunk,
        Fault::LostInterrupt,
        Fault::StrayInterrupt,
        Fault::ForbiddenVector,
    ] {
        let mut plan = FaultPlan::new();
        plan.add(fault.name())?;
        plan.seed(1);
        cases.push(Case::new(
            &format!("bears a host that rings as it likes: {}", fault.name()),
            bench
                .run_restricted(Size { cpus: 2, mib: 64 })?
                .faults(plan),
            "an end that may come of the lie",
            |outcome| judge(outcome).1,
        ));
    }
    let run = bench.run_caller_in(Size { cpus: 2, mib: 256 }, "services tpm", RESTRICTED)?;
    cases.push(Case::new(
        "serves a guest whose host may only ring",
        run,
        "passed",
        |outcome| outcome.verdict.is_passed(),
    ));
    Ok(cases)
}

/// Guests below the SVSM that call its services.
fn guests(bench: &Bench) -> Result<Vec<Case>> {
    let size = Size { cpus: 1, mib: 256 };
    let case = |name: &str, what: &str| -> Result<Case> {
        let run = bench.run_caller(size, what)?;
        Ok(Case::new(name, run, "passed", |outcome| {
            outcome.verdict.is_passed()
        }))
    };
    let at_level = |vmpl: u8| -> Result<Case> {
        let host_acpi = vmpl == 1;
        let variant = Variant {
            vmpl: Some(vmpl),
            host_acpi,
            ..Variant::default()
        };
        let run = bench.run_caller_in(size, "services seed=2 hostile=200", variant)?;
        let mut run = run.expect(format!("starts at VMPL{vmpl}"));
        if host_acpi {
            run = run.expect("bytes of ACPI tables are the host's");
        }
        let name = format!("serves a guest at VMPL{vmpl}");
        Ok(Case::new(&name, run, "passed", |outcome| {
            outcome.verdict.is_passed()
        }))
    };
    Ok(vec![
        at_level(1)?,
        at_level(3)?,
        case("serves a guest's TPM from user mode", "services tpm")?,
        case("stands a guest that calls wrongly", "seed=1 hostile=3000")?,
    ])
}

/// The smallest machine, for runs that do not get far.
const SMALL: Size = Size { cpus: 1, mib: 64 };

/// Damaged images.
fn refusals(bench: &Bench, scratch: &Path) -> Result<Vec<Case>> {
    let whole = std::fs::read(&bench.image.file).context("cannot read the image")?;
    let mut damaged = whole.clone();
    *damaged.get_mut(0x40).context("the image is too small")? ^= 0x10;
    let (half, _) = whole.split_at(whole.len() / 2);
    let images: [(&str, &str, &[u8]); 3] = [
        ("refuses an image with one wrong bit", "bit.igvm", &damaged),
        ("refuses half an image", "half.igvm", half),
        ("refuses a file of zeros", "zeros.igvm", &[0; 8192]),
    ];
    let mut cases = Vec::new();
    for (name, file, bytes) in images {
        let file = scratch.join(file);
        std::fs::write(&file, bytes).context("cannot write a damaged image")?;
        let run = bench.run_file(file, SMALL);
        cases.push(Case::new(name, run, "load error", |outcome| {
            matches!(outcome.verdict, Verdict::LoadError { .. })
        }));
    }
    cases.extend(changed_payload(bench, scratch, &whole)?);
    Ok(cases)
}

/// Payload that a host changes after the launch: it is what the host can see, and nothing of the machine's own measures it.
fn changed_payload(bench: &Bench, scratch: &Path, whole: &[u8]) -> Result<[Case; 2]> {
    let file = ImageFile::read(whole).context("the image is not one")?;
    let (mut shown, mut handoff) = (Vec::new(), None);
    for header in file.headers() {
        if let Body::PageData(page) = &header.body
            && let Some(data) = page.data
        {
            if !page.shared {
                handoff = handoff.or(Handoff::parse(data).ok());
                continue;
            }
            let at = data.as_ptr().addr() - whole.as_ptr().addr();
            shown.push((page.gpa, at));
        }
    }
    let handoff = handoff.context("the image has no hand-off")?;
    let page = |staged: Option<Staged>| {
        let start = staged?.source.start().as_u64();
        let mut pages = shown.iter();
        pages.find(|(gpa, _)| *gpa == start).map(|(_, at)| *at)
    };
    let archive = page(handoff.staged).context("the image has no staged archive")?;
    let svsm = page(handoff.staged_svsm).context("the image has no staged SVSM")?;
    let changed = |name: &str, at: usize| -> Result<Run> {
        let mut bytes = whole.to_vec();
        *bytes.get_mut(at + 5).context("the image is too small")? ^= 1;
        let file = scratch.join(name);
        std::fs::write(&file, bytes).context("cannot write a damaged image")?;
        let mut images = Images::new();
        images.add_symbols(&bench.image.symbols)?;
        let run = bench.run_file(file, SMALL).images(images);
        Ok(run.platform(Platform::Snp))
    };
    Ok([
        Case::new(
            "refuses programs that the host has changed",
            changed("programs.igvm", archive)?.expect("Digest"),
            "a refusal that names the digest",
            |outcome| matches!(outcome.verdict, Verdict::Failed { code: 0xfffe_0000 }),
        ),
        Case::new(
            "refuses an SVSM that the host has changed",
            changed("svsm.igvm", svsm)?,
            "an end for what the host broke",
            |outcome| {
                matches!(
                    &outcome.verdict,
                    Verdict::Crashed { how: Crash::Terminated, reason: Some(reason), .. }
                        if reason.contains("4:0x1")
                )
            },
        ),
    ])
}

/// Ends that are not the firmware's doing.
fn endings(bench: &Bench) -> Result<Vec<Case>> {
    let cancel = Cancel::default();
    cancel.cancel();
    Ok(vec![
        Case::new(
            "ends a machine that stands still when its time is over",
            bench
                .run(SMALL)?
                .qemu_arg("-S")
                .timeout(Duration::from_secs(1)),
            "timed out",
            |outcome| {
                outcome.verdict == Verdict::TimedOut && outcome.wall_time < Duration::from_secs(20)
            },
        ),
        Case::new(
            "ends when somebody stops it",
            bench.run(SMALL)?.cancel(cancel),
            "interrupted",
            |outcome| outcome.verdict == Verdict::Interrupted,
        ),
        Case::new(
            "says that QEMU failed",
            bench.run(SMALL)?.qemu_arg("-no-such-option"),
            "QEMU failed",
            |outcome| matches!(outcome.verdict, Verdict::QemuFailed { .. }),
        ),
        Case::new(
            "misses a text that never came",
            bench.run(SMALL)?.expect("no firmware says this"),
            "unmet",
            |outcome| matches!(outcome.verdict, Verdict::Unmet { .. }),
        ),
    ])
}

/// Deaths of the firmware, which an image for debugging dies when it is asked to.
fn deaths(bench: &Bench) -> Result<Vec<Case>> {
    let die = |name: &str, how: &str, ends_so| -> Result<Case> {
        let run = bench
            .run_debug(SMALL)?
            .command_line(format!("selftest={how}"));
        Ok(Case::new(name, run, "a death with its place", ends_so))
    };
    Ok(vec![
        die("tells where it panicked, and why", "panic", |outcome| {
            matches!(&outcome.verdict, Verdict::Panicked(panic)
                if panic.location.contains("selftest.rs")
                    && panic.message.is_some()
                    && names(&panic.trace, "die_by_panic"))
        })?,
        die("tells where it faulted", "fault", |outcome| {
            matches!(&outcome.verdict, Verdict::Panicked(panic)
                if names(&panic.trace, "die_by_fault"))
        })?,
        die(
            "tells that all processors halted for good",
            "hang",
            |outcome| {
                matches!(
                    outcome.verdict,
                    Verdict::Crashed {
                        how: Crash::Halted,
                        ..
                    }
                )
            },
        )?,
    ])
}

/// Hosts that lie, one way each, while the SVSM starts: it sees through the lie, or ends with a reason, or does not care.
fn lies(bench: &Bench) -> Result<Vec<Case>> {
    let size = Size { cpus: 2, mib: 64 };
    let mut cases = Vec::new();
    for fault in Fault::ALL
        .iter()
        .filter(|fault| fault.platforms().contains(Platforms::SNP))
    {
        let lie = match fault {
            // Before there are tables, an NMI is a triple fault, and nobody can help it.
            Fault::StrayNmi => format!("{}@1000", fault.name()),
            _ => fault.name().to_owned(),
        };
        let mut plan = FaultPlan::new();
        plan.add(&lie)?;
        plan.seed(1);
        let run = bench.run(size)?.platform(Platform::Snp).faults(plan);
        cases.push(Case::new(
            &format!("bears a host that lies: {}", fault.name()),
            run,
            "an end that may come of the lie",
            |outcome| judge(outcome).1,
        ));
    }
    Ok(cases)
}

/// What the guest does while the host lies: calls of all services, and some that no kernel makes.
const BUSY: &str = "services seed=3 hostile=100";
/// The same lies, told once, to a firmware that serves its guest.
fn late_lies(bench: &Bench) -> Result<Vec<Case>> {
    let size = Size { cpus: 1, mib: 256 };
    let mut cases = Vec::new();
    let image = bench.caller_image(BUSY, Variant::default())?;
    for fault in Fault::ALL
        .iter()
        .filter(|fault| fault.platforms().contains(Platforms::SNP))
    {
        let mut plan = FaultPlan::new();
        plan.add(&format!("{}@0", fault.name()))?;
        plan.from_guest();
        let run = bench.run_caller_image(&image, size)?;
        cases.push(Case::new(
            &format!(
                "serves its guest, and bears a host that lies: {}",
                fault.name()
            ),
            run.faults(plan),
            "an end that may come of the lie, after the guest has started",
            |outcome| {
                let started =
                    |line: &svsm_testbed::LogLine| line.message.contains("starts at VMPL2");
                outcome.log.iter().any(started) && judge(outcome).1
            },
        ));
    }
    Ok(cases)
}

fn names(trace: &[TraceEntry], function: &str) -> bool {
    let mut names = trace.iter().filter_map(|entry| entry.function.as_ref());
    names.any(|name| name.contains(function))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threat_model_answers_every_lie() {
        let chapter = include_str!("../../book/src/threat-model.md");
        for fault in Fault::ALL {
            let name = format!("`{}`", fault.name());
            assert!(chapter.contains(&name), "{name} has no answer");
        }
    }

    #[test]
    fn sizes_cover_the_corners() {
        for cpus in [1, 2, 4] {
            for mib in [64, 256, 4096] {
                assert!(SIZES.contains(&Size { cpus, mib }));
            }
        }
    }
}
