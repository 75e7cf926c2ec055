use super::*;

#[test]
fn verdicts_carry_registers() {
    let line = r#"{"event":"verdict","kind":"shutdown","reason":"a triple fault","cpu":1,"tsc":7,
        "registers":{"rip":"0xffffffff80001234","rsp":4096,"cs":{"selector":"0x8","base":"0x0"}}}"#;
    let Event::Verdict(end) = Event::parse(line).unwrap() else {
        panic!("not a verdict")
    };
    assert_eq!((end.kind, end.cpu), (EndKind::Shutdown, Some(1)));
    assert_eq!(end.reason.as_deref(), Some("a triple fault"));
    assert_eq!(end.registers.value("rip"), Some(0xffff_ffff_8000_1234));
    assert_eq!(end.more.get("tsc"), Some(&7.into()));
    let shown = concat!(
        "        rip ffffffff80001234          rsp 0000000000001000",
        "  cs.selector 0000000000000008",
    );
    assert_eq!(end.registers.to_string(), shown);
}

#[test]
fn refused_accesses_of_devices_are_told_in_words() {
    let line = r#"{"event":"dma-refused","device":"00:02.0","gpa":"0x5000","access":"write"}"#;
    let event = Event::parse(line).unwrap();
    let Event::RefusedDma(refused) = &event else {
        panic!("not an access")
    };
    assert_eq!(
        refused.to_string(),
        "device 00:02.0 may not write guest physical address 0x5000"
    );
    assert_eq!(serde_json::to_string(&event).unwrap(), line);
}

#[test]
fn counters_are_flattened() {
    let line =
        r#"{"event":"counters","cpus":[{"exits":{"cpuid":3,"hlt":"0x4"}},{"exits":{"cpuid":5}}]}"#;
    let Event::Counters { counters } = Event::parse(line).unwrap() else {
        panic!("not counters")
    };
    let expected = [
        ("cpus.0.exits.cpuid", 3),
        ("cpus.0.exits.hlt", 4),
        ("cpus.1.exits.cpuid", 5),
    ];
    assert!(counters.iter().eq(expected));
    assert_eq!(
        (counters.sum("exits.cpuid"), counters.sum("exits.msr")),
        (8, 0)
    );
    assert_eq!(counters.value("cpus.0.exits.hlt"), Some(4));
}

#[test]
fn complaints_name_the_place() {
    let line = r#"{"event":"load-error","offset":64,"reason":"unknown header"}"#;
    let complaint = Event::parse(line).unwrap().complaint();
    assert_eq!(
        complaint.as_deref(),
        Some("unknown header (at 0x40 in the file)")
    );
    let line = r#"{"event":"l0-error","reason":"a panic"}"#;
    assert_eq!(
        Event::parse(line).unwrap().complaint().as_deref(),
        Some("a panic")
    );
    assert_eq!(
        Event::parse(r#"{"event":"start","reason":"x"}"#)
            .unwrap()
            .complaint(),
        None
    );
}

#[test]
fn what_is_unknown_is_passed_on_and_what_is_damaged_refused() {
    assert!(matches!(
        Event::parse(r#"{"event":"weather","name":"x"}"#),
        Ok(Event::Other(_))
    ));
    assert!(Event::parse(r#"{"event":"fault","name":"x"}"#).is_err());
    let later = Event::parse(r#"{"event":"verdict","kind":"eaten"}"#).unwrap();
    assert!(matches!(later, Event::Verdict(end) if end.kind == EndKind::Other("eaten".into())));
    for damaged in [
        "",
        "{",
        "[]",
        "{}",
        r#"{"event":1}"#,
        r#"{"event":"verdict"}"#,
    ] {
        assert!(Event::parse(damaged).is_err(), "{damaged}");
    }
}

#[test]
fn a_bare_machine_tells_power_off_from_reset() {
    let line = |reason: &str| {
        format!(r#"{{"event":"SHUTDOWN","data":{{"guest":true,"reason":"{reason}"}}}}"#)
    };
    let kind = |line: &str| match Event::parse_qmp(line) {
        Some(Event::Verdict(end)) => Some(end.kind),
        _ => None,
    };
    assert_eq!(kind(&line("guest-shutdown")), Some(EndKind::PowerOff));
    assert_eq!(kind(&line("guest-reset")), Some(EndKind::Reset));
    assert_eq!(kind(r#"{"QMP":{}}"#), None);
    assert_eq!(kind(r#"{"event":"RESUME"}"#), None);
}

#[test]
fn a_lie_of_the_host_is_typed() {
    let line = r#"{"event":"fault","number":12,"name":"partial-psc","script":"partial-psc@12=0x7","class":"page-state",
        "expected":"detected","cpu":1,"vmpl":0,"rip":"0x1234","effect":"nothing: the list has one entry left"}"#;
    let Ok(Event::Fault(fault)) = Event::parse(line) else {
        panic!("{line}")
    };
    assert_eq!((fault.number, fault.cpu, fault.vmpl), (12, 1, Some(0)));
    assert_eq!(fault.expected(), Some(svsm_sim::fault::Expected::Detected));
    assert!(!fault.had_effect());
}
