//! Without the feature `pqc` there are no ML-KEM and ML-DSA keys: the types that stand for them have no values.

use super::{public::Unique, scheme::Cipher};
use crate::{
    alg::{Alg, HashAlg},
    rc::Rc,
    wire::{Marshal, Reader, Unmarshal, Writer},
};

/// Room that any marshalled public area fits into.
pub(crate) const PUBLIC_MAX: usize = 640;
/// The longest `TPM2B_ENCRYPTED_SECRET`: a number of RSA-4096.
pub(crate) const ENCRYPTED_MAX: usize = 512;
/// Room that any object, sequence or session fits into.
pub(crate) const CONTENT_MAX: usize = 2048;

macro_rules! nothing {
    ($($name:ident),*) => { $(
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name {}
    )* };
}
nothing!(LatticeParams, LatticeKey, LatticeScheme, LatticeSignature);

pub(crate) const fn is_key_alg(_: Alg) -> bool {
    false
}

pub(crate) const fn seed_len(_: Alg) -> usize {
    0
}

impl LatticeParams {
    pub(crate) const fn alg(self) -> Alg {
        match self {}
    }

    pub(crate) const fn read_after_alg(_: Alg, _: &mut Reader<'_>) -> Result<Self, Rc> {
        Err(Rc::TYPE)
    }

    pub(crate) const fn write_after_alg(self, _: &mut Writer<'_>) -> Result<(), Rc> {
        match self {}
    }

    pub(crate) const fn symmetric(self) -> Option<Cipher> {
        match self {}
    }

    pub(crate) const fn scheme(self) -> Option<LatticeScheme> {
        match self {}
    }

    pub(crate) const fn no_key(self) -> Unique {
        match self {}
    }

    pub(crate) const fn check_use(self, _: bool, _: bool, _: bool) -> Result<(), Rc> {
        match self {}
    }
}

impl Unmarshal for LatticeKey {
    fn read(_: &mut Reader<'_>) -> Result<Self, Rc> {
        Err(Rc::TYPE)
    }
}

impl Marshal for LatticeKey {
    fn write(&self, _: &mut Writer<'_>) -> Result<(), Rc> {
        match *self {}
    }
}

impl LatticeScheme {
    pub(crate) const fn from_alg(_: Alg) -> Option<Self> {
        None
    }

    pub(crate) const fn alg(self) -> Alg {
        match self {}
    }

    pub(crate) const fn hash(self) -> Option<HashAlg> {
        match self {}
    }
}

impl LatticeSignature {
    pub(crate) const fn alg(&self) -> Alg {
        match *self {}
    }

    pub(crate) const fn hash(&self) -> Option<HashAlg> {
        match *self {}
    }

    pub(crate) const fn read_after_alg(_: Alg, _: &mut Reader<'_>) -> Option<Result<Self, Rc>> {
        None
    }

    pub(crate) const fn write(&self, _: &mut Writer<'_>) -> Result<(), Rc> {
        match *self {}
    }
}
