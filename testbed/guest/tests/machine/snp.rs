//! Guests of SEV-SNP.

use std::fs;

use igvm::IgvmFile;
use igvm::measurement::generate_snp_measurement;
use svsm_testbed::verdict::Crash;
use svsm_testbed::{MachineEvent, Platform, Run, Verdict};
use svsm_testbed_guest::image;

use crate::lab::{passes_snp, programs, run_image, run_snp};

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
fn devices_reach_what_is_shared_and_nothing_else() {
    let Some(outcome) = passes_snp("snp-dma", |run| run.qemu_arg("-device").qemu_arg("edu")) else {
        return;
    };
    // The page of the first clause that is refused something, and the keys.
    for (at, wanted) in [(0x2e0_3000, "write"), (0x1000, "read")] {
        let is_told = outcome.events.iter().any(|event| {
            matches!(event, MachineEvent::RefusedDma(refused)
                if refused.gpa == at && refused.access == wanted)
        });
        assert!(is_told, "{at:#x}: {:?}", outcome.events);
    }
    assert!(outcome.counters.value("dma.refused") >= Some(8));
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

#[test]
fn a_path_survives_exceptions_at_every_instruction() {
    passes_snp("snp-storm", |run| run.machine_arg("storms"));
}

#[test]
fn the_ways_into_ring_3_and_back_survive_exceptions_at_every_instruction() {
    passes_snp("snp-storm-ring3", |run| run.machine_arg("storms"));
}

#[test]
fn a_strict_host_demands_equal_features() {
    passes_snp("snp-equal-features", |run| {
        run.machine_arg("equal-features")
    });
}

#[test]
fn no_guest_sees_the_nmis_that_make_it_leave() {
    passes_snp("snp-bells", |run| run.cpus(2));
}

#[test]
fn a_save_area_in_use_stays_as_it_is() {
    passes_snp("snp-in-use", |run| run.cpus(2));
}
