//! The guests.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    svsm_testbed_guest::bare::panicked(info)
}

#[cfg(not(target_os = "none"))]
fn main() {
    println!("These guests run in the software machine: build them for x86_64-unknown-none.");
}
