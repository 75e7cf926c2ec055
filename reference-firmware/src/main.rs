//! A bootable Secure VM Service Module, composed of the svsm crates.
//!
//! This program is the only home of what the crates may not have: mutable statics, fixed symbols, the panic handler and the
//! global allocator. `cargo xtask boot` builds it for the bare machine, lays it out as an image and runs it.
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(target_os = "none", no_main)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
#[macro_use]
mod log; // the log channel; the first module, since its macros are for all others
#[cfg(target_os = "none")]
mod areas; // what the image builder placed for us
#[cfg(target_os = "none")]
mod boot; // from the first instruction to user mode, in order
#[cfg(target_os = "none")]
mod clock; // time since the start
#[cfg(target_os = "none")]
mod cpu; // what each CPU has of its own
#[cfg(target_os = "none")]
mod doorbell; // interrupts of a host that may inject nothing else
#[cfg(target_os = "none")]
mod entry; // the first instruction
#[cfg(target_os = "none")]
mod evidence; // reports of the security processor
#[cfg(target_os = "none")]
mod guest; // the guest below us
#[cfg(target_os = "none")]
mod image; // who wrote a log record
#[cfg(target_os = "none")]
mod intercept; // what the host intercepts of a protected machine
#[cfg(target_os = "none")]
mod interrupt; // local APICs and vectors
#[cfg(target_os = "none")]
mod machine; // the platform below us
#[cfg(target_os = "none")]
mod memory; // frames, heap, address spaces
#[cfg(target_os = "none")]
mod panic; // the end nobody wants
#[cfg(target_os = "none")]
mod selftest; // dying on purpose
#[cfg(target_os = "none")]
mod smp; // the other CPUs
#[cfg(target_os = "none")]
mod staged; // programs that arrive through the host
#[cfg(target_os = "none")]
mod trap; // exceptions and interrupts
#[cfg(target_os = "none")]
mod user; // processes and their calls

/// On a host there is nothing to run.
#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this is firmware for the bare machine; `cargo xtask boot` builds and runs it");
    std::process::exit(2);
}
