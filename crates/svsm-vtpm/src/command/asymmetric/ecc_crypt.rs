//! Encryption for the holder of an ECC key (version 1.83, clauses 14.8 and 14.9; Part 1, annex C.8): a shared point masks the data.

use zeroize::Zeroize;

use super::ecc_key;
use crate::{
    alg::{Alg, Curve, HashAlg},
    command::{Call, hash_hmac::BUFFER_MAX},
    crypto::{Crypto, Digest, EccNumber, Point, draw_scalar},
    rc::{Rc, Stop, ensure},
    state::{Core, object::Object},
    structures::{attributes::ObjectAttributes as A, public::Params, scheme::Kdf},
};

/// The hash of the derivation, after the key's own and the one that was asked for. KDF2 is the only one that encrypts.
fn select(object: &Object, asked: Option<Kdf>) -> Result<HashAlg, Rc> {
    let own = match object.public.params {
        Params::Ecc { kdf, .. } => kdf,
        _ => None,
    };
    let chosen = match (own, asked) {
        (Some(own), Some(asked)) => ensure(own == asked, Rc::SCHEME).map(|()| own)?,
        (own, asked) => own.or(asked).ok_or(Rc::SCHEME)?,
    };
    ensure(chosen.alg == Alg::KDF2, Rc::SCHEME).map(|()| chosen.hash)
}

/// KDF2 over the shared point, exclusive-or'ed into `data`.
fn mask(crypto: &dyn Crypto, hash: HashAlg, shared: &Point, data: &mut [u8]) {
    for (chunk, counter) in data.chunks_mut(hash.digest_len()).zip(1u32..) {
        let parts = [
            shared.x.as_slice(),
            shared.y.as_slice(),
            &counter.to_be_bytes(),
        ];
        let mut block = crypto.hash(hash, &parts);
        for (byte, mask) in chunk.iter_mut().zip(block.as_slice()) {
            *byte ^= mask;
        }
        block.zeroize();
    }
}

/// What shows that the data are those that were encrypted.
fn code(crypto: &dyn Crypto, hash: HashAlg, shared: &Point, data: &[u8]) -> Digest {
    crypto.hash(hash, &[shared.x.as_slice(), data, shared.y.as_slice()])
}

/// A point that nobody else may know.
fn shared(
    crypto: &dyn Crypto,
    curve: Curve,
    k: &mut EccNumber,
    point: &Point,
) -> Result<Point, Rc> {
    let shared = crypto.mul(curve, k, Some(point));
    k.zeroize();
    shared.ok_or(Rc::ECC_POINT)
}

fn forget(mut shared: Point) {
    shared.x.zeroize();
    shared.y.zeroize();
}

/// TPM2_ECC_Encrypt (version 1.83, clause 14.8).
pub(crate) fn ecc_encrypt(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let data = call.param_with(|r| r.sized(BUFFER_MAX))?;
    let asked = call.param_with(Kdf::read_or_null)?;
    call.end()?;
    let (object, curve, point) = ecc_key(core, call.entity(0))?;
    let hash = select(object, asked).map_err(|rc| rc.param(2))?;
    let point = point.clone();
    let crypto = core.crypto;
    let mut k = draw_scalar(crypto, curve, &mut core.generator()?);
    let public = crypto.mul(curve, &k, None).ok_or(Rc::NO_RESULT)?;
    let shared = shared(crypto, curve, &mut k, &point).map_err(|_| Rc::NO_RESULT)?;
    call.out.sized_as(&public)?;
    call.out.sized(data)?;
    let written = call.out.written_mut();
    let start = written.len() - data.len();
    mask(
        crypto,
        hash,
        &shared,
        written.get_mut(start..).unwrap_or_default(),
    );
    let code = code(crypto, hash, &shared, data);
    forget(shared);
    Ok(call.put(&code)?)
}

/// TPM2_ECC_Decrypt (version 1.83, clause 14.9).
pub(crate) fn ecc_decrypt(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let public: Point = call.param_with(|r| r.sized_as())?;
    let masked = call.param_with(|r| r.sized(BUFFER_MAX))?;
    let given: Digest = call.param()?;
    let asked = call.param_with(Kdf::read_or_null)?;
    call.end()?;
    let (object, curve, _) = ecc_key(core, call.entity(0))?;
    ensure(
        object.has(A::DECRYPT) && !object.has(A::RESTRICTED),
        Rc::ATTRIBUTES.handle(1),
    )?;
    let hash = select(object, asked).map_err(|rc| rc.param(4))?;
    let sensitive = object.sensitive.as_ref().ok_or(Rc::KEY.handle(1))?;
    let mut d: EccNumber = sensitive.secret.resized();
    d.pad_front(curve.bytes());
    let crypto = core.crypto;
    let shared = shared(crypto, curve, &mut d, &public).map_err(|rc| rc.param(1))?;
    call.out.sized(masked)?;
    let data = call.out.written_mut().get_mut(2..).unwrap_or_default();
    mask(crypto, hash, &shared, data);
    let right = code(crypto, hash, &shared, data) == given;
    forget(shared);
    if !right {
        data.zeroize();
    }
    Ok(ensure(right, Rc::VALUE.param(3))?)
}
