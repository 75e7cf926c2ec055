//! Passwords and HMACs: whether the caller knows the value that a use needs.

use super::{super::dispatch, Frame, cp_hash, policy};
use crate::{
    bytes::Bytes,
    crypto::Digest,
    handle::Handle,
    rc::{Rc, ensure},
    state::{Core, entity::Entity, session::Session},
    structures::attributes::NvAttributes,
    table::Flags,
};

/// Checks that a session authorizes the use of its entity.
pub(super) fn authorize(frame: &mut Frame, core: &mut Core<'_>, n: usize) -> Result<(), Rc> {
    let Some(command) = frame.command else {
        return Err(Rc::COMMAND_CODE);
    };
    let used = frame.session(n);
    let Some(entity) = used.entity else {
        return Ok(());
    };
    let role = dispatch::role_of(frame, n);
    if entity.handle == Handle::PLATFORM {
        let demanded = command.has(Flags::PRESENCE)
            && crate::state::permanent::has_command(&core.permanent.pp_commands, command.code);
        ensure(!demanded || core.physical_presence, Rc::PP)?;
    }
    let session = core.sessions.loaded(used.handle);
    let is_policy = session.is_some_and(Session::is_policy);
    let include_auth = match session {
        None => true,
        Some(s) if s.is_policy() => s.policy.auth_value_needed || s.policy.password_needed,
        Some(s) => !is_bound_to(core, s, entity),
    };
    let by_password = session.is_none_or(|s| s.is_policy() && s.policy.password_needed);
    if let Some(place) = frame.sessions.get_mut(n) {
        place.include_auth = include_auth;
    }
    if include_auth && core.read_only {
        // Every use of a PIN's value is counted, right or wrong, and a count lasts. Nobody is told here whether the value was right.
        let is_pin = core
            .index_attributes(entity.handle)
            .is_some_and(NvAttributes::is_pin);
        ensure(!is_pin, Rc::READ_ONLY)?;
    }
    if include_auth && !core.is_da_exempt(entity) {
        core.check_lockout(entity.handle == Handle::LOCKOUT)?;
        core.note_protected_use();
    }
    let access = command.access();
    if is_policy {
        ensure(core.policy_available(entity, access), Rc::AUTH_UNAVAILABLE)?;
        policy::check(frame, core, n, entity, role)?;
    } else {
        ensure(!core.policy_required(entity, role), Rc::AUTH_TYPE)?;
        ensure(
            core.auth_available(entity, role, access),
            Rc::AUTH_UNAVAILABLE,
        )?;
    }
    let result = if by_password {
        password(frame, core, n, entity)
    } else {
        hmac(frame, core, n)
    };
    if include_auth {
        core.count_pin(entity.handle, result.is_ok());
    }
    result
}

/// Whether the session was bound to this entity, with the value that it has now.
fn is_bound_to(core: &Core<'_>, session: &Session, entity: Entity) -> bool {
    session
        .bind
        .as_ref()
        .is_some_and(|bind| bind.name == core.name_of(entity) && bind.auth == core.auth_of(entity))
}

fn password(frame: &Frame, core: &mut Core<'_>, n: usize, entity: Entity) -> Result<(), Rc> {
    let mut given = frame.session(n).auth.clone();
    given.trim_end();
    let mut right = core.auth_of(entity);
    // Both are padded, so that the time tells nothing about the length.
    given.resize(64);
    right.resize(64);
    if given == right {
        Ok(())
    } else {
        Err(wrong(frame, core, n))
    }
}

/// The key of a session's HMACs: its own, and the entity's value where it is needed.
pub(super) fn session_key(
    frame: &Frame,
    core: &Core<'_>,
    n: usize,
    session: &Session,
) -> Bytes<128> {
    let used = frame.session(n);
    let mut key: Bytes<128> = session.key.resized();
    if let (true, Some(entity)) = (used.include_auth, used.entity) {
        let _ = key.extend(core.auth_of(entity).as_slice());
    }
    key
}

/// Checks the HMAC of a session.
pub(super) fn hmac(frame: &Frame, core: &mut Core<'_>, n: usize) -> Result<(), Rc> {
    let used = frame.session(n);
    let Some(session) = core.sessions.loaded(used.handle) else {
        return Err(Rc::HANDLE);
    };
    let key = session_key(frame, core, n, session);
    if key.is_empty() && used.auth.is_empty() {
        return Ok(());
    }
    // The first session vouches for the nonces of those that encrypt, so that they cannot be exchanged.
    let nonce_of = |other: Option<usize>| match other {
        Some(other) if n == 0 && other != 0 && used.entity.is_some() => core
            .sessions
            .loaded(frame.session(other).handle)
            .map(|s| s.nonce_tpm.clone())
            .unwrap_or_default(),
        _ => Digest::EMPTY,
    };
    let decrypt = nonce_of(frame.decrypt);
    let encrypt = nonce_of(frame.encrypt.filter(|e| frame.decrypt != Some(*e)));
    let expected = core.crypto.hmac(
        session.auth_hash,
        key.as_slice(),
        &[
            cp_hash(frame, session.auth_hash).as_slice(),
            used.nonce_caller.as_slice(),
            session.nonce_tpm.as_slice(),
            decrypt.as_slice(),
            encrypt.as_slice(),
            &[used.attributes.bits()],
        ],
    );
    if expected == used.auth {
        Ok(())
    } else {
        Err(wrong(frame, core, n))
    }
}

/// Counts a wrong value, if it was a guess at a protected one.
fn wrong(frame: &Frame, core: &mut Core<'_>, n: usize) -> Rc {
    let used = frame.session(n);
    let mut handle = used.entity.map_or(Handle::UNASSIGNED, |e| e.handle);
    let exempt = used.entity.is_none_or(|entity| core.is_da_exempt(entity));
    let counts = match core.sessions.loaded(used.handle) {
        None => !exempt,
        Some(session) => {
            let bind = session.bind.as_ref();
            if bind.is_some_and(|b| b.lockout) {
                handle = Handle::LOCKOUT;
            }
            bind.is_some_and(|b| b.da || b.lockout) || !exempt && used.include_auth
        }
    };
    if !counts {
        return Rc::BAD_AUTH;
    }
    core.register_failure(handle);
    Rc::AUTH_FAIL
}
