#![expect(
    unsafe_code,
    reason = "a start-up command decides what code another CPU runs"
)]

use core::fmt;

use svsm_platform::addr::{Gpa, PageSize};

use crate::Vector;

/// The identity of a local APIC: 32 bits in x2APIC mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ApicId(u32);

impl ApicId {
    /// The APIC with that number.
    #[must_use]
    pub const fn new(id: u32) -> Self {
        Self(id)
    }

    /// The plain number.
    #[must_use]
    pub const fn as_u32(self) -> u32 {
        self.0
    }
}

/// Who gets an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Target {
    /// One CPU.
    One(ApicId),
    /// The sender.
    Itself,
    /// Every CPU that has its APIC on.
    All,
    /// Every CPU but the sender.
    Others,
}

/// The page at which a started CPU begins, in real mode: below 1 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct StartPage(u8);

impl StartPage {
    /// The page that starts at `address`, if a CPU can start there.
    #[must_use]
    pub fn new(address: Gpa) -> Option<Self> {
        // Of the vectors of this command, A0 to BF are reserved; they would be video memory.
        let number = u8::try_from(address.as_u64() >> PageSize::Size4K.shift()).ok()?;
        (address.is_aligned(PageSize::Size4K) && !(0xa0..=0xbf).contains(&number))
            .then_some(Self(number))
    }
}

/// What the interrupt command register takes: an interrupt, and who gets it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Command(u64);

impl Command {
    const NMI: u64 = 4 << 8;
    const INIT: u64 = 5 << 8;
    const START_UP: u64 = 6 << 8;
    const ASSERT: u64 = 1 << 14;

    /// An ordinary interrupt.
    #[must_use]
    pub const fn fixed(target: Target, vector: Vector) -> Self {
        Self::new(target, Self::ASSERT | vector.as_u8() as u64)
    }

    /// A non-maskable interrupt. (Self and all including self can't get one by shorthand.)
    #[must_use]
    pub const fn nmi(target: Target) -> Self {
        Self::new(target, Self::ASSERT | Self::NMI)
    }

    /// Resets CPUs into waiting for a [`start_up`](Self::start_up).
    #[must_use]
    pub const fn init(target: Target) -> Self {
        Self::new(target, Self::ASSERT | Self::INIT)
    }

    /// Starts CPUs that wait after [`init`](Self::init).
    ///
    /// # Safety
    /// The page holds code that brings those CPUs up without touching memory in use, as long as
    /// they may still start there.
    #[must_use]
    pub const unsafe fn start_up(target: Target, page: StartPage) -> Self {
        Self::new(target, Self::ASSERT | Self::START_UP | page.0 as u64)
    }

    /// The 64 bits that x2APIC mode takes, and that hosts take in its stead.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    const fn new(target: Target, what: u64) -> Self {
        Self(match target {
            Target::One(id) => (id.0 as u64) << 32 | what,
            Target::Itself => 1 << 18 | what,
            Target::All => 2 << 18 | what,
            Target::Others => 3 << 18 | what,
        })
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Command({:#x})", self.0)
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for Command {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Command({=u64:#x})", self.0);
    }
}

#[cfg(test)]
mod tests {
    use svsm_platform::addr::Gpa;

    use super::{ApicId, Command, StartPage, Target};
    use crate::Vector;

    #[test]
    fn commands_are_encoded_as_the_manual_says() {
        let one = Target::One(ApicId::new(0x1_0203));
        let vector = Vector::new(0x41).unwrap();
        assert_eq!(Command::fixed(one, vector).as_u64(), 0x0001_0203_0000_4041);
        assert_eq!(Command::fixed(Target::Itself, vector).as_u64(), 0x4_4041);
        assert_eq!(Command::fixed(Target::All, vector).as_u64(), 0x8_4041);
        assert_eq!(Command::nmi(Target::Others).as_u64(), 0xc_4400);
        assert_eq!(Command::init(one).as_u64(), 0x0001_0203_0000_4500);
        let page = StartPage::new(Gpa::new(0x8000).unwrap()).unwrap();
        // SAFETY: it is never sent.
        let start = unsafe { Command::start_up(one, page) };
        assert_eq!(start.as_u64(), 0x0001_0203_0000_4608);
    }

    #[test]
    fn cpus_start_only_where_real_mode_reaches() {
        for (address, fits) in [
            (0x8000, true),
            (0x8001, false),
            (0xa_0000, false),
            (0xf_f000, true),
            (0x10_0000, false),
        ] {
            assert_eq!(
                StartPage::new(Gpa::new(address).unwrap()).is_some(),
                fits,
                "{address:#x}"
            );
        }
    }
}
