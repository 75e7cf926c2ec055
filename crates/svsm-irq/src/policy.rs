//! Which interrupts may reach us at all: the firmware's word, not the host's.
//!
//! A host can inject any vector at any moment, also one that no device of the machine raises, to
//! run a handler when that suits it. Before a vector is dispatched, an [`InjectionPolicy`] is
//! asked; what nobody allowed is dropped and counted.

use crate::Vector;

/// Who brought a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Source {
    /// The local APIC: it is in service there.
    Apic,
    /// The doorbell of restricted injection.
    Doorbell,
    /// It arrived without a trace in the local APIC: the host put it straight into the processor.
    Injected,
}

impl Source {
    const COUNT: usize = 3;
}

/// Decides which vectors the host may bring.
pub trait InjectionPolicy {
    /// Whether `vector` may be dispatched when `source` brings it. Asked once for each arrival.
    fn accepts(&mut self, vector: Vector, source: Source) -> bool;
}

/// Accepts what was allowed by name, drops and counts the rest. It starts with nothing allowed.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct AllowList {
    allowed: [[u32; 8]; Source::COUNT],
    dropped: [u64; Source::COUNT],
    last_dropped: Option<(Vector, Source)>,
}

impl AllowList {
    /// Nothing allowed, nothing dropped.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            allowed: [[0; 8]; Source::COUNT],
            dropped: [0; Source::COUNT],
            last_dropped: None,
        }
    }

    /// Lets `source` bring `vector` from now on.
    pub fn allow(&mut self, vector: Vector, source: Source) {
        if let Some((word, bit)) = self.place(vector, source) {
            *word |= bit;
        }
    }

    /// No longer lets `source` bring `vector`.
    pub fn forbid(&mut self, vector: Vector, source: Source) {
        if let Some((word, bit)) = self.place(vector, source) {
            *word &= !bit;
        }
    }

    /// How many arrivals by `source` were dropped.
    #[must_use]
    pub fn dropped(&self, source: Source) -> u64 {
        self.dropped.get(source as usize).copied().unwrap_or(0)
    }

    /// What was dropped last, if anything was.
    #[must_use]
    pub const fn last_dropped(&self) -> Option<(Vector, Source)> {
        self.last_dropped
    }

    fn place(&mut self, vector: Vector, source: Source) -> Option<(&mut u32, u32)> {
        let word = self
            .allowed
            .get_mut(source as usize)?
            .get_mut(usize::from(vector.as_u8() / 32))?;
        Some((word, 1 << (vector.as_u8() % 32)))
    }
}

impl InjectionPolicy for AllowList {
    fn accepts(&mut self, vector: Vector, source: Source) -> bool {
        let allowed = self
            .place(vector, source)
            .is_some_and(|(word, bit)| *word & bit != 0);
        if !allowed {
            if let Some(count) = self.dropped.get_mut(source as usize) {
                *count = count.saturating_add(1);
            }
            self.last_dropped = Some((vector, source));
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::{AllowList, InjectionPolicy, Source};
    use crate::Vector;

    // D14 of the design: a host injects a vector that nobody allowed.
    #[test]
    fn what_nobody_allowed_is_dropped_and_counted() {
        let mut policy = AllowList::new();
        for vector in Vector::all() {
            assert!(!policy.accepts(vector, Source::Injected));
        }
        assert_eq!(policy.dropped(Source::Injected), 224);
        assert_eq!(
            policy.last_dropped(),
            Some((Vector::LAST, Source::Injected))
        );
        assert_eq!(policy.dropped(Source::Apic), 0);
    }

    #[test]
    fn a_vector_is_allowed_from_one_source_and_not_from_others() {
        let mut policy = AllowList::new();
        let vector = Vector::new(0x80).unwrap();
        policy.allow(vector, Source::Apic);
        assert!(policy.accepts(vector, Source::Apic));
        assert!(!policy.accepts(vector, Source::Injected));
        assert!(!policy.accepts(Vector::new(0x81).unwrap(), Source::Apic));
        policy.forbid(vector, Source::Apic);
        assert!(!policy.accepts(vector, Source::Apic));
    }
}
