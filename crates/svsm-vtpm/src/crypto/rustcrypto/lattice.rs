//! ML-KEM and ML-DSA by the crates `ml-kem` and `ml-dsa`.
//!
//! A key is expanded from its seed at each use, on the stack. With optimization that is up to 80 KiB of it for ML-KEM, and for
//! ML-DSA-44, 65 and 87 about 210, 310 and 460 KiB.

use core::convert::Infallible;

use keccak::Keccak;
use ml_dsa::{
    EncodedVerifyingKey, Keypair as _, MlDsa44, MlDsa65, MlDsa87, MlDsaParams, Signature,
    SigningKey, VerifyingKey,
    signature::rand_core::{TryCryptoRng, TryRng},
};
use ml_kem::{B32, Decapsulate as _, KeyExport as _, ml_kem_512, ml_kem_768, ml_kem_1024};
use zeroize::Zeroize as _;

use super::RustCrypto;
use crate::crypto::lattice::{
    DSA_SEED_LEN, DsaMath, DsaSet, DsaSignature, KEM_SEED_LEN, KemCiphertext, KemMath, KemSet,
    LatticeKey, MU_LEN, Permutation, SHARED_SECRET_LEN,
};

/// Evaluates `$body` with `$set` as the module of the parameter set.
macro_rules! kem {
    ($which:expr, $set:ident => $body:expr) => {
        match $which {
            KemSet::MlKem512 => {
                use ml_kem_512 as $set;
                $body
            }
            KemSet::MlKem768 => {
                use ml_kem_768 as $set;
                $body
            }
            KemSet::MlKem1024 => {
                use ml_kem_1024 as $set;
                $body
            }
        }
    };
}

impl KemMath for RustCrypto {
    fn kem_public(&self, which: KemSet, seed: &[u8; KEM_SEED_LEN]) -> LatticeKey {
        kem!(which, set => {
            let key = set::DecapsulationKey::from_seed((*seed).into());
            LatticeKey::new(&key.encapsulation_key().to_bytes()).unwrap_or_default()
        })
    }

    fn is_kem_public(&self, which: KemSet, public: &[u8]) -> bool {
        kem!(which, set => {
            public.try_into().is_ok_and(|key| set::EncapsulationKey::new(key).is_ok())
        })
    }

    fn encapsulate(
        &self,
        which: KemSet,
        public: &[u8],
        random: &[u8; 32],
    ) -> Option<([u8; SHARED_SECRET_LEN], KemCiphertext)> {
        kem!(which, set => {
            let key = set::EncapsulationKey::new(public.try_into().ok()?).ok()?;
            let mut message = B32::from(*random);
            let (ciphertext, mut shared) = key.encapsulate_deterministic(&message);
            let secret = shared.into();
            message.zeroize();
            shared.zeroize();
            Some((secret, KemCiphertext::new(&ciphertext)?))
        })
    }

    fn decapsulate(
        &self,
        which: KemSet,
        seed: &[u8; KEM_SEED_LEN],
        ciphertext: &[u8],
    ) -> Option<[u8; SHARED_SECRET_LEN]> {
        kem!(which, set => {
            let key = set::DecapsulationKey::from_seed((*seed).into());
            let mut shared = key.decapsulate(ciphertext.try_into().ok()?);
            let secret = shared.into();
            shared.zeroize();
            Some(secret)
        })
    }
}

/// Calls a function that is generic over the parameter set.
macro_rules! dsa {
    ($which:expr, $f:ident($($arg:expr),*)) => {
        match $which {
            DsaSet::MlDsa44 => $f::<MlDsa44>($($arg),*),
            DsaSet::MlDsa65 => $f::<MlDsa65>($($arg),*),
            DsaSet::MlDsa87 => $f::<MlDsa87>($($arg),*),
        }
    };
}

impl DsaMath for RustCrypto {
    fn dsa_public(&self, which: DsaSet, seed: &[u8; DSA_SEED_LEN]) -> LatticeKey {
        dsa!(which, dsa_public(seed))
    }

    fn dsa_sign(
        &self,
        which: DsaSet,
        seed: &[u8; DSA_SEED_LEN],
        mu: &[u8; MU_LEN],
        random: &[u8; 32],
    ) -> Option<DsaSignature> {
        dsa!(which, dsa_sign(seed, mu, random))
    }

    fn dsa_verify(
        &self,
        which: DsaSet,
        public: &[u8],
        mu: &[u8; MU_LEN],
        signature: &[u8],
    ) -> bool {
        dsa!(which, dsa_verify(public, mu, signature)).unwrap_or(false)
    }
}

// Functions of their own, so that what one needs of the stack is not there while the next one runs.

#[inline(never)]
fn expand<P: MlDsaParams>(seed: &[u8; DSA_SEED_LEN]) -> SigningKey<P> {
    SigningKey::from_seed(&(*seed).into())
}

#[inline(never)]
fn public<P: MlDsaParams>(key: &SigningKey<P>) -> EncodedVerifyingKey<P> {
    key.verifying_key().encode()
}

#[inline(never)]
fn sign<P: MlDsaParams>(
    key: &SigningKey<P>,
    mu: &[u8; MU_LEN],
    random: &mut Once,
) -> Option<Signature<P>> {
    let key = key.expanded_key();
    key.sign_mu_randomized(&(*mu).into(), random).ok()
}

fn dsa_public<P: MlDsaParams>(seed: &[u8; DSA_SEED_LEN]) -> LatticeKey {
    LatticeKey::new(&public(&expand::<P>(seed))).unwrap_or_default()
}

fn dsa_sign<P: MlDsaParams>(
    seed: &[u8; DSA_SEED_LEN],
    mu: &[u8; MU_LEN],
    random: &[u8; 32],
) -> Option<DsaSignature> {
    let mut once = Once(*random);
    let signature = sign(&expand::<P>(seed), mu, &mut once);
    once.0.zeroize();
    DsaSignature::new(&signature?.encode())
}

fn dsa_verify<P: MlDsaParams>(public: &[u8], mu: &[u8; MU_LEN], signature: &[u8]) -> Option<bool> {
    let key: &EncodedVerifyingKey<P> = public.try_into().ok()?;
    let signature = Signature::<P>::try_from(signature).ok()?;
    Some(VerifyingKey::<P>::decode(key).verify_mu(&(*mu).into(), &signature))
}

/// The random bytes of one signature, in the form that the crate asks for.
struct Once([u8; 32]);

impl TryRng for Once {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut out = [0; 4];
        self.try_fill_bytes(&mut out)?;
        Ok(u32::from_le_bytes(out))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut out = [0; 8];
        self.try_fill_bytes(&mut out)?;
        Ok(u64::from_le_bytes(out))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        for (to, from) in out.iter_mut().zip(&self.0) {
            *to = *from;
        }
        Ok(())
    }
}

impl TryCryptoRng for Once {}

impl Permutation for RustCrypto {
    fn keccak(&self, state: &mut [u64; 25]) {
        Keccak::new().with_f1600(|f1600| f1600(state));
    }
}
