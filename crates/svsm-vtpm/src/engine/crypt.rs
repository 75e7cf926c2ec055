//! Encrypted parameters: the first one of a command or of a response (Part 1, clause 21).

use zeroize::Zeroize;

use super::frame::Frame;
use crate::{
    alg::Mode,
    bytes::Bytes,
    crypto::kdf,
    rc::{Rc, ensure},
    state::{Core, session},
    structures::scheme::ParameterCipher,
};

/// Decrypts the command's first parameter in its buffer.
pub(super) fn decrypt(frame: &Frame, core: &mut Core<'_>, buffer: &mut [u8]) -> Result<(), Rc> {
    let Some(n) = frame.decrypt else {
        return Ok(());
    };
    let params = buffer.get_mut(frame.params.clone()).unwrap_or_default();
    let secret = first_parameter(params)?;
    let used = frame.session(n);
    let Some(session) = core.sessions.loaded(used.handle) else {
        return Ok(());
    };
    let nonces = [used.nonce_caller.as_slice(), session.nonce_tpm.as_slice()];
    apply(
        core,
        session,
        &key(frame, core, n, session),
        nonces,
        false,
        secret,
    );
    Ok(())
}

/// Encrypts the response's first parameter; the session's nonce is already the new one.
pub(super) fn encrypt(frame: &Frame, core: &Core<'_>, params: &mut [u8]) -> Result<(), Rc> {
    let Some(n) = frame.encrypt else {
        return Ok(());
    };
    let secret = first_parameter(params)?;
    let used = frame.session(n);
    let Some(session) = core.sessions.loaded(used.handle) else {
        return Ok(());
    };
    let nonces = [session.nonce_tpm.as_slice(), used.nonce_caller.as_slice()];
    apply(
        core,
        session,
        &key(frame, core, n, session),
        nonces,
        true,
        secret,
    );
    Ok(())
}

/// The bytes of the first parameter, without their size.
fn first_parameter(params: &mut [u8]) -> Result<&mut [u8], Rc> {
    let (size, rest) = params
        .split_first_chunk_mut()
        .ok_or(Rc::INSUFFICIENT.param(1))?;
    let size = usize::from(u16::from_be_bytes(*size));
    ensure(size <= rest.len(), Rc::SIZE.param(1))?;
    rest.get_mut(..size).ok_or(Rc::SIZE.param(1))
}

/// The session's key and, if it authorizes an entity, that one's authorization value.
fn key(frame: &Frame, core: &Core<'_>, n: usize, session: &session::Session) -> Bytes<128> {
    let mut key: Bytes<128> = session.key.resized();
    if let Some(entity) = frame.session(n).entity {
        let _ = key.extend(core.auth_of(entity).as_slice());
    }
    key
}

fn apply(
    core: &Core<'_>,
    session: &session::Session,
    key: &Bytes<128>,
    nonces: [&[u8]; 2],
    encrypt: bool,
    data: &mut [u8],
) {
    match session.cipher {
        ParameterCipher::Null => {}
        ParameterCipher::Xor(hash) => {
            kdf::xor_obfuscate(core.crypto, hash, key.as_slice(), nonces, data);
        }
        ParameterCipher::Block(cipher) => {
            let mut material = [0; 32 + 16];
            let len = cipher.key_len();
            let bits = u32::from(cipher.bits) + 128;
            let Some(out) = material.get_mut(..len + 16) else {
                return;
            };
            kdf::kdfa(
                core.crypto,
                session.auth_hash,
                key.as_slice(),
                "CFB",
                nonces,
                bits,
                out,
            );
            let (aes, vector) = out.split_at(len);
            let mut iv = [0; 16];
            iv.copy_from_slice(vector);
            if encrypt {
                core.crypto.encrypt(Mode::Cfb, aes, &mut iv, data);
            } else {
                core.crypto.decrypt(Mode::Cfb, aes, &mut iv, data);
            }
            material.zeroize();
        }
    }
}
