//! Dictionary attacks (clause 25).

use super::Call;
use crate::{rc::Stop, state::Core};

/// TPM2_DictionaryAttackLockReset (clause 25.2).
pub(crate) fn lock_reset(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    call.end()?;
    core.permanent.failed_tries = 0;
    core.dirty = true;
    Ok(())
}

/// TPM2_DictionaryAttackParameters (clause 25.3).
pub(crate) fn parameters(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let max_tries = call.param()?;
    let recovery_time = call.param()?;
    let lockout_recovery = call.param()?;
    call.end()?;
    core.permanent.max_tries = max_tries;
    core.permanent.recovery_time = recovery_time;
    core.permanent.lockout_recovery = lockout_recovery;
    // A lockout that is over by the new rules ends with the next command.
    core.time.self_heal = core.time.time;
    core.time.lockout = core.time.time;
    core.dirty = true;
    Ok(())
}
