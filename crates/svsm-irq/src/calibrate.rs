//! How fast the timers run: what CPUID says, and what a measurement against a known clock says.
//!
//! Both are the host's word on every platform that has a host; a clock that the host can't bend
//! comes from the platform ([`svsm_platform::seam::Clock::is_trusted`]).

use core::array;

use svsm_platform::{
    cpu::cpuid::Registers,
    seam::{Hertz, PortCall, Width},
};

use crate::{Error, Result};

/// A counter of known speed that counts up and wraps around.
pub trait Reference {
    /// Why it was not read.
    type Error;

    /// Where it is.
    ///
    /// # Errors
    /// Why it was not read.
    fn count(&mut self) -> Result<u32, Self::Error>;

    /// How fast it runs.
    fn rate(&self) -> Hertz;

    /// Its bits: counts are taken modulo this plus one.
    fn mask(&self) -> u32;
}

/// The ACPI power-management timer (ACPI specification, section 4.8.2.1).
#[derive(Debug)]
pub struct PmTimer<P> {
    ports: P,
    port: u16,
}

impl<P: PortCall> PmTimer<P> {
    /// The timer behind that port, which the FADT names. Only its 24 lower bits are used, which
    /// every such timer has; they last 4.6 s.
    pub const fn new(ports: P, port: u16) -> Self {
        Self { ports, port }
    }
}

impl<P: PortCall> Reference for PmTimer<P> {
    type Error = P::Error;

    fn count(&mut self) -> Result<u32, P::Error> {
        self.ports
            .port_read(self.port, Width::Dword)
            .map(|count| count & self.mask())
    }

    fn rate(&self) -> Hertz {
        const RATE: Hertz = match Hertz::new(3_579_545) {
            Some(rate) => rate,
            None => unreachable!(),
        };
        RATE
    }

    fn mask(&self) -> u32 {
        0x00ff_ffff
    }
}

/// After so many looks at a reference that does not move, it is stuck. An access takes a
/// microsecond where a host emulates it, and the slowest reference moves every 300 ns.
const PATIENCE: u32 = 1 << 20;

/// Measures counters against a reference, all at once.
///
/// `sample` reads them; they count up and don't wrap during the measurement. Between the first
/// and the last sample pass at least `ns` nanoseconds, but less than the reference takes to wrap.
///
/// # Errors
/// [`Error::Interval`] for a time that the reference can't count, [`Error::ClockStuck`] if it or
/// a counter stands still.
pub fn measure<const N: usize, R: Reference>(
    reference: &mut R,
    ns: u64,
    mut sample: impl FnMut() -> [u64; N],
) -> Result<[Hertz; N]> {
    let mask = reference.mask();
    let wanted = reference.rate().from_ns(ns);
    // Half the range: whoever reads late must not mistake a wrapped counter for an early one.
    if wanted == 0 || wanted > u64::from(mask / 2) {
        return Err(Error::Interval);
    }
    // Start on an edge, so that the first interval is a whole one.
    let before = read(reference)?;
    let start = next(reference, before)?;
    let first = sample();
    let mut now = start;
    while u64::from(now.wrapping_sub(start) & mask) < wanted {
        now = next(reference, now)?;
    }
    let last = sample();
    let elapsed = u128::from(now.wrapping_sub(start) & mask);
    let mut rates = [None; N];
    for ((rate, first), last) in rates.iter_mut().zip(first).zip(last) {
        let counted = u128::from(last.checked_sub(first).ok_or(Error::ClockStuck)?);
        let per_second = counted * u128::from(reference.rate().as_u64()) / elapsed.max(1);
        *rate = u64::try_from(per_second).ok().and_then(Hertz::new);
    }
    if rates.iter().any(Option::is_none) {
        return Err(Error::ClockStuck);
    }
    // The fallback is never used: there is a rate in each.
    Ok(array::from_fn(|n| {
        rates.get(n).copied().flatten().unwrap_or(reference.rate())
    }))
}

fn read<R: Reference>(reference: &mut R) -> Result<u32> {
    reference.count().map_err(|_| Error::ClockStuck)
}

/// The reference's next count that differs from `from`.
fn next<R: Reference>(reference: &mut R, from: u32) -> Result<u32> {
    for _ in 0..PATIENCE {
        let count = read(reference)?;
        if count != from {
            return Ok(count);
        }
    }
    Err(Error::ClockStuck)
}

/// The rate of the APIC timer, undivided, as CPUID leaf 0x15 tells it, if it does: that of the
/// crystal. ([`svsm_platform::cpu::cpuid::tsc_rate`] has the time-stamp counter's.)
#[must_use]
pub fn apic_rate(leaf_15: Registers) -> Option<Hertz> {
    Hertz::new(u64::from(leaf_15.ecx))
}

/// The rates of time-stamp counter and APIC timer as hypervisors tell them in CPUID leaf
/// 0x4000_0010, if they do.
///
/// That leaf means this only if leaf 0x4000_0000 says that there are so many.
#[must_use]
pub fn hypervisor_rates(leaf_4000_0010: Registers) -> (Option<Hertz>, Option<Hertz>) {
    let rate = |kilohertz: u32| Hertz::new(u64::from(kilohertz) * 1000);
    (rate(leaf_4000_0010.eax), rate(leaf_4000_0010.ebx))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Advances by `step` whenever somebody looks.
    struct Ticking {
        count: u32,
        step: u32,
    }

    impl Reference for &mut Ticking {
        type Error = ();

        fn count(&mut self) -> Result<u32, ()> {
            self.count = self.count.wrapping_add(self.step) & self.mask();
            Ok(self.count)
        }

        fn rate(&self) -> Hertz {
            Hertz::new(1_000_000).unwrap()
        }

        fn mask(&self) -> u32 {
            0xffff
        }
    }

    proptest! {
        #[test]
        fn counters_measure_as_fast_as_they_are(start in 0..0xffff_u32, step in 1..50_u32, factor in 1..5000_u64) {
            let mut ticking = Ticking { count: start, step };
            let (mut total, mut last) = (0, start);
            let shared = core::cell::Cell::new(start);
            let mut reference = Spy { inner: &mut ticking, seen: &shared };
            let rates = measure(&mut reference, 10_000_000, || {
                total += u64::from(shared.get().wrapping_sub(last) & 0xffff);
                last = shared.get();
                [total * factor, total * factor * 2]
            });
            let rates = rates.unwrap().map(Hertz::as_u64);
            prop_assert_eq!(rates, [1_000_000 * factor, 2_000_000 * factor]);
        }
    }

    struct Spy<'a> {
        inner: &'a mut Ticking,
        seen: &'a core::cell::Cell<u32>,
    }

    impl Reference for Spy<'_> {
        type Error = ();

        fn count(&mut self) -> Result<u32, ()> {
            let count = (&mut *self.inner).count()?;
            self.seen.set(count);
            Ok(count)
        }

        fn rate(&self) -> Hertz {
            (&&mut Ticking { count: 0, step: 0 }).rate()
        }

        fn mask(&self) -> u32 {
            0xffff
        }
    }

    #[test]
    fn a_reference_that_stands_still_is_an_error() {
        let mut stuck = Ticking { count: 5, step: 0 };
        assert_eq!(
            measure(&mut &mut stuck, 1_000_000, || [0]),
            Err(Error::ClockStuck)
        );
    }

    #[test]
    fn counters_that_stand_still_or_run_backwards_are_errors() {
        let mut ticking = Ticking { count: 0, step: 1 };
        assert_eq!(
            measure(&mut &mut ticking, 1_000_000, || [7]),
            Err(Error::ClockStuck)
        );
        let mut down = 1000;
        let backwards = || {
            down -= 1;
            [down]
        };
        assert_eq!(
            measure(&mut &mut ticking, 1_000_000, backwards),
            Err(Error::ClockStuck)
        );
    }

    #[test]
    fn times_that_the_reference_cannot_count_are_refused() {
        let mut ticking = Ticking { count: 0, step: 1 };
        for ns in [0, 40_000_000, u64::MAX] {
            assert_eq!(measure(&mut &mut ticking, ns, || [0]), Err(Error::Interval));
        }
    }

    #[test]
    fn cpuid_tells_rates_only_if_it_knows_them() {
        let leaf = Registers {
            eax: 2,
            ebx: 200,
            ecx: 24_000_000,
            edx: 0,
        };
        assert_eq!(apic_rate(leaf).map(Hertz::as_u64), Some(24_000_000));
        assert_eq!(apic_rate(Registers::default()), None);
        assert_eq!(hypervisor_rates(Registers::default()), (None, None));
    }
}
