use super::*;

fn exited() -> Stop {
    Stop::Exited {
        status: "exit status: 1".into(),
        killed: false,
    }
}

fn ended(kind: EndKind) -> Option<End> {
    Some(End {
        reason: Some("as it said".into()),
        ..End::new(kind)
    })
}

fn evidence() -> Evidence {
    Evidence {
        stop: exited(),
        own: None,
        panic: None,
        end: None,
        complaint: None,
        machine_spoke: true,
        expected: false,
        missing: Vec::new(),
        stderr: "qemu: oops".into(),
        at: None,
    }
}

fn panic() -> Option<Panic> {
    Some(Panic {
        location: "a.rs:1:2".into(),
        ..Panic::default()
    })
}

#[test]
fn passing_takes_the_firmwares_word_and_an_orderly_end() {
    let passed = Evidence {
        own: Some(OwnVerdict::Passed),
        ..evidence()
    };
    let with = |kind| {
        judge(Evidence {
            end: ended(kind),
            ..passed.clone()
        })
    };
    assert_eq!(with(EndKind::PowerOff), Verdict::Passed);
    assert_eq!(with(EndKind::Reset).exit_code(), 3);
    assert_eq!(with(EndKind::Shutdown).exit_code(), 3);
    assert_eq!(with(EndKind::L0Error).exit_code(), 5);
    let hung = Evidence {
        stop: Stop::TimedOut,
        ..passed.clone()
    };
    assert_eq!(judge(hung), Verdict::TimedOut);
    let silent = Evidence {
        own: None,
        end: ended(EndKind::PowerOff),
        ..passed
    };
    assert_eq!(judge(silent), Verdict::NoVerdict);
}

#[test]
fn a_failed_verdict_is_not_saved_by_expectations() {
    let failed = Evidence {
        own: Some(OwnVerdict::Failed(7)),
        end: ended(EndKind::PowerOff),
        expected: true,
        ..evidence()
    };
    assert_eq!(judge(failed), Verdict::Failed { code: 7 });
}

#[test]
fn expectations_speak_for_firmware_without_verdicts() {
    let off = Evidence {
        end: ended(EndKind::PowerOff),
        expected: true,
        ..evidence()
    };
    assert_eq!(judge(off.clone()), Verdict::Passed);
    let missing = vec!["text".to_owned()];
    let unmet = Evidence {
        missing: missing.clone(),
        ..off.clone()
    };
    assert_eq!(
        judge(unmet),
        Verdict::Unmet {
            missing: missing.clone()
        }
    );
    let passed_but_unmet = Evidence {
        own: Some(OwnVerdict::Passed),
        missing,
        ..off
    };
    assert_eq!(judge(passed_but_unmet).exit_code(), 1);
    let satisfied = Evidence {
        stop: Stop::Satisfied,
        expected: true,
        ..evidence()
    };
    assert_eq!(judge(satisfied), Verdict::Passed);
}

#[test]
fn a_panic_explains_whatever_end_follows_it() {
    for (stop, end) in [
        (exited(), ended(EndKind::PowerOff)),
        (exited(), ended(EndKind::Halted)),
        (exited(), ended(EndKind::Shutdown)),
        (Stop::TimedOut, None),
        (Stop::Lingered, ended(EndKind::Reset)),
    ] {
        let verdict = judge(Evidence {
            stop,
            end,
            panic: panic(),
            ..evidence()
        });
        assert!(matches!(verdict, Verdict::Panicked(_)), "{verdict:?}");
    }
    let refused = Evidence {
        end: ended(EndKind::LoadError),
        panic: panic(),
        ..evidence()
    };
    assert_eq!(
        judge(refused),
        Verdict::LoadError {
            message: "as it said".into()
        }
    );
}

#[test]
fn a_machine_that_ends_without_a_verdict_is_not_the_firmwares_fault() {
    let Verdict::MachineError { message } = judge(evidence()) else {
        panic!("not the machine")
    };
    assert!(
        message.contains("exit status: 1") && message.contains("qemu: oops"),
        "{message}"
    );
    let never_began = Evidence {
        machine_spoke: false,
        ..evidence()
    };
    assert!(matches!(judge(never_began), Verdict::QemuFailed { .. }));
    let killed = Stop::Exited {
        status: "signal: 9 (SIGKILL)".into(),
        killed: true,
    };
    assert!(matches!(
        judge(Evidence {
            stop: killed,
            ..evidence()
        }),
        Verdict::QemuFailed { .. }
    ));
    for kind in [EndKind::Unsupported, EndKind::L0Error] {
        assert_eq!(
            judge(Evidence {
                end: ended(kind),
                ..evidence()
            })
            .exit_code(),
            5
        );
    }
    let unknown = Evidence {
        end: ended(EndKind::Other("eaten".into())),
        ..evidence()
    };
    assert_eq!(judge(unknown).exit_code(), 5);
}

#[test]
fn the_user_has_the_last_word() {
    let stopped = Evidence {
        stop: Stop::Interrupted,
        panic: panic(),
        ..evidence()
    };
    assert_eq!(judge(stopped), Verdict::Interrupted);
}
