//! The clock.

use core::time::Duration;

use crate::KERNEL;

/// Time since the machine's reset; it never goes back.
#[must_use]
pub fn now() -> Duration {
    // The call has no way to fail.
    KERNEL.now().unwrap_or_default()
}

/// Sleeps at least that long.
pub fn sleep(time: Duration) {
    let _ = KERNEL.sleep(time);
}

/// Ticks of the time-stamp counter: under a machine that counts instructions, instructions.
#[must_use]
pub fn ticks() -> u64 {
    // SAFETY: reading the counter changes nothing; the kernel leaves it open to programs.
    #[expect(unsafe_code, reason = "reads the time-stamp counter")]
    unsafe {
        core::arch::x86_64::_rdtsc()
    }
}
