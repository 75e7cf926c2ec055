//! Self-test (clause 10). An algorithm is tested before its first use; these commands test it at a time of the caller's choice.

use super::{Call, capability::algorithms};
use crate::{
    alg::Alg,
    rc::{Rc, Stop, ensure},
    state::{Core, selftest::Tests},
};

/// `MAX_ALG_LIST_SIZE`: one may name an algorithm twice.
const ALG_LIST_MAX: u32 = 64;

/// TPM2_SelfTest (clause 10.2).
pub(crate) fn self_test(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let full: bool = call.param()?;
    call.end()?;
    if full {
        core.test_all_anew()
    } else {
        core.require(core.all_tests())
    }
}

/// TPM2_IncrementalSelfTest (clause 10.3).
pub(crate) fn incremental_self_test(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let asked = call.param_with(|r| {
        let count = r.read::<u32>()?;
        ensure(count <= ALG_LIST_MAX, Rc::SIZE)?;
        let mut asked = Some(Tests::empty());
        for _ in 0..count {
            let alg: Alg = r.read()?;
            let known = algorithms(core).any(|(known, _)| known == alg);
            asked = asked.filter(|_| known).map(|t| t | Tests::of_alg(alg));
        }
        Ok(asked)
    })?;
    call.end()?;
    core.require(asked.ok_or(Rc::VALUE.param(1))?)?;
    let tested = core.tested;
    let left = algorithms(core)
        .map(|(alg, _)| alg)
        .filter(|alg| !tested.contains(Tests::of_alg(*alg)));
    call.put(&u32::try_from(left.clone().count()).map_err(|_| Rc::SIZE)?)?;
    for alg in left {
        call.put(&alg)?;
    }
    Ok(())
}

/// TPM2_GetTestResult (clause 10.4).
pub(crate) fn get_test_result(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    call.end()?;
    call.put(&0u16)?;
    let result = if core.failed {
        Rc::FAILURE
    } else if core.tested == core.all_tests() {
        Rc::SUCCESS
    } else {
        Rc::NEEDS_TEST
    };
    Ok(call.put(&result.as_u32())?)
}
