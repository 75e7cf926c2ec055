//! Sessions (clause 11).

use super::Call;
use crate::{
    alg::{HashAlg, Mode},
    bytes::Bytes,
    crypto::{Digest, kdf},
    handle::{Handle, HandleKind},
    object::secret::read_encrypted,
    rc::{About, Rc, Stop, ensure},
    state::{
        Core,
        session::{Bind, PolicyState, Session, SessionKind},
    },
    structures::scheme::{KeyMode, ParameterCipher},
};

/// TPM2_StartAuthSession (clause 11.1).
pub(crate) fn start(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let nonce_caller: Digest = call.param()?;
    let encrypted_salt = call.param_with(read_encrypted)?;
    let kind = call.param_with(|r| match r.read::<u8>()? {
        0 => Ok(SessionKind::Hmac),
        1 => Ok(SessionKind::Policy),
        3 => Ok(SessionKind::Trial),
        _ => Err(Rc::VALUE),
    })?;
    let cipher: ParameterCipher = call.param()?;
    let auth_hash: HashAlg = call.param()?;
    call.end()?;

    let nonce = nonce_caller.len();
    ensure(
        nonce >= 16 && nonce <= auth_hash.digest_len(),
        Rc::SIZE.param(1),
    )?;
    let [key, bind] = [call.entity(0), call.entity(1)];
    let salt = if key.handle == Handle::NULL {
        ensure(encrypted_salt.is_empty(), Rc::VALUE.param(2))?;
        Digest::EMPTY
    } else {
        core.session_salt(key, &encrypted_salt)?
    };
    match bind.handle.kind() {
        HandleKind::Transient | HandleKind::Persistent => {
            // A public area alone has no value to bind to; a sequence has one.
            let public = core.object_of(bind).is_some_and(|o| o.sensitive.is_none());
            ensure(!public, Rc::HANDLE.handle(2))?;
        }
        HandleKind::Nv => {
            // The uses of a PIN are counted; a session that was bound to it once would be used without.
            let is_pin = core.index(bind.handle).is_some_and(|i| i.public.is_pin());
            ensure(!is_pin, Rc::HANDLE.handle(2))?;
        }
        _ => {}
    }
    // Parameters are encrypted in CFB mode and no other.
    if let ParameterCipher::Block(cipher) = cipher {
        ensure(
            cipher.mode == KeyMode::Chained(Mode::Cfb),
            Rc::MODE.param(4),
        )?;
    }
    let mut secret: Bytes<192> = Bytes::EMPTY;
    if bind.handle != Handle::NULL {
        secret.extend(core.auth_of(bind).as_slice())?;
    }
    secret.extend(salt.as_slice())?;
    ensure(core.sessions.free_slot().is_some(), Rc::SESSION_MEMORY)?;
    ensure(core.sessions.has_free_handle(), Rc::SESSION_HANDLES)?;

    let nonce_tpm: Digest = core.random_bytes(nonce)?;
    let mut session_key = Digest::EMPTY;
    // Without any secret there is no key.
    if bind.handle != Handle::NULL || key.handle != Handle::NULL {
        let bits = u32::try_from(auth_hash.digest_len() * 8).unwrap_or(0);
        session_key.resize(auth_hash.digest_len());
        kdf::kdfa(
            core.crypto,
            auth_hash,
            secret.as_slice(),
            "ATH",
            [nonce_tpm.as_slice(), nonce_caller.as_slice()],
            bits,
            session_key.as_mut_slice(),
        );
    }
    let bound = (bind.handle != Handle::NULL && kind == SessionKind::Hmac).then(|| Bind {
        name: core.name_of(bind),
        auth: core.auth_of(bind),
        da: !core.is_da_exempt(bind),
        lockout: bind.handle == Handle::LOCKOUT,
    });
    let policy_digest = match kind {
        SessionKind::Hmac => Digest::EMPTY,
        _ => Digest::zeroed(auth_hash.digest_len()),
    };
    call.put(&nonce_tpm)?;
    let handle = core.sessions.add(Session {
        kind,
        auth_hash,
        cipher,
        nonce_tpm,
        key: session_key,
        bind: bound,
        audit: None,
        policy_digest,
        policy: PolicyState::default(),
        start: core.time.time,
        epoch: core.permanent.total_reset_count,
    })?;
    call.handle = Some(handle);
    Ok(())
}

/// TPM2_PolicyRestart (clause 11.2).
pub(crate) fn policy_restart(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    call.end()?;
    core.sessions
        .need(call.handle_at(0))
        .handle(1)?
        .restart_policy();
    Ok(())
}
