//! Credentials: a secret for a TPM that holds a certain object (clauses 12.5 and 12.6).

use super::Call;
use crate::{
    bytes::Bytes,
    crypto::Digest,
    object::{
        protect::{Guard, credential_unwrap, credential_wrap},
        secret::{Label, read_encrypted},
    },
    rc::{About, Rc, Stop, ensure},
    state::{Core, object::Object},
    structures::{attributes::ObjectAttributes as A, public::Name},
};

/// `TPM2B_ID_OBJECT`: integrity and identity, two digests with their sizes (Part 2, clause 12.4.3).
type IdObject = Bytes<{ 2 * (2 + 64) }>;

/// A storage key that credentials can be sent to.
fn is_credential_key(object: &Object) -> bool {
    object.public.is_asymmetric() && object.has(A::RESTRICTED | A::DECRYPT)
}

/// TPM2_ActivateCredential (clause 12.5).
pub(crate) fn activate_credential(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let blob: IdObject = call.param()?;
    let secret = call.param_with(read_encrypted)?;
    call.end()?;

    let key = core
        .object_of(call.entity(1))
        .ok_or(Rc::TYPE.handle(2))?
        .clone();
    ensure(is_credential_key(&key), Rc::TYPE.handle(2))?;
    let object = core.object_of(call.entity(0)).ok_or(Rc::TYPE.handle(1))?;
    let name = object.name.clone();
    let seed = core
        .secret_decrypt(&key, Label::IDENTITY, &secret)
        .param(2)?;
    let guard = Guard::new(&key, seed.as_slice())?;
    let credential = credential_unwrap(core.crypto, &guard, &name, blob.as_slice()).param(1)?;
    Ok(call.put(&credential)?)
}

/// TPM2_MakeCredential (clause 12.6).
pub(crate) fn make_credential(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let credential: Digest = call.param()?;
    let name: Name = call.param()?;
    call.end()?;
    let key = core
        .object_of(call.entity(0))
        .ok_or(Rc::TYPE.handle(1))?
        .clone();
    ensure(is_credential_key(&key), Rc::TYPE.handle(1))?;
    let most = key.public.name_alg.map_or(0, crate::HashAlg::digest_len);
    ensure(credential.len() <= most, Rc::SIZE.param(1))?;
    let (seed, encrypted) = core.secret_encrypt(&key.public, Label::IDENTITY)?;
    let guard = Guard::new(&key, seed.as_slice())?;
    call.put(&credential_wrap(core.crypto, &guard, &name, &credential)?)?;
    Ok(call.put(&encrypted)?)
}
