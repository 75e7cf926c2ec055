use crypto_bigint::{
    Limb, NonZero, Odd, Uint,
    modular::{FixedMontyForm, FixedMontyParams},
};

use super::{RustCrypto, montgomery::Field, prime};
use crate::crypto::{RsaHalf, RsaKey, RsaMath, RsaNumber, Stream};

/// Calls a function that is generic over the limbs of a prime and of the modulus, by the modulus' length in bytes.
macro_rules! with {
    ($len:expr, $f:ident($($arg:expr),*)) => {
        match $len {
            128 => $f::<8, 16>($($arg),*),
            256 => $f::<16, 32>($($arg),*),
            384 => $f::<24, 48>($($arg),*),
            512 => $f::<32, 64>($($arg),*),
            _ => Default::default(),
        }
    };
}

/// The same for functions that know primes only.
macro_rules! with_half {
    ($len:expr, $f:ident($($arg:expr),*)) => {
        match $len {
            64 => $f::<8>($($arg),*),
            128 => $f::<16>($($arg),*),
            192 => $f::<24>($($arg),*),
            256 => $f::<32>($($arg),*),
            _ => Default::default(),
        }
    };
}

impl RsaMath for RustCrypto {
    fn public(&self, n: &[u8], e: u32, x: &[u8]) -> Option<RsaNumber> {
        with!(n.len(), public(n, e, x))
    }

    fn private(&self, key: &RsaKey, x: &[u8], random: &mut dyn Stream) -> Option<RsaNumber> {
        with!(key.n.len(), private(key, x, random))
    }

    fn complete(&self, n: &[u8], e: u32, p: &[u8]) -> Option<RsaKey> {
        with!(n.len(), complete(n, e, p))
    }

    fn combine(&self, e: u32, p: &[u8], q: &[u8]) -> Option<RsaKey> {
        with!(p.len() * 2, combine(e, p, q))
    }

    fn sieve(&self, start: &[u8], e: u32, sieve: &mut [u64]) {
        with_half!(start.len(), sift(start, e, sieve));
    }

    fn miller_rabin(&self, start: &[u8], index: u32, base: u32) -> bool {
        match start.len() {
            64 => miller_rabin::<4, 8>(start, index, base),
            128 => miller_rabin::<8, 16>(start, index, base),
            192 => miller_rabin::<12, 24>(start, index, base),
            256 => miller_rabin::<16, 32>(start, index, base),
            _ => false,
        }
    }

    fn candidate(&self, start: &[u8], index: u32) -> Option<RsaHalf> {
        with_half!(start.len(), candidate(start, index))
    }
}

/// The number in `bytes`, if it fits.
fn uint<const L: usize>(bytes: &[u8]) -> Option<Uint<L>> {
    let zeros = bytes.len().saturating_sub(8 * L);
    let (head, tail) = bytes.split_at_checked(zeros)?;
    if head.iter().any(|b| *b != 0) {
        return None;
    }
    let mut padded = [0; 512];
    let room = padded.get_mut(..8 * L)?;
    let at = room.len() - tail.len();
    room.get_mut(at..)?.copy_from_slice(tail);
    Some(Uint::from_be_slice(room))
}

fn bytes<const L: usize, const N: usize>(x: &Uint<L>) -> crate::Bytes<N> {
    crate::Bytes::new(x.to_be_bytes().as_ref()).unwrap_or_default()
}

fn odd<const L: usize>(x: Uint<L>) -> Option<Odd<Uint<L>>> {
    Odd::new(x).into()
}

fn public<const H: usize, const N: usize>(n: &[u8], e: u32, x: &[u8]) -> Option<RsaNumber> {
    let n = odd(uint::<N>(n)?)?;
    let x = uint::<N>(x)?;
    if x >= *n.as_ref() {
        return None;
    }
    let params = FixedMontyParams::new_vartime(n);
    Some(bytes(&power::<H, N>(&x, e, &params)))
}

/// `x` to a public power.
fn power<const H: usize, const L: usize>(
    x: &Uint<L>,
    e: u32,
    params: &FixedMontyParams<L>,
) -> Uint<L> {
    let field = Field::of(params);
    let base = FixedMontyForm::new(x, params).as_montgomery().to_words();
    let mut y = base;
    // Square and multiply from the second-highest bit down: the exponent is public and has few ones.
    for bit in (1..31 - e.leading_zeros().min(31)).rev() {
        y = field.square::<H>(&y);
        if e >> bit & 1 == 1 {
            y = field.multiply(&y, &base);
        }
    }
    // The last factor is no Montgomery form, so that the product is none.
    let last = if e & 1 == 1 && e > 1 { *x } else { Uint::ONE };
    if e > 1 {
        y = field.square::<H>(&y);
    }
    Uint::from_words(field.multiply(&y, &last.to_words()))
}

/// `x` modulo a prime of half its length, in Montgomery form, in constant time: with `R = 2^(64 H)`, `x = hi R + lo`.
fn reduce<const H: usize, const N: usize>(
    x: &Uint<N>,
    params: &FixedMontyParams<H>,
) -> FixedMontyForm<H> {
    let lo = FixedMontyForm::new(&x.resize::<H>(), params);
    let hi = FixedMontyForm::new(&x.shr_vartime(bits_of::<H>()).resize::<H>(), params);
    // The Montgomery representation of `hi` is `hi R`.
    lo.add(&FixedMontyForm::new(hi.as_montgomery(), params))
}

fn private<const H: usize, const N: usize>(
    key: &RsaKey,
    x: &[u8],
    random: &mut dyn Stream,
) -> Option<RsaNumber> {
    let n = odd(uint::<N>(key.n.as_slice())?)?;
    let x = uint::<N>(x)?;
    if x >= *n.as_ref() {
        return None;
    }
    let n = FixedMontyParams::new_vartime(n);
    let half = |b: &RsaHalf| uint::<H>(b.as_slice());
    let (p, q) = (half(&key.p)?, half(&key.q)?);
    let (dp, dq, qinv) = (half(&key.dp)?, half(&key.dq)?, half(&key.qinv)?);
    let params_p = FixedMontyParams::new(odd(p)?);
    let params_q = FixedMontyParams::new(odd(q)?);

    // Blinding: the secret exponentiations see x r^e, and r is taken out of their results.
    let r = draw::<N>(n.modulus().as_ref(), random);
    let blind = FixedMontyForm::new(&power::<H, N>(&r, key.e, &n), &n);
    let blinded = FixedMontyForm::new(&x, &n).mul(&blind).retrieve();
    let unblind = |params: &FixedMontyParams<H>| -> Option<FixedMontyForm<H>> {
        Option::from(reduce(&r, params).invert())
    };

    let m_p = reduce(&blinded, &params_p)
        .pow(&dp)
        .mul(&unblind(&params_p)?);
    let m_q = reduce(&blinded, &params_q)
        .pow(&dq)
        .mul(&unblind(&params_q)?)
        .retrieve();
    let h = FixedMontyForm::new(&qinv, &params_p)
        .mul(&m_p.sub(&FixedMontyForm::new(&m_q, &params_p)))
        .retrieve();
    let (low, high) = h.widening_mul(&q);
    let m = join::<H, N>(&low, &high).wrapping_add(&m_q.resize::<N>());

    // A fault in one half would give the modulus' factors to whoever sees the result.
    (power::<H, N>(&m, key.e, &n) == x).then(|| bytes(&m))
}

/// Bits of a number of so many limbs.
const fn bits_of<const L: usize>() -> u32 {
    Uint::<L>::BITS
}

/// A random number below `n`, not zero.
fn draw<const L: usize>(n: &Uint<L>, random: &mut dyn Stream) -> Uint<L> {
    let mut buffer = [0; 512];
    let room = buffer.get_mut(..8 * L).unwrap_or_default();
    random.fill(room);
    // The highest bit of a modulus is set, so that dropping one bit is enough.
    let r = Uint::<L>::from_be_slice(room).shr_vartime(1);
    debug_assert!(r < *n);
    r.wrapping_add(&Uint::from_u8(u8::from(bool::from(r.is_zero()))))
}

fn join<const H: usize, const N: usize>(low: &Uint<H>, high: &Uint<H>) -> Uint<N> {
    low.resize::<N>()
        .wrapping_add(&high.resize::<N>().shl_vartime(bits_of::<H>()))
}

fn complete<const H: usize, const N: usize>(n: &[u8], e: u32, p: &[u8]) -> Option<RsaKey> {
    let n = uint::<N>(n)?;
    let p = uint::<H>(p)?;
    let divisor: NonZero<Uint<H>> = Option::from(NonZero::new(p))?;
    let (q, rest) = n.div_rem(&divisor);
    let q = q.resize_checked::<H>().into_option()?;
    if rest.is_zero_vartime() {
        of_primes::<H, N>(e, p, q, n)
    } else {
        None
    }
}

fn combine<const H: usize, const N: usize>(e: u32, p: &[u8], q: &[u8]) -> Option<RsaKey> {
    let (p, q) = (uint::<H>(p)?, uint::<H>(q)?);
    let (low, high) = p.widening_mul(&q);
    of_primes::<H, N>(e, p, q, join(&low, &high))
}

fn of_primes<const H: usize, const N: usize>(
    e: u32,
    p: Uint<H>,
    q: Uint<H>,
    n: Uint<N>,
) -> Option<RsaKey> {
    let params = FixedMontyParams::new(odd(p)?);
    odd(q)?;
    let qinv: FixedMontyForm<H> = Option::from(FixedMontyForm::new(&q, &params).invert())?;
    Some(RsaKey {
        bits: u16::try_from(64 * N).ok()?,
        e,
        n: bytes(&n),
        p: bytes(&p),
        q: bytes(&q),
        dp: bytes(&inverse_of_small(e, &p)?),
        dq: bytes(&inverse_of_small(e, &q)?),
        qinv: bytes(&qinv.retrieve()),
    })
}

/// `1 / e` modulo `p - 1`: `(1 + k (p - 1)) / e` with `k = -1 / (p - 1)` modulo `e`.
fn inverse_of_small<const L: usize>(e: u32, p: &Uint<L>) -> Option<Uint<L>> {
    let m = p.wrapping_sub(&Uint::ONE);
    let divisor = NonZero::new(Limb::from_u32(e)).into_option()?;
    let rest = u64::from(m.rem_limb(divisor));
    let inverse = power_mod(rest, u64::from(e) - 2, u64::from(e));
    if rest * inverse % u64::from(e) != 1 {
        return None;
    }
    let k = u64::from(e) - inverse;
    // (1 + k (p - 1)) is up to 32 bits longer than p: divide in two parts. With p - 1 = a e + rest:
    // (1 + k (a e + rest)) / e = k a + (1 + k rest) / e.
    let (a, _) = m.div_rem_limb(divisor);
    let tail = (1 + k * rest) / u64::from(e);
    Some(
        a.wrapping_mul(&Uint::<L>::from_u64(k))
            .wrapping_add(&Uint::from_u64(tail)),
    )
}

/// In small numbers; an inverse by Fermat's theorem, as `e` is prime.
fn power_mod(mut base: u64, mut exponent: u64, modulus: u64) -> u64 {
    let mut result = 1;
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = result * base % modulus;
        }
        base = base * base % modulus;
        exponent >>= 1;
    }
    result
}

fn sift<const L: usize>(start: &[u8], e: u32, sieve: &mut [u64]) {
    if let Some(start) = uint::<L>(start) {
        prime::sift(&start, e, sieve);
    }
}

fn nth<const L: usize>(start: &[u8], index: u32) -> Option<Uint<L>> {
    let start = uint::<L>(start)?;
    let it = start.wrapping_add(&Uint::from_u32(2 * index));
    (it >= start).then_some(it)
}

fn candidate<const L: usize>(start: &[u8], index: u32) -> Option<RsaHalf> {
    nth::<L>(start, index).map(|c| bytes(&c))
}

fn miller_rabin<const H: usize, const L: usize>(start: &[u8], index: u32, base: u32) -> bool {
    nth::<L>(start, index)
        .and_then(odd)
        .is_some_and(|n| prime::passes::<H, L>(n, base))
}
