//! Structures of ML-KEM and ML-DSA keys (version 1.85, Part 2, clauses 11.2.6, 11.2.7, 11.3.4 and 12.2.3).

use super::{
    public::Unique,
    scheme::{Cipher, read_cipher_or_null},
};
pub(crate) use crate::crypto::LatticeKey;
use crate::{
    alg::{Alg, HashAlg},
    crypto::{DSA_SEED_LEN, DsaSet, DsaSignature, KEM_SEED_LEN, KemSet},
    rc::{Rc, ensure},
    wire::{Reader, Writer},
};

/// Room that any marshalled public area fits into: of ML-DSA-87.
pub(crate) const PUBLIC_MAX: usize = 2592 + 128;
/// The longest `TPM2B_ENCRYPTED_SECRET`: a ciphertext of ML-KEM-1024.
pub(crate) const ENCRYPTED_MAX: usize = 1568;
/// Room that any object, sequence or session fits into.
pub(crate) const CONTENT_MAX: usize = 3072;

/// `TPMS_MLKEM_PARMS`, `TPMS_MLDSA_PARMS` or `TPMS_HASH_MLDSA_PARMS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LatticeParams {
    Kem {
        symmetric: Option<Cipher>,
        set: KemSet,
    },
    /// ML-DSA of messages, and of what the caller computed of a message if `external_mu`.
    Dsa { set: DsaSet, external_mu: bool },
    /// ML-DSA of hashes.
    HashDsa { set: DsaSet, hash: HashAlg },
}

/// Whether keys have this type.
pub(crate) const fn is_key_alg(alg: Alg) -> bool {
    matches!(alg, Alg::MLKEM | Alg::MLDSA | Alg::HASH_MLDSA)
}

/// Bytes of the secret of such a key.
pub(crate) const fn seed_len(alg: Alg) -> usize {
    if matches!(alg, Alg::MLKEM) {
        KEM_SEED_LEN
    } else {
        DSA_SEED_LEN
    }
}

impl LatticeParams {
    pub(crate) const fn alg(self) -> Alg {
        match self {
            Self::Kem { .. } => Alg::MLKEM,
            Self::Dsa { .. } => Alg::MLDSA,
            Self::HashDsa { .. } => Alg::HASH_MLDSA,
        }
    }

    pub(crate) fn read_after_alg(alg: Alg, r: &mut Reader<'_>) -> Result<Self, Rc> {
        Ok(match alg {
            Alg::MLKEM => Self::Kem {
                symmetric: read_cipher_or_null(r)?,
                set: r.read()?,
            },
            Alg::MLDSA => Self::Dsa {
                set: r.read()?,
                external_mu: r.read()?,
            },
            Alg::HASH_MLDSA => Self::HashDsa {
                set: r.read()?,
                hash: r.read()?,
            },
            _ => return Err(Rc::TYPE),
        })
    }

    pub(crate) fn write_after_alg(self, w: &mut Writer<'_>) -> Result<(), Rc> {
        match self {
            Self::Kem { symmetric, set } => w.put(&symmetric).and_then(|()| w.put(&set)),
            Self::Dsa { set, external_mu } => w.put(&set).and_then(|()| w.put(&external_mu)),
            Self::HashDsa { set, hash } => w.put(&set).and_then(|()| w.put(&hash)),
        }
    }

    pub(crate) const fn symmetric(self) -> Option<Cipher> {
        match self {
            Self::Kem { symmetric, .. } => symmetric,
            _ => None,
        }
    }

    /// What the key signs with.
    pub(crate) const fn scheme(self) -> Option<LatticeScheme> {
        match self {
            Self::Kem { .. } => None,
            Self::Dsa { .. } => Some(LatticeScheme::Dsa),
            Self::HashDsa { hash, .. } => Some(LatticeScheme::HashDsa(Some(hash))),
        }
    }

    /// What stands for the public key where there is none yet.
    pub(crate) const fn no_key(self) -> Unique {
        Unique::Lattice(LatticeKey::EMPTY)
    }

    /// Bytes of the public key.
    pub(crate) const fn public_len(self) -> usize {
        match self {
            Self::Kem { set, .. } => set.public_len(),
            Self::Dsa { set, .. } | Self::HashDsa { set, .. } => set.public_len(),
        }
    }

    /// Attributes that go with the key, and the symmetric algorithm that it has if it is a storage key.
    pub(crate) fn check_use(self, sign: bool, decrypt: bool, restricted: bool) -> Result<(), Rc> {
        match self {
            Self::Kem { symmetric, .. } => {
                ensure(decrypt && !sign, Rc::ATTRIBUTES)?;
                ensure(symmetric.is_some() == restricted, Rc::SYMMETRIC)
            }
            _ => ensure(sign && !decrypt, Rc::ATTRIBUTES),
        }
    }
}

/// ML-DSA as the scheme of a signature. It has no details on the wire: all that there is to choose is in the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LatticeScheme {
    Dsa,
    /// Of hashes; which one, the key says.
    HashDsa(Option<HashAlg>),
}

impl LatticeScheme {
    pub(crate) const fn from_alg(alg: Alg) -> Option<Self> {
        match alg {
            Alg::MLDSA => Some(Self::Dsa),
            Alg::HASH_MLDSA => Some(Self::HashDsa(None)),
            _ => None,
        }
    }

    pub(crate) const fn alg(self) -> Alg {
        match self {
            Self::Dsa => Alg::MLDSA,
            Self::HashDsa(_) => Alg::HASH_MLDSA,
        }
    }

    pub(crate) const fn hash(self) -> Option<HashAlg> {
        match self {
            Self::Dsa => None,
            Self::HashDsa(hash) => hash,
        }
    }
}

/// `TPM2B_SIGNATURE_MLDSA`, or `TPMS_SIGNATURE_HASH_MLDSA`.
#[derive(Clone, Debug)]
pub(crate) struct LatticeSignature {
    pub(crate) hash: Option<HashAlg>,
    pub(crate) value: DsaSignature,
}

impl LatticeSignature {
    pub(crate) const fn alg(&self) -> Alg {
        if self.hash.is_some() {
            Alg::HASH_MLDSA
        } else {
            Alg::MLDSA
        }
    }

    /// A signature of this algorithm; `None` if it is another's.
    pub(crate) fn read_after_alg(alg: Alg, r: &mut Reader<'_>) -> Option<Result<Self, Rc>> {
        let hash = match LatticeScheme::from_alg(alg)? {
            LatticeScheme::Dsa => Ok(None),
            LatticeScheme::HashDsa(_) => r.read().map(Some),
        };
        Some(hash.and_then(|hash| {
            Ok(Self {
                hash,
                value: r.read()?,
            })
        }))
    }

    pub(crate) const fn hash(&self) -> Option<HashAlg> {
        self.hash
    }

    /// What follows algorithm and hash.
    pub(crate) fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        w.put(&self.value)
    }
}

/// `TPM2B_SIGNATURE_CTX`: 255 bytes for ML-DSA, a counter for ECDAA.
pub(crate) type SignatureContext = crate::Bytes<255>;
