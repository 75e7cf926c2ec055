//! The SVSM is linked at its final address; on a host this package is an ordinary program.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=svsm.ld");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        let here = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo::rustc-link-arg-bins=-T{here}/svsm.ld");
        println!("cargo::rustc-link-arg-bins=-Tdefmt.x");
    }
}
