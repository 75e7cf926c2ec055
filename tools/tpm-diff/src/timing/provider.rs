//! The usual primitives, but for the private operation of RSA: it takes a thousand times as long as what is looked at here, and has
//! a time of its own.

use core::sync::atomic::{AtomicBool, Ordering};

use svsm_vtpm::crypto::{
    Ciphering, Curve, Curves, Digest, EccNumber, HashAlg, HashState, Hashing, Mode, Point, RsaHalf,
    RsaKey, RsaMath, RsaNumber, RustCrypto, Stream,
};

/// Whether a block is its cipher text.
static TAKEN_AWAY: AtomicBool = AtomicBool::new(false);

/// See the module.
pub(super) struct Identity;

impl Identity {
    /// From now on a block is what its cipher text says.
    pub(super) fn take_rsa_away() {
        TAKEN_AWAY.store(true, Ordering::Relaxed);
    }
}

impl RsaMath for Identity {
    fn public(&self, n: &[u8], e: u32, x: &[u8]) -> Option<RsaNumber> {
        RustCrypto.public(n, e, x)
    }

    fn private(&self, key: &RsaKey, x: &[u8], random: &mut dyn Stream) -> Option<RsaNumber> {
        if TAKEN_AWAY.load(Ordering::Relaxed) {
            RsaNumber::new(x)
        } else {
            RustCrypto.private(key, x, random)
        }
    }

    fn complete(&self, n: &[u8], e: u32, p: &[u8]) -> Option<RsaKey> {
        RustCrypto.complete(n, e, p)
    }

    fn combine(&self, e: u32, p: &[u8], q: &[u8]) -> Option<RsaKey> {
        RustCrypto.combine(e, p, q)
    }

    fn sieve(&self, start: &[u8], e: u32, sieve: &mut [u64]) {
        RustCrypto.sieve(start, e, sieve);
    }

    fn miller_rabin(&self, start: &[u8], index: u32, base: u32) -> bool {
        RustCrypto.miller_rabin(start, index, base)
    }

    fn candidate(&self, start: &[u8], index: u32) -> Option<RsaHalf> {
        RustCrypto.candidate(start, index)
    }
}

impl Hashing for Identity {
    fn hash(&self, alg: HashAlg, parts: &[&[u8]]) -> Digest {
        RustCrypto.hash(alg, parts)
    }

    fn hmac(&self, alg: HashAlg, key: &[u8], parts: &[&[u8]]) -> Digest {
        RustCrypto.hmac(alg, key, parts)
    }

    fn start(&self, alg: HashAlg) -> HashState {
        RustCrypto.start(alg)
    }

    fn update(&self, state: &mut HashState, data: &[u8]) {
        RustCrypto.update(state, data);
    }

    fn finish(&self, state: &HashState) -> Digest {
        RustCrypto.finish(state)
    }
}

impl Ciphering for Identity {
    fn encrypt(&self, mode: Mode, key: &[u8], iv: &mut [u8; 16], data: &mut [u8]) {
        RustCrypto.encrypt(mode, key, iv, data);
    }

    fn decrypt(&self, mode: Mode, key: &[u8], iv: &mut [u8; 16], data: &mut [u8]) {
        RustCrypto.decrypt(mode, key, iv, data);
    }
}

impl Curves for Identity {
    fn reduce(&self, curve: Curve, bytes: &[u8]) -> EccNumber {
        RustCrypto.reduce(curve, bytes)
    }

    fn mul_add(&self, curve: Curve, a: &EccNumber, b: &EccNumber, c: &EccNumber) -> EccNumber {
        RustCrypto.mul_add(curve, a, b, c)
    }

    fn negate(&self, curve: Curve, a: &EccNumber) -> EccNumber {
        RustCrypto.negate(curve, a)
    }

    fn invert(&self, curve: Curve, a: &EccNumber) -> Option<EccNumber> {
        RustCrypto.invert(curve, a)
    }

    fn mul(&self, curve: Curve, k: &EccNumber, point: Option<&Point>) -> Option<Point> {
        RustCrypto.mul(curve, k, point)
    }

    fn mul_sum(&self, curve: Curve, a: &EccNumber, b: &EccNumber, point: &Point) -> Option<Point> {
        RustCrypto.mul_sum(curve, a, b, point)
    }

    fn add(&self, curve: Curve, a: &Point, b: &Point) -> Option<Point> {
        RustCrypto.add(curve, a, b)
    }

    fn contains(&self, curve: Curve, point: &Point) -> bool {
        RustCrypto.contains(curve, point)
    }
}
