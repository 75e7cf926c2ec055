//! Guests without anything that protects them.

use core::time::Duration;

use svsm_testbed::verdict::Crash;
use svsm_testbed::{MachineEvent, Run, Verdict};
use svsm_testbed_guest::image::Mode;

use crate::lab::{crashes, passes, run};

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
fn devices_do_not_reach_l0() {
    let edu = |run: Run| run.qemu_arg("-device").qemu_arg("edu").expect("dma: ok");
    let Some(outcome) = run("dma", Mode::Long, edu) else {
        return;
    };
    assert!(
        outcome.verdict.is_passed(),
        "{:?}\n{:?}",
        outcome.verdict,
        outcome.log
    );
    // L0's first page, where a read is refused, too, and one further on.
    for (at, wanted) in [
        (0x400_0000, "write"),
        (0x410_0000, "write"),
        (0x400_0000, "read"),
    ] {
        let is_told = outcome.events.iter().any(|event| {
            matches!(event, MachineEvent::RefusedDma(refused)
                if refused.gpa == at && refused.access == wanted)
        });
        assert!(is_told, "{wanted} {at:#x}: {:?}", outcome.events);
    }
    assert!(outcome.counters.value("dma.refused") >= Some(3));
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
