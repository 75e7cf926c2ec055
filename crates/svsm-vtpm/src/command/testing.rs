//! Self-test (clause 10). Algorithms are tested when the provider first runs them; what is answered here is that they are.

use super::{Call, capability::ALGORITHMS};
use crate::{
    alg::Alg,
    rc::{Rc, Stop, ensure},
    state::Core,
};

/// TPM2_SelfTest (clause 10.2).
pub(crate) fn self_test(_: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let _full: bool = call.param()?;
    Ok(call.end()?)
}

/// TPM2_IncrementalSelfTest (clause 10.3).
pub(crate) fn incremental_self_test(_: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let known = call.param_with(|r| {
        let count = r.read::<u32>()?;
        ensure(count as usize <= ALGORITHMS.len(), Rc::SIZE)?;
        let mut known = true;
        for _ in 0..count {
            let asked: Alg = r.read()?;
            known &= ALGORITHMS.iter().any(|(alg, _)| *alg == asked);
        }
        Ok(known)
    })?;
    call.end()?;
    ensure(known, Rc::VALUE.param(1))?;
    // Nothing is left to be tested.
    Ok(call.put(&0u32)?)
}

/// TPM2_GetTestResult (clause 10.4).
pub(crate) fn get_test_result(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    call.end()?;
    call.put(&0u16)?;
    let result = if core.failed {
        Rc::FAILURE
    } else {
        Rc::SUCCESS
    };
    Ok(call.put(&result.as_u32())?)
}
