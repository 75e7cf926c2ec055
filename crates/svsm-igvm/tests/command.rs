//! The command: what it prints, and its exit status.
#![cfg(feature = "cli")]
#![cfg(test)]

#[path = "support/igvm.rs"]
mod igvm;

use std::path::Path;
use std::process::Command;

/// Runs the command; answers with exit status, standard output and errors.
fn run(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_svsm-igvm"))
        .current_dir(folder)
        .args(arguments)
        .output()
        .unwrap();
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let sample = igvm::sample(2).bytes();
    std::fs::write(folder.path().join("good.igvm"), &sample).unwrap();
    std::fs::write(folder.path().join("cut.igvm"), &sample[..100]).unwrap();
    let mut other = igvm::sample(2);
    other.data[0x1000] = 0;
    std::fs::write(folder.path().join("other.igvm"), other.bytes()).unwrap();
    folder
}

#[test]
fn inspect_shows_files_and_refuses_damaged_ones() {
    let folder = folder();
    let (status, out, _) = run(folder.path(), &["inspect", "good.igvm"]);
    assert_eq!(status, 0);
    assert!(out.contains("PAGE_DATA"));
    let (status, out, _) = run(folder.path(), &["inspect", "--json", "good.igvm"]);
    assert_eq!(status, 0);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["platforms"][1]["launch_pages"], 9);
    let (status, out, err) = run(folder.path(), &["inspect", "cut.igvm"]);
    assert_eq!((status, out.as_str()), (2, ""));
    assert!(
        err.starts_with("svsm-igvm: cut.igvm: at offset 0x10: truncated: "),
        "{err}"
    );
    let (status, _, err) = run(folder.path(), &["inspect", "none.igvm"]);
    assert_eq!(status, 2);
    assert!(
        err.starts_with("svsm-igvm: cannot read none.igvm: "),
        "{err}"
    );
}

#[test]
fn diff_answers_by_its_status() {
    let folder = folder();
    let (status, out, _) = run(folder.path(), &["diff", "good.igvm", "good.igvm"]);
    assert_eq!((status, out.as_str()), (0, ""));
    let (status, out, _) = run(folder.path(), &["diff", "good.igvm", "other.igvm"]);
    assert_eq!(status, 1);
    assert_eq!(
        out,
        "! native 0x11000..0x12000  1 page: other contents\n\
         ! snp 0x11000..0x12000  1 page: other contents\n"
    );
    let (status, _, err) = run(folder.path(), &["diff", "good.igvm", "cut.igvm"]);
    assert_eq!(status, 2);
    assert!(err.contains("cut.igvm: "), "{err}");
}

#[test]
fn build_writes_an_image_and_its_symbols() {
    let folder = folder();
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/programs");
    let manifest = "platforms = [\"native\"]\nsvsm = { elf = \"nowhere\" }\n\
                    stage2 = { elf = \"stage2.elf\" }\nbudgets = { pages = 100 }\n";
    std::fs::write(folder.path().join("image.toml"), manifest).unwrap();
    std::fs::copy(
        programs.join("stage2.elf"),
        folder.path().join("stage2.elf"),
    )
    .unwrap();

    let build = ["build", "image.toml", "-o", "out.igvm"];
    let (status, _, err) = run(folder.path(), &build);
    assert_eq!(status, 2);
    assert!(err.contains("cannot read nowhere"), "{err}");

    let elf = format!("svsm={}", programs.join("svsm.elf").display());
    let (status, out, err) = run(folder.path(), &[&build[..], &["--elf", &elf]].concat());
    assert_eq!(status, 0, "{err}");
    assert!(out.contains("page-tables"), "{out}");
    assert_eq!(run(folder.path(), &["inspect", "out.igvm"]).0, 0);
    let symbols = std::fs::read(folder.path().join("out.igvm.symbols.json")).unwrap();
    let symbols: serde_json::Value = serde_json::from_slice(&symbols).unwrap();
    assert_eq!(symbols["images"][0]["name"], "svsm");

    let loader = [&build[..], &["--elf", &elf, "--loader", "openvmm"]].concat();
    let (status, _, err) = run(folder.path(), &loader);
    assert_eq!(status, 2);
    assert!(
        err.contains("openvmm does not take the platform \"native\""),
        "{err}"
    );

    let manifest = manifest.replace("100", "10");
    std::fs::write(folder.path().join("image.toml"), manifest).unwrap();
    let (status, _, err) = run(folder.path(), &[&build[..], &["--elf", &elf]].concat());
    assert_eq!(status, 1);
    assert!(
        err.contains("all pages") && err.contains("exceeded"),
        "{err}"
    );

    let (status, _, err) = run(folder.path(), &[&build[..], &["--elf", "init=x"]].concat());
    assert_eq!(status, 2);
    assert!(err.contains("no program \"init\""), "{err}");
}

#[test]
fn manifest_prints_an_example_that_it_takes() {
    let folder = folder();
    let (status, example, _) = run(folder.path(), &["manifest", "--example"]);
    assert_eq!(status, 0);
    std::fs::write(folder.path().join("image.toml"), example).unwrap();
    let (status, out, _) = run(folder.path(), &["manifest", "image.toml"]);
    assert_eq!((status, out.as_str()), (0, "image.toml: good\n"));
    std::fs::write(folder.path().join("bad.toml"), "colour = 1").unwrap();
    let (status, _, err) = run(folder.path(), &["manifest", "bad.toml"]);
    assert_eq!(status, 2);
    assert!(
        err.starts_with("svsm-igvm: bad.toml:1:1: unknown field `colour`"),
        "{err}"
    );
}

#[test]
fn help_has_examples_and_exit_statuses() {
    let folder = folder();
    let (status, out, _) = run(folder.path(), &["--help"]);
    assert_eq!(status, 0);
    assert!(out.contains("Exit status:"));
    for verb in [
        "build", "inspect", "diff", "manifest", "linux", "sign", "verify",
    ] {
        let (status, out, _) = run(folder.path(), &[verb, "--help"]);
        assert_eq!(status, 0);
        assert!(out.contains("Examples:"), "{verb}");
    }
    let (status, _, _) = run(folder.path(), &["frobnicate"]);
    assert_eq!(status, 2);
}
