//! Authenticated countdown timers (version 1.83: Part 1, clause 40; Part 3, clause 33).

use super::permanent::Policy;
use crate::{
    handle::Handle,
    rc::{Rc, ensure},
    wire::{Marshal, Reader, Unmarshal, Writer},
};

/// How many timers there can be. Sixteen have handles, but their policies would not fit into the head of an image.
pub(crate) const TIMERS_MAX: u8 = 8;

/// The number of seconds that stops a timer (`UINT32_MAX`).
const NEVER: u32 = u32::MAX;

/// What is left of a timer's time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Count {
    /// Nothing: it expired, or was never set.
    #[default]
    Zero,
    /// It stands still.
    Stopped,
    /// It expires when the TPM's time is this, in milliseconds.
    Until(u64),
}

impl Count {
    fn of(seconds: u32, now: u64) -> Self {
        match seconds {
            0 => Self::Zero,
            NEVER => Self::Stopped,
            // A time that does not fit is one that never comes.
            _ => Self::Until(now.saturating_add(u64::from(seconds) * 1000)),
        }
    }

    /// Seconds; what is left of the last one counts as one.
    fn seconds(self, now: u64) -> u32 {
        match self {
            Self::Zero => 0,
            Self::Stopped => NEVER,
            Self::Until(then) => {
                u32::try_from(then.saturating_sub(now).div_ceil(1000)).unwrap_or(NEVER - 1)
            }
        }
    }
}

/// A timer.
#[derive(Clone, Debug, Default)]
struct Timer {
    count: Count,
    signaled: bool,
    /// It had signaled before the TPM started.
    preserved: bool,
    /// It was set since the TPM started.
    updated: bool,
    policy: Policy,
    /// Seconds that were left, and whether it had signaled, when Shutdown(STATE) saved it.
    saved: (u32, bool),
}

/// All timers.
#[derive(Clone, Debug)]
pub(crate) struct Timers {
    /// How many the embedder has a use for.
    pub(crate) count: u8,
    all: [Timer; TIMERS_MAX as usize],
    /// The TPM was reset without a loss of power.
    pub(crate) warm: bool,
}

/// `TPMS_ACT_DATA`
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimerData {
    pub(crate) handle: Handle,
    seconds: u32,
    attributes: u32,
}

impl Marshal for TimerData {
    fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        w.put(&self.handle)?;
        w.put(&self.seconds)?;
        w.put(&self.attributes)
    }
}

impl Timers {
    pub(crate) fn new() -> Self {
        Self {
            count: 0,
            all: Default::default(),
            warm: false,
        }
    }

    fn used(&self) -> &[Timer] {
        self.all.get(..usize::from(self.count)).unwrap_or_default()
    }

    /// The handles that name a timer, in ascending order.
    pub(crate) fn handles(&self) -> impl Iterator<Item = Handle> + use<> {
        (0..u32::from(self.count)).map(|n| Handle(Handle::ACT_FIRST + n))
    }

    /// Whether a handle names a timer.
    pub(crate) fn has(&self, handle: Handle) -> bool {
        handle.timer().is_some_and(|n| n < usize::from(self.count))
    }

    /// The timers with their state, at this moment of the TPM's time.
    pub(crate) fn data(&self, now: u64) -> impl Iterator<Item = TimerData> {
        let states = self.used().iter().zip(self.handles());
        states.map(move |(timer, handle)| TimerData {
            handle,
            seconds: timer.count.seconds(now),
            attributes: u32::from(timer.signaled) | u32::from(timer.preserved) << 1,
        })
    }

    /// The timers that have signaled, one bit each.
    pub(crate) fn signaled(&self) -> u16 {
        let bits = self.used().iter().zip(0u32..);
        bits.fold(0, |all, (timer, n)| all | u16::from(timer.signaled) << n)
    }

    /// When the next timer expires.
    pub(crate) fn next(&self) -> Option<u64> {
        let times = self.used().iter().filter_map(|timer| match timer.count {
            Count::Until(then) => Some(then),
            _ => None,
        });
        times.min()
    }

    /// The policy of a timer, out of the way of everything that has nothing to do with timers.
    #[cold]
    pub(crate) fn policy(&self, handle: Handle) -> Policy {
        let timer = handle.timer().and_then(|n| self.all.get(n));
        timer.map_or_else(Policy::default, |timer| timer.policy.clone())
    }

    pub(crate) fn set_policy(&mut self, handle: Handle, policy: Policy) {
        if let Some(timer) = handle.timer().and_then(|n| self.all.get_mut(n)) {
            timer.policy = policy;
        }
    }

    /// Sets a timer to so many seconds (ACT_SetTimeout). Where the reference waits for its next tick and asks to be called again, here it
    /// happens at once.
    pub(crate) fn set(&mut self, handle: Handle, seconds: u32, now: u64) -> Result<(), Rc> {
        let timer = handle.timer().and_then(|n| self.all.get_mut(n));
        let timer = timer.ok_or(Rc::VALUE.handle(1))?;
        // One that has not signaled cannot be stopped: somebody relies on it.
        ensure(seconds != NEVER || timer.signaled, Rc::VALUE.param(1))?;
        if seconds > 0 {
            timer.signaled = false;
        } else if timer.count != Count::Zero {
            timer.signaled = true;
        }
        timer.count = Count::of(seconds, now);
        timer.updated = true;
        timer.preserved = false;
        Ok(())
    }

    /// Lets timers expire.
    pub(crate) fn tick(&mut self, now: u64) {
        for timer in self.all.iter_mut().take(usize::from(self.count)) {
            if matches!(timer.count, Count::Until(then) if then <= now) {
                timer.count = Count::Zero;
                timer.signaled = true;
            }
        }
    }

    /// The power was gone: nothing signals any more.
    pub(crate) fn lose_power(&mut self) {
        self.warm = false;
        for timer in &mut self.all {
            timer.count = Count::Zero;
            timer.signaled = false;
        }
    }

    /// TPM2_Startup. The TPM's time begins at zero.
    pub(crate) fn start(&mut self, resume: bool) {
        for timer in &mut self.all {
            let (seconds, signaled) = timer.saved;
            let signaled = timer.signaled || resume && signaled;
            // The reference's ActStartup: after a loss of power nothing is preserved, on a resume neither, where only `signaled` comes back.
            timer.preserved = self.warm && (timer.preserved || signaled);
            timer.updated = false;
            if resume {
                timer.count = Count::of(seconds, 0);
                timer.signaled = signaled && seconds == 0;
            } else {
                timer.count = Count::Zero;
                timer.signaled = false;
                timer.policy = Policy::default();
            }
            timer.saved = (0, false);
        }
        self.warm = false;
    }

    /// Shutdown(STATE). A timer that was not set since the TPM started keeps half of its time, so that saving and resuming all the
    /// time does not put it off for ever.
    pub(crate) fn save(&mut self, now: u64) {
        for timer in &mut self.all {
            let left = timer.count.seconds(now);
            let halved = !timer.updated && left != NEVER && left > 1;
            timer.saved = (if halved { left / 2 } else { left }, timer.signaled);
        }
    }

    /// What Shutdown(STATE) saved.
    pub(crate) fn write_saved(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        w.put(&self.count)?;
        for timer in self.used() {
            w.put(&timer.saved.0)?;
            w.put(&timer.saved.1)?;
            w.put(&timer.preserved)?;
            w.put(&timer.policy)?;
        }
        Ok(())
    }

    /// Reads what was saved. Timers beyond those that there are now are gone.
    pub(crate) fn read_saved(&mut self, r: &mut Reader<'_>) -> Result<(), Rc> {
        let count: u8 = r.read()?;
        ensure(count <= TIMERS_MAX, Rc::VALUE)?;
        self.forget();
        for n in 0..usize::from(count) {
            let read = Timer {
                saved: (r.read()?, r.read()?),
                preserved: r.read()?,
                policy: r.read()?,
                ..Timer::default()
            };
            if let Some(timer) = self.all.get_mut(n).filter(|_| n < usize::from(self.count)) {
                *timer = read;
            }
        }
        Ok(())
    }

    /// All timers as they are when nobody ever set one.
    pub(crate) fn forget(&mut self) {
        self.all = Default::default();
    }

    /// Writes everything, for a suspended TPM.
    pub(crate) fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        w.put(&self.count)?;
        w.put(&self.warm)?;
        self.used().iter().try_for_each(|timer| w.put(timer))
    }

    /// What a suspended TPM wrote, which had as many timers; [`Rc::SIZE`] if it had not.
    pub(crate) fn read(&self, r: &mut Reader<'_>) -> Result<Self, Rc> {
        let mut it = Self::new();
        it.count = r.read()?;
        ensure(it.count == self.count, Rc::SIZE)?;
        it.warm = r.read()?;
        for timer in it.all.iter_mut().take(usize::from(it.count)) {
            *timer = r.read()?;
        }
        Ok(it)
    }
}

impl Marshal for Timer {
    fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        let (kind, until) = match self.count {
            Count::Zero => (0u8, 0),
            Count::Stopped => (1, 0),
            Count::Until(then) => (2, then),
        };
        w.put(&kind)?;
        w.put(&until)?;
        w.put(&self.signaled)?;
        w.put(&self.preserved)?;
        w.put(&self.updated)?;
        w.put(&self.policy)?;
        w.put(&self.saved.0)?;
        w.put(&self.saved.1)
    }
}

impl Unmarshal for Timer {
    fn read(r: &mut Reader<'_>) -> Result<Self, Rc> {
        let (kind, until) = (r.read::<u8>()?, r.read()?);
        Ok(Self {
            count: match kind {
                0 => Count::Zero,
                1 => Count::Stopped,
                2 => Count::Until(until),
                _ => return Err(Rc::VALUE),
            },
            signaled: r.read()?,
            preserved: r.read()?,
            updated: r.read()?,
            policy: r.read()?,
            saved: (r.read()?, r.read()?),
        })
    }
}
