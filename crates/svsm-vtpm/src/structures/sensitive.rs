//! The secret part of an object (Part 2, clauses 11.1.14 and 12.3).

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{lattice, public::Digest};
use crate::{
    alg::Alg,
    bytes::Bytes,
    rc::{Rc, ensure},
    wire::{Marshal, Reader, Unmarshal, Writer},
};

/// Room that any marshalled sensitive area fits into.
pub(crate) const SENSITIVE_MAX: usize = 2 + 66 + 66 + 2 + SECRET_MAX;
/// The longest secret: a prime of an RSA-4096 key.
pub(crate) const SECRET_MAX: usize = 256;
/// The most data that can be sealed, or the longest HMAC key.
pub(crate) const SYM_DATA_MAX: usize = 128;

/// `TPMT_SENSITIVE`.
#[derive(Clone, Debug, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Sensitive {
    #[zeroize(skip)]
    pub(crate) alg: Alg,
    pub(crate) auth: Digest,
    /// Protects children, or obscures a cipher's or keyed hash's secret in `unique`.
    pub(crate) seed: Digest,
    /// A prime, a scalar, a key, the seed of a key, or sealed data.
    pub(crate) secret: Bytes<SECRET_MAX>,
}

impl Unmarshal for Sensitive {
    fn read(r: &mut Reader<'_>) -> Result<Self, Rc> {
        let alg = r.read()?;
        super::public::Params::check_alg(alg, r)?;
        let auth = r.read()?;
        let seed = r.read()?;
        let max = match alg {
            Alg::RSA => SECRET_MAX,
            Alg::ECC => 66,
            Alg::SYMCIPHER => 32,
            alg if lattice::is_key_alg(alg) => lattice::seed_len(alg),
            _ => SYM_DATA_MAX,
        };
        let secret: Bytes<SECRET_MAX> = Bytes::new(r.sized(max)?).ok_or(Rc::SIZE)?;
        // A seed has but one length.
        ensure(!lattice::is_key_alg(alg) || secret.len() == max, Rc::SIZE)?;
        Ok(Self {
            alg,
            auth,
            seed,
            secret,
        })
    }
}

impl Marshal for Sensitive {
    fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        w.put(&self.alg)?;
        w.put(&self.auth)?;
        w.put(&self.seed)?;
        w.put(&self.secret)
    }
}

/// `TPMS_SENSITIVE_CREATE`: what the caller of a creation keeps secret.
#[derive(Clone, Debug, Default, Zeroize, ZeroizeOnDrop)]
pub(crate) struct SensitiveCreate {
    pub(crate) auth: Digest,
    pub(crate) data: Bytes<SYM_DATA_MAX>,
}

impl SensitiveCreate {
    /// `TPM2B_SENSITIVE_CREATE`.
    pub(crate) fn read_sized(r: &mut Reader<'_>) -> Result<Self, Rc> {
        let len = usize::from(r.read::<u16>()?);
        ensure(len != 0, Rc::SIZE)?;
        let before = r.rest().len();
        let it = Self {
            auth: r.read()?,
            data: r.read()?,
        };
        ensure(before - r.rest().len() == len, Rc::SIZE)?;
        Ok(it)
    }
}
