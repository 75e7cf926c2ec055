use core::num::NonZeroU64;

/// A moment, in ticks of one clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Ticks(u64);

impl Ticks {
    /// That many ticks after the clock's zero.
    #[must_use]
    pub const fn new(ticks: u64) -> Self {
        Self(ticks)
    }

    /// The plain number.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Ticks from `earlier` to this; zero if the clock went backwards, as a host can make it.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Ticks in a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Hertz(NonZeroU64);

impl Hertz {
    /// That many ticks in a second; `None` for a clock that stands still.
    #[must_use]
    pub const fn new(ticks_per_second: u64) -> Option<Self> {
        match NonZeroU64::new(ticks_per_second) {
            Some(rate) => Some(Self(rate)),
            None => None,
        }
    }

    /// The plain number.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0.get()
    }

    /// How long `ticks` last in nanoseconds, rounded down; the largest number if that takes more than 64 bits.
    #[must_use]
    pub const fn to_ns(self, ticks: u64) -> u64 {
        saturate(ticks as u128 * 1_000_000_000 / self.0.get() as u128)
    }

    /// The ticks that last at least `ns` nanoseconds; the largest number if that takes more than 64 bits.
    #[must_use]
    pub const fn from_ns(self, ns: u64) -> u64 {
        saturate((ns as u128 * self.0.get() as u128).div_ceil(1_000_000_000))
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "compared right before; `TryFrom` is not const"
)]
const fn saturate(value: u128) -> u64 {
    if value > u64::MAX as u128 {
        u64::MAX
    } else {
        value as u64
    }
}

/// Tells the time since some start.
pub trait Clock {
    /// The moment.
    fn now(&self) -> Ticks;

    /// How fast it runs.
    fn rate(&self) -> Hertz;

    /// Whether the host is kept from changing moment and rate. Deadlines against the host need a clock that is.
    fn is_trusted(&self) -> bool;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn waits_are_never_too_short(rate in 1..=10_000_000_000_u64, ns in 0..=1_000_000_000_000_u64) {
            let rate = Hertz::new(rate).unwrap();
            let ticks = rate.from_ns(ns);
            prop_assert!(u128::from(ticks) * 1_000_000_000 >= u128::from(ns) * u128::from(rate.as_u64()));
        }

        #[test]
        fn conversions_saturate(rate in any::<u64>(), value in any::<u64>()) {
            let Some(rate) = Hertz::new(rate) else { return Ok(()) };
            prop_assert!(rate.to_ns(rate.from_ns(value)) >= value.min(rate.to_ns(u64::MAX)));
        }
    }
}
