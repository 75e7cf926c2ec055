//! Montgomery's arithmetic on arrays of words. All of it takes the same time whatever the numbers are.
//!
//! The library has it, too; where nearly all of the time goes (the search for primes, public exponents), this one is faster.

use crypto_bigint::modular::FixedMontyParams;

/// Arithmetic modulo an odd number, with numbers in Montgomery form, lowest word first.
pub(super) struct Field<const L: usize> {
    modulus: [u64; L],
    /// `-1 / modulus` modulo 2^64.
    inverse: u64,
}

/// `a + b * c + carry`: low word and carry.
#[inline(always)]
const fn multiply_add(a: u64, b: u64, c: u64, carry: u64) -> (u64, u64) {
    halves(b as u128 * c as u128 + a as u128 + carry as u128)
}

/// `a + b + carry`: low word and carry.
#[inline(always)]
const fn add(a: u64, b: u64, carry: u64) -> (u64, u64) {
    halves(a as u128 + b as u128 + carry as u128)
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the halves are meant")]
const fn halves(n: u128) -> (u64, u64) {
    (n as u64, (n >> 64) as u64)
}

/// `b` if `chosen` is 1, `a` if it is 0.
#[inline(always)]
pub(super) fn select<const L: usize>(a: &[u64; L], b: &[u64; L], chosen: u8) -> [u64; L] {
    let mask = core::hint::black_box(0u64.wrapping_sub(u64::from(chosen)));
    let mut out = *a;
    for (out, b) in out.iter_mut().zip(b) {
        *out ^= (*out ^ b) & mask;
    }
    out
}

// Where words are counted, the compiler sees that no index leaves its array, and leaves no check: with iterators it makes slower code.
#[expect(
    clippy::indexing_slicing,
    clippy::needless_range_loop,
    reason = "every index is below the length of its array, which is a constant"
)]
impl<const L: usize> Field<L> {
    /// That of the library's parameters.
    pub(super) fn of(params: &FixedMontyParams<L>) -> Self {
        Self {
            modulus: params.modulus().as_ref().to_words(),
            inverse: params.mod_neg_inv().0,
        }
    }

    /// Twice, three times, … `x`.
    pub(super) fn times(&self, x: &[u64; L], times: u32) -> [u64; L] {
        let mut sum = *x;
        for bit in (0..31 - times.leading_zeros().min(31)).rev() {
            sum = self.add(&sum, &sum);
            if times >> bit & 1 == 1 {
                sum = self.add(&sum, x);
            }
        }
        sum
    }

    fn add(&self, a: &[u64; L], b: &[u64; L]) -> [u64; L] {
        let (mut sum, mut carry) = ([0; L], 0);
        for i in 0..L {
            (sum[i], carry) = add(a[i], b[i], carry);
        }
        self.reduce_once(&sum, carry)
    }

    /// A number below twice the modulus, less the modulus if it is not below it.
    #[inline(always)]
    fn reduce_once(&self, low: &[u64; L], high: u64) -> [u64; L] {
        let (mut less, mut borrow) = ([0; L], 0);
        for i in 0..L {
            let (word, first) = low[i].overflowing_sub(self.modulus[i]);
            let (word, second) = word.overflowing_sub(borrow);
            (less[i], borrow) = (word, u64::from(first | second));
        }
        select(&less, low, u8::from(borrow > high))
    }

    /// The square. With `x = h 2^(64 H) + l`, it is made of `h h`, `l l` and `2 h l`.
    pub(super) fn square<const H: usize>(&self, x: &[u64; L]) -> [u64; L] {
        const { assert!(2 * H == L) }
        let (mut l, mut h) = ([0; H], [0; H]);
        for i in 0..H {
            (l[i], h[i]) = (x[i], x[H + i]);
        }
        let (ll, hh, hl) = (product(&l, &l), product(&h, &h), product(&h, &l));
        let (mut low, mut high) = ([0; L], [0; L]);
        let (mut carry, mut bit) = (0, 0);
        low[..H].copy_from_slice(&ll.0);
        for i in 0..H {
            (low[H + i], carry) = add(ll.1[i], hl.0[i] << 1 | bit, carry);
            bit = hl.0[i] >> 63;
        }
        for i in 0..H {
            (high[i], carry) = add(hh.0[i], hl.1[i] << 1 | bit, carry);
            bit = hl.1[i] >> 63;
        }
        for i in 0..H {
            (high[H + i], carry) = add(hh.1[i], bit, carry);
            bit = 0;
        }
        self.montgomery_reduce(low, &high)
    }

    /// The product.
    pub(super) fn multiply(&self, a: &[u64; L], b: &[u64; L]) -> [u64; L] {
        let (mut sum, mut top) = ([0; L], 0);
        for a in a {
            let (low, mut of_product) = multiply_add(sum[0], *a, b[0], 0);
            let factor = low.wrapping_mul(self.inverse);
            let (_, mut of_modulus) = multiply_add(low, factor, self.modulus[0], 0);
            for i in 1..L {
                let low;
                (low, of_product) = multiply_add(sum[i], *a, b[i], of_product);
                (sum[i - 1], of_modulus) = multiply_add(low, factor, self.modulus[i], of_modulus);
            }
            (sum[L - 1], top) = add(of_product, of_modulus, top);
        }
        self.reduce_once(&sum, top)
    }

    /// `(high 2^(64 L) + low) / 2^(64 L)`.
    #[inline(always)]
    fn montgomery_reduce(&self, mut low: [u64; L], high: &[u64; L]) -> [u64; L] {
        let mut top = 0;
        for high in high {
            let factor = low[0].wrapping_mul(self.inverse);
            let (_, mut carry) = multiply_add(low[0], factor, self.modulus[0], 0);
            for i in 1..L {
                (low[i - 1], carry) = multiply_add(low[i], factor, self.modulus[i], carry);
            }
            (low[L - 1], top) = add(*high, carry, top);
        }
        self.reduce_once(&low, top)
    }
}

/// Both halves of a product.
#[inline(always)]
#[expect(
    clippy::indexing_slicing,
    reason = "every index is below the length of its array, which is a constant"
)]
fn product<const H: usize>(a: &[u64; H], b: &[u64; H]) -> ([u64; H], [u64; H]) {
    let (mut low, mut high) = ([0; H], [0; H]);
    for i in 0..H {
        let mut carry;
        (low[i], carry) = multiply_add(high[0], a[i], b[0], 0);
        for j in 1..H {
            (high[j - 1], carry) = multiply_add(high[j], a[i], b[j], carry);
        }
        high[H - 1] = carry;
    }
    (low, high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crypto_bigint::{Odd, Uint, modular::FixedMontyForm};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn arithmetic_is_that_of_the_library(
            words in any::<[[u64; 8]; 3]>(),
            times in 1u32..20,
        ) {
            let [mut modulus, x, y] = words;
            modulus[0] |= 1;
            modulus[7] |= 1 << 63;
            let odd = Odd::new(Uint::from_words(modulus)).unwrap();
            let params = FixedMontyParams::new(odd);
            let field = Field::of(&params);
            let [x, y] = [x, y].map(|n| FixedMontyForm::new(&Uint::<8>::from_words(n), &params));
            let words = |n: &FixedMontyForm<8>| n.as_montgomery().to_words();
            prop_assert_eq!(field.square::<4>(&words(&x)), words(&x.square()));
            prop_assert_eq!(field.multiply(&words(&x), &words(&y)), words(&x.mul(&y)));
            prop_assert_eq!(field.add(&words(&x), &words(&y)), words(&x.add(&y)));
            let factor = FixedMontyForm::new(&Uint::from_u32(times), &params);
            prop_assert_eq!(field.times(&words(&x), times), words(&x.mul(&factor)));
        }
    }

    #[test]
    fn extreme_numbers_are_squared_right() {
        let top = [u64::MAX; 8];
        let mut low = [0; 8];
        (low[0], low[7]) = (1, 1 << 63);
        for modulus in [top, low] {
            let params = FixedMontyParams::new(Odd::new(Uint::from_words(modulus)).unwrap());
            let field = Field::of(&params);
            for x in [
                FixedMontyForm::one(&params).neg(),
                FixedMontyForm::zero(&params),
            ] {
                let words = x.as_montgomery().to_words();
                assert_eq!(
                    field.square::<4>(&words),
                    x.square().as_montgomery().to_words()
                );
                assert_eq!(
                    field.multiply(&words, &words),
                    x.square().as_montgomery().to_words()
                );
                assert_eq!(
                    field.add(&words, &words),
                    x.double().as_montgomery().to_words()
                );
            }
        }
    }
}
