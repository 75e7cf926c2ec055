//! The search for primes: a sieve, and Miller-Rabin rounds to small bases.
//!
//! Nearly all of the time that a new RSA key takes goes into the first round for each number that the sieve left. A power of a small base
//! needs no multiplication but squarings and a few additions, and a squaring does without a fourth of a product's work. Squarings, additions
//! and selections take the same time whatever the numbers are.

use crypto_bigint::{
    Limb, NonZero, Odd, Uint,
    modular::{FixedMontyForm, FixedMontyParams},
};

/// The sieve knows the odd primes below this.
const SIEVE_END: u32 = 1 << 17;
/// How many those are.
const SMALL_PRIMES: usize = 12_250;
/// Half of what each of them is more than the one before, the first of them more than one.
static GAPS: [u8; SMALL_PRIMES] = gaps();
/// So many of them make a product of 64 bits.
const GROUP: usize = 3;

#[expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "runs in the compiler, which checks it"
)]
const fn gaps() -> [u8; SMALL_PRIMES] {
    // For 2 i + 1: whether a smaller number divides it.
    let mut composite = [false; (SIEVE_END / 2) as usize];
    let mut gaps = [0; SMALL_PRIMES];
    let (mut count, mut last) = (0, 0);
    let mut i = 1;
    while i < composite.len() {
        if !composite[i] {
            gaps[count] = (i - last) as u8;
            (count, last) = (count + 1, i);
            let mut multiple = 2 * i * (i + 1);
            while multiple < composite.len() {
                composite[multiple] = true;
                multiple += 2 * i + 1;
            }
        }
        i += 1;
    }
    assert!(count == SMALL_PRIMES);
    gaps
}

/// Strikes out of the odd numbers from `start` on the multiples of small primes, and those one above a multiple of `e`.
pub(super) fn sift<const L: usize>(start: &Uint<L>, e: u32, sieve: &mut [u64]) {
    let residue = |divisor: u64| {
        NonZero::new(Limb(divisor))
            .into_option()
            .map_or(0, |divisor| start.rem_limb(divisor).0)
    };
    let mut prime = 1;
    for group in GAPS.chunks(GROUP) {
        let mut primes = [1; GROUP];
        for (place, gap) in primes.iter_mut().zip(group) {
            prime += 2 * u64::from(*gap);
            *place = prime;
        }
        let rest = residue(primes.iter().product());
        for prime in primes.iter().take(group.len()) {
            strike(sieve, rest % prime, *prime);
        }
    }
    // One less than what is left out is the multiple.
    let e = u64::from(e);
    strike(sieve, (residue(e) + e - 1) % e, e);
}

/// Strikes out each `i` for which a number with this rest, plus `2 i`, is a multiple of an odd divisor.
fn strike(sieve: &mut [u64], rest: u64, divisor: u64) {
    let missing = if rest == 0 { 0 } else { divisor - rest };
    let first = if missing % 2 == 0 {
        missing / 2
    } else {
        missing.midpoint(divisor)
    };
    let end = 64 * u64::try_from(sieve.len()).unwrap_or(0);
    let mut at = first;
    while at < end {
        let word = usize::try_from(at / 64).unwrap_or(usize::MAX);
        if let Some(word) = sieve.get_mut(word) {
            *word |= 1 << (at % 64);
        }
        at += divisor;
    }
}

/// Whether `n` passes a round to this base. `n` stays secret; its being composite need not.
pub(super) fn passes<const H: usize, const L: usize>(n: Odd<Uint<L>>, base: u32) -> bool {
    let params = FixedMontyParams::new(n);
    let less = n.as_ref().wrapping_sub(&Uint::ONE);
    let twos = less.trailing_zeros();
    let field = Field {
        modulus: less.wrapping_add(&Uint::ONE).to_words(),
        inverse: params.mod_neg_inv().0,
    };
    let one = FixedMontyForm::one(&params).as_montgomery().to_words();
    let minus_one = FixedMontyForm::one(&params)
        .neg()
        .as_montgomery()
        .to_words();
    // The base to the power of the odd part of n - 1, from the highest bit down.
    let mut x = one;
    let odd_part = less.shr(twos);
    for bit in (0..Uint::<L>::BITS - twos).rev() {
        x = field.square::<H>(&x);
        let more = field.times(&x, base);
        let chosen = odd_part.bit(bit).to_u8();
        x = select(&x, &more, chosen);
    }
    if x == one || x == minus_one {
        return true;
    }
    for _ in 1..twos {
        x = field.square::<H>(&x);
        if x == minus_one {
            return true;
        }
    }
    false
}

/// Arithmetic modulo an odd number, with numbers in Montgomery form, lowest word first.
struct Field<const L: usize> {
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
fn select<const L: usize>(a: &[u64; L], b: &[u64; L], chosen: u8) -> [u64; L] {
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
    /// Twice, three times, … `x`.
    fn times(&self, x: &[u64; L], times: u32) -> [u64; L] {
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
    fn square<const H: usize>(&self, x: &[u64; L]) -> [u64; L] {
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
    use proptest::prelude::*;

    #[test]
    fn the_small_primes_are_prime_and_all_there() {
        let mut prime = 1u32;
        for gap in GAPS {
            let last = prime;
            prime += 2 * u32::from(gap);
            let is_prime = |n: u32| (3..=n.isqrt()).step_by(2).all(|d| !n.is_multiple_of(d));
            assert!(is_prime(prime), "{prime}");
            assert!(
                (last + 2..prime).step_by(2).all(|n| !is_prime(n)),
                "{prime}"
            );
        }
        assert_eq!(prime, 131_071);
    }

    #[test]
    fn the_sieve_strikes_out_multiples_and_neighbours_of_them_only() {
        // A number that fits a word, so that plain arithmetic tells.
        let start = 0xC123_4567_89AB_CDEF_u64;
        let (mut sieve, e) = ([0u64; 8], 65_537);
        sift::<8>(&Uint::from_u64(start), e, &mut sieve);
        for i in 0..64 * 8u64 {
            let n = start + 2 * i;
            let mut prime = 1;
            let divided = GAPS.iter().any(|gap| {
                prime += 2 * u64::from(*gap);
                n.is_multiple_of(prime)
            });
            let struck = sieve[(i / 64) as usize] >> (i % 64) & 1 == 1;
            assert_eq!(struck, divided || n % u64::from(e) == 1, "{i}");
        }
    }

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
            let field = Field { modulus, inverse: params.mod_neg_inv().0 };
            let [x, y] = [x, y].map(|n| FixedMontyForm::new(&Uint::<8>::from_words(n), &params));
            let words = |n: &FixedMontyForm<8>| n.as_montgomery().to_words();
            prop_assert_eq!(field.square::<4>(&words(&x)), words(&x.square()));
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
            let field = Field {
                modulus,
                inverse: params.mod_neg_inv().0,
            };
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
                    field.add(&words, &words),
                    x.double().as_montgomery().to_words()
                );
            }
        }
    }

    #[test]
    fn a_prime_passes_to_every_base_and_a_pseudoprime_does_not() {
        // 2^521 - 1 does not have the right length; the prime field of RFC 3526's group 2 has.
        const GROUP_2: &str = "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74\
                               020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F1437\
                               4FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED\
                               EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE65381FFFFFFFFFFFFFFFF";
        let prime = Uint::<16>::from_be_hex(GROUP_2);
        for base in [2, 3, 5, 7, 11, 13, 17, 19] {
            assert!(passes::<8, 16>(Odd::new(prime).unwrap(), base));
            let composite = Odd::new(prime.wrapping_sub(&Uint::from_u8(2))).unwrap();
            assert!(!passes::<8, 16>(composite, base));
        }
    }
}
