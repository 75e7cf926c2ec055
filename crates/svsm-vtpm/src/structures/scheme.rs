//! Symmetric definitions and the schemes of keys (Part 2, clause 11).

use super::lattice::LatticeScheme;
use crate::{
    alg::{AES_BITS, Alg, HashAlg, Mode},
    rc::{Rc, ensure},
    wire::{Marshal, Reader, Unmarshal, Writer},
};

/// A block cipher with key size and mode: `TPMT_SYM_DEF_OBJECT` that is not null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cipher {
    pub(crate) bits: u16,
    pub(crate) mode: KeyMode,
}

/// What a key with a block cipher is used for: `TPMI_ALG_SYM_MODE+`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyMode {
    /// It is chosen at each use.
    Any,
    /// Encryption in this mode.
    Chained(Mode),
    /// Authentication by CMAC.
    Cmac,
}

impl KeyMode {
    pub(crate) const fn alg(self) -> Alg {
        match self {
            Self::Any => Alg::NULL,
            Self::Chained(mode) => mode.alg(),
            Self::Cmac => Alg::CMAC,
        }
    }
}

impl Cipher {
    pub(crate) const fn key_len(self) -> usize {
        self.bits as usize / 8
    }

    fn read_after_alg(r: &mut Reader<'_>) -> Result<Self, Rc> {
        let bits = r.read::<u16>()?;
        ensure(AES_BITS.contains(&bits), Rc::VALUE)?;
        let mode = match r.read::<Alg>()? {
            Alg::NULL => KeyMode::Any,
            Alg::CMAC => KeyMode::Cmac,
            alg => KeyMode::Chained(Mode::from_alg(alg).ok_or(Rc::MODE)?),
        };
        Ok(Self { bits, mode })
    }
}

impl Marshal for Cipher {
    fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        w.put(&Alg::AES)?;
        w.put(&self.bits)?;
        w.put(&self.mode.alg())
    }
}

/// `TPMT_SYM_DEF_OBJECT+`.
pub(crate) fn read_cipher_or_null(r: &mut Reader<'_>) -> Result<Option<Cipher>, Rc> {
    match r.read::<Alg>()? {
        Alg::AES => Cipher::read_after_alg(r).map(Some),
        Alg::NULL => Ok(None),
        _ => Err(Rc::SYMMETRIC),
    }
}

impl Unmarshal for Cipher {
    fn read(r: &mut Reader<'_>) -> Result<Self, Rc> {
        match r.read::<Alg>()? {
            Alg::AES => Self::read_after_alg(r),
            _ => Err(Rc::SYMMETRIC),
        }
    }
}

impl Marshal for Option<Cipher> {
    fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        match self {
            Some(cipher) => w.put(cipher),
            None => w.put(&Alg::NULL),
        }
    }
}

/// `TPMT_SYM_DEF+`: how a session encrypts parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ParameterCipher {
    #[default]
    Null,
    Xor(HashAlg),
    Block(Cipher),
}

impl Unmarshal for ParameterCipher {
    fn read(r: &mut Reader<'_>) -> Result<Self, Rc> {
        match r.read::<Alg>()? {
            Alg::NULL => Ok(Self::Null),
            Alg::XOR => Ok(Self::Xor(r.read()?)),
            Alg::AES => Cipher::read_after_alg(r).map(Self::Block),
            _ => Err(Rc::SYMMETRIC),
        }
    }
}

impl Marshal for ParameterCipher {
    fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        match self {
            Self::Null => w.put(&Alg::NULL),
            Self::Xor(hash) => w.put(&Alg::XOR).and_then(|()| w.put(hash)),
            Self::Block(cipher) => w.put(cipher),
        }
    }
}

/// A scheme of an asymmetric key, for signing or decryption: `TPMT_SIG_SCHEME`, `TPMT_RSA_SCHEME`, `TPMT_ECC_SCHEME`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Scheme {
    #[default]
    Null,
    RsaSsa(HashAlg),
    RsaPss(HashAlg),
    RsaEs,
    Oaep(HashAlg),
    EcDsa(HashAlg),
    EcSchnorr(HashAlg),
    /// With the counter of the commitment.
    EcDaa(HashAlg, u16),
    EcDh(HashAlg),
    /// A keyed hash that signs.
    Hmac(HashAlg),
    /// ML-DSA.
    Lattice(LatticeScheme),
}

/// Which schemes a field may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SchemeField {
    /// `TPMT_SIG_SCHEME+`.
    Signing,
    /// `TPMT_RSA_SCHEME+` in a key's parameters.
    Rsa,
    /// `TPMT_RSA_DECRYPT+`.
    RsaDecrypt,
    /// `TPMT_ECC_SCHEME+`.
    Ecc,
}

impl Scheme {
    pub(crate) const fn alg(self) -> Alg {
        match self {
            Self::Null => Alg::NULL,
            Self::RsaSsa(_) => Alg::RSASSA,
            Self::RsaPss(_) => Alg::RSAPSS,
            Self::RsaEs => Alg::RSAES,
            Self::Oaep(_) => Alg::OAEP,
            Self::EcDsa(_) => Alg::ECDSA,
            Self::EcSchnorr(_) => Alg::ECSCHNORR,
            Self::EcDaa(..) => Alg::ECDAA,
            Self::EcDh(_) => Alg::ECDH,
            Self::Hmac(_) => Alg::HMAC,
            Self::Lattice(scheme) => scheme.alg(),
        }
    }

    pub(crate) const fn hash(self) -> Option<HashAlg> {
        match self {
            Self::Null | Self::RsaEs => None,
            Self::RsaSsa(h)
            | Self::RsaPss(h)
            | Self::Oaep(h)
            | Self::EcDsa(h)
            | Self::EcSchnorr(h)
            | Self::EcDaa(h, _)
            | Self::EcDh(h)
            | Self::Hmac(h) => Some(h),
            Self::Lattice(scheme) => scheme.hash(),
        }
    }

    pub(crate) const fn signs(self) -> bool {
        matches!(
            self,
            Self::RsaSsa(_)
                | Self::RsaPss(_)
                | Self::EcDsa(_)
                | Self::EcSchnorr(_)
                | Self::EcDaa(..)
                | Self::Hmac(_)
                | Self::Lattice(_)
        )
    }

    pub(crate) fn read(r: &mut Reader<'_>, field: SchemeField) -> Result<Self, Rc> {
        use SchemeField as F;
        let wrong = if field == F::Signing {
            Rc::SCHEME
        } else {
            Rc::VALUE
        };
        let scheme = match (r.read::<Alg>()?, field) {
            (Alg::NULL, _) => Self::Null,
            (Alg::RSASSA, F::Signing | F::Rsa) => Self::RsaSsa(r.read()?),
            (Alg::RSAPSS, F::Signing | F::Rsa) => Self::RsaPss(r.read()?),
            (Alg::RSAES, F::Rsa | F::RsaDecrypt) => Self::RsaEs,
            (Alg::OAEP, F::Rsa | F::RsaDecrypt) => Self::Oaep(r.read()?),
            (Alg::ECDSA, F::Signing | F::Ecc) => Self::EcDsa(r.read()?),
            (Alg::ECSCHNORR, F::Signing | F::Ecc) => Self::EcSchnorr(r.read()?),
            (Alg::ECDAA, F::Signing | F::Ecc) => Self::EcDaa(r.read()?, r.read()?),
            (Alg::ECDH, F::Ecc) => Self::EcDh(r.read()?),
            (Alg::HMAC, F::Signing) => Self::Hmac(r.read()?),
            (alg, F::Signing) if r.lattices() => {
                Self::Lattice(LatticeScheme::from_alg(alg).ok_or(wrong)?)
            }
            _ => return Err(if field == F::Ecc { Rc::SCHEME } else { wrong }),
        };
        Ok(scheme)
    }
}

impl Marshal for Scheme {
    fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        w.put(&self.alg())?;
        if let Some(hash) = self.hash() {
            w.put(&hash)?;
        }
        if let Self::EcDaa(_, count) = self {
            w.put(count)?;
        }
        Ok(())
    }
}

/// A key derivation: `TPMT_KDF_SCHEME+`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kdf {
    pub(crate) alg: Alg,
    pub(crate) hash: HashAlg,
}

impl Kdf {
    pub(crate) fn read_or_null(r: &mut Reader<'_>) -> Result<Option<Self>, Rc> {
        match r.read::<Alg>()? {
            Alg::NULL => Ok(None),
            alg @ (Alg::MGF1 | Alg::KDF1_SP800_56A | Alg::KDF2 | Alg::KDF1_SP800_108) => {
                Ok(Some(Self {
                    alg,
                    hash: r.read()?,
                }))
            }
            _ => Err(Rc::KDF),
        }
    }
}

impl Marshal for Option<Kdf> {
    fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        match self {
            None => w.put(&Alg::NULL),
            Some(kdf) => w.put(&kdf.alg).and_then(|()| w.put(&kdf.hash)),
        }
    }
}

/// `TPMT_KEYEDHASH_SCHEME+`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyedHashScheme {
    Null,
    Hmac(HashAlg),
    Xor(HashAlg, Option<Alg>),
}

impl Unmarshal for KeyedHashScheme {
    fn read(r: &mut Reader<'_>) -> Result<Self, Rc> {
        match r.read::<Alg>()? {
            Alg::NULL => Ok(Self::Null),
            Alg::HMAC => Ok(Self::Hmac(r.read()?)),
            Alg::XOR => {
                let hash = r.read()?;
                match r.read::<Alg>()? {
                    Alg::NULL => Ok(Self::Xor(hash, None)),
                    kdf @ (Alg::MGF1 | Alg::KDF1_SP800_56A | Alg::KDF2 | Alg::KDF1_SP800_108) => {
                        Ok(Self::Xor(hash, Some(kdf)))
                    }
                    _ => Err(Rc::KDF),
                }
            }
            _ => Err(Rc::VALUE),
        }
    }
}

impl Marshal for KeyedHashScheme {
    fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        match self {
            Self::Null => w.put(&Alg::NULL),
            Self::Hmac(hash) => w.put(&Alg::HMAC).and_then(|()| w.put(hash)),
            Self::Xor(hash, kdf) => {
                w.put(&Alg::XOR)?;
                w.put(hash)?;
                w.put(&kdf.unwrap_or(Alg::NULL))
            }
        }
    }
}
