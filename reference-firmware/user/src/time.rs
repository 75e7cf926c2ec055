//! The clock.

use core::time::Duration;

use svsm_syscall::abi::Number;

use crate::calls;

/// Time since the start of the SVSM.
#[must_use]
pub fn now() -> Duration {
    // The call has no way to fail.
    Duration::from_nanos(calls::call0(Number::NOW).unwrap_or(0))
}

/// Sleeps at least that long.
pub fn sleep(time: Duration) {
    let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let _ = calls::call1(Number::SLEEP, nanoseconds);
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
