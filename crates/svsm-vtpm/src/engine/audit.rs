//! What is remembered of commands: by sessions that audit, and by the TPM itself (Part 1, clauses 19.6.15 and 31).

use super::{auth, frame::Frame};
use crate::{
    alg::HashAlg,
    crypto::Digest,
    state::{Core, permanent::has_command},
    structures::attributes::SessionAttributes as A,
};

/// Extends the audit digests by a command that succeeded.
pub(super) fn remember(frame: &mut Frame, core: &mut Core<'_>, params: &[u8]) {
    let Some(command) = frame.command else { return };
    if let Some(n) = frame.audit {
        let handle = frame.session(n).handle;
        let reset = frame.session(n).attributes.contains(A::AUDIT_RESET);
        let Some(session) = core.sessions.loaded(handle) else {
            return;
        };
        let alg = session.auth_hash;
        let fresh = session.audit.is_none();
        let old = match &session.audit {
            Some(digest) if !reset => digest.clone(),
            _ => Digest::zeroed(alg.digest_len()),
        };
        let cp = auth::cp_hash(frame, alg);
        let rp = rp_hash(core, frame, alg, params);
        let new = core
            .crypto
            .hash(alg, &[old.as_slice(), cp.as_slice(), rp.as_slice()]);
        if let Some(session) = core.sessions.loaded_mut(handle) {
            session.audit = Some(new);
            // The digest takes the place of what the session was bound to.
            session.bind = None;
        }
        if fresh || reset {
            core.exclusive_audit = Some(handle);
        } else if core.exclusive_audit != Some(handle) {
            core.exclusive_audit = None;
        }
    } else {
        core.exclusive_audit = None;
    }

    if has_command(&core.permanent.audit_commands, command.code) {
        audit_command(frame, core, params);
    }
}

fn audit_command(frame: &Frame, core: &mut Core<'_>, params: &[u8]) {
    let alg = core.permanent.audit_alg;
    if core.reset.audit_digest.is_empty() {
        core.permanent.audit_counter += 1;
        core.dirty = true;
        core.reset.audit_digest = Digest::zeroed(alg.digest_len());
    }
    let cp = auth::cp_hash(frame, alg);
    let rp = rp_hash(core, frame, alg, params);
    let old = core.reset.audit_digest.clone();
    core.reset.audit_digest = core
        .crypto
        .hash(alg, &[old.as_slice(), cp.as_slice(), rp.as_slice()]);
}

/// The hash over a response that is a success.
pub(super) fn rp_hash(core: &Core<'_>, frame: &Frame, alg: HashAlg, params: &[u8]) -> Digest {
    let code = frame.command.map_or(0, |c| u32::from(c.code)).to_be_bytes();
    core.crypto.hash(alg, &[&[0; 4], &code, params])
}
