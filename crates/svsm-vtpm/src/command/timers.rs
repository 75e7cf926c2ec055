//! Authenticated countdown timers (version 1.83, clause 33).

use super::Call;
use crate::{rc::Stop, state::Core};

/// TPM2_ACT_SetTimeout (version 1.83, clause 33.2).
pub(crate) fn set_timeout(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let seconds: u32 = call.param()?;
    call.end()?;
    let now = core.time.time;
    Ok(core.timers.set(call.handle_at(0), seconds, now)?)
}
