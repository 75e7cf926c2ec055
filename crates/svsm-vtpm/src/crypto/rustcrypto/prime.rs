//! The search for primes: a sieve, and Miller-Rabin rounds to small bases.
//!
//! Nearly all of the time that a new RSA key takes goes into the first round for each number that the sieve left. A power of a small base
//! needs no multiplication but squarings and a few additions, and a squaring does without a fourth of a product's work.

use crypto_bigint::{
    Limb, NonZero, Odd, Uint,
    modular::{FixedMontyForm, FixedMontyParams},
};

use super::montgomery::{Field, select};

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
    let field = Field::of(&params);
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

#[cfg(test)]
mod tests {
    use super::*;

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
