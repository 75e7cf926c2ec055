use core::num::NonZeroU32;

use super::{Apic, LVT_MASKED, LocalApic, Register};
use crate::Vector;

/// How the timer goes on after it has fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum TimerMode {
    /// It fires once, that many counts from now.
    OneShot(NonZeroU32),
    /// It fires every so many counts.
    Periodic(NonZeroU32),
    /// It fires when the time-stamp counter reaches what [`super::X2Apic::set_deadline`] says.
    /// CPUID leaf 1 tells in ECX bit 24 whether the timer can do that.
    Deadline,
}

/// Clocks per count of the timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u32)]
#[expect(missing_docs, reason = "numbers bear their own names")]
pub enum Divide {
    By1 = 0b1011,
    By2 = 0b0000,
    By4 = 0b0001,
    By8 = 0b0010,
    By16 = 0b0011,
    By32 = 0b1000,
    By64 = 0b1001,
    By128 = 0b1010,
}

impl<A: LocalApic> Apic<A> {
    /// Starts the timer, which raises `vector` whenever it fires.
    ///
    /// # Errors
    /// Which access did not happen; the timer may then be stopped.
    pub fn start_timer(
        &mut self,
        vector: Vector,
        mode: TimerMode,
        divide: Divide,
    ) -> Result<(), A::Error> {
        let vector = u32::from(vector.as_u8());
        let (mode, count) = match mode {
            TimerMode::OneShot(count) => (0, count.get()),
            TimerMode::Periodic(count) => (1 << 17, count.get()),
            TimerMode::Deadline => (2 << 17, 0),
        };
        self.write(Register::TIMER_DIVIDE, divide as u32)?;
        self.write(Register::LVT_TIMER, mode | vector)?;
        // In deadline mode the count does nothing; 0 ends what an earlier mode left running.
        self.write(Register::TIMER_INITIAL, count)
    }

    /// Starts the timer without an interrupt at its end, for measuring.
    ///
    /// # Errors
    /// Which access did not happen; the timer may then be stopped.
    pub fn start_counting(&mut self, divide: Divide) -> Result<(), A::Error> {
        self.write(Register::TIMER_DIVIDE, divide as u32)?;
        self.write(Register::LVT_TIMER, LVT_MASKED)?;
        self.write(Register::TIMER_INITIAL, u32::MAX)
    }

    /// Counts since [`start_counting`](Self::start_counting), up to the counter's 32 bits.
    ///
    /// # Errors
    /// Why they were not read.
    pub fn counted(&mut self) -> Result<u32, A::Error> {
        self.read(Register::TIMER_CURRENT)
            .map(|current| u32::MAX - current)
    }

    /// Stops the timer. An interrupt that it has raised already still arrives.
    ///
    /// # Errors
    /// Which access did not happen.
    pub fn stop_timer(&mut self) -> Result<(), A::Error> {
        self.write(Register::LVT_TIMER, LVT_MASKED)?;
        self.write(Register::TIMER_INITIAL, 0)
    }
}
