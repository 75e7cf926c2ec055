//! Asymmetric primitives (clause 14).

use super::Call;
use crate::{
    alg::{Alg, Curve, HashAlg},
    crypto::{EccNumber, Point, RsaNumber, draw_scalar, padding},
    rc::{Rc, Stop, ensure},
    state::{
        Core,
        entity::Entity,
        object::{Object, rsa_exponent},
    },
    structures::{
        attest::Data,
        attributes::ObjectAttributes as A,
        public::{Params, Unique},
        scheme::{Kdf, Scheme, SchemeField},
    },
};

mod curves; // the constants of the curves
mod ecc_crypt; // encryption for an ECC key

pub(crate) use ecc_crypt::{ecc_decrypt, ecc_encrypt};

/// A label is empty or ends with a zero.
fn check_label(label: &Data) -> Result<(), Rc> {
    ensure(label.as_slice().last().is_none_or(|b| *b == 0), Rc::VALUE)
}

/// The scheme of an operation, after the key's own and the one that was asked for.
fn select(object: &Object, asked: Scheme) -> Result<Scheme, Rc> {
    match (object.public.params.scheme(), asked) {
        (Scheme::Null, asked) => Ok(asked),
        (own, Scheme::Null) => Ok(own),
        (own, asked) => ensure(own == asked, Rc::SCHEME).map(|()| own),
    }
}

/// TPM2_RSA_Encrypt (clause 14.2).
pub(crate) fn rsa_encrypt(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let message: RsaNumber = call.param()?;
    let asked = call.param_with(|r| Scheme::read(r, SchemeField::RsaDecrypt))?;
    let label: Data = call.param()?;
    call.end()?;
    let object = core.object_of(call.entity(0)).ok_or(Rc::KEY.handle(1))?;
    let (Params::Rsa { exponent, .. }, Unique::Rsa(n)) =
        (&object.public.params, &object.public.unique)
    else {
        return Err(Rc::KEY.handle(1).into());
    };
    ensure(object.has(A::DECRYPT), Rc::ATTRIBUTES.handle(1))?;
    check_label(&label).map_err(|rc| rc.param(3))?;
    let scheme = select(object, asked).map_err(|rc| rc.param(2))?;
    let (n, e, len) = (n.clone(), rsa_exponent(*exponent), n.len());
    let crypto = core.crypto;
    let random = &mut core.generator()?;
    let block = match scheme {
        Scheme::RsaEs => padding::pkcs1_encode(message.as_slice(), random, len),
        Scheme::Oaep(hash) => padding::oaep_encode(
            crypto,
            hash,
            label.as_slice(),
            message.as_slice(),
            random,
            len,
        ),
        _ => {
            let zeros = message.as_slice().iter().take_while(|b| **b == 0).count();
            let number = message.as_slice().get(zeros..).unwrap_or_default();
            let mut block = RsaNumber::new(number).ok_or(Rc::SIZE)?;
            block.pad_front(len);
            Ok(block)
        }
    }
    .map_err(|rc| rc.param(1))?;
    let out = crypto
        .public(n.as_slice(), e, block.as_slice())
        .ok_or(Rc::VALUE.param(1))?;
    Ok(call.put(&out)?)
}

/// TPM2_RSA_Decrypt (clause 14.3).
pub(crate) fn rsa_decrypt(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let cipher_text: RsaNumber = call.param()?;
    let asked = call.param_with(|r| Scheme::read(r, SchemeField::RsaDecrypt))?;
    let label: Data = call.param()?;
    call.end()?;
    let object = core.object_of(call.entity(0)).ok_or(Rc::KEY.handle(1))?;
    ensure(
        matches!(object.public.params, Params::Rsa { .. }),
        Rc::KEY.handle(1),
    )?;
    ensure(
        object.has(A::DECRYPT) && !object.has(A::RESTRICTED),
        Rc::ATTRIBUTES.handle(1),
    )?;
    check_label(&label).map_err(|rc| rc.param(3))?;
    let scheme = select(object, asked).map_err(|rc| rc.param(2))?;
    let key = object.rsa.clone().ok_or(Rc::KEY.handle(1))?;
    ensure(cipher_text.len() == key.n.len(), Rc::SIZE.param(1))?;
    let crypto = core.crypto;
    let block = crypto
        .private(&key, cipher_text.as_slice(), &mut core.generator()?)
        .ok_or(Rc::SIZE.param(1))?;
    let message = match scheme {
        Scheme::RsaEs => padding::pkcs1_decode(block),
        Scheme::Oaep(hash) => padding::oaep_decode(crypto, hash, label.as_slice(), block),
        _ => Ok(block),
    };
    Ok(call.put(&message.map_err(|_| Rc::VALUE.param(1))?)?)
}

/// The curve and the point of an ECC key.
fn ecc_key<'c>(core: &'c Core<'_>, entity: Entity) -> Result<(&'c Object, Curve, &'c Point), Rc> {
    let object = core.object_of(entity).ok_or(Rc::KEY.handle(1))?;
    match (&object.public.params, &object.public.unique) {
        (Params::Ecc { curve, .. }, Unique::Ecc(point)) => Ok((object, *curve, point)),
        _ => Err(Rc::KEY.handle(1)),
    }
}

/// TPM2_ECDH_KeyGen (clause 14.4).
pub(crate) fn ecdh_keygen(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    call.end()?;
    let (_, curve, point) = ecc_key(core, call.entity(0))?;
    let point = point.clone();
    let crypto = core.crypto;
    let k = draw_scalar(crypto, curve, &mut core.generator()?);
    let z = crypto.mul(curve, &k, Some(&point)).ok_or(Rc::NO_RESULT)?;
    let public = crypto.mul(curve, &k, None).ok_or(Rc::NO_RESULT)?;
    call.out.sized_as(&z)?;
    Ok(call.out.sized_as(&public)?)
}

/// The scalar of a key that may exchange keys.
pub(super) fn exchange_key(core: &Core<'_>, entity: Entity) -> Result<(Curve, EccNumber), Rc> {
    let (object, curve, _) = ecc_key(core, entity)?;
    ensure(
        object.has(A::DECRYPT) && !object.has(A::RESTRICTED),
        Rc::ATTRIBUTES.handle(1),
    )?;
    let scheme = object.public.params.scheme();
    ensure(
        matches!(scheme, Scheme::Null | Scheme::EcDh(_)),
        Rc::SCHEME.handle(1),
    )?;
    let sensitive = object.sensitive.as_ref().ok_or(Rc::KEY.handle(1))?;
    let mut d: EccNumber = sensitive.secret.resized();
    d.pad_front(curve.bytes());
    Ok((curve, d))
}

/// TPM2_ECDH_ZGen (clause 14.5).
pub(crate) fn ecdh_zgen(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let point: Point = call.param_with(|r| r.sized_as())?;
    call.end()?;
    let (curve, d) = exchange_key(core, call.entity(0))?;
    let z = core
        .crypto
        .mul(curve, &d, Some(&point))
        .ok_or(Rc::ECC_POINT.param(1))?;
    Ok(call.out.sized_as(&z)?)
}

/// TPM2_ECC_Parameters (clause 14.6).
pub(crate) fn ecc_parameters(_: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let curve: Curve = call.param()?;
    call.end()?;
    call.put(&curve)?;
    call.put(&curve.bits())?;
    // The default key derivation, by the strength of the curve; no default scheme for signing.
    let hash = match curve {
        Curve::P256 => Some(HashAlg::Sha256),
        Curve::P384 => Some(HashAlg::Sha384),
        Curve::P521 => Some(HashAlg::Sha512),
        Curve::BnP256 => None,
    };
    call.put(&hash.map(|hash| Kdf {
        alg: Alg::KDF1_SP800_56A,
        hash,
    }))?;
    call.put(&Alg::NULL)?;
    let constants = curves::constants(curve);
    for number in [
        constants.p,
        constants.a,
        constants.b,
        constants.x,
        constants.y,
        constants.n,
    ] {
        let number = EccNumber::new(number).unwrap_or_default();
        call.put(&number)?;
    }
    Ok(call.out.sized(&[1])?)
}
