//! Time since the reset, by the time-stamp counter.

use core::hint;
use core::sync::atomic::{AtomicU64, Ordering};

use svsm_platform::cpu::cpuid;
use svsm_platform::native::{self, CounterClock, Tsc};
use svsm_platform::once::OnceCell;
use svsm_platform::seam::{Clock, Hertz};

use crate::machine;

/// The latest moment that anybody has seen.
static LATEST: AtomicU64 = AtomicU64::new(0);
static CLOCK: OnceCell<CounterClock<Tsc>> = OnceCell::new();

/// Finds out how fast the counter runs: the processor says it, or another timer shows it.
///
/// # Errors
/// Neither does.
pub(crate) fn set_up() -> svsm_platform::Result<Hertz> {
    let rate = match cpuid::tsc_rate(&machine::Source) {
        Some(rate) => rate,
        None => native::calibrate(&mut machine::Host, &Tsc)?,
    };
    let _ = CLOCK.set(CounterClock::new(Tsc, rate));
    Ok(rate)
}

/// Nanoseconds since the machine's reset, as its counter says; zero before that was set up. No CPU sees time go back, even
/// where their counters differ.
pub(crate) fn now_ns() -> u64 {
    let now = CLOCK
        .value()
        .map_or(0, |clock| clock.rate().to_ns(clock.now().as_u64()));
    LATEST.fetch_max(now, Ordering::Relaxed).max(now)
}

/// Waits at least that long.
pub(crate) fn spin_us(microseconds: u32) {
    let until = now_ns().saturating_add(u64::from(microseconds) * 1000);
    while now_ns() < until {
        hint::spin_loop();
    }
}
