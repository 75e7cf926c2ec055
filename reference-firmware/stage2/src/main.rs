//! The reference firmware's stage2: what runs between a machine's first instruction and the SVSM's.
//!
//! All logic is `svsm-stage2`'s. This program gives it a place in memory, a console for one line where there is one,
//! and an end for the case that it fails.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod boot;
#[cfg(target_os = "none")]
mod machine;
#[cfg(target_os = "none")]
mod staged; // an SVSM that comes through the host

#[cfg(not(target_os = "none"))]
fn main() {
    println!("stage2 is a program for a bare machine; `cargo xtask boot` builds and starts it.");
}
