//! Hierarchies (clause 24), but for CreatePrimary, which is with the objects.

use super::Call;
use crate::{
    alg::HashAlg,
    crypto::Digest,
    handle::{Handle, HandleKind},
    rc::{Rc, Stop, ensure},
    state::{
        Core,
        permanent::{Policy, set_command},
    },
    structures::attributes::NvAttributes,
    table::{Flags, PP_COMMANDS},
};

impl Core<'_> {
    /// Flushes the loaded objects of a hierarchy.
    fn flush_hierarchy(&mut self, hierarchy: Handle) {
        self.objects
            .flush_where(|object| object.hierarchy == hierarchy);
    }

    /// Removes the persistent objects of a hierarchy.
    fn remove_persistent_of(&mut self, hierarchy: Handle) {
        let mut next = self.nv.next_handle(HandleKind::Persistent, Handle(0));
        while let Some(handle) = next {
            if self
                .persistent_object(handle)
                .is_some_and(|o| o.hierarchy == hierarchy)
            {
                self.nv.remove(handle);
            }
            next = self
                .nv
                .next_handle(HandleKind::Persistent, Handle(handle.0 + 1));
        }
        self.dirty = true;
    }

    /// Sets a policy of a hierarchy.
    fn set_policy(&mut self, hierarchy: Handle, policy: Policy) {
        match hierarchy {
            Handle::OWNER => self.permanent.owner_policy = policy,
            Handle::ENDORSEMENT => self.permanent.endorsement_policy = policy,
            Handle::LOCKOUT => self.permanent.lockout_policy = policy,
            Handle::PLATFORM => self.clear.platform_policy = policy,
            timer => self.timers.set_policy(timer, policy),
        }
        self.dirty = true;
    }
}

/// TPM2_HierarchyControl (clause 24.2).
pub(crate) fn control(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let which: Handle = call.param()?;
    let known = matches!(
        which,
        Handle::OWNER | Handle::ENDORSEMENT | Handle::PLATFORM | Handle::PLATFORM_NV
    );
    ensure(known, Rc::VALUE.param(1))?;
    let state: bool = call.param()?;
    call.end()?;
    let auth = call.handle_at(0);
    let allowed = match which {
        // The platform controls everything; the others themselves, as long as they are enabled.
        Handle::PLATFORM | Handle::PLATFORM_NV => auth == Handle::PLATFORM,
        own => auth == Handle::PLATFORM || auth == own,
    };
    ensure(allowed, Rc::AUTH_TYPE)?;
    let old = match which {
        Handle::PLATFORM => &mut core.ph_enable,
        Handle::OWNER => &mut core.clear.sh_enable,
        Handle::ENDORSEMENT => &mut core.clear.eh_enable,
        _ => &mut core.clear.ph_enable_nv,
    };
    if *old != state {
        *old = state;
        if !state && which != Handle::PLATFORM_NV {
            core.flush_hierarchy(which);
        }
    }
    Ok(())
}

/// TPM2_SetPrimaryPolicy (clause 24.3).
pub(crate) fn set_primary_policy(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let digest: Digest = call.param()?;
    let alg = call.param_with(HashAlg::read_or_null)?;
    call.end()?;
    ensure(
        digest.len() == alg.map_or(0, HashAlg::digest_len),
        Rc::SIZE.param(1),
    )?;
    core.set_policy(call.handle_at(0), Policy { alg, digest });
    Ok(())
}

/// TPM2_ChangePPS (clause 24.4).
pub(crate) fn change_pps(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    call.end()?;
    let mut seed = [0; 64];
    let mut proof = [0; 64];
    core.random(&mut seed)?;
    core.random(&mut proof)?;
    core.permanent.pp_seed = seed;
    core.permanent.ph_proof = proof;
    core.set_policy(Handle::PLATFORM, Policy::default());
    core.flush_hierarchy(Handle::PLATFORM);
    core.remove_persistent_of(Handle::PLATFORM);
    Ok(())
}

/// TPM2_ChangeEPS (clause 24.5).
pub(crate) fn change_eps(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    call.end()?;
    let mut seed = [0; 64];
    let mut proof = [0; 64];
    core.random(&mut seed)?;
    core.random(&mut proof)?;
    core.permanent.ep_seed = seed;
    core.permanent.eh_proof = proof;
    core.permanent.ek_epoch = core.permanent.ek_epoch.wrapping_add(1);
    core.clear.eh_enable = true;
    core.permanent.endorsement_auth = Digest::EMPTY;
    core.set_policy(Handle::ENDORSEMENT, Policy::default());
    core.flush_hierarchy(Handle::ENDORSEMENT);
    core.remove_persistent_of(Handle::ENDORSEMENT);
    Ok(())
}

/// TPM2_Clear (clause 24.6).
pub(crate) fn clear(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    call.end()?;
    ensure(!core.permanent.disable_clear, Rc::DISABLED)?;
    let mut seed = [0; 64];
    let mut proofs = [[0; 64]; 2];
    core.random(&mut seed)?;
    for proof in &mut proofs {
        core.random(proof)?;
    }
    core.permanent.sp_seed = seed;
    [core.permanent.sh_proof, core.permanent.eh_proof] = proofs;
    core.clear.sh_enable = true;
    core.clear.eh_enable = true;
    core.permanent.owner_auth = Digest::EMPTY;
    core.permanent.endorsement_auth = Digest::EMPTY;
    core.permanent.lockout_auth = Digest::EMPTY;
    for hierarchy in [Handle::OWNER, Handle::ENDORSEMENT, Handle::LOCKOUT] {
        core.set_policy(hierarchy, Policy::default());
    }
    for hierarchy in [Handle::OWNER, Handle::ENDORSEMENT] {
        core.flush_hierarchy(hierarchy);
        core.remove_persistent_of(hierarchy);
    }
    let mut next = core.nv.next_handle(HandleKind::Nv, Handle(0));
    while let Some(handle) = next {
        next = core.nv.next_handle(HandleKind::Nv, Handle(handle.0 + 1));
        let owned = core
            .index(handle)
            .is_some_and(|i| !i.public.has(NvAttributes::PLATFORM_CREATE));
        if owned {
            core.remove_index(handle);
        }
    }
    core.restore_da_defaults();
    core.clear.pcr_auth = Digest::EMPTY;
    core.permanent.audit_counter = 0;
    core.permanent.reset_count = 0;
    core.reset.restart_count = 0;
    core.permanent.clock = 0;
    core.time.clock = 0;
    core.time.safe = true;
    core.reset.pcr_counter = core.reset.pcr_counter.wrapping_add(1);
    core.dirty = true;
    Ok(())
}

/// TPM2_ClearControl (clause 24.7).
pub(crate) fn clear_control(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let disable: bool = call.param()?;
    call.end()?;
    // Lockout can forbid, only the platform can allow again.
    ensure(
        disable || call.handle_at(0) != Handle::LOCKOUT,
        Rc::AUTH_FAIL,
    )?;
    core.permanent.disable_clear = disable;
    core.dirty = true;
    Ok(())
}

/// TPM2_HierarchyChangeAuth (clause 24.8).
pub(crate) fn change_auth(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let mut auth: Digest = call.param()?;
    call.end()?;
    auth.trim_end();
    match call.handle_at(0) {
        Handle::OWNER => core.permanent.owner_auth = auth,
        Handle::ENDORSEMENT => core.permanent.endorsement_auth = auth,
        Handle::LOCKOUT => core.permanent.lockout_auth = auth,
        _ => core.clear.platform_auth = auth,
    }
    core.dirty = true;
    Ok(())
}

/// TPM2_ReadOnlyControl (version 1.83, clause 24.9).
pub(crate) fn read_only_control(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let state: bool = call.param()?;
    call.end()?;
    if state != core.read_only {
        core.read_only = state;
        core.end_orderly();
    }
    Ok(())
}

/// TPM2_PP_Commands (clause 26.2).
pub(crate) fn pp_commands(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let set = call.param_with(super::capability::read_commands)?;
    let clear = call.param_with(super::capability::read_commands)?;
    call.end()?;
    for command in set.iter().filter(|c| c.has(Flags::PRESENCE)) {
        set_command(&mut core.permanent.pp_commands, command.code, true);
    }
    let others = clear.iter().filter(|c| c.code != PP_COMMANDS);
    for command in others.filter(|c| c.has(Flags::PRESENCE)) {
        set_command(&mut core.permanent.pp_commands, command.code, false);
    }
    core.dirty = true;
    Ok(())
}

/// TPM2_SetAlgorithmSet (clause 26.3).
pub(crate) fn set_algorithm_set(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let set: u32 = call.param()?;
    call.end()?;
    core.permanent.algorithm_set = set;
    core.dirty = true;
    Ok(())
}
