//! CTR_DRBG with AES-256 and no derivation function (SP 800-90A, clause 10.2.1).
//!
//! One instance, seeded by the embedder's [`Random`](crate::Random), makes all random numbers. Others, seeded by a hierarchy's
//! seed, make primary keys: their output is what a user's storage root key depends on, so this file is frozen, by the
//! known-answer test below (NIST's vector, which is the self-test, too).

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{Ciphering, Mode, Stream};

/// Bytes of a seed: key and counter.
pub(crate) const SEED_LEN: usize = 48;
/// Requests between seedings. SP 800-90A allows 2^48; entropy is cheaper than that.
const RESEED_AFTER: u32 = 1 << 16;
/// Bytes of one request (2^19 bits).
const REQUEST_MAX: usize = 1 << 16;

/// The state of a generator.
#[derive(Clone, Debug, Default, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Drbg {
    key: [u8; 32],
    v: [u8; 16],
    requests: u32,
}

impl Drbg {
    pub(crate) fn new(crypto: &(impl Ciphering + ?Sized), seed: &[u8; SEED_LEN]) -> Self {
        let mut it = Self::default();
        it.update(crypto, seed);
        it
    }

    /// Key, counter, and requests since the last seeding: for who suspends the TPM.
    pub(crate) const fn parts(&self) -> (&[u8; 32], &[u8; 16], u32) {
        (&self.key, &self.v, self.requests)
    }

    pub(crate) const fn from_parts(key: [u8; 32], v: [u8; 16], requests: u32) -> Self {
        Self { key, v, requests }
    }

    pub(crate) const fn wants_seed(&self) -> bool {
        self.requests >= RESEED_AFTER
    }

    /// Mixes in what is no entropy (additional input).
    pub(crate) fn mix(&mut self, crypto: &(impl Ciphering + ?Sized), input: &[u8; SEED_LEN]) {
        self.update(crypto, input);
    }

    /// Mixes in fresh entropy.
    pub(crate) fn reseed(&mut self, crypto: &(impl Ciphering + ?Sized), seed: &[u8; SEED_LEN]) {
        self.update(crypto, seed);
        self.requests = 0;
    }

    pub(crate) fn generate(&mut self, crypto: &(impl Ciphering + ?Sized), out: &mut [u8]) {
        for chunk in out.chunks_mut(REQUEST_MAX) {
            chunk.fill(0);
            self.keystream(crypto, chunk);
            self.update(crypto, &[0; SEED_LEN]);
            self.requests = self.requests.saturating_add(1);
        }
    }

    fn update(&mut self, crypto: &(impl Ciphering + ?Sized), provided: &[u8; SEED_LEN]) {
        let mut fresh = *provided;
        self.keystream(crypto, &mut fresh);
        let (key, v) = fresh.split_at(32);
        self.key.copy_from_slice(key);
        self.v.copy_from_slice(v);
        fresh.zeroize();
    }

    /// Exclusive-ors `E(v + 1), E(v + 2), …` into `data`, and leaves `v` at the last one used.
    fn keystream(&mut self, crypto: &(impl Ciphering + ?Sized), data: &mut [u8]) {
        let first = u128::from_be_bytes(self.v).wrapping_add(1);
        let blocks = data.len().div_ceil(16) as u128;
        crypto.encrypt(Mode::Ctr, &self.key, &mut first.to_be_bytes(), data);
        self.v = first.wrapping_add(blocks).wrapping_sub(1).to_be_bytes();
    }
}

/// A generator with the provider it needs: what key generation draws from.
pub(crate) struct Generator<'a, C: ?Sized> {
    pub(crate) drbg: &'a mut Drbg,
    pub(crate) crypto: &'a C,
}

impl<C: Ciphering + ?Sized> Stream for Generator<'_, C> {
    fn fill(&mut self, out: &mut [u8]) {
        self.drbg.generate(self.crypto, out);
    }
}

#[cfg(all(test, feature = "rustcrypto"))]
mod tests {
    use super::*;
    use crate::{
        crypto::RustCrypto,
        state::selftest::{DRBG_ENTROPY, DRBG_OUTPUT},
    };

    #[test]
    fn output_is_what_nist_says() {
        let mut drbg = Drbg::new(&RustCrypto, DRBG_ENTROPY);
        let mut out = [0; 64];
        drbg.generate(&RustCrypto, &mut out);
        assert_ne!(out, *DRBG_OUTPUT);
        drbg.generate(&RustCrypto, &mut out);
        assert_eq!(out, *DRBG_OUTPUT);
    }

    #[test]
    fn only_entropy_puts_off_the_next_seeding() {
        let mut drbg = Drbg::new(&RustCrypto, DRBG_ENTROPY);
        let mut out = [0; 1];
        for _ in 0..RESEED_AFTER {
            assert!(!drbg.wants_seed());
            drbg.generate(&RustCrypto, &mut out);
        }
        assert!(drbg.wants_seed());
        let before = drbg.clone();
        drbg.mix(&RustCrypto, &[7; SEED_LEN]);
        assert!(drbg.wants_seed());
        assert_ne!(drbg.key, before.key);
        drbg.reseed(&RustCrypto, DRBG_ENTROPY);
        assert!(!drbg.wants_seed());
    }
}
