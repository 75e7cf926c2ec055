//! The program that QEMU starts.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
use svsm_machine as _; // its entry code is what the linker script names

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    svsm_machine::bare::panicked(info)
}

#[cfg(not(target_os = "none"))]
fn main() {
    println!("This program runs on the bare machine: build it for x86_64-unknown-none.");
}
