//! Signatures of messages that come in pieces (version 1.85, clauses 17.5, 17.6, 20.3 and 20.6). A message is not kept, whatever the scheme:
//! its hash goes on from one command to the next.

use super::{is_signing_key, put_verified};
use crate::{
    bytes::Bytes,
    command::{Call, hash_hmac::BUFFER_MAX},
    crypto::Digest,
    rc::{About, Rc, Stop, ensure},
    state::{
        Core,
        message::{Message, Summary},
        object::{Content, Object, Sequence, SequenceKind},
    },
    structures::{
        attest::Tag, attributes::ObjectAttributes as A, lattice::SignatureContext, public::Params,
        scheme::Scheme, signature::Signature,
    },
};

/// The key that a sequence is for.
fn signing_key<'c>(core: &'c Core<'_>, call: &Call<'_>) -> Result<&'c Object, Rc> {
    let object = core.object_of(call.entity(0)).filter(|o| is_signing_key(o));
    object.ok_or(Rc::KEY.handle(1))
}

fn start(
    core: &mut Core<'_>,
    call: &mut Call<'_>,
    mut auth: Digest,
    message: Message,
) -> Result<(), Stop> {
    auth.trim_end();
    let sequence = Sequence {
        auth,
        kind: SequenceKind::Message(message),
        ticket_safe: false,
        started: false,
    };
    call.handle = Some(core.objects.add(Content::Sequence(sequence))?);
    Ok(())
}

/// TPM2_SignSequenceStart (clause 17.5). The key need not be authorized before it signs.
pub(crate) fn sign_sequence_start(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let auth: Digest = call.param()?;
    let context: SignatureContext = call.param()?;
    call.end()?;
    let object = signing_key(core, call)?;
    let message = Message::new(core, object, &context, false, 2)?;
    start(core, call, auth, message)
}

/// TPM2_VerifySequenceStart (clause 17.6).
pub(crate) fn verify_sequence_start(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let auth: Digest = call.param()?;
    // Edwards curves alone have a hint.
    let hint: Bytes<64> = call.param()?;
    let context: SignatureContext = call.param()?;
    call.end()?;
    ensure(hint.is_empty(), Rc::VALUE.param(2))?;
    let object = signing_key(core, call)?;
    let message = Message::new(core, object, &context, true, 3)?;
    start(core, call, auth, message)
}

/// The sequence that a command completes, and its key.
fn completed(core: &Core<'_>, call: &Call<'_>, verifies: bool) -> Result<(Message, Object), Rc> {
    let message = core.message_of(call.entity(0));
    let message = message.filter(|message| message.verifies == verifies);
    let message = message.ok_or(Rc::MODE.handle(1))?;
    let object = core.object_of(call.entity(1)).ok_or(Rc::KEY.handle(2))?;
    let same = message.is_for(core, object);
    ensure(same, Rc::SIGN_CONTEXT_KEY.handle(2))?;
    Ok((message.clone(), object.clone()))
}

/// TPM2_SignSequenceComplete (clause 20.6). A sequence that is not signed stays as it was.
pub(crate) fn sign_sequence_complete(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let data = call.param_with(|r| r.sized(BUFFER_MAX))?;
    call.end()?;
    let (mut message, object) = completed(core, call, false)?;
    ensure(!object.has(A::X509_SIGN), Rc::ATTRIBUTES.handle(2))?;
    message.update(core, data)?;
    if object.has(A::RESTRICTED) {
        // A restricted key for codes wants a ticket, for which there is no parameter.
        let keyed = matches!(object.public.params, Params::KeyedHash(_));
        ensure(!keyed, Rc::ATTRIBUTES.handle(2))?;
        ensure(!message.looks_generated(), Rc::VALUE.param(1))?;
    }
    let scheme = object.public.params.scheme();
    let signature = match (message.finish(core)?, scheme) {
        (Summary::Mu(mu), _) => core.sign_mu(&object, &mu)?,
        (Summary::Digest(digest, counter), scheme) => {
            let scheme = match scheme {
                Scheme::EcDaa(hash, _) => Scheme::EcDaa(hash, counter),
                scheme => scheme,
            };
            core.sign(call.entity(1), scheme, digest.as_slice())?
        }
        (Summary::Hmac(value), Scheme::Hmac(hash)) => Signature::Hmac { hash, value },
        (Summary::Hmac(_), _) => return Err(Rc::SCHEME.handle(2).into()),
    };
    call.put(&signature)?;
    call.ends = call.entity(0).slot;
    Ok(())
}

/// TPM2_VerifySequenceComplete (clause 20.3).
pub(crate) fn verify_sequence_complete(
    core: &mut Core<'_>,
    call: &mut Call<'_>,
) -> Result<(), Stop> {
    let signature: Signature = call.param()?;
    call.end()?;
    let (message, object) = completed(core, call, true)?;
    let scheme = object.public.params.scheme();
    let fits = signature.alg() == scheme.alg() && signature.hash() == scheme.hash();
    ensure(fits, Rc::SCHEME.param(1))?;
    match (message.finish(core)?, &signature) {
        (Summary::Mu(mu), signature) => core.verify_mu(&object, &mu, signature),
        (Summary::Digest(digest, _), signature) => core.verify(&object, &digest, signature),
        (Summary::Hmac(code), Signature::Hmac { value, .. }) => {
            ensure(code == *value, Rc::SIGNATURE)
        }
        (Summary::Hmac(_), _) => Err(Rc::SCHEME),
    }
    .param(1)?;
    let code = message.ticket(core, &object).unwrap_or_default();
    put_verified(call, Tag::MESSAGE_VERIFIED, &object, None, code)?;
    call.ends = call.entity(0).slot;
    Ok(())
}
