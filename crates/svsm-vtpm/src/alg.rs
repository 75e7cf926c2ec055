//! Algorithms and curves, as identifiers and as what this TPM implements of them.

use crate::{
    rc::Rc,
    wire::{Marshal, Reader, Unmarshal, Writer},
};

/// `TPM_ALG_ID`: any number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alg(pub u16);

#[expect(missing_docs, reason = "the names of the TCG Algorithm Registry")]
impl Alg {
    pub const RSA: Self = Self(0x0001);
    pub const SHA1: Self = Self(0x0004);
    pub const HMAC: Self = Self(0x0005);
    pub const AES: Self = Self(0x0006);
    pub const MGF1: Self = Self(0x0007);
    pub const KEYEDHASH: Self = Self(0x0008);
    pub const XOR: Self = Self(0x000A);
    pub const SHA256: Self = Self(0x000B);
    pub const SHA384: Self = Self(0x000C);
    pub const SHA512: Self = Self(0x000D);
    pub const NULL: Self = Self(0x0010);
    pub const RSASSA: Self = Self(0x0014);
    pub const RSAES: Self = Self(0x0015);
    pub const RSAPSS: Self = Self(0x0016);
    pub const OAEP: Self = Self(0x0017);
    pub const ECDSA: Self = Self(0x0018);
    pub const ECDH: Self = Self(0x0019);
    pub const ECDAA: Self = Self(0x001A);
    pub const ECSCHNORR: Self = Self(0x001C);
    pub const KDF1_SP800_56A: Self = Self(0x0020);
    pub const KDF2: Self = Self(0x0021);
    pub const KDF1_SP800_108: Self = Self(0x0022);
    pub const ECC: Self = Self(0x0023);
    pub const SYMCIPHER: Self = Self(0x0025);
    pub const SHAKE256: Self = Self(0x002B);
    pub const CMAC: Self = Self(0x003F);
    pub const CTR: Self = Self(0x0040);
    pub const OFB: Self = Self(0x0041);
    pub const CBC: Self = Self(0x0042);
    pub const CFB: Self = Self(0x0043);
    pub const ECB: Self = Self(0x0044);
    pub const MLKEM: Self = Self(0x00A0);
    pub const MLDSA: Self = Self(0x00A1);
    pub const HASH_MLDSA: Self = Self(0x00A2);
}

impl Unmarshal for Alg {
    fn read(r: &mut Reader<'_>) -> Result<Self, Rc> {
        Ok(Self(r.read()?))
    }
}

impl Marshal for Alg {
    fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        w.put(&self.0)
    }
}

/// A hash algorithm that this TPM implements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "their names say it")]
pub enum HashAlg {
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

impl HashAlg {
    /// All of them, in the order in which the TPM lists them.
    pub const ALL: [Self; 4] = [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512];

    /// How many there are.
    pub(crate) const COUNT: u32 = 4;

    /// The implemented algorithm with this identifier.
    pub const fn from_alg(alg: Alg) -> Option<Self> {
        match alg {
            Alg::SHA1 => Some(Self::Sha1),
            Alg::SHA256 => Some(Self::Sha256),
            Alg::SHA384 => Some(Self::Sha384),
            Alg::SHA512 => Some(Self::Sha512),
            _ => None,
        }
    }

    /// Its identifier.
    pub const fn alg(self) -> Alg {
        match self {
            Self::Sha1 => Alg::SHA1,
            Self::Sha256 => Alg::SHA256,
            Self::Sha384 => Alg::SHA384,
            Self::Sha512 => Alg::SHA512,
        }
    }

    /// Bytes of a digest.
    pub const fn digest_len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// Bytes of a block, which matter for HMAC keys.
    pub const fn block_len(self) -> usize {
        match self {
            Self::Sha1 | Self::Sha256 => 64,
            Self::Sha384 | Self::Sha512 => 128,
        }
    }

    /// The position in [`HashAlg::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// `TPMI_ALG_HASH+`: an algorithm, or none.
    pub(crate) fn read_or_null(r: &mut Reader<'_>) -> Result<Option<Self>, Rc> {
        let alg = r.read::<Alg>()?;
        if alg == Alg::NULL {
            Ok(None)
        } else {
            Self::from_alg(alg).map(Some).ok_or(Rc::HASH)
        }
    }
}

impl Unmarshal for HashAlg {
    fn read(r: &mut Reader<'_>) -> Result<Self, Rc> {
        Self::from_alg(r.read()?).ok_or(Rc::HASH)
    }
}

impl Marshal for HashAlg {
    fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        w.put(&self.alg())
    }
}

impl Marshal for Option<HashAlg> {
    fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        w.put(&self.map_or(Alg::NULL, HashAlg::alg))
    }
}

/// An elliptic curve that this TPM implements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "their names say it")]
pub enum Curve {
    P256,
    P384,
    P521,
    BnP256,
}

impl Curve {
    /// All of them, by their identifiers.
    pub const ALL: [Self; 4] = [Self::P256, Self::P384, Self::P521, Self::BnP256];

    /// `TPM_ECC_CURVE`.
    pub const fn id(self) -> u16 {
        match self {
            Self::P256 => 3,
            Self::P384 => 4,
            Self::P521 => 5,
            Self::BnP256 => 0x10,
        }
    }

    /// The curve with this identifier.
    pub const fn from_id(id: u16) -> Option<Self> {
        match id {
            3 => Some(Self::P256),
            4 => Some(Self::P384),
            5 => Some(Self::P521),
            0x10 => Some(Self::BnP256),
            _ => None,
        }
    }

    /// Bits of the field and of the order.
    pub const fn bits(self) -> u16 {
        match self {
            Self::P256 | Self::BnP256 => 256,
            Self::P384 => 384,
            Self::P521 => 521,
        }
    }

    /// Bytes of a coordinate or a scalar.
    pub const fn bytes(self) -> usize {
        match self {
            Self::P256 | Self::BnP256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }
}

impl Unmarshal for Curve {
    fn read(r: &mut Reader<'_>) -> Result<Self, Rc> {
        Self::from_id(r.read()?).ok_or(Rc::CURVE)
    }
}

impl Marshal for Curve {
    fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        w.put(&self.id())
    }
}

/// How a block cipher is chained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "their names say it")]
pub enum Mode {
    Ctr,
    Ofb,
    Cbc,
    Cfb,
    Ecb,
}

impl Mode {
    /// Its identifier.
    pub const fn alg(self) -> Alg {
        match self {
            Self::Ctr => Alg::CTR,
            Self::Ofb => Alg::OFB,
            Self::Cbc => Alg::CBC,
            Self::Cfb => Alg::CFB,
            Self::Ecb => Alg::ECB,
        }
    }

    /// The mode with this identifier.
    pub const fn from_alg(alg: Alg) -> Option<Self> {
        match alg {
            Alg::CTR => Some(Self::Ctr),
            Alg::OFB => Some(Self::Ofb),
            Alg::CBC => Some(Self::Cbc),
            Alg::CFB => Some(Self::Cfb),
            Alg::ECB => Some(Self::Ecb),
            _ => None,
        }
    }
}

/// `TPMI_RSA_KEY_BITS` that are implemented.
pub(crate) const RSA_BITS: [u16; 4] = [1024, 2048, 3072, 4096];

/// `TPMI_AES_KEY_BITS` that are implemented.
pub(crate) const AES_BITS: [u16; 3] = [128, 192, 256];
