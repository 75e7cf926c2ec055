//! Startup and shutdown (clause 9).

use super::Call;
use crate::{
    rc::{Rc, Stop},
    state::{Core, selftest::Tests},
    wire::{Reader, Unmarshal},
};

/// `TPM_SU`: whether state is meant, or its clearing.
struct State(bool);

impl Unmarshal for State {
    fn read(r: &mut Reader<'_>) -> Result<Self, Rc> {
        match r.read::<u16>()? {
            0 => Ok(Self(false)),
            1 => Ok(Self(true)),
            _ => Err(Rc::VALUE),
        }
    }
}

/// TPM2_Startup (clause 9.3).
pub(crate) fn startup(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let State(state) = call.param()?;
    call.end()?;
    core.require(Tests::BASE)?;
    Ok(core.startup(state, call.locality)?)
}

/// TPM2_Shutdown (clause 9.4).
pub(crate) fn shutdown(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let State(state) = call.param()?;
    call.end()?;
    Ok(core.shutdown(state)?)
}
