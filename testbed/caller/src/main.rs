//! The guest.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    svsm_testbed_caller::bare::panicked(info)
}

#[cfg(not(target_os = "none"))]
fn main() {
    println!("This guest runs below an SVSM: build it for x86_64-unknown-none.");
}
