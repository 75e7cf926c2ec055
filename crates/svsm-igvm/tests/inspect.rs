//! What an inspection shows.
#![cfg(test)]

#[path = "support/igvm.rs"]
mod igvm;

use svsm_igvm::inspect;
use svsm_igvm::inspect::Class;

/// Compares with a golden file; `BLESS=1` writes it anew.
fn golden(name: &str, found: &str) {
    let path = format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    assert_eq!(found, std::fs::read_to_string(&path).unwrap(), "{name}");
}

#[test]
fn the_table_is_as_people_know_it() {
    golden(
        "sample.txt",
        &inspect(&igvm::sample(2).bytes()).unwrap().to_string(),
    );
}

#[test]
fn json_has_every_header() {
    let inspection = inspect(&igvm::sample(2).bytes()).unwrap();
    golden(
        "sample.json",
        &(serde_json::to_string_pretty(&inspection).unwrap() + "\n"),
    );
}

#[test]
fn totals_are_those_of_each_platform() {
    let inspection = inspect(&igvm::sample(2).bytes()).unwrap();
    let [native, snp] = &inspection.platforms[..] else {
        panic!("two platforms")
    };
    assert_eq!(native.pages[&Class::Measured], 3);
    assert_eq!(native.pages.get(&Class::Secrets), None);
    assert_eq!(snp.pages[&Class::Parameters], 3);
    assert_eq!(snp.pages[&Class::RequiredMemory], 256);
    // Three measured, one secrets, one CPUID, one unmeasured, three parameters.
    assert_eq!(snp.launch_pages, 9);
}
