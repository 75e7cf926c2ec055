use crate::{
    Error, Result,
    seam::{Clock, Hertz, PortCall, Ticks, Width},
};

/// A counter that only goes up, at a rate not known yet.
pub trait Counter {
    /// The count. Reading it twice takes place in that order.
    fn count(&self) -> u64;
}

/// The processor's time-stamp counter.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, Default)]
pub struct Tsc;

#[cfg(target_arch = "x86_64")]
impl Counter for Tsc {
    fn count(&self) -> u64 {
        crate::cpu::insn::lfence();
        crate::cpu::insn::rdtsc()
    }
}

/// A clock made of a counter and its rate. The host of an unprotected machine can change both, so it is not trusted.
#[derive(Clone, Copy, Debug)]
pub struct CounterClock<C> {
    counter: C,
    rate: Hertz,
}

impl<C: Counter> CounterClock<C> {
    /// A clock that tells the counter's time.
    #[must_use]
    pub const fn new(counter: C, rate: Hertz) -> Self {
        Self { counter, rate }
    }
}

impl<C: Counter> Clock for CounterClock<C> {
    fn now(&self) -> Ticks {
        Ticks::new(self.counter.count())
    }

    fn rate(&self) -> Hertz {
        self.rate
    }

    fn is_trusted(&self) -> bool {
        false
    }
}

// The 8254 timer of a PC: channel 2, whose gate and output are bits of port 0x61 (Intel 8254 data sheet, "Mode 0: Interrupt on
// Terminal Count").
const PIT_RATE: u64 = 1_193_182;
const PIT_CHANNEL_2: u16 = 0x42;
const PIT_CONTROL: u16 = 0x43;
const CHANNEL_2_MODE_0: u32 = 0xb0;
const GATE_PORT: u16 = 0x61;
const GATE_ON: u32 = 1 << 0;
const SPEAKER_ON: u32 = 1 << 1;
const OUTPUT: u32 = 1 << 5;

/// Ten milliseconds.
const PIT_TICKS: u32 = 11_932;
/// A measurement in which no more than this part of its length is in doubt is good enough.
const GOOD_ENOUGH: u64 = 1000;
/// How often to measure until one is. A host that runs other things meanwhile spoils some.
const ROUNDS: u32 = 10;
/// Reads of the port before the timer counts as stuck; a real port takes about a microsecond, an emulated one more.
const POLLS: u32 = 1 << 20;

/// Measures the rate of `counter` with the PC's timer, in 10 ms, or in ten times that where the host keeps interrupting.
///
/// Ask CPUID first ([`tsc_rate`](crate::cpu::cpuid::tsc_rate)): what the processor tells is exact.
///
/// # Errors
/// [`Error::ClockStuck`] if the timer is not there or does not run, or the counter does not; [`Error::PortRefused`] if a port
/// cannot be accessed.
pub fn calibrate<P: PortCall>(ports: P, counter: &impl Counter) -> Result<Hertz> {
    let mut timer = Pit { ports };
    let mut best: Option<Measurement> = None;
    for _ in 0..ROUNDS {
        let Some(round) = timer.measure(counter)? else {
            continue;
        };
        if best.is_none_or(|best| round.doubt() < best.doubt()) {
            best = Some(round);
        }
        if round.doubt() <= round.longest / GOOD_ENOUGH {
            break;
        }
    }
    best.and_then(Measurement::rate).ok_or(Error::ClockStuck)
}

/// The counter's advance during one run of the timer lies between these.
#[derive(Clone, Copy)]
struct Measurement {
    shortest: u64,
    longest: u64,
}

impl Measurement {
    const fn doubt(self) -> u64 {
        self.longest.saturating_sub(self.shortest)
    }

    fn rate(self) -> Option<Hertz> {
        let ticks = u128::from(self.shortest.midpoint(self.longest));
        u64::try_from(ticks * u128::from(PIT_RATE) / u128::from(PIT_TICKS))
            .ok()
            .and_then(Hertz::new)
    }
}

struct Pit<P> {
    ports: P,
}

impl<P: PortCall> Pit<P> {
    /// Runs the timer once; `None` if nobody saw it run.
    fn measure(&mut self, counter: &impl Counter) -> Result<Option<Measurement>> {
        let idle = self.load(GATE_PORT)? & !(GATE_ON | SPEAKER_ON);
        self.store(GATE_PORT, idle | GATE_ON)?;
        self.store(PIT_CONTROL, CHANNEL_2_MODE_0)?;
        self.store(PIT_CHANNEL_2, PIT_TICKS & 0xff)?;
        let before_start = counter.count();
        self.store(PIT_CHANNEL_2, PIT_TICKS >> 8)?; // starts the timer
        let after_start = counter.count();
        // Where there is no timer, the port reads as all ones: an output that was never low proves nothing.
        let mut before_end = None;
        for _ in 0..POLLS {
            let now = counter.count();
            if self.load(GATE_PORT)? & OUTPUT == 0 {
                before_end = Some(now);
                continue;
            }
            let after_end = counter.count();
            self.store(GATE_PORT, idle)?;
            return Ok(before_end.map(|before_end| Measurement {
                shortest: before_end.saturating_sub(after_start),
                longest: after_end.saturating_sub(before_start),
            }));
        }
        Err(Error::ClockStuck)
    }

    fn load(&mut self, port: u16) -> Result<u32> {
        self.ports
            .port_read(port, Width::Byte)
            .map_err(|_| Error::PortRefused { port })
    }

    fn store(&mut self, port: u16, value: u32) -> Result<()> {
        self.ports
            .port_write(port, Width::Byte, value)
            .map_err(|_| Error::PortRefused { port })
    }
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;

    use super::*;

    /// A timer and a counter that both advance when someone looks.
    #[derive(Debug)]
    struct Machine {
        time_ns: Cell<u64>,
        rate: u64,
        ends_at: Cell<Option<u64>>,
        low_byte: Cell<Option<u32>>,
        disturbed: Cell<bool>,
    }

    impl Machine {
        fn new(rate: u64) -> Self {
            Self {
                time_ns: Cell::new(0),
                rate,
                ends_at: Cell::new(None),
                low_byte: Cell::new(None),
                disturbed: Cell::new(false),
            }
        }
    }

    impl Counter for &Machine {
        fn count(&self) -> u64 {
            self.time_ns.get() * self.rate / 1_000_000_000
        }
    }

    impl PortCall for &Machine {
        type Error = core::convert::Infallible;

        fn port_read(&mut self, port: u16, _: Width) -> Result<u32, Self::Error> {
            assert_eq!(port, GATE_PORT);
            self.time_ns.set(self.time_ns.get() + 1000);
            if self.disturbed.take() {
                self.time_ns.set(self.time_ns.get() + 50_000_000);
            }
            Ok(
                if self
                    .ends_at
                    .get()
                    .is_some_and(|end| self.time_ns.get() >= end)
                {
                    OUTPUT
                } else {
                    0
                },
            )
        }

        fn port_write(&mut self, port: u16, _: Width, value: u32) -> Result<(), Self::Error> {
            match (port, self.low_byte.get()) {
                (PIT_CHANNEL_2, None) => self.low_byte.set(Some(value)),
                (PIT_CHANNEL_2, Some(low)) => {
                    self.low_byte.set(None);
                    let ns = u64::from(value << 8 | low) * 1_000_000_000 / PIT_RATE;
                    self.ends_at.set(Some(self.time_ns.get() + ns));
                }
                (PIT_CONTROL, _) => self.ends_at.set(None),
                _ => {}
            }
            Ok(())
        }
    }

    #[test]
    fn rate_is_found_in_spite_of_a_disturbance() {
        for rate in [50_000_000, 1_000_000_000, 4_200_000_000] {
            let machine = Machine::new(rate);
            machine.disturbed.set(true);
            let found = calibrate(&machine, &&machine).unwrap().as_u64();
            assert!(found.abs_diff(rate) < rate / 1000, "{found} is not {rate}");
        }
    }

    #[test]
    fn absent_and_stuck_timers_are_errors() {
        /// Reads as the same value for ever.
        struct Constant(u32);
        impl PortCall for Constant {
            type Error = core::convert::Infallible;
            fn port_read(&mut self, _: u16, _: Width) -> Result<u32, Self::Error> {
                Ok(self.0)
            }
            fn port_write(&mut self, _: u16, _: Width, _: u32) -> Result<(), Self::Error> {
                Ok(())
            }
        }
        let machine = Machine::new(1_000_000_000);
        assert_eq!(calibrate(Constant(0), &&machine), Err(Error::ClockStuck));
        assert_eq!(calibrate(Constant(0xff), &&machine), Err(Error::ClockStuck));
    }

    #[test]
    fn stuck_counter_is_an_error() {
        let machine = Machine::new(0);
        assert_eq!(calibrate(&machine, &&machine), Err(Error::ClockStuck));
    }
}
