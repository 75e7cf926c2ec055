//! The public area of an object: `TPMT_PUBLIC` (Part 2, clause 12.2).

use super::{
    attributes::ObjectAttributes,
    lattice::{self, LatticeKey, LatticeParams},
    scheme::{Cipher, Kdf, KeyedHashScheme, Scheme, SchemeField, read_cipher_or_null},
};
use crate::{
    alg::{Alg, Curve, HashAlg, RSA_BITS},
    bytes::Bytes,
    rc::{Rc, ensure},
    wire::{Marshal, Reader, Unmarshal, Writer},
};

/// A digest, an authorization value, a nonce: as long as the longest hash.
pub type Digest = Bytes<64>;
/// A name: algorithm and digest, or a handle.
pub(crate) type Name = Bytes<66>;
/// A number modulo an RSA key.
pub type RsaNumber = Bytes<512>;
/// A coordinate or a scalar.
pub type EccNumber = Bytes<66>;

/// Room that any marshalled public area fits into.
pub(crate) use super::lattice::PUBLIC_MAX;

/// A point, or, as a template's unique field, any two numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Point {
    /// One coordinate.
    pub x: EccNumber,
    /// The other.
    pub y: EccNumber,
}

impl Unmarshal for Point {
    fn read(r: &mut Reader<'_>) -> Result<Self, Rc> {
        Ok(Self {
            x: r.read()?,
            y: r.read()?,
        })
    }
}

impl Marshal for Point {
    fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        w.put(&self.x)?;
        w.put(&self.y)
    }
}

/// `TPMU_PUBLIC_PARMS` with its selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Params {
    KeyedHash(KeyedHashScheme),
    SymCipher(Cipher),
    Rsa {
        symmetric: Option<Cipher>,
        scheme: Scheme,
        bits: u16,
        exponent: u32,
    },
    Ecc {
        symmetric: Option<Cipher>,
        scheme: Scheme,
        curve: Curve,
        kdf: Option<Kdf>,
    },
    Lattice(LatticeParams),
}

impl Params {
    pub(crate) const fn alg(&self) -> Alg {
        match self {
            Self::KeyedHash(_) => Alg::KEYEDHASH,
            Self::SymCipher(_) => Alg::SYMCIPHER,
            Self::Rsa { .. } => Alg::RSA,
            Self::Ecc { .. } => Alg::ECC,
            Self::Lattice(params) => params.alg(),
        }
    }

    /// `TPMI_ALG_PUBLIC`, before the parameters it selects.
    pub(crate) fn check_alg(alg: Alg, r: &Reader<'_>) -> Result<(), Rc> {
        ensure(
            matches!(alg, Alg::KEYEDHASH | Alg::SYMCIPHER | Alg::RSA | Alg::ECC)
                || r.lattices() && lattice::is_key_alg(alg),
            Rc::TYPE,
        )
    }

    pub(crate) fn read_after_alg(alg: Alg, r: &mut Reader<'_>) -> Result<Self, Rc> {
        match alg {
            Alg::KEYEDHASH => Ok(Self::KeyedHash(r.read()?)),
            Alg::SYMCIPHER => Ok(Self::SymCipher(r.read()?)),
            Alg::RSA => {
                let symmetric = read_cipher_or_null(r)?;
                let scheme = Scheme::read(r, SchemeField::Rsa)?;
                let bits = r.read::<u16>()?;
                ensure(RSA_BITS.contains(&bits), Rc::VALUE)?;
                Ok(Self::Rsa {
                    symmetric,
                    scheme,
                    bits,
                    exponent: r.read()?,
                })
            }
            Alg::ECC => Ok(Self::Ecc {
                symmetric: read_cipher_or_null(r)?,
                scheme: Scheme::read(r, SchemeField::Ecc)?,
                curve: r.read()?,
                kdf: Kdf::read_or_null(r)?,
            }),
            _ => LatticeParams::read_after_alg(alg, r).map(Self::Lattice),
        }
    }

    /// The symmetric algorithm that protects a storage key's children.
    pub(crate) const fn symmetric(&self) -> Option<Cipher> {
        match self {
            Self::Rsa { symmetric, .. } | Self::Ecc { symmetric, .. } => *symmetric,
            Self::SymCipher(cipher) => Some(*cipher),
            Self::KeyedHash(_) => None,
            Self::Lattice(params) => params.symmetric(),
        }
    }

    /// The scheme of an asymmetric key.
    pub(crate) const fn scheme(&self) -> Scheme {
        match self {
            Self::Rsa { scheme, .. } | Self::Ecc { scheme, .. } => *scheme,
            Self::KeyedHash(KeyedHashScheme::Hmac(hash)) => Scheme::Hmac(*hash),
            Self::Lattice(params) => match params.scheme() {
                Some(scheme) => Scheme::Lattice(scheme),
                None => Scheme::Null,
            },
            _ => Scheme::Null,
        }
    }
}

impl Unmarshal for Params {
    /// `TPMT_PUBLIC_PARMS`.
    fn read(r: &mut Reader<'_>) -> Result<Self, Rc> {
        let alg = r.read()?;
        Self::check_alg(alg, r)?;
        Self::read_after_alg(alg, r)
    }
}

impl Params {
    fn write_after_alg(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        match self {
            Self::KeyedHash(scheme) => w.put(scheme),
            Self::SymCipher(cipher) => w.put(cipher),
            Self::Rsa {
                symmetric,
                scheme,
                bits,
                exponent,
            } => {
                w.put(symmetric)?;
                w.put(scheme)?;
                w.put(bits)?;
                w.put(exponent)
            }
            Self::Ecc {
                symmetric,
                scheme,
                curve,
                kdf,
            } => {
                w.put(symmetric)?;
                w.put(scheme)?;
                w.put(curve)?;
                w.put(kdf)
            }
            Self::Lattice(params) => params.write_after_alg(w),
        }
    }
}

/// `TPMU_PUBLIC_ID`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "nothing is allocated: all have a key's room"
)]
pub(crate) enum Unique {
    /// Of a keyed hash or a cipher: a digest over seed and secret.
    Digest(Digest),
    Rsa(RsaNumber),
    Ecc(Point),
    Lattice(LatticeKey),
}

impl Marshal for Unique {
    fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        match self {
            Self::Digest(digest) => w.put(digest),
            Self::Rsa(n) => w.put(n),
            Self::Ecc(point) => w.put(point),
            Self::Lattice(key) => w.put(key),
        }
    }
}

/// A public area that is well formed; whether it is consistent is the object rules' matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Public {
    pub(crate) name_alg: Option<HashAlg>,
    pub(crate) attributes: ObjectAttributes,
    pub(crate) policy: Digest,
    pub(crate) params: Params,
    pub(crate) unique: Unique,
}

impl Public {
    pub(crate) const fn has(&self, attribute: ObjectAttributes) -> bool {
        self.attributes.contains(attribute)
    }

    /// All fields before `unique`.
    fn read_head(r: &mut Reader<'_>, null_hash: bool) -> Result<Self, Rc> {
        let alg = r.read()?;
        Params::check_alg(alg, r)?;
        let name_alg = HashAlg::read_or_null(r)?;
        ensure(null_hash || name_alg.is_some(), Rc::HASH)?;
        let attributes = r.read()?;
        let policy = r.read()?;
        let params = Params::read_after_alg(alg, r)?;
        let unique = match params {
            Params::KeyedHash(_) | Params::SymCipher(_) => Unique::Digest(Digest::EMPTY),
            Params::Rsa { .. } => Unique::Rsa(RsaNumber::EMPTY),
            Params::Ecc { .. } => Unique::Ecc(Point::default()),
            Params::Lattice(params) => params.no_key(),
        };
        Ok(Self {
            name_alg,
            attributes,
            policy,
            params,
            unique,
        })
    }

    fn read_with(r: &mut Reader<'_>, null_hash: bool) -> Result<Self, Rc> {
        let mut it = Self::read_head(r, null_hash)?;
        match &mut it.unique {
            Unique::Digest(digest) => *digest = r.read()?,
            Unique::Rsa(n) => *n = r.read()?,
            Unique::Ecc(point) => *point = r.read()?,
            Unique::Lattice(key) => *key = r.read()?,
        }
        Ok(it)
    }

    /// `TPM2B_PUBLIC` or `TPM2B_PUBLIC+`.
    pub(crate) fn read_sized(r: &mut Reader<'_>, null_hash: bool) -> Result<Self, Rc> {
        let len = usize::from(r.read::<u16>()?);
        ensure(len != 0, Rc::SIZE)?;
        let before = r.rest().len();
        let it = Self::read_with(r, null_hash)?;
        ensure(before - r.rest().len() == len, Rc::SIZE)?;
        Ok(it)
    }

    /// `TPMT_PUBLIC` with a name algorithm.
    pub(crate) fn read_template(r: &mut Reader<'_>) -> Result<Self, Rc> {
        Self::read_with(r, false)
    }

    /// A template for a derivation parent: `unique` holds label and context (`TPMS_DERIVE`).
    pub(crate) fn read_derived(r: &mut Reader<'_>) -> Result<(Self, Derive), Rc> {
        let head = Self::read_head(r, false)?;
        Ok((head, r.read()?))
    }
}

impl Unmarshal for Public {
    fn read(r: &mut Reader<'_>) -> Result<Self, Rc> {
        Self::read_with(r, true)
    }
}

impl Marshal for Public {
    fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        w.put(&self.params.alg())?;
        w.put(&self.name_alg)?;
        w.put(&self.attributes)?;
        w.put(&self.policy)?;
        self.params.write_after_alg(w)?;
        w.put(&self.unique)
    }
}

/// `TPMS_DERIVE`: what makes a derived object differ from its siblings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Derive {
    pub(crate) label: Bytes<32>,
    pub(crate) context: Bytes<32>,
}

impl Unmarshal for Derive {
    fn read(r: &mut Reader<'_>) -> Result<Self, Rc> {
        Ok(Self {
            label: r.read()?,
            context: r.read()?,
        })
    }
}
