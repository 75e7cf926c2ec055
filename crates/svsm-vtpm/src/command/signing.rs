//! Signing and signature verification (clause 20), and what all that sign have in common.

#[cfg(feature = "pqc")]
mod digest; // of what was hashed elsewhere
#[cfg(feature = "pqc")]
mod message; // of messages in pieces
#[cfg(feature = "pqc")]
mod ticket; // tickets about them

use super::{Call, hash_hmac::hash_ticket_digest};
use crate::{
    alg::HashAlg,
    crypto::{Digest, EccNumber, padding, sign},
    handle::Handle,
    rc::{About, Rc, Stop, ensure},
    state::{
        Core,
        entity::Entity,
        object::{Object, rsa_exponent},
    },
    structures::{
        attest::{Tag, Ticket},
        attributes::ObjectAttributes as A,
        public::{Params, Unique},
        scheme::{Scheme, SchemeField},
        signature::Signature,
    },
    wire::Reader,
};

#[cfg(feature = "pqc")]
pub(crate) use digest::{sign_digest, verify_digest_signature};
#[cfg(feature = "pqc")]
pub(crate) use message::{
    sign_sequence_complete, sign_sequence_start, verify_sequence_complete, verify_sequence_start,
};
#[cfg(feature = "pqc")]
use ticket::put_verified;

/// Whether a key can sign: a symmetric cipher that "signs" encrypts.
pub(super) fn is_signing_key(object: &Object) -> bool {
    object.has(A::SIGN) && !matches!(object.public.params, Params::SymCipher(_))
}

/// The scheme of a signature, after the key's own and the one that was asked for (clause 20.2).
pub(super) fn select_scheme(object: &Object, asked: Scheme) -> Result<Scheme, Rc> {
    let own = object.public.params.scheme();
    let selected = match (own, asked) {
        (Scheme::Null, asked) => asked,
        // An anonymous signature needs the counter of its commitment.
        (Scheme::EcDaa(..), Scheme::Null) => Scheme::Null,
        (own, Scheme::Null) => own,
        (Scheme::EcDaa(own, _), Scheme::EcDaa(hash, _)) if own == hash => asked,
        (own, asked) if own == asked => own,
        // Nothing but its name stands for ML-DSA.
        (Scheme::Lattice(_), asked) if own.alg() == asked.alg() => own,
        _ => Scheme::Null,
    };
    let fits = match object.public.params {
        Params::Rsa { .. } => matches!(selected, Scheme::RsaSsa(_) | Scheme::RsaPss(_)),
        Params::Ecc { .. } => {
            matches!(
                selected,
                Scheme::EcDsa(_) | Scheme::EcSchnorr(_) | Scheme::EcDaa(..)
            )
        }
        Params::KeyedHash(_) => matches!(selected, Scheme::Hmac(_)),
        Params::Lattice(_) => matches!(selected, Scheme::Lattice(_)),
        Params::SymCipher(_) => false,
    };
    ensure(fits, Rc::SCHEME).map(|()| selected)
}

impl Core<'_> {
    /// Signs a digest with a scheme that fits the key.
    pub(crate) fn sign(
        &mut self,
        entity: Entity,
        scheme: Scheme,
        digest: &[u8],
    ) -> Result<Signature, Rc> {
        let crypto = self.crypto;
        let object = self.object_of(entity).ok_or(Rc::KEY)?;
        let sensitive = object.sensitive.clone().ok_or(Rc::KEY)?;
        match (&object.public.params, scheme) {
            (Params::Rsa { .. }, Scheme::RsaSsa(hash) | Scheme::RsaPss(hash)) => {
                let key = object.rsa.clone().ok_or(Rc::KEY)?;
                let len = key.n.len();
                let random = &mut self.generator()?;
                let block = if let Scheme::RsaSsa(_) = scheme {
                    padding::pkcs1_sign(hash, digest, len)?
                } else {
                    padding::pss_encode(crypto, hash, digest, random, len)?
                };
                let value = crypto
                    .private(&key, block.as_slice(), random)
                    .ok_or(Rc::FAILURE)?;
                Ok(Signature::Rsa { scheme, value })
            }
            (Params::Ecc { curve, .. }, scheme) => {
                let curve = *curve;
                let mut d: EccNumber = sensitive.secret.resized();
                d.pad_front(curve.bytes());
                let commitment = match scheme {
                    Scheme::EcDaa(_, counter) => Some(self.take_commitment(entity, counter)?),
                    _ => None,
                };
                let random = &mut self.generator()?;
                let (r, s) = match (scheme, commitment) {
                    (Scheme::EcDaa(hash, _), Some(commitment)) => {
                        sign::ecdaa(crypto, curve, &d, &commitment, hash, digest, random)
                    }
                    (Scheme::EcSchnorr(hash), _) => {
                        sign::schnorr(crypto, curve, &d, hash, digest, random)
                            .ok_or(Rc::NO_RESULT)?
                    }
                    _ => sign::ecdsa(crypto, curve, &d, digest, random).ok_or(Rc::NO_RESULT)?,
                };
                Ok(Signature::Ecc { scheme, r, s })
            }
            (Params::KeyedHash(_), Scheme::Hmac(hash)) => {
                let value = crypto.hmac(hash, sensitive.secret.as_slice(), &[digest]);
                Ok(Signature::Hmac { hash, value })
            }
            _ => Err(Rc::SCHEME),
        }
    }

    /// Signs data, hashed as the scheme wants it.
    pub(crate) fn sign_data(
        &mut self,
        entity: Entity,
        scheme: Scheme,
        hash: HashAlg,
        data: &[u8],
    ) -> Result<Signature, Rc> {
        if let Scheme::Lattice(_) = scheme {
            let object = self.object_of(entity).ok_or(Rc::KEY)?.clone();
            return self.sign_lattice(&object, data);
        }
        let digest = self.crypto.hash(hash, &[data]);
        self.sign(entity, scheme, digest.as_slice())
    }

    /// Whether a signature over a digest is right; [`Rc::SIGNATURE`] or [`Rc::SCHEME`] if not.
    pub(crate) fn verify(
        &self,
        object: &Object,
        digest: &Digest,
        signature: &Signature,
    ) -> Result<(), Rc> {
        let crypto = self.crypto;
        let right = match (&object.public.params, &object.public.unique, signature) {
            (Params::Rsa { exponent, .. }, Unique::Rsa(n), Signature::Rsa { scheme, value }) => {
                let hash = scheme.hash().ok_or(Rc::SCHEME)?;
                ensure(value.len() == n.len(), Rc::SIGNATURE)?;
                let block = crypto
                    .public(n.as_slice(), rsa_exponent(*exponent), value.as_slice())
                    .ok_or(Rc::SIGNATURE)?;
                if let Scheme::RsaSsa(_) = scheme {
                    padding::pkcs1_sign(hash, digest.as_slice(), n.len())
                        .is_ok_and(|expected| expected == block)
                } else {
                    padding::pss_verify(crypto, hash, digest.as_slice(), block)
                }
            }
            (Params::Ecc { curve, .. }, Unique::Ecc(key), Signature::Ecc { scheme, r, s }) => {
                let digest = digest.as_slice();
                match scheme {
                    Scheme::EcDsa(_) => sign::ecdsa_verify(crypto, *curve, key, digest, r, s),
                    Scheme::EcSchnorr(hash) => {
                        sign::schnorr_verify(crypto, *curve, key, *hash, digest, r, s)
                    }
                    _ => return Err(Rc::SCHEME),
                }
            }
            (Params::KeyedHash(_), ..) if object.sensitive.is_none() => return Err(Rc::HANDLE),
            (Params::KeyedHash(_), _, Signature::Hmac { hash, value }) => {
                let secret = object.sensitive.as_ref().ok_or(Rc::HANDLE)?;
                crypto.hmac(*hash, secret.secret.as_slice(), &[digest.as_slice()]) == *value
            }
            _ => return Err(Rc::SCHEME),
        };
        ensure(right, Rc::SIGNATURE)
    }
}

/// Whether nothing can be proven about a key: it is in no hierarchy, or it has no name. Without one, a digest that ends in the name of
/// another key could not be told from a signature by that.
fn is_unprovable(object: &Object) -> bool {
    object.hierarchy == Handle::NULL || object.name.is_empty()
}

/// TPM2_VerifySignature (clause 20.1).
pub(crate) fn verify_signature(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let digest: Digest = call.param()?;
    let signature: Signature = call.param()?;
    call.end()?;
    let object = core
        .object_of(call.entity(0))
        .ok_or(Rc::ATTRIBUTES.handle(1))?;
    ensure(object.has(A::SIGN), Rc::ATTRIBUTES.handle(1))?;
    core.verify(object, &digest, &signature).param(2)?;
    let ticket = if is_unprovable(object) {
        Ticket::null(Tag::VERIFIED)
    } else {
        let name = object.name.as_slice();
        Ticket {
            tag: Tag::VERIFIED,
            hierarchy: object.hierarchy,
            digest: verified_ticket(core, object.hierarchy, &digest, name),
        }
    };
    Ok(call.put(&ticket)?)
}

/// The proof in a ticket of a verified signature.
fn verified_ticket(core: &Core<'_>, hierarchy: Handle, digest: &Digest, name: &[u8]) -> Digest {
    core.seal_of(
        hierarchy,
        &[&Tag::VERIFIED.0.to_be_bytes(), digest.as_slice(), name],
    )
}

/// A ticket by which PolicyAuthorize finds out that a policy is authorized.
pub(crate) struct Verified {
    ticket: Ticket,
    /// How the digest was made of which it is, if it says so.
    #[cfg(feature = "pqc")]
    alg: Option<crate::alg::Alg>,
}

impl Verified {
    /// `TPMT_TK_VERIFIED`: with one of three tags if the commands are there that make such tickets.
    pub(crate) fn read(core: &Core<'_>, r: &mut Reader<'_>) -> Result<Self, Rc> {
        #[cfg(feature = "pqc")]
        if core.has_lattices() {
            return ticket::read_verified(r).map(|(ticket, alg)| Self { ticket, alg });
        }
        let _ = core;
        Ok(Self {
            ticket: Ticket::read(r, &[Tag::VERIFIED])?,
            #[cfg(feature = "pqc")]
            alg: None,
        })
    }

    /// Whether it says that the key with this name signed the parts; `hash` is that of a ticket which does not say how they were hashed.
    pub(crate) fn proves(
        &self,
        core: &Core<'_>,
        parts: [&[u8]; 2],
        hash: HashAlg,
        name: &[u8],
    ) -> bool {
        #[cfg(feature = "pqc")]
        if self.ticket.tag != Tag::VERIFIED {
            return ticket::authorization(core, &self.ticket, self.alg, parts, name)
                .is_some_and(|expected| expected == self.ticket.digest);
        }
        let digest = core.crypto.hash(hash, &parts);
        verified_ticket(core, self.ticket.hierarchy, &digest, name) == self.ticket.digest
    }
}

/// TPM2_Sign (clause 20.2).
pub(crate) fn sign(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let digest: Digest = call.param()?;
    let asked = call.param_with(|r| Scheme::read(r, SchemeField::Signing))?;
    let ticket = call.param_with(|r| Ticket::read(r, &[Tag::HASHCHECK]))?;
    call.end()?;
    let entity = call.entity(0);
    let object = core.object_of(entity).ok_or(Rc::KEY.handle(1))?;
    ensure(is_signing_key(object), Rc::KEY.handle(1))?;
    ensure(!object.has(A::X509_SIGN), Rc::ATTRIBUTES.handle(1))?;
    let scheme = select_scheme(object, asked).param(2)?;
    // ML-DSA has commands of its own.
    let lattice = matches!(scheme, Scheme::Lattice(_));
    let hash = scheme.hash().filter(|_| !lattice);
    let hash = hash.ok_or(Rc::SCHEME.param(2))?;
    if object.has(A::RESTRICTED) || !ticket.digest.is_empty() {
        let expected = hash_ticket_digest(core, ticket.hierarchy, hash, &digest);
        ensure(expected == ticket.digest, Rc::TICKET.param(3))?;
    } else {
        ensure(digest.len() == hash.digest_len(), Rc::SIZE.param(1))?;
    }
    let signature = core.sign(entity, scheme, digest.as_slice())?;
    Ok(call.put(&signature)?)
}
