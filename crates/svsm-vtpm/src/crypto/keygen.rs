//! The search for RSA keys, one modular exponentiation a step.
//!
//! The order of the search decides which key a seed stands for, so it is frozen: draw an odd number of half the modulus'
//! length with its two highest bits set; the prime is the first one among it and the following [`WINDOW`] odd numbers,
//! one above which is no multiple of `e`; if there is none, draw again. The second prime must differ from the first in its first
//! 100 bits. How fast candidates are sorted out (the bound of the sieve, the number of rounds) changes nothing.

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{Crypto, RsaHalf, RsaKey, Stream};

/// Odd numbers that are looked at after each draw.
pub(crate) const WINDOW: u32 = 4096;
const WORDS: usize = WINDOW as usize / 64;
/// Small primes as bases: candidates are random, so fixed bases are as good as random ones.
const BASES: [u32; 8] = [2, 3, 5, 7, 11, 13, 17, 19];

/// A search in progress.
#[derive(Clone, Debug, Zeroize, ZeroizeOnDrop)]
pub(crate) struct RsaSearch {
    bits: u16,
    e: u32,
    first: RsaHalf,
    start: RsaHalf,
    sieve: [u64; WORDS],
    index: u32,
    round: u8,
}

impl RsaSearch {
    pub(crate) const fn new(bits: u16, e: u32) -> Self {
        Self {
            bits,
            e,
            first: RsaHalf::EMPTY,
            start: RsaHalf::EMPTY,
            sieve: [0; WORDS],
            index: 0,
            round: 0,
        }
    }

    /// Rounds for a failure probability below 2^-112 (FIPS 186-5, table B.1), and more for the smallest.
    const fn rounds(&self) -> usize {
        match self.bits {
            0..2048 => 8,
            2048..3072 => 5,
            _ => 4,
        }
    }

    /// Goes one step; the key, if that was the last.
    pub(crate) fn step(&mut self, crypto: &dyn Crypto, random: &mut dyn Stream) -> Option<RsaKey> {
        if self.start.is_empty() {
            self.draw(crypto, random);
            return None;
        }
        let Some(index) = self.candidate() else {
            self.start.resize(0);
            return None;
        };
        let base = BASES.get(usize::from(self.round)).copied().unwrap_or(2);
        if !crypto.miller_rabin(self.start.as_slice(), index, base) {
            self.index = index + 1;
            self.round = 0;
            return None;
        }
        self.round += 1;
        if usize::from(self.round) < self.rounds() {
            return None;
        }
        self.found(crypto, index)
    }

    fn draw(&mut self, crypto: &dyn Crypto, random: &mut dyn Stream) {
        self.start.resize(usize::from(self.bits) / 16);
        random.fill(self.start.as_mut_slice());
        if let [first, .., last] = self.start.as_mut_slice() {
            *first |= 0xC0;
            *last |= 1;
        }
        self.sieve = [0; WORDS];
        crypto.sieve(self.start.as_slice(), self.e, &mut self.sieve);
        self.index = 0;
        self.round = 0;
    }

    /// The next number that the sieve left, from `index` on.
    fn candidate(&self) -> Option<u32> {
        (self.index..WINDOW).find(|index| {
            self.sieve
                .get((index / 64) as usize)
                .is_some_and(|word| word & 1 << (index % 64) == 0)
        })
    }

    fn found(&mut self, crypto: &dyn Crypto, index: u32) -> Option<RsaKey> {
        let prime = crypto.candidate(self.start.as_slice(), index);
        self.start.resize(0);
        let prime = prime?;
        if self.first.is_empty() {
            self.first = prime;
            return None;
        }
        if self.first.as_slice().get(..13) == prime.as_slice().get(..13) {
            return None;
        }
        crypto.combine(self.e, self.first.as_slice(), prime.as_slice())
    }
}

/// Whether an exponent other than the default may be used: a prime above 2^16.
pub(crate) fn is_exponent(e: u32) -> bool {
    e > 1 << 16 && e % 2 == 1 && (3..=e.isqrt()).step_by(2).all(|d| !e.is_multiple_of(d))
}
