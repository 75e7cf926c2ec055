//! Image manifests: no text makes the reader panic, and what it takes it takes
//! again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use svsm_igvm::Manifest;

fuzz_target!(|text: &str| {
    match Manifest::parse(text, "fuzz.toml") {
        Ok(manifest) => assert!(manifest.check().is_ok()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
