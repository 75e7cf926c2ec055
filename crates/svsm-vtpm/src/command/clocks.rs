//! Clocks and timers (clause 29).

use super::Call;
use crate::{
    rc::{Rc, Stop, ensure},
    state::Core,
};

/// TPM2_ReadClock (clause 29.1).
pub(crate) fn read(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    call.end()?;
    call.put(&core.time.time)?;
    Ok(call.put(&core.clock_info())?)
}

/// TPM2_ClockSet (clause 29.2).
pub(crate) fn set(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let clock: u64 = call.param()?;
    call.end()?;
    let allowed = clock >= core.time.clock && clock <= 0xFFFF_0000_0000_0000;
    ensure(allowed, Rc::VALUE.param(1))?;
    core.set_clock(clock);
    Ok(())
}

/// TPM2_ClockRateAdjust (clause 29.3).
pub(crate) fn rate_adjust(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let rate = call.param_with(|r| {
        let rate = i8::from_ne_bytes(r.array()?);
        ensure((-3..=3).contains(&rate), Rc::VALUE)?;
        Ok(rate)
    })?;
    call.end()?;
    core.time.rate = rate;
    Ok(())
}
