//! Duplication (clause 13).

use super::Call;
use crate::{
    bytes::Bytes,
    handle::Handle,
    object::{
        protect::{Guard, Private},
        secret::{Encrypted, Label, read_encrypted},
    },
    rc::{About, Rc, Stop, ensure},
    state::{Core, object::name_of},
    structures::{
        attest::Data,
        attributes::ObjectAttributes as A,
        public::{Name, Public},
        scheme::{Cipher, read_cipher_or_null},
    },
};

/// TPM2_Duplicate (clause 13.1).
pub(crate) fn duplicate(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let key_in: Data = call.param()?;
    let cipher: Option<Cipher> = call.param_with(read_cipher_or_null)?;
    call.end()?;
    let object = core
        .object_of(call.entity(0))
        .ok_or(Rc::TYPE.handle(1))?
        .clone();
    ensure(!object.has(A::FIXED_PARENT), Rc::ATTRIBUTES.handle(1))?;
    let hash = object.public.name_alg.ok_or(Rc::TYPE.handle(1))?;
    let sensitive = object.sensitive.as_ref().ok_or(Rc::TYPE.handle(1))?;
    let parent = call.entity(1);
    let parent = if parent.handle == Handle::NULL {
        None
    } else {
        Some(core.storage_parent(parent, 2)?.clone())
    };
    if object.has(A::ENCRYPTED_DUPLICATION) {
        ensure(cipher.is_some(), Rc::SYMMETRIC.param(2))?;
        ensure(parent.is_some(), Rc::HIERARCHY.handle(2))?;
    }
    let mut key_out = Data::EMPTY;
    let key = match cipher {
        None => {
            ensure(key_in.is_empty(), Rc::SIZE.param(1))?;
            None
        }
        Some(cipher) => {
            let key = if key_in.is_empty() {
                key_out = core.random_bytes(cipher.key_len())?;
                key_out.clone()
            } else {
                ensure(key_in.len() == cipher.key_len(), Rc::SIZE.param(1))?;
                key_in
            };
            Some((cipher, key))
        }
    };
    let inner = key.as_ref().map(|(cipher, key)| (*cipher, key.as_slice()));
    let mut encrypted = Encrypted::EMPTY;
    let duplicate = match &parent {
        None => core.sensitive_to_duplicate(sensitive, (hash, &object.name), inner, None)?,
        Some(parent) => {
            let (seed, secret) = core
                .secret_encrypt(&parent.public, Label::DUPLICATE)
                .handle(2)?;
            encrypted = secret;
            let guard = Guard::new(parent, seed.as_slice())?;
            core.sensitive_to_duplicate(sensitive, (hash, &object.name), inner, Some(&guard))?
        }
    };
    call.put(&key_out)?;
    call.put(&duplicate)?;
    Ok(call.put(&encrypted)?)
}

/// TPM2_Rewrap (clause 13.2).
pub(crate) fn rewrap(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let duplicate: Private = call.param()?;
    let name: Name = call.param()?;
    let secret = call.param_with(read_encrypted)?;
    call.end()?;
    let [old, new] = [call.entity(0), call.entity(1)];
    // Without an old parent there is no outer wrapping.
    let plain = if old.handle == Handle::NULL {
        ensure(secret.is_empty(), Rc::HANDLE.handle(1))?;
        duplicate
    } else {
        ensure(!secret.is_empty(), Rc::HANDLE.handle(1))?;
        let parent = core.storage_parent(old, 1)?.clone();
        let seed = core
            .secret_decrypt(&parent, Label::DUPLICATE, &secret)
            .param(3)?;
        let guard = Guard::new(&parent, seed.as_slice())?;
        guard
            .unwrap(core.crypto, &name, false, duplicate.as_slice())
            .param(1)?
    };
    if new.handle == Handle::NULL {
        call.put(&plain)?;
        return Ok(call.put(&Encrypted::EMPTY)?);
    }
    let parent = core.storage_parent(new, 2)?.clone();
    let (seed, encrypted) = core
        .secret_encrypt(&parent.public, Label::DUPLICATE)
        .handle(2)?;
    let guard = Guard::new(&parent, seed.as_slice())?;
    call.put(&guard.wrap(core.crypto, &name, None, plain.as_slice())?)?;
    Ok(call.put(&encrypted)?)
}

/// TPM2_Import (clause 13.3).
pub(crate) fn import(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let key: Data = call.param()?;
    let public = call.param_with(|r| Public::read_sized(r, false))?;
    let duplicate: Private = call.param()?;
    let secret = call.param_with(read_encrypted)?;
    let cipher: Option<Cipher> = call.param_with(read_cipher_or_null)?;
    call.end()?;
    let fixed = public.attributes.intersects(A::FIXED_TPM | A::FIXED_PARENT);
    ensure(!fixed, Rc::ATTRIBUTES.param(2))?;
    let parent = core.storage_parent(call.entity(0), 1)?.clone();
    ensure(
        key.len() == cipher.map_or(0, |c| c.key_len()),
        Rc::SIZE.param(1),
    )?;
    let seed: Bytes<64> = if secret.is_empty() {
        // What may only travel encrypted has an outer wrapping.
        ensure(
            !public.has(A::ENCRYPTED_DUPLICATION),
            Rc::ATTRIBUTES.param(1),
        )?;
        Bytes::EMPTY
    } else {
        ensure(parent.public.is_asymmetric(), Rc::TYPE.handle(1))?;
        core.secret_decrypt(&parent, Label::DUPLICATE, &secret)
            .param(4)?
    };
    let hash = public.name_alg.ok_or(Rc::HASH.param(2))?;
    let name = name_of(core.crypto, &public);
    let inner = cipher.map(|cipher| (cipher, key.as_slice()));
    let guard = Guard::new(&parent, seed.as_slice())?;
    let outer = (!secret.is_empty()).then_some(&guard);
    let sensitive = core
        .duplicate_to_sensitive(duplicate.as_slice(), (hash, &name), inner, outer)
        .param(3)?;
    core.offers_parms(&public.params).param(2)?;
    crate::object::rules::check_key(core, &public, Some(&sensitive), true)
        .map_err(|blame| blame.numbered(2, 3))?;
    let object = core.load_child(public, sensitive, &parent, [2, 3])?;
    let Some(sensitive) = &object.sensitive else {
        return Err(Rc::FAILURE.into());
    };
    Ok(call.put(&core.sensitive_to_private(sensitive, &name, &parent)?)?)
}
