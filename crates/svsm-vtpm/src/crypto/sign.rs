//! Signatures over elliptic curves, from the provider's arithmetic (Part 1, annex C.4).

use super::{Crypto, Curve, EccNumber, HashAlg, Point, Stream, draw_scalar, is_scalar};

/// The leftmost bits of a digest, as many as the order has.
fn leftmost(crypto: &dyn Crypto, curve: Curve, digest: &[u8]) -> EccNumber {
    crypto.reduce(curve, digest.get(..curve.bytes()).unwrap_or(digest))
}

/// ECDSA (FIPS 186-5, clause 6.4.1).
pub(crate) fn ecdsa(
    crypto: &dyn Crypto,
    curve: Curve,
    d: &EccNumber,
    digest: &[u8],
    random: &mut dyn Stream,
) -> Option<(EccNumber, EccNumber)> {
    let z = leftmost(crypto, curve, digest);
    // Each round fails with a chance of about one in the order.
    for _ in 0..4 {
        let k = draw_scalar(crypto, curve, random);
        let r = crypto.reduce(curve, crypto.mul(curve, &k, None)?.x.as_slice());
        let sum = crypto.mul_add(curve, &r, d, &z);
        let s = crypto.mul_add(curve, &crypto.invert(curve, &k)?, &sum, &EccNumber::EMPTY);
        if is_scalar(crypto, curve, &r) && is_scalar(crypto, curve, &s) {
            return Some((r, s));
        }
    }
    None
}

pub(crate) fn ecdsa_verify(
    crypto: &dyn Crypto,
    curve: Curve,
    key: &Point,
    digest: &[u8],
    r: &EccNumber,
    s: &EccNumber,
) -> bool {
    let Some([r, s]) = scalars(crypto, curve, [r, s]) else {
        return false;
    };
    let z = leftmost(crypto, curve, digest);
    let Some(w) = crypto.invert(curve, &s) else {
        return false;
    };
    let [u, v] = [&z, &r].map(|x| crypto.mul_add(curve, x, &w, &EccNumber::EMPTY));
    crypto
        .mul_sum(curve, &u, &v, key)
        .is_some_and(|point| crypto.reduce(curve, point.x.as_slice()) == r)
}

/// EC-Schnorr.
pub(crate) fn schnorr(
    crypto: &dyn Crypto,
    curve: Curve,
    d: &EccNumber,
    hash: HashAlg,
    digest: &[u8],
    random: &mut dyn Stream,
) -> Option<(EccNumber, EccNumber)> {
    for _ in 0..4 {
        let k = draw_scalar(crypto, curve, random);
        let point = crypto.mul(curve, &k, None)?;
        let e = crypto.hash(hash, &[point.x.as_slice(), digest]);
        let r = leftmost(crypto, curve, e.as_slice());
        let s = crypto.mul_add(curve, &r, d, &k);
        if is_scalar(crypto, curve, &r) && is_scalar(crypto, curve, &s) {
            return Some((r, s));
        }
    }
    None
}

pub(crate) fn schnorr_verify(
    crypto: &dyn Crypto,
    curve: Curve,
    key: &Point,
    hash: HashAlg,
    digest: &[u8],
    r: &EccNumber,
    s: &EccNumber,
) -> bool {
    let Some([r, s]) = scalars(crypto, curve, [r, s]) else {
        return false;
    };
    crypto
        .mul_sum(curve, &s, &crypto.negate(curve, &r), key)
        .is_some_and(|point| {
            let e = crypto.hash(hash, &[point.x.as_slice(), digest]);
            leftmost(crypto, curve, e.as_slice()) == r
        })
}

/// ECDAA with the random scalar of a commitment; gives the nonce and the signature.
pub(crate) fn ecdaa(
    crypto: &dyn Crypto,
    curve: Curve,
    d: &EccNumber,
    commitment: &EccNumber,
    hash: HashAlg,
    digest: &[u8],
    random: &mut dyn Stream,
) -> (EccNumber, EccNumber) {
    let nonce = draw_scalar(crypto, curve, random);
    let t = leftmost(
        crypto,
        curve,
        crypto.hash(hash, &[nonce.as_slice(), digest]).as_slice(),
    );
    let s = crypto.mul_add(curve, &t, d, commitment);
    (nonce, s)
}

/// Both numbers at the curve's length, if they are in 1..order.
fn scalars(crypto: &dyn Crypto, curve: Curve, from: [&EccNumber; 2]) -> Option<[EccNumber; 2]> {
    let padded = from.map(|number| {
        let mut number = number.clone();
        number.pad_front(curve.bytes());
        number
    });
    padded
        .iter()
        .all(|number| is_scalar(crypto, curve, number))
        .then_some(padded)
}
