//! The verbs `sign` and `verify`, and what `build` prints for them.
#![cfg(feature = "cli")]
#![cfg(test)]

#[path = "support/elf.rs"]
mod elf;
#[path = "support/image.rs"]
mod image;
#[path = "support/launch.rs"]
mod launch;

use std::path::Path;
use std::process::Command;

use image::{image, manifest};
use p384::SecretKey;
use p384::pkcs8::{EncodePrivateKey, LineEnding};
use sha2::{Digest, Sha512};
use svsm_igvm::hex::Hex;
use svsm_sim::endorsement::{Endorsement, root_certificate};

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

/// A folder with an image, keys, and the evidence of a guest that was launched from the image when it was signed.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    put("image.igvm", &image(&manifest()).bytes);
    for (name, byte) in [("id.pem", 1), ("author.pem", 2)] {
        let key = SecretKey::from_slice(&[byte; 48]).unwrap();
        put(name, key.to_pkcs8_pem(LineEnding::LF).unwrap().as_bytes());
    }
    let sign = "sign image.igvm -o signed.igvm --id-key id.pem --author-key author.pem --json \
                --family-id paravisors --image-id svsm --guest-svn 3";
    let (status, out, err) = run(folder.path(), &words(sign));
    assert_eq!(status, 0, "{err}");
    put("signed.json", out.as_bytes());
    let signed = std::fs::read(folder.path().join("signed.igvm")).unwrap();
    let mut guest = launch::launch(&signed, true).unwrap();
    let data = Sha512::new()
        .chain_update([0x42; 64])
        .chain_update(b"services")
        .finalize();
    let (report, table) = launch::report(&mut guest, 0, data.into());
    put("report.bin", &report);
    put("table.bin", &table);
    put("services.bin", b"services");
    put("root.der", root_certificate().der());
    put(
        "vcek.der",
        Endorsement::new(&launch::chip()).vcek_certificate().der(),
    );
    let chain = [
        Endorsement::new(&launch::chip()).ask_certificate(),
        root_certificate(),
    ];
    let pem = |der: &[u8]| {
        p384::pkcs8::der::pem::encode_string("CERTIFICATE", LineEnding::LF, der).unwrap()
    };
    put(
        "chain.pem",
        chain.map(|link| pem(link.der())).concat().as_bytes(),
    );
    folder
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

const VERIFY: &str = "verify report.bin --reference signed.json --certs table.bin --simulated";

#[test]
fn verify_answers_by_its_status() {
    let folder = folder();
    let verify = |line: &str| run(folder.path(), &words(line));
    for line in [
        VERIFY,
        "verify report.bin --image signed.igvm --certs table.bin --root root.der",
        "verify report.bin --image signed.igvm --vcek vcek.der --ask chain.pem --root chain.pem",
    ] {
        let (status, out, err) = verify(line);
        assert_eq!(status, 0, "{out}{err}");
        assert!(out.contains("family            paravisors\n"), "{out}");
        assert!(
            out.ends_with("trusted: the guest runs this image\n"),
            "{out}"
        );
    }

    let nonce = Hex([0x42; 64]);
    let bound = format!("{VERIFY} --least-tcb 3.0.8.215 --services services.bin --nonce {nonce}");
    assert_eq!(verify(&bound).0, 0);
    let (status, out, _) = verify(&bound.replace(".215", ".216"));
    assert_eq!(status, 1);
    assert!(
        out.starts_with("wrong: the machine's security versions are"),
        "{out}"
    );
    let (status, out, _) = verify(&format!("{VERIFY} --json --report-data {nonce}"));
    assert_eq!(status, 1);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["trusted"], false);
    assert_eq!(json["findings"][0]["what"], "report-data");
    assert_eq!(json["guest"]["identity"]["image_id"], "svsm");

    // Evidence that cannot be read as such proves nothing; what the asker brings must be right.
    for (line, status, text) in [
        (
            "verify root.der --image signed.igvm --certs table.bin --simulated",
            1,
            "not as long as",
        ),
        (
            "verify report.bin --image signed.igvm --certs root.der --simulated",
            1,
            "malformed",
        ),
        (
            "verify report.bin --image signed.igvm --vcek id.pem --ask chain.pem --simulated",
            1,
            "no certificate",
        ),
        (
            "verify report.bin --image root.der --certs table.bin --simulated",
            2,
            "root.der: ",
        ),
        (
            "verify report.bin --image signed.igvm --certs table.bin --root id.pem",
            2,
            "id.pem: ",
        ),
        (
            "verify report.bin --reference table.bin --certs table.bin --simulated",
            2,
            "table.bin: ",
        ),
        (
            "verify none.bin --image signed.igvm --certs table.bin --simulated",
            2,
            "none.bin: ",
        ),
        (
            "verify report.bin --certs table.bin --simulated",
            2,
            "--image",
        ),
        (
            "verify report.bin --image signed.igvm --certs table.bin",
            2,
            "--root",
        ),
    ] {
        let (found, out, err) = verify(line);
        assert_eq!(found, status, "{line}: {out}{err}");
        assert!(format!("{out}{err}").contains(text), "{line}: {out}{err}");
    }
}

#[test]
fn build_signs_and_verify_builds_again() {
    let folder = folder();
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/programs");
    let manifest = format!(
        "platforms = [\"native\", \"snp\"]\nsvsm = {{ elf = {:?} }}\nstage2 = {{ elf = {:?} }}\n\
         snp.identity = {{ image_id = \"from manifest\", guest_svn = 4 }}\n",
        programs.join("svsm.elf"),
        programs.join("stage2.elf")
    );
    let path = folder.path().join("image.toml");
    std::fs::write(&path, &manifest).unwrap();
    let build = "build image.toml -o built.igvm --id-key id.pem --json";
    let (status, out, err) = run(folder.path(), &words(build));
    assert_eq!(status, 0, "{err}");
    std::fs::write(folder.path().join("built.json"), &out).unwrap();
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["snp"]["identity"]["guest_svn"], 4);

    let built = std::fs::read(folder.path().join("built.igvm")).unwrap();
    let mut guest = launch::launch(&built, true).unwrap();
    assert_eq!(
        json["snp"]["launch_digest"],
        Hex(guest.measurement().0).to_string()
    );
    let (report, _) = launch::report(&mut guest, 0, [0; 64]);
    std::fs::write(folder.path().join("built.bin"), report).unwrap();
    for source in [
        "--image built.igvm",
        "--reference built.json",
        "--manifest image.toml",
    ] {
        let line = format!("verify built.bin {source} --certs table.bin --simulated");
        let (status, out, err) = run(folder.path(), &words(&line));
        assert_eq!(status, 0, "{out}{err}");
    }
    // Another manifest is another image.
    std::fs::write(&path, format!("debug = true\n{manifest}")).unwrap();
    let line = "verify built.bin --manifest image.toml --certs table.bin --simulated";
    let (status, out, _) = run(folder.path(), &words(line));
    assert_eq!(status, 1);
    assert!(out.starts_with("wrong: another image runs: "), "{out}");

    let (status, _, err) = run(
        folder.path(),
        &words("build image.toml -o x.igvm --id-key image.toml"),
    );
    assert_eq!(status, 2);
    assert!(err.contains("image.toml: not a private key"), "{err}");
    assert!(!folder.path().join("x.igvm").exists());
}
