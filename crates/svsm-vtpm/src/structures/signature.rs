//! Signatures: `TPMT_SIGNATURE` (Part 2, clause 11.3.4).

use super::{
    lattice::LatticeSignature,
    public::{Digest, EccNumber, RsaNumber},
};
use crate::{
    alg::{Alg, HashAlg},
    bytes::Bytes,
    rc::Rc,
    structures::scheme::Scheme,
    wire::{Marshal, Reader, Unmarshal, Writer},
};

/// A signature with its scheme.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "it lives on the stack for one command"
)]
pub(crate) enum Signature {
    Null,
    Rsa {
        scheme: Scheme,
        value: RsaNumber,
    },
    Ecc {
        scheme: Scheme,
        r: EccNumber,
        s: EccNumber,
    },
    Hmac {
        hash: HashAlg,
        value: Digest,
    },
    Lattice(LatticeSignature),
}

impl Signature {
    pub(crate) const fn alg(&self) -> Alg {
        match self {
            Self::Null => Alg::NULL,
            Self::Rsa { scheme, .. } | Self::Ecc { scheme, .. } => scheme.alg(),
            Self::Hmac { .. } => Alg::HMAC,
            Self::Lattice(signature) => signature.alg(),
        }
    }

    pub(crate) const fn hash(&self) -> Option<HashAlg> {
        match self {
            Self::Null => None,
            Self::Rsa { scheme, .. } | Self::Ecc { scheme, .. } => scheme.hash(),
            Self::Hmac { hash, .. } => Some(*hash),
            Self::Lattice(signature) => signature.hash(),
        }
    }
}

impl Unmarshal for Signature {
    fn read(r: &mut Reader<'_>) -> Result<Self, Rc> {
        let alg = r.read::<Alg>()?;
        if r.lattices()
            && let Some(signature) = LatticeSignature::read_after_alg(alg, r)
        {
            return signature.map(Self::Lattice);
        }
        let known = [
            Alg::RSASSA,
            Alg::RSAPSS,
            Alg::ECDSA,
            Alg::ECSCHNORR,
            Alg::ECDAA,
            Alg::HMAC,
        ];
        if !known.contains(&alg) {
            return Err(Rc::SCHEME);
        }
        let hash: HashAlg = r.read()?;
        let scheme = match alg {
            Alg::RSASSA => Scheme::RsaSsa(hash),
            Alg::RSAPSS => Scheme::RsaPss(hash),
            Alg::ECDSA => Scheme::EcDsa(hash),
            Alg::ECSCHNORR => Scheme::EcSchnorr(hash),
            Alg::ECDAA => Scheme::EcDaa(hash, 0),
            _ => {
                // TPMT_HA: the digest has no size of its own.
                let value = Bytes::new(r.take(hash.digest_len())?).ok_or(Rc::SIZE)?;
                return Ok(Self::Hmac { hash, value });
            }
        };
        Ok(match scheme {
            Scheme::RsaSsa(_) | Scheme::RsaPss(_) => Self::Rsa {
                scheme,
                value: r.read()?,
            },
            _ => Self::Ecc {
                scheme,
                r: r.read()?,
                s: r.read()?,
            },
        })
    }
}

impl Marshal for Signature {
    fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        w.put(&self.alg())?;
        if let Some(hash) = self.hash() {
            w.put(&hash)?;
        }
        match self {
            Self::Null => Ok(()),
            Self::Rsa { value, .. } => w.put(value),
            Self::Ecc { r, s, .. } => w.put(r).and_then(|()| w.put(s)),
            Self::Hmac { value, .. } => w.bytes(value.as_slice()),
            Self::Lattice(signature) => signature.write(w),
        }
    }
}
