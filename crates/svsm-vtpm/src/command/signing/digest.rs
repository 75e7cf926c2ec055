//! Signatures of what was hashed elsewhere, by the scheme of the key (version 1.85, clauses 20.4 and 20.7).

use super::{super::hash_hmac::hash_ticket_digest, is_signing_key, put_verified};
use crate::{
    alg::Alg,
    command::Call,
    crypto::{Digest, MU_LEN},
    rc::{About, Rc, Stop, ensure},
    state::{Core, object::Object},
    structures::{
        attest::{Tag, Ticket},
        attributes::ObjectAttributes as A,
        lattice::{LatticeParams, SignatureContext},
        public::Params,
        scheme::Scheme,
        signature::Signature,
    },
};

/// What a digest is to the key: a hash by this algorithm, or the representative of a message, which SHAKE256 makes.
fn digest_alg(object: &Object) -> Result<Alg, Rc> {
    match (&object.public.params, object.public.params.scheme()) {
        (Params::Lattice(LatticeParams::Dsa { external_mu, .. }), _) => {
            ensure(*external_mu, Rc::ATTRIBUTES.handle(1))?;
            Ok(Alg::SHAKE256)
        }
        // A code is one over a message.
        (Params::KeyedHash(_), _) => Err(Rc::SCHEME.handle(1)),
        (_, scheme) => scheme
            .hash()
            .map(crate::HashAlg::alg)
            .ok_or(Rc::SCHEME.handle(1)),
    }
}

fn digest_len(alg: Alg) -> usize {
    crate::HashAlg::from_alg(alg).map_or(MU_LEN, crate::HashAlg::digest_len)
}

/// The representative that a key of ML-DSA signs. What comes from outside has its context in it.
fn mu_of(
    core: &Core<'_>,
    object: &Object,
    alg: Alg,
    context: &SignatureContext,
    digest: &Digest,
) -> Result<[u8; MU_LEN], Rc> {
    if alg == Alg::SHAKE256 {
        ensure(context.is_empty(), Rc::VALUE.param(1))?;
        let mu = digest.as_slice().try_into();
        return mu.map_err(|_| Rc::SIZE.param(2));
    }
    let lattices = core.lattices()?;
    let mut sponge = core.message_sponge(object, context.as_slice())?;
    sponge.absorb(lattices, digest.as_slice());
    Ok(sponge.finish(lattices))
}

/// TPM2_SignDigest (clause 20.7).
pub(crate) fn sign_digest(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let context: SignatureContext = call.param()?;
    let digest: Digest = call.param()?;
    let ticket = call.param_with(|r| Ticket::read(r, &[Tag::HASHCHECK]))?;
    call.end()?;
    let entity = call.entity(0);
    let object = core.object_of(entity).filter(|o| is_signing_key(o));
    let object = object.ok_or(Rc::KEY.handle(1))?.clone();
    ensure(!object.has(A::X509_SIGN), Rc::ATTRIBUTES.handle(1))?;
    let alg = digest_alg(&object)?;
    ensure(digest.len() == digest_len(alg), Rc::SIZE.param(2))?;
    if object.has(A::RESTRICTED) || !ticket.digest.is_empty() {
        // Of the representative of a message there is no ticket.
        let hash = crate::HashAlg::from_alg(alg).ok_or(Rc::TICKET.param(3))?;
        let expected = hash_ticket_digest(core, ticket.hierarchy, hash, &digest);
        ensure(expected == ticket.digest, Rc::TICKET.param(3))?;
    }
    let signature = match object.public.params.scheme() {
        Scheme::Lattice(_) => {
            let mu = mu_of(core, &object, alg, &context, &digest)?;
            core.sign_mu(&object, &mu)?
        }
        Scheme::EcDaa(hash, _) => {
            let counter = context.as_slice().try_into();
            let counter = u16::from_be_bytes(counter.map_err(|_| Rc::SIZE.param(1))?);
            core.sign(entity, Scheme::EcDaa(hash, counter), digest.as_slice())?
        }
        scheme => {
            ensure(context.is_empty(), Rc::VALUE.param(1))?;
            core.sign(entity, scheme, digest.as_slice())?
        }
    };
    Ok(call.put(&signature)?)
}

/// TPM2_VerifyDigestSignature (clause 20.4).
pub(crate) fn verify_digest_signature(
    core: &mut Core<'_>,
    call: &mut Call<'_>,
) -> Result<(), Stop> {
    let context: SignatureContext = call.param()?;
    let digest: Digest = call.param()?;
    let signature: Signature = call.param()?;
    call.end()?;
    let object = core.object_of(call.entity(0)).filter(|o| is_signing_key(o));
    let object = object.ok_or(Rc::KEY.handle(1))?;
    let alg = digest_alg(object)?;
    let scheme = object.public.params.scheme();
    let fits = signature.alg() == scheme.alg() && signature.hash() == scheme.hash();
    ensure(fits, Rc::SCHEME.param(3))?;
    ensure(digest.len() == digest_len(alg), Rc::SIZE.param(2))?;
    match scheme {
        Scheme::Lattice(_) => {
            let mu = mu_of(core, object, alg, &context, &digest)?;
            core.verify_mu(object, &mu, &signature).param(3)?;
        }
        _ => {
            ensure(context.is_empty(), Rc::VALUE.param(1))?;
            core.verify(object, &digest, &signature).param(3)?;
        }
    }
    let code = core.seal_of(
        object.hierarchy,
        &[
            &Tag::DIGEST_VERIFIED.0.to_be_bytes(),
            digest.as_slice(),
            object.name.as_slice(),
            &alg.0.to_be_bytes(),
        ],
    );
    Ok(put_verified(
        call,
        Tag::DIGEST_VERIFIED,
        object,
        Some(alg),
        code,
    )?)
}
