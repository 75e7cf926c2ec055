//! The Barreto-Naehrig curve of 256 bits (ISO/IEC 15946-5), on which anonymous attestation was first defined: `y^2 = x^3 + 3`.
//!
//! No crate has it. Points are projective and added by the complete formulas of Renes, Costello and Batina (algorithm 7, `a = 0`), which
//! have no special cases; multiplication adds at every bit and keeps the sum or not, in constant time.

use crypto_bigint::{
    Odd, U256,
    modular::{FixedMontyForm, FixedMontyParams},
};
use subtle::{Choice, ConditionallySelectable};

use crate::crypto::{EccNumber, Point};

type Element = FixedMontyForm<{ U256::LIMBS }>;
type Params = FixedMontyParams<{ U256::LIMBS }>;

const P: Odd<U256> =
    Odd::<U256>::from_be_hex("FFFFFFFFFFFCF0CD46E5F25EEE71A49F0CDC65FB12980A82D3292DDBAED33013");
const N: Odd<U256> =
    Odd::<U256>::from_be_hex("FFFFFFFFFFFCF0CD46E5F25EEE71A49E0CDC65FB1299921AF62D536CD10B500D");
static FIELD: Params = Params::new_vartime(P);
static ORDER: Params = Params::new_vartime(N);
/// Three times `b`.
const B3: u8 = 9;

fn uint(bytes: &[u8]) -> Option<U256> {
    let mut padded = [0; 32];
    let at = padded.len().checked_sub(bytes.len())?;
    padded.get_mut(at..)?.copy_from_slice(bytes);
    Some(U256::from_be_slice(&padded))
}

fn number(n: &U256) -> EccNumber {
    EccNumber::new(n.to_be_bytes().as_ref()).unwrap_or_default()
}

fn scalar(k: &EccNumber) -> Element {
    let k = uint(k.as_slice()).unwrap_or(U256::ZERO);
    Element::new(&k.rem(N.as_nz_ref()), &ORDER)
}

pub(super) fn reduce(bytes: &[u8]) -> EccNumber {
    number(&uint(bytes).unwrap_or(U256::ZERO).rem(N.as_nz_ref()))
}

pub(super) fn mul_add(a: &EccNumber, b: &EccNumber, c: &EccNumber) -> EccNumber {
    number(&scalar(a).mul(&scalar(b)).add(&scalar(c)).retrieve())
}

pub(super) fn negate(a: &EccNumber) -> EccNumber {
    number(&scalar(a).neg().retrieve())
}

pub(super) fn invert(a: &EccNumber) -> Option<EccNumber> {
    let inverse: Option<Element> = scalar(a).invert().into();
    inverse.map(|it| number(&it.retrieve()))
}

#[derive(Clone, Copy)]
struct Projective {
    x: Element,
    y: Element,
    z: Element,
}

impl Projective {
    const fn element(n: u8) -> Element {
        Element::new(&U256::from_u8(n), &FIELD)
    }

    fn infinity() -> Self {
        Self {
            x: Element::zero(&FIELD),
            y: Element::one(&FIELD),
            z: Element::zero(&FIELD),
        }
    }

    fn generator() -> Self {
        Self {
            x: Self::element(1),
            y: Self::element(2),
            z: Self::element(1),
        }
    }

    /// The point, if it is on the curve and its coordinates are below the prime.
    fn new(point: &Point) -> Option<Self> {
        let coordinate = |bytes: &EccNumber| {
            let n = uint(bytes.as_slice())?;
            (n < *P.as_ref()).then(|| Element::new(&n, &FIELD))
        };
        let (x, y) = (coordinate(&point.x)?, coordinate(&point.y)?);
        let on = y.square() == x.square().mul(&x).add(&Self::element(3));
        on.then(|| Self {
            x,
            y,
            z: Element::one(&FIELD),
        })
    }

    fn add(&self, other: &Self) -> Self {
        let b3 = Self::element(B3);
        let t0 = self.x.mul(&other.x);
        let t1 = self.y.mul(&other.y);
        let t2 = self.z.mul(&other.z);
        let cross = |a: (&Element, &Element), b: (&Element, &Element), c: &Element, d: &Element| {
            a.0.add(a.1).mul(&b.0.add(b.1)).sub(&c.add(d))
        };
        let t3 = cross((&self.x, &self.y), (&other.x, &other.y), &t0, &t1);
        let t4 = cross((&self.y, &self.z), (&other.y, &other.z), &t1, &t2);
        let t5 = cross((&self.x, &self.z), (&other.x, &other.z), &t0, &t2);
        let t0 = t0.double().add(&t0);
        let t2 = b3.mul(&t2);
        let z = t1.add(&t2);
        let t1 = t1.sub(&t2);
        let y = b3.mul(&t5);
        Self {
            x: t3.mul(&t1).sub(&t4.mul(&y)),
            y: y.mul(&t0).add(&t1.mul(&z)),
            z: z.mul(&t4).add(&t0.mul(&t3)),
        }
    }

    fn mul(&self, k: &U256) -> Self {
        let mut sum = Self::infinity();
        for bit in (0..256).rev() {
            sum = sum.add(&sum);
            let with = sum.add(self);
            sum = sum.select(&with, Choice::from(u8::from(bool::from(k.bit(bit)))));
        }
        sum
    }

    fn select(&self, other: &Self, choice: Choice) -> Self {
        let pick = |a: &Element, b: &Element| {
            let n = U256::conditional_select(a.as_montgomery(), b.as_montgomery(), choice);
            Element::from_montgomery(n, &FIELD)
        };
        Self {
            x: pick(&self.x, &other.x),
            y: pick(&self.y, &other.y),
            z: pick(&self.z, &other.z),
        }
    }

    fn to_point(self) -> Option<Point> {
        let inverse: Option<Element> = self.z.invert().into();
        let inverse = inverse?;
        let coordinate = |c: &Element| number(&c.mul(&inverse).retrieve());
        Some(Point {
            x: coordinate(&self.x),
            y: coordinate(&self.y),
        })
    }
}

pub(super) fn mul(k: &EccNumber, by: Option<&Point>) -> Option<Point> {
    let by = by.map_or_else(|| Some(Projective::generator()), Projective::new)?;
    by.mul(&scalar(k).retrieve()).to_point()
}

pub(super) fn mul_sum(a: &EccNumber, b: &EccNumber, point: &Point) -> Option<Point> {
    let left = Projective::generator().mul(&scalar(a).retrieve());
    left.add(&Projective::new(point)?.mul(&scalar(b).retrieve()))
        .to_point()
}

pub(super) fn add(a: &Point, b: &Point) -> Option<Point> {
    Projective::new(a)?.add(&Projective::new(b)?).to_point()
}

pub(super) fn contains(point: &Point) -> bool {
    Projective::new(point).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small(n: u8) -> EccNumber {
        number(&U256::from_u8(n))
    }

    #[test]
    fn generator_has_the_order_of_the_group() {
        let less = number(&N.as_ref().wrapping_sub(&U256::ONE));
        let last = mul(&less, None).unwrap();
        let first = mul(&small(1), None).unwrap();
        assert_eq!(
            first,
            Point {
                x: small(1),
                y: small(2)
            }
        );
        assert_eq!(last.x, first.x);
        assert_eq!(add(&first, &last), None);
    }

    #[test]
    fn multiplication_agrees_with_repeated_addition() {
        let one = mul(&small(1), None).unwrap();
        let mut sum = add(&one, &one).unwrap();
        for n in 3..20 {
            sum = add(&sum, &one).unwrap();
            assert_eq!(Some(&sum), mul(&small(n), None).as_ref());
            assert!(contains(&sum));
        }
        assert_eq!(mul_sum(&small(3), &small(4), &one), mul(&small(7), None));
    }
}
