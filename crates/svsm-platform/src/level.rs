//! Privilege: levels between SVSM and guest, rings inside a level.

/// A virtual machine privilege level of SEV-SNP. Level 0 may do most.
///
/// Deliberately without an order: "greater" would mean less privileged to some readers and more to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum Vmpl {
    /// The SVSM's own level.
    Vmpl0 = 0,
    /// The next one; customarily a guest below an SVSM starts at level 1, 2 or 3.
    Vmpl1 = 1,
    /// The third.
    Vmpl2 = 2,
    /// The least privileged.
    Vmpl3 = 3,
}

impl Vmpl {
    /// All levels, most privileged first.
    pub const ALL: [Self; 4] = [Self::Vmpl0, Self::Vmpl1, Self::Vmpl2, Self::Vmpl3];

    /// The level of that number.
    #[must_use]
    pub const fn new(level: u8) -> Option<Self> {
        match level {
            0 => Some(Self::Vmpl0),
            1 => Some(Self::Vmpl1),
            2 => Some(Self::Vmpl2),
            3 => Some(Self::Vmpl3),
            _ => None,
        }
    }

    /// The plain number.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        self as u8
    }

    /// Whether this level may change what `other` may do: RMPADJUST's rule.
    #[must_use]
    pub const fn is_above(self, other: Self) -> bool {
        self.as_u8() < other.as_u8()
    }
}

/// A current privilege level: the ring in which code runs. Ring 0 may do most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum Cpl {
    /// A kernel.
    Ring0 = 0,
    /// Unused by current systems.
    Ring1 = 1,
    /// Unused by current systems.
    Ring2 = 2,
    /// User mode.
    Ring3 = 3,
}

impl Cpl {
    /// The ring named by the two low bits of a CS or SS selector.
    #[must_use]
    pub const fn of_selector(selector: u16) -> Self {
        match selector & 3 {
            0 => Self::Ring0,
            1 => Self::Ring1,
            2 => Self::Ring2,
            _ => Self::Ring3,
        }
    }

    /// The ring of that number.
    #[must_use]
    pub const fn new(ring: u8) -> Option<Self> {
        match ring {
            0 => Some(Self::Ring0),
            1 => Some(Self::Ring1),
            2 => Some(Self::Ring2),
            3 => Some(Self::Ring3),
            _ => None,
        }
    }

    /// The plain number.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        self as u8
    }

    /// Whether page tables treat its accesses as a user's.
    #[must_use]
    pub const fn is_user(self) -> bool {
        matches!(self, Self::Ring3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip() {
        for number in 0..=u8::MAX {
            assert_eq!(
                Vmpl::new(number).map(Vmpl::as_u8),
                (number < 4).then_some(number)
            );
            assert_eq!(
                Cpl::new(number).map(Cpl::as_u8),
                (number < 4).then_some(number)
            );
        }
    }

    #[test]
    fn no_level_is_above_itself() {
        for level in Vmpl::ALL {
            assert!(!level.is_above(level));
        }
        assert!(Vmpl::Vmpl0.is_above(Vmpl::Vmpl3));
        assert!(!Vmpl::Vmpl3.is_above(Vmpl::Vmpl1));
    }
}
