//! Time since power came, and the clock that goes on over resets (Part 1, clause 36).

use super::{Core, permanent::Orderly};
use crate::{
    rc::Rc,
    wire::{Marshal, Reader, Writer},
};

/// The clock is saved whenever it passes a multiple of this (`NV_CLOCK_UPDATE_INTERVAL` is 12 bits).
pub(crate) const UPDATE_MS: u64 = 1 << 12;

/// Time and clock, in milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Time {
    /// Since the power came.
    pub(crate) time: u64,
    pub(crate) clock: u64,
    /// No higher value of the clock was ever reported.
    pub(crate) safe: bool,
    /// What the source said last.
    last: Option<u64>,
    /// What had passed since the last command when the TPM was suspended.
    owed: u64,
    /// When the failed tries were last counted down, and the lockout's authorization disabled.
    pub(crate) self_heal: u64,
    pub(crate) lockout: u64,
    /// `TPM_CLOCK_ADJUST`, as asked for: the source is not ours to tune, so it is remembered only.
    pub(crate) rate: i8,
}

impl Time {
    fn passed(&self, now: u64) -> u64 {
        now.saturating_sub(self.last.unwrap_or(now))
            .saturating_add(self.owed)
    }

    /// Writes what a resumed TPM goes on with; the source's own count means nothing to another source.
    pub(crate) fn write_owing(&self, owed: u64, w: &mut Writer<'_>) -> Result<(), Rc> {
        w.put(&self.time)?;
        w.put(&self.clock)?;
        w.put(&self.safe)?;
        w.put(&owed)?;
        w.put(&self.self_heal)?;
        w.put(&self.lockout)?;
        w.put(&self.rate.to_be_bytes())
    }

    /// The time that was written; from `now` on, the source's counts.
    pub(crate) fn read_at(now: u64, r: &mut Reader<'_>) -> Result<Self, Rc> {
        Ok(Self {
            time: r.read()?,
            clock: r.read()?,
            safe: r.read()?,
            last: Some(now),
            owed: r.read()?,
            self_heal: r.read()?,
            lockout: r.read()?,
            rate: i8::from_be_bytes(r.array()?),
        })
    }
}

impl Core<'_> {
    /// Brings time and clock up to date; called before each command.
    pub(crate) fn tick(&mut self) {
        let now = self.outside.clock().now_ms();
        let passed = self.time.passed(now);
        self.time.owed = 0;
        self.time.last = Some(now);
        if !self.started {
            return;
        }
        self.time.time = self.time.time.saturating_add(passed);
        self.set_clock(self.time.clock.saturating_add(passed));
        self.heal();
        if self.timers.count > 0 {
            self.timers.tick(self.time.time);
        }
    }

    /// What has passed since time and clock were brought up to date.
    pub(crate) fn time_owed(&mut self) -> u64 {
        let now = self.outside.clock().now_ms();
        self.time.passed(now)
    }

    /// Sets the clock, and saves it if it passed the next multiple of the interval.
    pub(crate) fn set_clock(&mut self, clock: u64) {
        self.time.clock = clock;
        if clock / UPDATE_MS > self.permanent.clock / UPDATE_MS {
            self.permanent.clock = clock - clock % UPDATE_MS;
            self.time.safe = true;
            self.dirty = true;
        }
    }

    /// The clock after power came: from where it was saved.
    pub(crate) fn start_clock(&mut self, previous: Orderly) {
        self.time.time = 0;
        self.time.clock = self.permanent.clock;
        self.time.safe = previous != Orderly::None;
        self.time.self_heal = 0;
        self.time.lockout = 0;
    }

    /// `TPMS_CLOCK_INFO`.
    pub(crate) const fn clock_info(&self) -> ClockInfo {
        ClockInfo {
            clock: self.time.clock,
            reset_count: self.permanent.reset_count,
            restart_count: self.reset.restart_count,
            safe: self.time.safe,
        }
    }
}

/// `TPMS_CLOCK_INFO`: clock, counts of resets and restarts, and whether the clock can be trusted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClockInfo {
    pub(crate) clock: u64,
    pub(crate) reset_count: u32,
    pub(crate) restart_count: u32,
    pub(crate) safe: bool,
}

impl Marshal for ClockInfo {
    fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        w.put(&self.clock)?;
        w.put(&self.reset_count)?;
        w.put(&self.restart_count)?;
        w.put(&self.safe)
    }
}
