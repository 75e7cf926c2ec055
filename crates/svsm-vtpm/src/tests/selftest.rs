//! Self-tests find a provider that computes wrongly.

use super::bench::{Bench, ECC_SIGNING, OWNER};
use crate::{
    Curve, HashAlg, Rc,
    crypto::{
        Ciphering, Curves, Digest, EccNumber, HashState, Hashing, Mode, Point, RsaHalf, RsaKey,
        RsaMath, RsaNumber, RustCrypto, Stream,
    },
    state::selftest::Tests,
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    Hash,
    Cipher,
    Curve,
}

/// A provider with a fault.
struct Faulty(Fault);

static BAD_HASH: Faulty = Faulty(Fault::Hash);
static BAD_CIPHER: Faulty = Faulty(Fault::Cipher);
static BAD_CURVE: Faulty = Faulty(Fault::Curve);

impl Hashing for Faulty {
    fn hash(&self, alg: HashAlg, parts: &[&[u8]]) -> Digest {
        let mut hash = RustCrypto.hash(alg, parts);
        if self.0 == Fault::Hash {
            hash.as_mut_slice()[0] ^= 1;
        }
        hash
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

impl Ciphering for Faulty {
    fn encrypt(&self, mode: Mode, key: &[u8], iv: &mut [u8; 16], data: &mut [u8]) {
        RustCrypto.encrypt(mode, key, iv, data);
        if self.0 == Fault::Cipher {
            data[0] ^= 1;
        }
    }
    fn decrypt(&self, mode: Mode, key: &[u8], iv: &mut [u8; 16], data: &mut [u8]) {
        RustCrypto.decrypt(mode, key, iv, data);
    }
}

impl Curves for Faulty {
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
        let mut product = RustCrypto.mul(curve, k, point)?;
        if self.0 == Fault::Curve {
            product.x.as_mut_slice()[0] ^= 1;
        }
        Some(product)
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

impl RsaMath for Faulty {
    fn public(&self, n: &[u8], e: u32, x: &[u8]) -> Option<RsaNumber> {
        RustCrypto.public(n, e, x)
    }
    fn private(&self, key: &RsaKey, x: &[u8], random: &mut dyn Stream) -> Option<RsaNumber> {
        RustCrypto.private(key, x, random)
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

/// The result's code, and how many algorithms are left to be tested.
fn state(bench: &mut Bench) -> (u32, u32) {
    let result = bench.ok(0x17C, &[], &[]);
    let left = bench.ok(0x142, &[], &[0; 4]);
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
    (number(&result[2..6]), number(&left[..4]))
}

#[test]
fn algorithms_are_tested_when_they_are_first_used() {
    let mut bench = Bench::started();
    // RSA with its four schemes, ECC with its four.
    assert_eq!(state(&mut bench), (Rc::NEEDS_TEST.as_u32(), 10));
    bench.create_primary(OWNER, ECC_SIGNING);
    assert!(bench.tpm.tested_for_test().contains(Tests::P256));
    assert!(
        !bench
            .tpm
            .tested_for_test()
            .intersects(Tests::P384 | Tests::RSA)
    );
    // RSA alone
    let left = bench.ok(0x142, &[], &[0, 0, 0, 1, 0, 1]);
    assert_eq!(left[..4], [0, 0, 0, 5]);
    bench.ok(0x143, &[], &[0]);
    assert_eq!(state(&mut bench), (0, 0));
}

#[test]
fn full_test_repeats_every_test_one_a_step() {
    let mut bench = Bench::started();
    for _ in 0..2 {
        bench
            .tpm
            .submit(0, b"\x80\x01\0\0\0\x0B\0\0\x01\x43\x01")
            .unwrap();
        let mut steps = 0;
        while bench.tpm.step() == crate::Progress::Pending {
            steps += 1;
        }
        // The command ends in the step of the last test.
        assert_eq!(steps, bench.tpm.core.all_tests().iter().count());
        assert_eq!(state(&mut bench), (0, 0));
    }
}

#[test]
fn unknown_algorithm_is_refused() {
    let mut bench = Bench::started();
    let (rc, _) = bench.run(0x142, &[], &[], &[0, 0, 0, 1, 0x7F, 0xFF]);
    assert_eq!(rc, Rc::VALUE.param(1));
}

#[test]
fn wrong_result_ends_in_failure_mode() {
    for provider in [&BAD_HASH, &BAD_CIPHER] {
        let mut bench = Bench::with_crypto(provider);
        assert_eq!(bench.run(0x144, &[], &[], &[0, 0]).0, Rc::FAILURE);
    }
    let mut bench = Bench::with_crypto(&BAD_CURVE);
    bench.ok(0x144, &[], &[0, 0]);
    bench.ok(0x17B, &[], &[0, 8]);
    assert_eq!(bench.run(0x143, &[], &[], &[1]).0, Rc::FAILURE);
    // Now nothing works but what says so.
    assert_eq!(bench.run(0x17B, &[], &[], &[0, 8]).0, Rc::FAILURE);
    let result = bench.ok(0x17C, &[], &[]);
    assert_eq!(result, [0, 0, 0, 0, 1, 1]);
}
