//! A program for user mode is linked by the script of the user library; on a host this package is an ordinary program.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=../../user/program.ld");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        let here = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo::rustc-link-arg-bins=-T{here}/../../user/program.ld");
        println!("cargo::rustc-link-arg-bins=-znorelro");
        println!("cargo::rustc-link-arg-bins=-Tdefmt.x");
    }
}
