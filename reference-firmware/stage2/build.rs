//! Stage2 is linked where it runs, in low memory; on a host this package is an ordinary program.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=stage2.ld");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        let here = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo::rustc-link-arg-bins=-T{here}/stage2.ld");
    }
}
