//! Lattice cryptography: ML-KEM (FIPS 203) and ML-DSA (FIPS 204), as far as a provider has to know them.
//!
//! A TPM has it if it is given a provider with [`Tpm::set_lattices`](crate::Tpm::set_lattices). Keys are kept as the seeds that they are
//! expanded from, at each use.

use crate::{
    bytes::Bytes,
    rc::Rc,
    wire::{Marshal, Reader, Unmarshal, Writer},
};

/// An encoded public key: of ML-DSA-87 at most.
pub type LatticeKey = Bytes<2592>;
/// What only the holder of a key can turn into the shared secret: of ML-KEM-1024 at most.
pub type KemCiphertext = Bytes<1568>;
/// An encoded signature: of ML-DSA-87 at most.
pub type DsaSignature = Bytes<4627>;

/// Bytes of a secret that two parties share.
pub const SHARED_SECRET_LEN: usize = 32;
/// Bytes of the seed of an ML-KEM key, `d` and `z`.
pub const KEM_SEED_LEN: usize = 64;
/// Bytes of the seed of an ML-DSA key, ξ.
pub const DSA_SEED_LEN: usize = 32;
/// Bytes of the representative of a message, μ.
pub const MU_LEN: usize = 64;

/// A parameter set of ML-KEM (`TPMI_MLKEM_PARMS`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "their names say it")]
pub enum KemSet {
    MlKem512,
    MlKem768,
    MlKem1024,
}

impl KemSet {
    /// All of them, by their identifiers.
    pub const ALL: [Self; 3] = [Self::MlKem512, Self::MlKem768, Self::MlKem1024];

    /// Its identifier.
    pub const fn id(self) -> u16 {
        self as u16 + 1
    }

    /// Bytes of a public key.
    pub const fn public_len(self) -> usize {
        match self {
            Self::MlKem512 => 800,
            Self::MlKem768 => 1184,
            Self::MlKem1024 => 1568,
        }
    }

    /// Bytes of a ciphertext.
    pub const fn ciphertext_len(self) -> usize {
        match self {
            Self::MlKem512 => 768,
            Self::MlKem768 => 1088,
            Self::MlKem1024 => 1568,
        }
    }
}

/// A parameter set of ML-DSA (`TPMI_MLDSA_PARMS`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "their names say it")]
pub enum DsaSet {
    MlDsa44,
    MlDsa65,
    MlDsa87,
}

impl DsaSet {
    /// All of them, by their identifiers.
    pub const ALL: [Self; 3] = [Self::MlDsa44, Self::MlDsa65, Self::MlDsa87];

    /// Its identifier.
    pub const fn id(self) -> u16 {
        self as u16 + 1
    }

    /// Bytes of a public key.
    pub const fn public_len(self) -> usize {
        match self {
            Self::MlDsa44 => 1312,
            Self::MlDsa65 => 1952,
            Self::MlDsa87 => 2592,
        }
    }

    /// Bytes of a signature.
    pub const fn signature_len(self) -> usize {
        match self {
            Self::MlDsa44 => 2420,
            Self::MlDsa65 => 3309,
            Self::MlDsa87 => 4627,
        }
    }
}

macro_rules! sets {
    ($($t:ty),*) => { $(
        impl Unmarshal for $t {
            fn read(r: &mut Reader<'_>) -> Result<Self, Rc> {
                let id = r.read::<u16>()?;
                Self::ALL.into_iter().find(|set| set.id() == id).ok_or(Rc::PARMS)
            }
        }
        impl Marshal for $t {
            fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
                w.put(&self.id())
            }
        }
    )* };
}
sets!(KemSet, DsaSet);

/// ML-KEM (FIPS 203). The seed of a key is secret.
pub trait KemMath {
    /// The public key of a seed.
    fn kem_public(&self, set: KemSet, seed: &[u8; KEM_SEED_LEN]) -> LatticeKey;

    /// Whether this is the encoding of a public key (section 7.2: the length, and coefficients below the modulus).
    fn is_kem_public(&self, set: KemSet, public: &[u8]) -> bool;

    /// The shared secret that 32 random bytes stand for, and its ciphertext; `None` if `public` is no key of the set.
    fn encapsulate(
        &self,
        set: KemSet,
        public: &[u8],
        random: &[u8; 32],
    ) -> Option<([u8; SHARED_SECRET_LEN], KemCiphertext)>;

    /// The shared secret; `None` if the ciphertext has the wrong length. A wrong ciphertext of the right length gives a secret that
    /// nobody else has.
    fn decapsulate(
        &self,
        set: KemSet,
        seed: &[u8; KEM_SEED_LEN],
        ciphertext: &[u8],
    ) -> Option<[u8; SHARED_SECRET_LEN]>;
}

/// ML-DSA (FIPS 204), on the representative μ of a message. The seed of a key is secret.
pub trait DsaMath {
    /// The public key of a seed.
    fn dsa_public(&self, set: DsaSet, seed: &[u8; DSA_SEED_LEN]) -> LatticeKey;

    /// Signs, with 32 random bytes (the hedged variant). `None` if no attempt succeeds, which does not happen to anybody.
    fn dsa_sign(
        &self,
        set: DsaSet,
        seed: &[u8; DSA_SEED_LEN],
        mu: &[u8; MU_LEN],
        random: &[u8; 32],
    ) -> Option<DsaSignature>;

    /// Whether this is a signature by the holder of the key.
    fn dsa_verify(&self, set: DsaSet, public: &[u8], mu: &[u8; MU_LEN], signature: &[u8]) -> bool;
}

/// What SHAKE256 is made of (FIPS 202).
pub trait Permutation {
    /// Keccak-f\[1600\].
    fn keccak(&self, state: &mut [u64; 25]);
}

/// All that a TPM needs for post-quantum keys.
pub trait Lattices: KemMath + DsaMath + Permutation + Sync {}

impl<T: KemMath + DsaMath + Permutation + Sync> Lattices for T {}
