//! However the firmware dies, a run ends in time, with the right verdict, and leaves nothing behind.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use core::time::Duration;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use svsm_testbed::verdict::Crash;
use svsm_testbed::{Cancel, Error, Machine, Outcome, Progress, Run, Verdict};
use tempfile::TempDir;

const POWER_OFF: &str = r#"report {"event":"verdict","kind":"power-off"}"#;
const START: &str = r#"report {"event":"start"}"#;

struct Stage {
    directory: TempDir,
}

impl Stage {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A run whose QEMU plays `script`.
    fn run(&self, script: &[&str]) -> Run {
        fs::write(self.path("image"), script.join("\n")).unwrap();
        Run::new(self.path("image"))
            .machine_elf(self.path("image"))
            .qemu(env!("CARGO_BIN_EXE_fake-qemu"))
            .timeout(Duration::from_secs(20))
    }

    /// The stand-in under another name, which it takes for a version.
    fn qemu_called(&self, name: &str) -> PathBuf {
        let link = self.path(name);
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_fake-qemu"), &link).unwrap();
        link
    }
}

fn play(script: &[&str]) -> Outcome {
    Stage::new().run(script).start(&mut |_| ()).unwrap()
}

fn is_running(pid_file: &Path) -> bool {
    let pid = fs::read_to_string(pid_file).unwrap();
    // A zombie has no command line.
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

#[test]
fn power_off_with_and_without_a_verdict() {
    let outcome = play(&[START, "text hello", "passed", POWER_OFF, "exit 1"]);
    assert_eq!(outcome.verdict, Verdict::Passed);
    assert!(outcome.log_contains("hello"));
    assert_eq!(outcome.events.len(), 1);
    let outcome = play(&[START, "failed 5", POWER_OFF, "exit 1"]);
    assert_eq!(outcome.verdict, Verdict::Failed { code: 5 });
    let outcome = play(&[START, "text hello", POWER_OFF, "exit 1"]);
    assert_eq!(outcome.verdict, Verdict::NoVerdict);
}

#[test]
fn what_was_written_last_is_still_read() {
    let outcome = play(&[
        POWER_OFF,
        "garbage 100000",
        "raw",
        "passed",
        "raw last words",
        "exit 1",
    ]);
    assert_eq!(outcome.verdict, Verdict::Passed);
    assert!(outcome.log_contains("last words"));
}

#[test]
fn a_crash_has_registers() {
    let outcome = play(&[
        START,
        "passed",
        r#"report {"event":"counters","cpus":[{"exits":{"cpuid":3}}]}"#,
        r#"report {"event":"verdict","kind":"shutdown","cpu":1,"registers":{"rip":"0x1234"}}"#,
        "exit 3",
    ]);
    let Verdict::Crashed {
        how,
        cpu,
        registers,
        at,
        ..
    } = &outcome.verdict
    else {
        panic!("{:?}", outcome.verdict)
    };
    assert_eq!(
        (*how, *cpu, registers.value("rip")),
        (Crash::Shutdown, Some(1), Some(0x1234))
    );
    assert_eq!(at.as_ref().map(|at| at.address), Some(0x1234));
    assert_eq!(outcome.own_verdict, Some(svsm_log::Verdict::Passed));
    assert_eq!(outcome.counters.sum("exits.cpuid"), 3);
}

#[test]
fn a_panic_is_told_from_a_hang() {
    let panicked = Stage::new()
        .run(&[START, "panic kernel.rs:7", "hang"])
        .timeout(Duration::from_millis(500))
        .start(&mut |_| ())
        .unwrap();
    let Verdict::Panicked(panic) = &panicked.verdict else {
        panic!("{:?}", panicked.verdict)
    };
    assert_eq!((&*panic.location, panic.trace.len()), ("kernel.rs:7:1", 2));
    let hung = Stage::new()
        .run(&[START, "passed", "hang"])
        .timeout(Duration::from_millis(500))
        .start(&mut |_| ())
        .unwrap();
    assert_eq!(hung.verdict, Verdict::TimedOut);
}

#[test]
fn a_machine_that_does_not_end_is_ended() {
    let began = Instant::now();
    let outcome = play(&["passed", POWER_OFF, "hang"]);
    assert_eq!(outcome.verdict, Verdict::Passed);
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn refused_images_and_failures_of_the_machine() {
    let refused = play(&[
        r#"report {"event":"load-error","offset":64,"reason":"junk"}"#,
        r#"report {"event":"verdict","kind":"load-error"}"#,
    ]);
    assert_eq!(
        refused.verdict,
        Verdict::LoadError {
            message: "junk (at 0x40 in the file)".into()
        }
    );
    let failed = play(&[START, "text hello", "stderr qemu: oops", "exit 1"]);
    let Verdict::MachineError { message } = &failed.verdict else {
        panic!("{:?}", failed.verdict)
    };
    assert!(message.contains("oops"), "{message}");
}

#[test]
fn a_qemu_that_dies_says_why() {
    for script in [
        &["stderr -machine: no such thing", "exit 1"][..],
        &["stderr no such thing", "abort"],
    ] {
        let outcome = play(script);
        let Verdict::QemuFailed { status, stderr } = &outcome.verdict else {
            panic!("{:?}", outcome.verdict)
        };
        assert!(stderr.contains("no such thing") && !status.is_empty());
        assert_eq!(outcome.verdict.exit_code(), 5);
    }
}

#[test]
fn half_a_report_is_shown_and_not_believed() {
    let outcome = play(&[
        START,
        "passed",
        r#"report-part {"event":"verdict","kind":"power"#,
        "exit 1",
    ]);
    assert!(
        matches!(outcome.verdict, Verdict::MachineError { .. }),
        "{:?}",
        outcome.verdict
    );
    assert!(outcome.log_contains("unreadable report"));
    // The status of QEMU says it, too.
    let outcome = play(&[
        START,
        "passed",
        r#"report-part {"event":"verdict","ki"#,
        "exit 33",
    ]);
    assert_eq!(outcome.verdict, Verdict::Passed);
}

#[test]
fn closed_streams_are_not_the_end() {
    let outcome = Stage::new()
        .run(&[START, "close"])
        .timeout(Duration::from_millis(500))
        .start(&mut |_| ())
        .unwrap();
    assert_eq!(outcome.verdict, Verdict::TimedOut);
}

#[test]
fn a_flood_does_not_stop_the_clock_and_is_bounded() {
    let (began, mut lines) = (Instant::now(), 0_u64);
    let outcome = Stage::new()
        .run(&[START, "flood"])
        .timeout(Duration::from_secs(2))
        .start(&mut |progress| {
            if matches!(progress, Progress::Line(_)) {
                lines += 1;
            }
        })
        .unwrap();
    assert_eq!(outcome.verdict, Verdict::TimedOut);
    assert!(began.elapsed() < Duration::from_secs(8));
    assert!(outcome.log.len() <= Outcome::MAX_LOG_LINES);
    assert_eq!(outcome.earlier_log_lines + outcome.log.len() as u64, lines);
}

#[test]
fn expectations_pass_fail_and_stop() {
    let stage = Stage::new();
    let foreign = &[START, "raw Booting guest", POWER_OFF][..];
    let met = stage
        .run(foreign)
        .expect("Booting")
        .start(&mut |_| ())
        .unwrap();
    assert_eq!(met.verdict, Verdict::Passed);
    let unmet = stage
        .run(foreign)
        .expect("Booting")
        .expect("done")
        .start(&mut |_| ())
        .unwrap();
    assert_eq!(
        unmet.verdict,
        Verdict::Unmet {
            missing: vec!["done".into()]
        }
    );
    let endless = stage.run(&["raw Booting guest", "hang"]).expect("Booting");
    let stopped = endless.stop_when_expected(true).start(&mut |_| ()).unwrap();
    assert_eq!(stopped.verdict, Verdict::Passed);
}

#[test]
fn interrupting_ends_it_at_once() {
    let (cancel, began) = (Cancel::default(), Instant::now());
    let run = Stage::new();
    let run = run.run(&["text ready", "flood"]).cancel(cancel.clone());
    let outcome = run.start(&mut |_| cancel.cancel()).unwrap();
    assert_eq!(outcome.verdict, Verdict::Interrupted);
    assert!(began.elapsed() < Duration::from_secs(8));
}

#[test]
fn nothing_is_left_behind() {
    let stage = Stage::new();
    let pid_file = stage.path("pid");
    let script = format!("pid {}", pid_file.display());
    let timeout = Duration::from_millis(500);
    stage
        .run(&[&script, "hang"])
        .timeout(timeout)
        .start(&mut |_| ())
        .unwrap();
    assert!(!is_running(&pid_file));

    // Not even by an observer that panics.
    fs::remove_file(&pid_file).unwrap();
    let run = stage.run(&[&script, "text now", "hang"]);
    let panicked = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| {
        run.start(&mut |progress| assert!(!matches!(progress, Progress::Line(_))))
    }));
    assert!(panicked.is_err());
    assert!(!is_running(&pid_file));
}

#[test]
fn a_run_ends_even_if_something_holds_its_streams() {
    let stage = Stage::new();
    let pid_file = stage.path("pid");
    let script = format!("orphan {}", pid_file.display());
    let began = Instant::now();
    let outcome = stage
        .run(&["passed", &script, POWER_OFF])
        .start(&mut |_| ())
        .unwrap();
    assert_eq!(outcome.verdict, Verdict::Passed);
    assert!(began.elapsed() < Duration::from_secs(10));
    let orphan = fs::read_to_string(&pid_file).unwrap();
    std::process::Command::new("kill")
        .arg(orphan)
        .status()
        .unwrap();
}

#[test]
fn a_bare_machine_ends_by_qemus_own_word() {
    let stage = Stage::new();
    let shutdown = |reason| {
        format!(r#"report {{"event":"SHUTDOWN","data":{{"guest":true,"reason":"{reason}"}}}}"#)
    };
    let qemu = stage.qemu_called("fake-10.1.0-igvm");
    for (reason, code) in [("guest-shutdown", 0), ("guest-reset", 3)] {
        let script = [
            r#"report {"QMP":{}}"#,
            "await-greeting",
            "passed",
            &shutdown(reason),
        ];
        let run = stage.run(&script).machine(Machine::Bare).qemu(&qemu);
        assert_eq!(run.start(&mut |_| ()).unwrap().verdict.exit_code(), code);
    }
    let without = stage.run(&[]).machine(Machine::Bare).start(&mut |_| ());
    assert!(matches!(without, Err(Error::QemuWithoutIgvm { .. })));
}

#[test]
fn an_unfit_qemu_is_refused_with_a_remedy() {
    let stage = Stage::new();
    let too_old = stage
        .run(&[])
        .qemu(stage.qemu_called("fake-8.2.1"))
        .start(&mut |_| ());
    let Err(error @ Error::QemuTooOld { .. }) = too_old else {
        panic!("{too_old:?}")
    };
    assert_eq!(error.to_string(), "QEMU 8.2.1 is too old, it takes 9.0.0");
    assert!(
        error
            .remedy()
            .is_some_and(|remedy| remedy.contains("bookworm-backports"))
    );
    let missing = stage.run(&[]).qemu("/nonexistent/qemu").start(&mut |_| ());
    assert!(matches!(missing, Err(Error::QemuMissing { .. })));
    for other in ["true", "yes"] {
        let refused = stage.run(&[]).qemu(other).start(&mut |_| ());
        assert!(matches!(refused, Err(Error::NotQemu { .. })));
    }
}

#[test]
fn nonsense_is_refused_before_anything_starts() {
    let stage = Stage::new();
    let refused = |run: Run| matches!(run.start(&mut |_| ()), Err(Error::BadSetting(_)));
    assert!(refused(stage.run(&[]).cpus(0)));
    assert!(refused(stage.run(&[]).cpus(2).icount(true)));
    assert!(refused(stage.run(&[]).memory((64 << 20) + 1)));
    assert!(refused(stage.run(&[]).memory(16 << 20)));
    assert!(refused(stage.run(&[]).stop_when_expected(true)));
    let missing = Run::new("/nonexistent")
        .machine_elf("/nonexistent")
        .start(&mut |_| ());
    assert!(matches!(missing, Err(Error::Unreadable { .. })));
    assert!(matches!(
        Run::new(stage.path("image")).start(&mut |_| ()),
        Err(Error::NoMachine)
    ));
}
