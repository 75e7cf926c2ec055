//! The linker script, when the target is the bare machine.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=caller.ld");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        let here = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo::rustc-link-arg-bins=-T{here}/caller.ld");
    }
}
