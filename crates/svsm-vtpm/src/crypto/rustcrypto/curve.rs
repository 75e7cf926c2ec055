use elliptic_curve::{
    CurveArithmetic, FieldBytes,
    ff::Field,
    group::{Curve as _, CurveAffine, Group},
    ops::{MulByGeneratorVartime, Reduce},
    point::AffineCoordinates,
};
use p256::NistP256;
use p384::NistP384;
use p521::NistP521;

use super::{RustCrypto, bn};
use crate::crypto::{Curve, Curves, EccNumber, Point};

/// Calls a function that is generic over the curve with the type that `$curve` stands for.
macro_rules! with {
    ($curve:expr, $f:ident($($arg:expr),*)) => {
        match $curve {
            Curve::P256 => $f::<NistP256>($($arg),*),
            Curve::P384 => $f::<NistP384>($($arg),*),
            Curve::P521 => $f::<NistP521>($($arg),*),
            Curve::BnP256 => bn::$f($($arg),*),
        }
    };
}

impl Curves for RustCrypto {
    fn reduce(&self, curve: Curve, bytes: &[u8]) -> EccNumber {
        with!(curve, reduce(bytes))
    }

    fn mul_add(&self, curve: Curve, a: &EccNumber, b: &EccNumber, c: &EccNumber) -> EccNumber {
        with!(curve, mul_add(a, b, c))
    }

    fn negate(&self, curve: Curve, a: &EccNumber) -> EccNumber {
        with!(curve, negate(a))
    }

    fn invert(&self, curve: Curve, a: &EccNumber) -> Option<EccNumber> {
        with!(curve, invert(a))
    }

    fn mul(&self, curve: Curve, k: &EccNumber, point: Option<&Point>) -> Option<Point> {
        with!(curve, mul(k, point))
    }

    fn mul_sum(&self, curve: Curve, a: &EccNumber, b: &EccNumber, point: &Point) -> Option<Point> {
        with!(curve, mul_sum(a, b, point))
    }

    fn add(&self, curve: Curve, a: &Point, b: &Point) -> Option<Point> {
        with!(curve, add(a, b))
    }

    fn contains(&self, curve: Curve, point: &Point) -> bool {
        with!(curve, contains(point))
    }
}

/// The number as a field's bytes; one that is too long becomes zero, which no caller lets through.
fn field_bytes<C: CurveArithmetic>(number: &[u8]) -> FieldBytes<C> {
    let mut bytes = FieldBytes::<C>::default();
    if let Some(from) = bytes.len().checked_sub(number.len()) {
        bytes
            .iter_mut()
            .skip(from)
            .zip(number)
            .for_each(|(to, from)| *to = *from);
    }
    bytes
}

fn scalar<C: CurveArithmetic>(number: &[u8]) -> C::Scalar {
    <C::Scalar as Reduce<FieldBytes<C>>>::reduce(&field_bytes::<C>(number))
}

fn number<C: CurveArithmetic>(scalar: C::Scalar) -> EccNumber {
    let bytes: FieldBytes<C> = scalar.into();
    EccNumber::new(&bytes).unwrap_or_default()
}

fn reduce<C: CurveArithmetic>(bytes: &[u8]) -> EccNumber {
    number::<C>(scalar::<C>(bytes))
}

fn mul_add<C: CurveArithmetic>(a: &EccNumber, b: &EccNumber, c: &EccNumber) -> EccNumber {
    let [a, b, c] = [a, b, c].map(|x| scalar::<C>(x.as_slice()));
    number::<C>(a * b + c)
}

fn negate<C: CurveArithmetic>(a: &EccNumber) -> EccNumber {
    number::<C>(-scalar::<C>(a.as_slice()))
}

fn invert<C: CurveArithmetic>(a: &EccNumber) -> Option<EccNumber> {
    let inverse: Option<C::Scalar> = Field::invert(&scalar::<C>(a.as_slice())).into();
    inverse.map(number::<C>)
}

/// The point, if it is on the curve. Both coordinates must be below the prime.
fn affine<C: CurveArithmetic>(point: &Point) -> Option<C::AffinePoint> {
    let len = FieldBytes::<C>::default().len();
    if point.x.len() > len || point.y.len() > len {
        return None;
    }
    C::AffinePoint::from_coordinates(
        &field_bytes::<C>(point.x.as_slice()),
        &field_bytes::<C>(point.y.as_slice()),
    )
    .into()
}

fn point<C: CurveArithmetic>(point: C::ProjectivePoint) -> Option<Point> {
    if bool::from(point.is_identity()) {
        return None;
    }
    let affine = point.to_affine();
    Some(Point {
        x: EccNumber::new(&affine.x())?,
        y: EccNumber::new(&affine.y())?,
    })
}

fn mul<C: CurveArithmetic>(k: &EccNumber, by: Option<&Point>) -> Option<Point> {
    let k = scalar::<C>(k.as_slice());
    let product = match by {
        None => C::ProjectivePoint::mul_by_generator(&k),
        Some(by) => affine::<C>(by)?.to_curve() * k,
    };
    point::<C>(product)
}

fn mul_sum<C: CurveArithmetic>(a: &EccNumber, b: &EccNumber, p: &Point) -> Option<Point> {
    let [a, b] = [a, b].map(|x| scalar::<C>(x.as_slice()));
    let p = affine::<C>(p)?.to_curve();
    point::<C>(C::ProjectivePoint::mul_by_generator_and_mul_add_vartime(
        &a, &b, &p,
    ))
}

fn add<C: CurveArithmetic>(a: &Point, b: &Point) -> Option<Point> {
    point::<C>(affine::<C>(a)?.to_curve() + affine::<C>(b)?.to_curve())
}

fn contains<C: CurveArithmetic>(point: &Point) -> bool {
    affine::<C>(point).is_some()
}
