//! Raises #DB by INT1, which every program can execute: the processor handles it on a stack of its own, which no
//! task must take along.

use svsm_user::entry;

entry!(main);

fn main() -> u16 {
    // SAFETY: the kernel ends this process here; should it go on, nothing has changed.
    #[expect(unsafe_code, reason = "raises an exception on purpose")]
    unsafe {
        core::arch::asm!(".byte 0xf1", options(nomem, nostack));
    }
    0
}
