//! What a policy session must have proven before it authorizes (Part 1, clause 19.7).

use super::{Frame, cp_hash, names};
use crate::{
    handle::HandleKind,
    rc::{Rc, ensure},
    state::{Core, entity::Entity, session::Bound},
    structures::attributes::NvAttributes,
    table::Role,
};

/// Checks a policy session against the policy of the entity, and all that the policy deferred.
pub(super) fn check(
    frame: &Frame,
    core: &Core<'_>,
    n: usize,
    entity: Entity,
    role: Role,
) -> Result<(), Rc> {
    let Some(command) = frame.command else {
        return Err(Rc::COMMAND_CODE);
    };
    let Some(session) = core.sessions.loaded(frame.session(n).handle) else {
        return Err(Rc::HANDLE);
    };
    let policy = core.policy_of(entity);
    ensure(
        policy.alg == Some(session.auth_hash) && policy.digest == session.policy_digest,
        Rc::POLICY_FAIL,
    )?;
    let state = &session.policy;
    if state.timeout != 0 {
        let now = core.time.time;
        ensure(
            session.epoch == core.permanent.total_reset_count,
            Rc::EXPIRED,
        )?;
        ensure(state.timeout >= now, Rc::EXPIRED)?;
    }
    ensure(
        state
            .pcr_counter
            .is_none_or(|counter| counter == core.reset.pcr_counter),
        Rc::PCR_CHANGED,
    )?;
    if state.command != 0 {
        ensure(state.command == u32::from(command.code), Rc::POLICY_CC)?;
    } else {
        // Whoever allows administration says for which command.
        ensure(role == Role::User, Rc::POLICY_FAIL)?;
    }
    check_locality(state.locality, frame.locality)?;
    match &state.bound {
        Bound::Nothing => {}
        Bound::Parameters(hash) => {
            ensure(*hash == cp_hash(frame, session.auth_hash), Rc::POLICY_FAIL)?;
        }
        Bound::Names(hash) => {
            let names = names(frame, core);
            let [a, b, c] = &names;
            let now = core.crypto.hash(
                session.auth_hash,
                &[a.as_slice(), b.as_slice(), c.as_slice()],
            );
            ensure(*hash == now, Rc::POLICY_FAIL)?;
        }
        Bound::ParametersAlone(hash) => {
            ensure(*hash == frame.session(n).parameter_hash, Rc::POLICY_FAIL)?;
        }
        // Checked by the commands that have a template.
        Bound::Template(_) => {
            ensure(
                matches!(command.code, 0x131 | 0x153 | 0x191),
                Rc::POLICY_FAIL,
            )?;
        }
    }
    if let Some(written) = state.nv_written {
        let index = (entity.handle.kind() == HandleKind::Nv).then(|| core.index(entity.handle));
        let is = index
            .flatten()
            .ok_or(Rc::POLICY_FAIL)?
            .public
            .has(NvAttributes::WRITTEN);
        ensure(is == written, Rc::POLICY_FAIL)?;
    }
    ensure(!state.presence_needed || core.physical_presence, Rc::PP)?;
    ensure(!state.channel_needed, Rc::CHANNEL)
}

fn check_locality(allowed: u8, locality: u8) -> Result<(), Rc> {
    let fits = match allowed {
        0 => true,
        bits @ 1..=31 => locality < 5 && bits & 1 << locality != 0,
        extended => extended == locality,
    };
    ensure(fits, Rc::LOCALITY)
}
