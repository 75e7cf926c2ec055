//! The random number generator (clause 16).

use super::Call;
use crate::{bytes::Bytes, crypto::Digest, rc::Stop, state::Core};

/// TPM2_GetRandom (clause 16.1).
pub(crate) fn get_random(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let asked: u16 = call.param()?;
    call.end()?;
    let bytes: Digest = core.random_bytes(usize::from(asked))?;
    Ok(call.put(&bytes)?)
}

/// TPM2_StirRandom (clause 16.2).
pub(crate) fn stir_random(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let data: Bytes<128> = call.param()?;
    call.end()?;
    Ok(core.stir(data.as_slice())?)
}
