//! Integrity collection: PCRs (clause 22).

use super::Call;
use crate::{
    alg::HashAlg,
    bytes::Bytes,
    crypto::Digest,
    handle::Handle,
    rc::{Rc, Stop, ensure},
    state::{
        Core,
        pcr::rule_of,
        permanent::{Permanent, Policy},
    },
    structures::pcr::{PCR_COUNT, PcrSelection, PcrSelections, SELECT_LEN},
};

/// Digests in a response: eight at most.
const DIGESTS_MAX: usize = 8;

impl Core<'_> {
    /// Extends a PCR of a bank, if the bank has it.
    pub(crate) fn extend_pcr(&mut self, bank: HashAlg, pcr: usize, digest: &[u8]) {
        if self.permanent.allocated(bank).selects(pcr) {
            self.pcrs.extend(self.crypto, bank, pcr, digest);
        }
    }

    /// Says that a PCR changed: policies that depend on PCRs must look again, and a saved state is no longer the state.
    pub(crate) fn pcr_changed(&mut self, pcr: usize) {
        if rule_of(pcr).counted {
            self.reset.pcr_counter = self.reset.pcr_counter.wrapping_add(1);
        }
        self.end_orderly();
    }

    fn may_extend(&self, pcr: usize, locality: u8) -> Result<(), Rc> {
        ensure(
            locality < 5 && rule_of(pcr).extend & 1 << locality != 0,
            Rc::LOCALITY,
        )
    }
}

/// TPM2_PCR_Extend (clause 22.2).
pub(crate) fn extend(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let digests = call.param_with(|r| {
        let count = r.read::<u32>()? as usize;
        let mut digests: [Option<(HashAlg, &[u8])>; HashAlg::ALL.len()] =
            [None; HashAlg::ALL.len()];
        ensure(count <= digests.len(), Rc::SIZE)?;
        for place in digests.iter_mut().take(count) {
            let alg: HashAlg = r.read()?;
            *place = Some((alg, r.take(alg.digest_len())?));
        }
        Ok(digests)
    })?;
    call.end()?;
    let handle = call.handle_at(0);
    if handle == Handle::NULL {
        return Ok(());
    }
    let pcr = handle.index();
    core.may_extend(pcr, call.locality)?;
    for (bank, digest) in digests.into_iter().flatten() {
        core.extend_pcr(bank, pcr, digest);
    }
    core.pcr_changed(pcr);
    Ok(())
}

/// TPM2_PCR_Event (clause 22.3).
pub(crate) fn event(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let data = call.param_with(|r| r.sized(1024))?;
    call.end()?;
    let handle = call.handle_at(0);
    if handle != Handle::NULL {
        core.may_extend(handle.index(), call.locality)?;
    }
    call.put(&HashAlg::COUNT)?;
    for bank in HashAlg::ALL {
        let digest = core.crypto.hash(bank, &[data]);
        call.put(&bank)?;
        call.out.bytes(digest.as_slice())?;
        if handle != Handle::NULL {
            core.extend_pcr(bank, handle.index(), digest.as_slice());
        }
    }
    if handle != Handle::NULL {
        core.pcr_changed(handle.index());
    }
    Ok(())
}

/// TPM2_PCR_Read (clause 22.4).
pub(crate) fn read(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let mut selections: PcrSelections = call.param()?;
    call.end()?;
    core.permanent.filter(&mut selections);
    call.put(&core.reset.pcr_counter)?;
    // As many as fit; the selection tells which.
    let mut room = DIGESTS_MAX;
    for selection in selections.iter_mut() {
        for pcr in 0..PCR_COUNT {
            if selection.selects(pcr) {
                if room == 0 {
                    selection.clear(pcr);
                } else {
                    room -= 1;
                }
            }
        }
    }
    call.put(&selections)?;
    call.put(&u32::try_from(DIGESTS_MAX - room).unwrap_or(0))?;
    for selection in selections.iter() {
        for pcr in (0..PCR_COUNT).filter(|p| selection.selects(*p)) {
            call.out.sized(core.pcrs.value(selection.hash, pcr))?;
        }
    }
    Ok(())
}

/// TPM2_PCR_Allocate (clause 22.5).
pub(crate) fn allocate(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let selections: PcrSelections = call.param()?;
    call.end()?;
    let mut wanted = core.permanent.pcr_next_allocated;
    for selection in selections.iter() {
        let at = selection.hash.index() * SELECT_LEN;
        if let Some(place) = wanted.get_mut(at..at + SELECT_LEN) {
            place.copy_from_slice(&selection.select);
        }
    }
    // The start of a launch is measured into PCR 0 and 17: some bank must have both.
    let banks = || {
        HashAlg::ALL
            .into_iter()
            .map(|bank| Permanent::selection(&wanted, bank))
    };
    ensure(
        banks().any(|b| b.selects(0)) && banks().any(|b| b.selects(17)),
        Rc::PCR,
    )?;
    let size_of = |selection: PcrSelection| {
        selection.hash.digest_len() * (0..PCR_COUNT).filter(|p| selection.selects(*p)).count()
    };
    let needed: usize = banks().map(size_of).sum();
    core.permanent.pcr_next_allocated = wanted;
    core.pcr_reconfigured = true;
    core.dirty = true;
    call.put(&true)?;
    call.put(&u32::try_from(PCR_COUNT).unwrap_or(0))?;
    call.put(&u32::try_from(needed).unwrap_or(u32::MAX))?;
    // There is room for all PCRs of all banks.
    let all: usize = HashAlg::ALL
        .iter()
        .map(|bank| bank.digest_len() * PCR_COUNT)
        .sum();
    Ok(call.put(&u32::try_from(all).unwrap_or(u32::MAX))?)
}

/// TPM2_PCR_SetAuthPolicy (clause 22.6).
pub(crate) fn set_auth_policy(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let digest: Digest = call.param()?;
    let alg = call.param_with(HashAlg::read_or_null)?;
    let pcr: Handle = call.param()?;
    crate::table::Kind::Pcr
        .check(pcr)
        .map_err(|rc| rc.param(3))?;
    call.end()?;
    ensure(
        digest.len() == alg.map_or(0, HashAlg::digest_len),
        Rc::SIZE.param(1),
    )?;
    ensure(rule_of(pcr.index()).group, Rc::VALUE.param(3))?;
    core.permanent.pcr_policy = Policy { alg, digest };
    core.dirty = true;
    Ok(())
}

/// TPM2_PCR_SetAuthValue (clause 22.7).
pub(crate) fn set_auth_value(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let mut auth: Bytes<64> = call.param()?;
    call.end()?;
    ensure(rule_of(call.handle_at(0).index()).group, Rc::VALUE)?;
    auth.trim_end();
    core.clear.pcr_auth = auth;
    Ok(())
}

/// TPM2_PCR_Reset (clause 22.8).
pub(crate) fn reset(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    call.end()?;
    let pcr = call.handle_at(0).index();
    let allowed = call.locality < 5 && rule_of(pcr).reset & 1 << call.locality != 0;
    ensure(allowed, Rc::LOCALITY)?;
    core.pcrs.fill(pcr, 0);
    core.pcr_changed(pcr);
    Ok(())
}
