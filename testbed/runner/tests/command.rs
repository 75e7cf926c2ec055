//! The command: exit statuses, forms of output, files.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use core::time::Duration;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use svsm_log::{Class, Stamp, Writer};

const POWER_OFF: &str = r#"report {"event":"verdict","kind":"power-off"}"#;

fn command(directory: &tempfile::TempDir, script: &[&str]) -> Command {
    let image = directory.path().join("image.igvm");
    fs::write(&image, script.join("\n")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_svsm-testbed"));
    command
        .args([
            "run",
            "--qemu",
            env!("CARGO_BIN_EXE_fake-qemu"),
            "--timeout",
            "20",
        ])
        .arg("--machine-elf")
        .arg(&image)
        .arg(&image);
    command
}

fn run(script: &[&str], more: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    command(&directory, script).args(more).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn exit_status_follows_the_verdict() {
    let status = |script: &[&str], more: &[&str]| run(script, more).status.code();
    assert_eq!(status(&["passed", POWER_OFF], &[]), Some(0));
    assert_eq!(status(&["failed 1", POWER_OFF], &[]), Some(1));
    assert_eq!(status(&[POWER_OFF], &[]), Some(1));
    assert_eq!(
        status(&["passed", POWER_OFF], &["--expect", "never"]),
        Some(1)
    );
    assert_eq!(
        status(&[r#"report {"event":"verdict","kind":"load-error"}"#], &[]),
        Some(2)
    );
    assert_eq!(status(&[], &["--smp", "none"]), Some(2));
    assert_eq!(status(&[], &["--elf", "/nonexistent"]), Some(2));
    assert_eq!(
        status(&[r#"report {"event":"verdict","kind":"halted"}"#], &[]),
        Some(3)
    );
    assert_eq!(status(&["panic a.rs:1", "exit 1"], &[]), Some(3));
    assert_eq!(status(&["hang"], &["--timeout", "1"]), Some(4));
    assert_eq!(status(&["exit 1"], &[]), Some(5));
    assert_eq!(status(&[], &["--qemu", "/nonexistent"]), Some(5));
}

#[test]
fn debuggers_that_cannot_be_are_refused_with_a_reason() {
    for (more, says) in [
        (&["--gdb", "0"][..], "0 is not in 1..=65535"),
        (&["--gdb", "1234", "--icount"], "has a CPU of its own"),
        (&["--gdb", "1234", "--smp", "64"], "at most 63 CPUs"),
        (&["--gdb", "1234", "--gdb-machine", "1234"], "a port each"),
    ] {
        let output = run(&[], more);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(says), "{more:?}: {text}");
    }
    let output = run(
        &["passed", POWER_OFF],
        &["--gdb", "1234", "--gdb-machine", "1235"],
    );
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("debugger of the guest") && text.contains("localhost:1234"));
    assert!(text.contains("debugger of the machine") && text.contains("localhost:1235"));
}

#[test]
fn text_ends_with_the_verdict() {
    let output = run(&["text hello", "raw plain", "passed", POWER_OFF], &[]);
    let text = stdout(&output);
    assert!(text.contains("   0 00000000         hello\n"), "{text}");
    assert!(text.contains("plain\n"), "{text}");
    assert!(
        text.lines().last().unwrap().starts_with("PASSED ("),
        "{text}"
    );
    assert!(!text.contains('\x1b'));
}

#[test]
fn json_is_one_object_per_line_and_raw_is_what_came() {
    let script = ["text hello", "raw plain", "passed", POWER_OFF];
    let json = stdout(&run(&script, &["--log", "json"]));
    let lines: Vec<serde_json::Value> = json
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(
        lines.iter().any(|line| line["message"] == "hello"),
        "{json}"
    );
    let last = lines.last().unwrap();
    assert_eq!(
        (&last["type"], &last["verdict"]["kind"]),
        (&"outcome".into(), &"passed".into())
    );

    let raw = run(&script, &["--log", "raw"]);
    let mut expected = Writer::new(Vec::new());
    let stamp = Stamp {
        time: 1,
        ..Stamp::default()
    };
    expected.text(stamp, Class::Public, "hello").unwrap();
    let mut expected = expected.into_inner();
    expected.extend_from_slice(b"plain\n");
    assert!(raw.stdout.starts_with(&expected));
    assert!(String::from_utf8(raw.stderr).unwrap().contains("PASSED"));
}

#[test]
fn the_result_is_written_as_json() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("result.json");
    let counters = r#"report {"event":"counters","cpus":[{"exits":4}]}"#;
    let status = command(&directory, &["failed 3", counters, POWER_OFF])
        .arg("--json-result")
        .arg(&file)
        .output()
        .unwrap()
        .status;
    assert_eq!(status.code(), Some(1));
    let result: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(
        result["verdict"],
        serde_json::json!({"kind": "failed", "code": 3})
    );
    assert_eq!(result["counters"]["cpus.0.exits"], 4);
    assert_eq!(result["log"][0]["kind"], "verdict");
}

#[test]
fn a_signal_ends_it_tidily() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = command(&directory, &["text up", "hang"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("up"));
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    let began = Instant::now();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(
        lines
            .map(Result::unwrap)
            .last()
            .unwrap()
            .starts_with("INTERRUPTED")
    );
}

#[test]
fn a_recorded_log_is_decoded() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("com1");
    let mut writer = Writer::new(b"before\n".to_vec());
    writer
        .text(Stamp::default(), Class::Public, "hello")
        .unwrap();
    fs::write(&file, writer.into_inner()).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_svsm-testbed"))
        .arg("decode")
        .arg(&file)
        .output()
        .unwrap();
    let text = stdout(&output);
    assert!(
        text.contains("before\n") && text.contains("hello\n"),
        "{text}"
    );
}

#[test]
fn faults_are_listed_and_unknown_ones_refused() {
    let list = Command::new(env!("CARGO_BIN_EXE_svsm-testbed"))
        .arg("faults")
        .output()
        .unwrap();
    assert!(stdout(&list).contains("partial-psc         detected"));
    let refused = run(&[], &["--platform", "snp", "--fault", "partial-pcs"]);
    assert_eq!(refused.status.code(), Some(2));
    let says = String::from_utf8(refused.stderr).unwrap();
    assert!(
        says.contains("there is no fault `partial-pcs`") && says.contains(" partial-psc "),
        "{says}"
    );
    let elsewhere = run(&[], &["--fault", "partial-psc"]);
    assert_eq!(elsewhere.status.code(), Some(2));
}

#[test]
fn a_lie_is_shown_among_the_lines_of_the_log() {
    let lie = r#"report {"event":"fault","number":3,"name":"remap","script":"remap@3=0x1","cpu":0,"vmpl":1,"rip":"0x77","effect":"done"}"#;
    let output = run(&["text hello", lie, "passed", POWER_OFF], &[]);
    let text = stdout(&output);
    assert!(
        text.contains("LIE   remap@3=0x1 at 0x77 VMPL1: done (must be detected)"),
        "{text}"
    );
}

#[test]
fn an_access_that_a_device_was_refused_is_shown_there_too() {
    let refused =
        r#"report {"event":"dma-refused","device":"00:02.0","gpa":"0x5000","access":"write"}"#;
    let output = run(&["text hello", refused, "passed", POWER_OFF], &[]);
    let text = stdout(&output);
    assert!(
        text.contains("DMA   device 00:02.0 may not write guest physical address 0x5000"),
        "{text}"
    );
}

#[test]
fn a_disk_that_is_not_there_is_named() {
    let output = run(&[], &["--disk", "/nonexistent"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(
        text.contains("/nonexistent") && text.contains("disk"),
        "{text}"
    );
}

fn campaign(directory: &tempfile::TempDir, script: &[&str], more: &[&str]) -> Output {
    let image = directory.path().join("image.igvm");
    fs::write(&image, script.join("\n")).unwrap();
    Command::new(env!("CARGO_BIN_EXE_svsm-testbed"))
        .args(["campaign", "--qemu", env!("CARGO_BIN_EXE_fake-qemu")])
        .args(["--timeout", "20", "--platform", "snp", "--machine-elf"])
        .args([&image, &image])
        .args(more)
        .output()
        .unwrap()
}

#[test]
fn a_campaign_says_what_came_and_goes_on_where_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let (junit, json) = (
        directory.path().join("junit.xml"),
        directory.path().join("all.json"),
    );
    let script = ["passed", POWER_OFF];
    let files = [
        "--junit",
        junit.to_str().unwrap(),
        "--json",
        json.to_str().unwrap(),
    ];
    let first = campaign(
        &directory,
        &script,
        &[&["--seeds", "1..3", "--jobs", "2"], &files[..]].concat(),
    );
    assert_eq!(first.status.code(), Some(0), "{first:?}");
    assert!(stdout(&first).contains("3 of 3 cases done, 0 as they may not"));
    let state = directory.path().join("image.igvm.campaign-1-1.jsonl");
    assert_eq!(fs::read_to_string(&state).unwrap().lines().count(), 4);
    let again = campaign(&directory, &script, &["--seeds", "1..4"]);
    let says = String::from_utf8(again.stderr.clone()).unwrap();
    assert!(says.contains("3 of them done before"), "{says}");
    assert_eq!(fs::read_to_string(&state).unwrap().lines().count(), 5);
    let value: serde_json::Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    assert_eq!(value["classes"]["correct"], 3);
    assert_eq!(
        fs::read_to_string(&junit)
            .unwrap()
            .matches("<testcase ")
            .count(),
        3
    );
    // The file is of this image.
    let other = campaign(
        &directory,
        &["text x", "passed", POWER_OFF],
        &["--seeds", "1..3"],
    );
    assert_eq!(other.status.code(), Some(2));
    assert!(
        String::from_utf8(other.stderr)
            .unwrap()
            .contains("another campaign")
    );
}

#[test]
fn an_image_that_an_honest_host_breaks_has_no_campaign() {
    let directory = tempfile::tempdir().unwrap();
    let crash = r#"report {"event":"verdict","kind":"shutdown"}"#;
    let output = campaign(&directory, &[crash], &["--seeds", "1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("honest host")
    );
    for wrong in [
        ["--seeds", "3..1"],
        ["--partition", "0/3"],
        ["--faults", "moon"],
    ] {
        let output = campaign(&directory, &[POWER_OFF], &wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn a_disk_that_cannot_be_written_is_refused_unless_that_is_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    // Nobody may write to a directory, whoever that is.
    let disk = ["--disk", directory.path().to_str().unwrap()];
    let script = ["passed", POWER_OFF];
    assert_eq!(run(&script, &disk).status.code(), Some(2));
    let forgets = [&disk[..], &["--qemu-arg=-snapshot"]].concat();
    assert_eq!(run(&script, &forgets).status.code(), Some(0));
}

#[test]
fn campaigns_forget_what_is_written_to_disks_and_runs_do_not() {
    let directory = tempfile::tempdir().unwrap();
    let disk = directory.path().join("disk");
    fs::write(&disk, [0; 512]).unwrap();
    let disk = ["--disk", disk.to_str().unwrap()];
    let once = ["without -snapshot", "passed", POWER_OFF];
    assert_eq!(run(&once, &disk).status.code(), Some(0));
    let many = ["with -snapshot", "passed", POWER_OFF];
    let seeds = ["--seeds", "1..2"];
    let output = campaign(&directory, &many, &[&seeds[..], &disk].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(stdout(&output).contains("2 of 2 cases done, 0 as they may not"));
    // Where there is no disk, there is nothing to forget.
    let none = ["without -snapshot", "text no disk", "passed", POWER_OFF];
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(campaign(&directory, &none, &seeds).status.code(), Some(0));
}
