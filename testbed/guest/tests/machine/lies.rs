//! Guests of a host that lies.

use svsm_testbed::verdict::Crash;
use svsm_testbed::{FaultEvent, FaultPlan, Outcome, Platform, Run, Verdict};
use svsm_testbed_guest::image::{self, Mode};

use crate::lab::{run, run_image, run_snp};

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
    ("tampered-request", "2", 1, false),
    ("tampered-response", "2", 1, false),
    // The first message is answered as it should be.
    ("replayed-response", "5", 1, false),
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
