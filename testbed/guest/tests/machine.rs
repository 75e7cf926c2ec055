//! All guests, in the software machine.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests fail like tests, and say why they skip"
)]

use core::time::Duration;
use std::path::{Path, PathBuf};
use std::{env, fs};

use igvm::IgvmFile;
use igvm::measurement::generate_snp_measurement;
use svsm_testbed::verdict::Crash;
use svsm_testbed::{
    Error, FaultEvent, FaultPlan, MachineEvent, Outcome, Platform, Progress, Run, Timeline, Trace,
    Verdict,
};
use svsm_testbed_guest::image::{self, Mode};
use tempfile::TempDir;

/// The two programs, if they were built.
fn programs() -> Option<(PathBuf, PathBuf)> {
    let built = env::var_os("SVSM_BARE_DIR").map_or_else(
        || {
            Path::new(env!("CARGO_TARGET_TMPDIR"))
                .parent()
                .unwrap()
                .join("bare/x86_64-unknown-none/firmware")
        },
        PathBuf::from,
    );
    let program = |name: &str| Some(built.join(name)).filter(|path| path.exists());
    let found = program("svsm-machine").zip(program("svsm-testbed-guest"));
    if found.is_none() {
        eprintln!(
            "skipped: svsm-machine and svsm-testbed-guest are not built in {}",
            built.display()
        );
    }
    found
}

/// Runs a guest; `None` if that cannot be done here.
fn run(name: &str, mode: Mode, settings: impl FnOnce(Run) -> Run) -> Option<Outcome> {
    run_image(name, |guest| image::native(guest, mode).unwrap(), settings)
}

/// Runs a guest of SEV-SNP.
fn run_snp(name: &str, settings: impl FnOnce(Run) -> Run) -> Option<Outcome> {
    let snp = |run: Run| settings(run.platform(Platform::Snp));
    run_image(name, |guest| image::snp(guest, false).unwrap(), snp)
}

fn run_image(
    name: &str,
    image: impl FnOnce(&[u8]) -> Vec<u8>,
    settings: impl FnOnce(Run) -> Run,
) -> Option<Outcome> {
    watch_image(name, image, settings, &mut |_| ())
}

fn watch_image(
    name: &str,
    image: impl FnOnce(&[u8]) -> Vec<u8>,
    settings: impl FnOnce(Run) -> Run,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Option<Outcome> {
    let (machine, guest) = programs()?;
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("guest.igvm");
    fs::write(&path, image(&fs::read(guest).unwrap())).unwrap();
    let run = Run::new(path)
        .machine_elf(machine)
        .command_line(name)
        .memory(64 << 20)
        .timeout(Duration::from_secs(60));
    match settings(run).start(progress) {
        Ok(outcome) => Some(outcome),
        Err(error @ (Error::QemuMissing { .. } | Error::QemuTooOld { .. })) => {
            eprintln!("skipped: {error}");
            None
        }
        Err(error) => panic!("{name}: {error}"),
    }
}

fn passes(name: &str, cpus: u32) -> Option<Outcome> {
    let outcome = run(name, Mode::Long, |run| {
        run.cpus(cpus).expect(format!("{name}: ok"))
    })?;
    assert!(
        outcome.verdict.is_passed(),
        "{name}: {:?}\n{:?}",
        outcome.verdict,
        outcome.log
    );
    Some(outcome)
}

#[track_caller]
fn crashes(name: &str, cpus: u32, expected: Crash) -> Option<Outcome> {
    let outcome = run(name, Mode::Long, |run| run.cpus(cpus))?;
    match &outcome.verdict {
        Verdict::Crashed { how, .. } if *how == expected => Some(outcome),
        other => panic!("{name}: {other:?}\n{:?}", outcome.log),
    }
}

#[test]
fn every_mode_starts_and_powers_off() {
    passes("power-off", 1);
    for (mode, says) in [(Mode::Protected, "32"), (Mode::Real, "16")] {
        let Some(outcome) = run("", mode, |run| run.expect(says)) else {
            return;
        };
        assert!(outcome.verdict.is_passed(), "{says}: {:?}", outcome.verdict);
    }
}

#[test]
fn a_triple_fault_has_its_cpu_and_registers() {
    let Some(outcome) = crashes("triple-fault-ap", 2, Crash::Shutdown) else {
        return;
    };
    let Verdict::Crashed { cpu, registers, .. } = &outcome.verdict else {
        unreachable!()
    };
    assert_eq!(*cpu, Some(1));
    assert_eq!(registers.value("idtr.limit"), Some(0));
    assert!(
        registers
            .value("rip")
            .is_some_and(|rip| (0x20_0000..0x30_0000).contains(&rip))
    );
    crashes("triple-fault", 1, Crash::Shutdown);
}

#[test]
fn resets_and_halts_are_crashes() {
    for name in ["reset-chipset", "reset-keyboard", "reset-a20"] {
        crashes(name, 1, Crash::Reset);
    }
    crashes("halted", 1, Crash::Halted);
    crashes("halted", 2, Crash::Halted);
    crashes("halted-all", 3, Crash::Halted);
}

#[test]
fn an_access_to_nothing_has_its_address() {
    let Some(outcome) = crashes("bad-access", 1, Crash::BadAccess) else {
        return;
    };
    let Verdict::Crashed { reason, .. } = &outcome.verdict else {
        unreachable!()
    };
    assert_eq!(
        reason.as_deref(),
        Some("write to guest physical address 0x6000001234, where there is nothing")
    );
}

#[test]
fn a_guest_that_spins_is_stopped() {
    let stop = |run: Run| run.timeout(Duration::from_secs(3));
    let Some(outcome) = run("spin", Mode::Long, stop) else {
        return;
    };
    assert_eq!(outcome.verdict, Verdict::TimedOut);
    assert!(outcome.log_contains("spins"));
}

#[test]
fn l0_is_out_of_sight() {
    for name in ["report-ports", "svm-hidden", "efer", "x2apic"] {
        passes(name, 1);
    }
}

#[test]
fn parameters_say_what_is_there() {
    for cpus in [1, 3] {
        passes("parameters", cpus);
    }
}

#[test]
fn memory_is_where_the_map_says() {
    passes("far-memory", 1);
    for mib in [64, 512, 2700, 4096] {
        let Some(outcome) = run("ram", Mode::Long, |run| {
            run.memory(mib << 20).expect("ram: ok")
        }) else {
            return;
        };
        assert!(
            outcome.verdict.is_passed(),
            "{mib} MiB: {:?}\n{:?}",
            outcome.verdict,
            outcome.log
        );
        // Less the hole below 1 MiB, plus 4 MiB far away.
        let pages = (mib << 8) - 96 + 1024;
        assert!(
            outcome.log_contains(&format!("{pages} pages")),
            "{mib} MiB: {:?}",
            outcome.log
        );
    }
}

#[test]
fn other_cpus_start() {
    for cpus in [2, 4] {
        passes("start", cpus);
    }
    passes("restart", 2);
}

#[test]
fn nmis_arrive_once_and_are_masked_by_their_handler() {
    passes("nmi", 2);
    passes("nmi-halted", 2);
    passes("nmi-stop", 2);
}

#[test]
fn interrupts_wake_sleepers() {
    passes("interrupt", 2);
    passes("sleep", 1);
    // With counted instructions, TCG breaks its loop elsewhere.
    let counted = |run: Run| run.icount(true).expect("sleep: ok");
    let Some(outcome) = run("sleep", Mode::Long, counted) else {
        return;
    };
    assert!(
        outcome.verdict.is_passed(),
        "{:?}\n{:?}",
        outcome.verdict,
        outcome.log
    );
}

#[test]
fn instructions_are_counted_exactly() {
    let figures = || {
        let outcome = run("count", Mode::Long, |run| {
            run.icount(true).expect("count: ok")
        })?;
        assert!(
            outcome.verdict.is_passed(),
            "{:?}\n{:?}",
            outcome.verdict,
            outcome.log
        );
        let sum = |name| outcome.counters.sum(name);
        Some((sum("exits.cpuid"), sum("guest_ticks"), sum("l0_ticks")))
    };
    let (Some(first), Some(second)) = (figures(), figures()) else {
        return;
    };
    assert_eq!(first, second);
    let (exits, guest, l0) = first;
    assert_eq!(exits, 1000);
    // A loop of a few instructions; L0's work on an exit is hundreds.
    assert!((5_000..50_000).contains(&guest), "{guest}");
    assert!((100_000..2_000_000).contains(&l0), "{l0}");
}

#[test]
fn the_clauses_of_sev_snp_hold() {
    let Some(outcome) = run_snp("snp", |run| run.expect("snp: ok")) else {
        return;
    };
    // Nobody here wrote this calculator.
    let (_, guest) = programs().unwrap();
    let image = image::snp(&fs::read(guest).unwrap(), false).unwrap();
    let file = IgvmFile::new_from_binary(&image, None).unwrap();
    let digest = generate_snp_measurement(file.initializations(), file.directives(), 1).unwrap();
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let measured = outcome.events.iter().any(|event| {
        matches!(event, MachineEvent::Other(fields)
            if fields.get("digest").and_then(serde_json::Value::as_str) == Some(digest.as_str()))
    });
    assert!(measured, "{digest}: {:?}", outcome.events);
    let failed: Vec<_> = outcome
        .log
        .iter()
        .filter(|line| line.message.contains("FAILED"))
        .collect();
    assert!(
        outcome.verdict.is_passed(),
        "{:?}\n{failed:?}",
        outcome.verdict
    );
}

#[test]
fn virtual_cpus_are_created_on_other_cpus() {
    for cpus in [2, 4] {
        let Some(outcome) = run_snp("snp-cpus", |run| run.cpus(cpus).expect("snp-cpus: ok")) else {
            return;
        };
        assert!(outcome.verdict.is_passed(), "{:?}", outcome.verdict);
    }
}

#[test]
fn a_guest_under_restricted_injection_answers_the_door() {
    for cpus in [1, 2] {
        let name = if cpus == 1 {
            "snp-door"
        } else {
            "snp-door-others"
        };
        let snp = |run: Run| {
            let run = run.platform(Platform::Snp).cpus(cpus);
            run.expect(format!("{name}: ok"))
        };
        let image = |guest: &[u8]| image::snp(guest, true).unwrap();
        let Some(outcome) = run_image(name, image, snp) else {
            return;
        };
        assert!(
            outcome.verdict.is_passed(),
            "{:?}\n{:?}",
            outcome.verdict,
            outcome.log
        );
    }
}

#[test]
fn what_breaks_the_rules_of_ownership_ends_the_guest() {
    for (name, how, why) in [
        (
            "snp-private-access-to-shared",
            Crash::Violation,
            "VMPL0 at guest physical address 0x103c000: the page is not the guest's at this address",
        ),
        (
            "snp-shared-access-to-private",
            Crash::BadAccess,
            "read from guest physical address 0x1000000, where there is nothing",
        ),
        (
            "snp-lower-level-writes",
            Crash::Violation,
            "VMPL1 at guest physical address 0x2d00000: the level has no right to do this",
        ),
        (
            "snp-terminate",
            Crash::Terminated,
            "the guest asked to be ended, with reason 2:0x42",
        ),
    ] {
        let Some(outcome) = run_snp(name, |run| run) else {
            return;
        };
        match &outcome.verdict {
            Verdict::Crashed {
                how: is, reason, ..
            } => {
                assert_eq!((*is, reason.as_deref()), (how, Some(why)));
            }
            other => panic!("{name}: {other:?}\n{:?}", outcome.log),
        }
    }
}

/// Every lie with the step that brings it, how many CPUs it takes, and whether the guest takes no vectors.
const LIES: &[(&str, &str, u32, bool)] = &[
    ("early-psc", "2", 1, false),
    ("partial-psc", "2", 1, false),
    ("psc-backwards", "2", 1, false),
    ("psc-rewrite", "2", 1, false),
    ("psc-wrong-size", "3", 1, false),
    ("psc-refused", "2", 1, false),
    ("psc-elsewhere", "2", 1, false),
    ("remap", "4", 1, false),
    ("replay", "4", 1, false),
    ("smash", "4", 1, false),
    ("junk-output", "2", 1, false),
    ("junk-buffer", "2", 1, false),
    ("wrong-exit-info", "2", 1, false),
    ("wrong-exception", "2", 1, false),
    ("missing-output", "2", 1, false),
    ("refused-exit", "2", 1, false),
    ("spurious-return", "2", 1, false),
    ("wrong-msr-response", "2", 1, false),
    ("lying-cpuid", "2", 1, false),
    ("lying-device", "2", 1, false),
    ("lying-features", "2", 1, false),
    ("stray-interrupt", "2", 1, false),
    ("forbidden-vector", "2=3", 1, false),
    ("stray-nmi", "2", 1, false),
    ("stray-vc", "2", 1, false),
    ("stray-doorbell", "2", 1, true),
    ("doorbell-junk", "2", 1, true),
    ("lost-interrupt", "2", 1, false),
    ("delayed-exit", "2", 1, false),
    ("reordered-exits", "2", 2, false),
    ("busy-processor", "2", 1, false),
    ("ap-refused", "2", 2, false),
    ("ap-idle", "2", 3, false),
    ("run-vmpl-elsewhere", "2", 1, false),
];

/// Runs a guest against a host that lies as `plan` says.
fn run_lies(name: &str, plan: &[&str], seed: u64, cpus: u32, restricted: bool) -> Option<Outcome> {
    let mut faults = FaultPlan::new();
    for text in plan {
        faults.add(text).unwrap();
    }
    faults.seed(seed);
    let settings = |run: Run| run.platform(Platform::Snp).cpus(cpus).faults(faults);
    run_image(
        name,
        |guest| image::snp(guest, restricted).unwrap(),
        settings,
    )
}

#[test]
fn every_lie_of_a_host_shows() {
    for &(fault, step, cpus, restricted) in LIES {
        let name = format!("snp-lie-{fault}");
        let plan = format!("{fault}@{step}");
        let Some(outcome) = run_lies(&name, &[&plan], 0, cpus, restricted) else {
            return;
        };
        let told: Vec<_> = outcome
            .faults
            .iter()
            .map(|told| told.name.as_str())
            .collect();
        assert!(
            outcome.log_contains(&format!("{name}: ok")),
            "{:?}\n{:?}",
            outcome.verdict,
            outcome.log
        );
        // One that is told in two parts is two events.
        assert!(
            !told.is_empty() && told.iter().all(|name| *name == fault),
            "{fault}: {told:?}"
        );
        assert!(
            outcome.faults.iter().all(FaultEvent::had_effect),
            "{:?}",
            outcome.faults
        );
    }
}

#[test]
fn a_host_that_resets_the_machine_is_told_from_a_guest_that_does() {
    for (name, snp) in [("snp-lie-reset", true), ("svm-hidden", false)] {
        let mut faults = FaultPlan::new();
        faults.add("reset@2").unwrap();
        let outcome = if snp {
            run_snp(name, |run| run.faults(faults))
        } else {
            run(name, Mode::Long, |run| run.faults(faults))
        };
        let Some(outcome) = outcome else { return };
        match &outcome.verdict {
            Verdict::Crashed {
                how: Crash::Reset,
                reason,
                ..
            } => {
                assert_eq!(reason.as_deref(), Some("the host reset the machine"));
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn the_same_seed_tells_the_same_lies() {
    let tell = |seed| {
        let outcome = run_lies("snp", &["all,-reset,-memory,-injection"], seed, 1, false)?;
        assert!(
            !matches!(outcome.verdict, Verdict::MachineError { .. }),
            "{:?}",
            outcome.verdict
        );
        let told = outcome.faults.iter().map(|told| told.script.clone());
        Some(told.collect::<Vec<_>>())
    };
    let (Some(first), Some(again), Some(other)) = (tell(3), tell(3), tell(4)) else {
        return;
    };
    assert!(!first.is_empty());
    assert_eq!(first, again);
    assert_ne!(first, other);
}

#[test]
fn a_run_can_be_looked_at_exit_by_exit_and_page_by_page() {
    let (mut exits, mut timeline) = (Vec::new(), Timeline::default());
    let settings = |run: Run| {
        let run = run.platform(Platform::Snp).expect("snp-levels: ok");
        run.trace(Trace::Exits).pages(true)
    };
    let image = |guest: &[u8]| image::snp(guest, false).unwrap();
    let Some(outcome) = watch_image("snp-levels", image, settings, &mut |progress| {
        timeline.take(&progress);
        if let Progress::Machine(MachineEvent::Exit(exit)) = progress {
            exits.push(exit.clone());
        }
    }) else {
        return;
    };
    assert!(outcome.verdict.is_passed(), "{:?}", outcome.verdict);
    let has = |what: &dyn Fn(&svsm_testbed::trace::ExitEvent) -> bool| {
        exits.iter().any(|exit| what(exit))
    };
    // VMPL1 asks to go back to VMPL0, which made it with RMPADJUST.
    assert!(has(
        &|exit| exit.vmpl == Some(1) && exit.name() == "run-vmpl"
    ));
    assert!(has(
        &|exit| exit.name() == "rmpadjust" && exit.vmpl == Some(0)
    ));
    assert!(has(&|exit| exit.name() == "ap-creation"));
    assert!(has(&|exit| exit.reason == "nested-fault"));
    let counters = &outcome.counters;
    let (all, first, second) = (
        counters.exits(None),
        counters.exits(Some(0)),
        counters.exits(Some(1)),
    );
    assert_eq!(all["vmmcall"], first["vmmcall"] + second["vmmcall"]);
    assert!(counters.sum("operations.level-switches") > 1);
    assert!(counters.sum("operations.rmpadjust") > 100);
    // The save areas of two levels, and rights of the second.
    let areas = |pages: &[svsm_testbed::trace::PageRange]| -> u64 {
        pages
            .iter()
            .filter(|range| range.vmsa)
            .map(|range| range.pages)
            .sum()
    };
    assert_eq!(
        (areas(&outcome.pages.start), areas(&outcome.pages.end)),
        (1, 2)
    );
    assert!(
        outcome
            .pages
            .end
            .iter()
            .any(|range| range.rights[1] == "rwux-")
    );
    assert!(
        outcome
            .pages
            .end
            .iter()
            .any(|range| range.state == "shared")
    );
    let value = timeline.json(&outcome);
    assert_eq!(value["exits"].as_array().unwrap().len(), exits.len());
}

#[test]
fn a_path_survives_exceptions_at_every_instruction() {
    let Some(outcome) = run_snp("snp-storm", |run| {
        run.machine_arg("storms").expect("snp-storm: ok")
    }) else {
        return;
    };
    assert!(
        outcome.verdict.is_passed(),
        "{:?}\n{:?}",
        outcome.verdict,
        outcome.log
    );
}

#[test]
fn a_strict_host_demands_equal_features() {
    let settings = |run: Run| {
        run.machine_arg("equal-features")
            .expect("snp-equal-features: ok")
    };
    let Some(outcome) = run_snp("snp-equal-features", settings) else {
        return;
    };
    assert!(
        outcome.verdict.is_passed(),
        "{:?}\n{:?}",
        outcome.verdict,
        outcome.log
    );
}

#[test]
fn a_save_area_in_use_stays_as_it_is() {
    let Some(outcome) = run_snp("snp-in-use", |run| run.cpus(2).expect("snp-in-use: ok")) else {
        return;
    };
    assert!(
        outcome.verdict.is_passed(),
        "{:?}\n{:?}",
        outcome.verdict,
        outcome.log
    );
}
