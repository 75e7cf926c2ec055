//! Authorization: the sessions of a command, and those of its response (Part 1, clause 19; Part 3, clause 5.5 to 5.7).

mod policy; // what a policy demands
mod verify; // passwords and HMACs

use super::{
    audit::rp_hash,
    crypt, dispatch,
    frame::{Frame, SESSIONS_MAX, Session},
};
use crate::{
    alg::HashAlg,
    crypto::Digest,
    handle::Handle,
    rc::{About, Rc, ensure},
    state::{
        Core,
        permanent::has_command,
        session::{ACTIVE_MAX, Bound, SessionKind},
    },
    structures::{attributes::SessionAttributes as A, public::Name, scheme::ParameterCipher},
    table::{self, Flags},
    wire::{Reader, Writer},
};

/// Reads the sessions of a command, and checks what does not depend on its parameters.
pub(super) fn read_sessions(
    frame: &mut Frame,
    core: &Core<'_>,
    area: &mut Reader<'_>,
) -> Result<(), Rc> {
    while !area.is_empty() {
        let n = frame.session_count;
        let number = u32::try_from(n).unwrap_or(0) + 1;
        ensure(n < SESSIONS_MAX, Rc::SIZE.session(number))?;
        let session = read_session(frame, core, area, n).session(number)?;
        if let Some(place) = frame.sessions.get_mut(n) {
            *place = session;
        }
        frame.session_count = n + 1;
    }
    Ok(())
}

fn read_session(
    frame: &mut Frame,
    core: &Core<'_>,
    area: &mut Reader<'_>,
    n: usize,
) -> Result<Session, Rc> {
    let handle: Handle = area.read()?;
    // A number that no session can have is out of range; one that no session has now is a missing reference.
    let in_range = handle.is_session() && handle.index() < ACTIVE_MAX;
    ensure(in_range || handle == Handle::PASSWORD, Rc::VALUE)?;
    let nonce_caller: Digest = area.read()?;
    let attributes: A = area.read()?;
    let auth: Digest = area.read()?;
    let session = Session {
        handle,
        nonce_caller,
        attributes,
        auth,
        ..Session::NONE
    };
    if session.is_password() {
        ensure((attributes - A::CONTINUE).is_empty(), Rc::ATTRIBUTES)?;
        ensure(session.nonce_caller.is_empty(), Rc::NONCE)?;
        return Ok(session);
    }
    let loaded = core
        .sessions
        .loaded(handle)
        .ok_or_else(|| core.sessions.missing(handle))?;
    let Some(command) = frame.command else {
        return Err(Rc::COMMAND_CODE);
    };
    // A session has one nonce of the caller's, so it can stand in a command once.
    let used = frame.sessions().iter().any(|s| s.handle == handle);
    ensure(!used, Rc::HANDLE)?;
    if attributes.contains(A::DECRYPT) {
        ensure(
            command.has(Flags::DECRYPT) && frame.decrypt.is_none(),
            Rc::ATTRIBUTES,
        )?;
        ensure(loaded.cipher != ParameterCipher::Null, Rc::SYMMETRIC)?;
        frame.decrypt = Some(n);
    }
    if attributes.contains(A::ENCRYPT) {
        ensure(
            command.has(Flags::ENCRYPT) && frame.encrypt.is_none(),
            Rc::ATTRIBUTES,
        )?;
        ensure(loaded.cipher != ParameterCipher::Null, Rc::SYMMETRIC)?;
        frame.encrypt = Some(n);
    }
    if attributes.contains(A::AUDIT) {
        ensure(frame.audit.is_none() && !loaded.is_policy(), Rc::ATTRIBUTES)?;
        frame.audit = Some(n);
    } else {
        ensure(
            !attributes.intersects(A::AUDIT_EXCLUSIVE | A::AUDIT_RESET),
            Rc::ATTRIBUTES,
        )?;
    }
    Ok(session)
}

/// Checks all authorizations of a command.
pub(super) fn check_sessions(
    frame: &mut Frame,
    core: &mut Core<'_>,
    buffer: &[u8],
) -> Result<(), Rc> {
    let Some(command) = frame.command else {
        return Err(Rc::COMMAND_CODE);
    };
    let needed = command.auth_handles();
    ensure(needed <= frame.session_count, Rc::AUTH_MISSING)?;
    let entities = frame.entities;
    for (session, entity) in frame.sessions.iter_mut().zip(entities).take(needed) {
        session.entity = Some(entity);
    }
    compute_cp_hashes(frame, core, buffer);
    for n in 0..frame.session_count {
        let number = u32::try_from(n).unwrap_or(0) + 1;
        check_session(frame, core, n).session(number)?;
    }
    Ok(())
}

fn check_session(frame: &mut Frame, core: &mut Core<'_>, n: usize) -> Result<(), Rc> {
    let used = frame.session(n);
    if let Some(session) = core.sessions.loaded(used.handle) {
        // A trial session computes digests and is good for nothing else.
        ensure(session.kind != SessionKind::Trial, Rc::ATTRIBUTES)?;
        if used.attributes.contains(A::AUDIT_EXCLUSIVE)
            && core.exclusive_audit != Some(used.handle)
            && session.audit.is_some()
        {
            return Err(Rc::EXCLUSIVE);
        }
        if let Some(bind) = session.bind.as_ref().filter(|b| b.da || b.lockout) {
            core.check_lockout(bind.lockout)?;
        }
    }
    if used.entity.is_some() {
        return verify::authorize(frame, core, n);
    }
    // A session that authorizes nothing must be there for something else.
    ensure(!used.is_password(), Rc::HANDLE)?;
    ensure(
        used.attributes
            .intersects(A::ENCRYPT | A::DECRYPT | A::AUDIT),
        Rc::ATTRIBUTES,
    )?;
    verify::hmac(frame, core, n)
}

/// Computes the parameter hashes that the sessions and the TPM's own audit need, before parameters are decrypted. Most commands
/// come with a password, are not audited, and need none.
fn compute_cp_hashes(frame: &mut Frame, core: &Core<'_>, buffer: &[u8]) {
    let mut wanted = [false; HashAlg::ALL.len()];
    let mut want = |alg: HashAlg| {
        if let Some(flag) = wanted.get_mut(alg.index()) {
            *flag = true;
        }
    };
    for session in frame.sessions() {
        if let Some(loaded) = core.sessions.loaded(session.handle) {
            want(loaded.auth_hash);
        }
    }
    let Some(command) = frame.command else { return };
    let params = buffer.get(frame.params.clone()).unwrap_or_default();
    let code = u32::from(command.code).to_be_bytes();
    for session in frame.sessions.iter_mut().take(frame.session_count) {
        if let Some(loaded) = core.sessions.loaded(session.handle)
            && let Bound::ParametersAlone(_) = loaded.policy.bound
        {
            session.parameter_hash = core.crypto.hash(loaded.auth_hash, &[&code, params]);
        }
    }
    // The command that changes what is audited may make itself such a one.
    if command.code == table::SET_AUDIT_STATUS
        || has_command(&core.permanent.audit_commands, command.code)
    {
        want(core.permanent.audit_alg);
    }
    if !wanted.contains(&true) {
        return;
    }
    let names = names(frame, core);
    let [a, b, c] = &names;
    for (alg, _) in HashAlg::ALL
        .into_iter()
        .zip(wanted)
        .filter(|(_, wanted)| *wanted)
    {
        let parts = [&code, a.as_slice(), b.as_slice(), c.as_slice(), params];
        if let Some(place) = frame.cp_hash.get_mut(alg.index()) {
            *place = core.crypto.hash(alg, &parts);
        }
    }
}

/// The names of what the command's handles name.
fn names(frame: &Frame, core: &Core<'_>) -> [Name; 3] {
    let count = frame.command.map_or(0, |c| c.handles.len());
    let mut names = [const { Name::EMPTY }; 3];
    for (name, entity) in names.iter_mut().zip(frame.entities).take(count) {
        *name = core.name_of(entity);
    }
    names
}

/// The parameter hash of the command.
pub(super) fn cp_hash(frame: &Frame, alg: HashAlg) -> Digest {
    frame.cp_hash.get(alg.index()).cloned().unwrap_or_default()
}

/// Encrypts the response's first parameter, writes the response's sessions into `room`, and ends the sessions that shall not go on.
/// Gives the length of what it wrote.
pub(super) fn write_sessions(
    frame: &mut Frame,
    core: &mut Core<'_>,
    params: &mut [u8],
    room: &mut [u8],
) -> Result<usize, Rc> {
    for n in 0..frame.session_count {
        let used = frame.session(n);
        let handle = used.handle;
        let len = used.nonce_caller.len();
        if core.sessions.loaded(handle).is_some() {
            let nonce = core.random_bytes(len)?;
            if let Some(session) = core.sessions.loaded_mut(handle) {
                session.nonce_tpm = nonce;
            }
        }
    }
    crypt::encrypt(frame, core, params)?;
    let mut w = Writer::new(room);
    for n in 0..frame.session_count {
        write_session(frame, core, params, n, &mut w)?;
    }
    for n in 0..frame.session_count {
        end_session(frame, core, n);
    }
    Ok(w.len())
}

fn write_session(
    frame: &Frame,
    core: &Core<'_>,
    params: &[u8],
    n: usize,
    w: &mut Writer<'_>,
) -> Result<(), Rc> {
    let used = frame.session(n);
    let mut attributes = used.attributes;
    let Some(session) = core.sessions.loaded(used.handle) else {
        // A password, or a session that the command itself ended.
        w.put(&Digest::EMPTY)?;
        w.put(&(attributes | A::CONTINUE))?;
        return w.put(&Digest::EMPTY);
    };
    if dispatch::is_audit_session(used) {
        attributes.set(
            A::AUDIT_EXCLUSIVE,
            core.exclusive_audit == Some(used.handle),
        );
    }
    let rp = rp_hash(core, frame, session.auth_hash, params);
    let hmac = if session.is_policy() && session.policy.password_needed && used.entity.is_some() {
        Digest::EMPTY
    } else {
        let key = verify::session_key(frame, core, n, session);
        if key.is_empty() && used.auth.is_empty() {
            Digest::EMPTY
        } else {
            core.crypto.hmac(
                session.auth_hash,
                key.as_slice(),
                &[
                    rp.as_slice(),
                    session.nonce_tpm.as_slice(),
                    used.nonce_caller.as_slice(),
                    &[attributes.bits()],
                ],
            )
        }
    };
    w.put(&session.nonce_tpm)?;
    w.put(&attributes)?;
    w.put(&hmac)
}

/// A session that shall not go on is flushed; a policy that was used begins anew.
fn end_session(frame: &Frame, core: &mut Core<'_>, n: usize) {
    let used = frame.session(n);
    if used.is_password() {
        return;
    }
    if !used.attributes.contains(A::CONTINUE) {
        if core.exclusive_audit == Some(used.handle) {
            core.exclusive_audit = None;
        }
        core.sessions.flush(used.handle);
    } else if used.entity.is_some()
        && let Some(session) = core.sessions.loaded_mut(used.handle)
        && session.is_policy()
    {
        session.restart_policy();
    }
}
