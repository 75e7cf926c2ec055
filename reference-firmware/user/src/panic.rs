//! The end of a process that nobody wants.

use core::panic::PanicInfo;

use crate::{PANIC, process};

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    match info.location() {
        // Where is known from the source; what the message quotes is nobody's business outside.
        Some(at) => crate::log::panicked(at.file(), at.line()),
        None => crate::log::panicked("", 0),
    }
    process::exit(PANIC)
}
