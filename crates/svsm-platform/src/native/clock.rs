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
/// How often the shortest of several measurements is taken: what disturbs one makes it longer, never shorter.
const ROUNDS: u32 = 3;
/// Reads of the port before the timer counts as stuck; a real port takes about a microsecond, an emulated one more.
const POLLS: u32 = 1 << 20;

/// Measures the rate of `counter` with the PC's timer, in about 30 ms.
///
/// Ask CPUID first ([`tsc_rate`](crate::cpu::cpuid::tsc_rate)): what the processor tells is exact.
///
/// # Errors
/// [`Error::ClockStuck`] if the timer does not run, or the counter does not; what the ports say becomes
/// [`Error::PortRefused`].
pub fn calibrate<P: PortCall>(ports: &mut P, counter: &impl Counter) -> Result<Hertz> {
    let mut shortest = u64::MAX;
    for _ in 0..ROUNDS {
        shortest = shortest.min(measure(ports, counter)?);
    }
    let rate = u128::from(shortest) * u128::from(PIT_RATE) / u128::from(PIT_TICKS);
    u64::try_from(rate)
        .ok()
        .and_then(Hertz::new)
        .ok_or(Error::ClockStuck)
}

fn measure<P: PortCall>(ports: &mut P, counter: &impl Counter) -> Result<u64> {
    let mut gate = PortByte {
        ports,
        port: GATE_PORT,
    };
    let idle = gate.load()? & !(GATE_ON | SPEAKER_ON);
    gate.store(idle | GATE_ON)?;
    PortByte {
        ports,
        port: PIT_CONTROL,
    }
    .store(CHANNEL_2_MODE_0)?;
    PortByte {
        ports,
        port: PIT_CHANNEL_2,
    }
    .store(PIT_TICKS & 0xff)?;
    PortByte {
        ports,
        port: PIT_CHANNEL_2,
    }
    .store(PIT_TICKS >> 8)?;
    // The second byte starts the count.
    let start = counter.count();
    let mut gate = PortByte {
        ports,
        port: GATE_PORT,
    };
    for _ in 0..POLLS {
        if gate.load()? & OUTPUT != 0 {
            let end = counter.count();
            gate.store(idle)?;
            return end
                .checked_sub(start)
                .filter(|ticks| *ticks != 0)
                .ok_or(Error::ClockStuck);
        }
    }
    Err(Error::ClockStuck)
}

struct PortByte<'a, P> {
    ports: &'a mut P,
    port: u16,
}

impl<P: PortCall> PortByte<'_, P> {
    fn load(&mut self) -> Result<u32> {
        self.ports
            .port_read(self.port, Width::Byte)
            .map_err(|_| Error::PortRefused { port: self.port })
    }

    fn store(&mut self, value: u32) -> Result<()> {
        self.ports
            .port_write(self.port, Width::Byte, value)
            .map_err(|_| Error::PortRefused { port: self.port })
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
            let found = calibrate(&mut &machine, &&machine).unwrap().as_u64();
            assert!(found.abs_diff(rate) < rate / 1000, "{found} is not {rate}");
        }
    }

    #[test]
    fn stuck_timer_and_stuck_counter_are_errors() {
        struct Stuck;
        impl PortCall for Stuck {
            type Error = core::convert::Infallible;
            fn port_read(&mut self, _: u16, _: Width) -> Result<u32, Self::Error> {
                Ok(0)
            }
            fn port_write(&mut self, _: u16, _: Width, _: u32) -> Result<(), Self::Error> {
                Ok(())
            }
        }
        let machine = Machine::new(0);
        assert_eq!(calibrate(&mut Stuck, &&machine), Err(Error::ClockStuck));
        assert_eq!(calibrate(&mut &machine, &&machine), Err(Error::ClockStuck));
    }
}
