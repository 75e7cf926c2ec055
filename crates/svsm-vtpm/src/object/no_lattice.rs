//! Without the feature `pqc`: there is no provider, and no key that could ask for one.

use super::{
    rules::Blame,
    secret::{Encrypted, Label},
};
use crate::{
    crypto::Digest,
    rc::Rc,
    state::{Core, object::Object},
    structures::{
        lattice::{LatticeKey, LatticeParams},
        public::Params,
        sensitive::Sensitive,
        signature::Signature,
    },
};

#[expect(clippy::unused_self, reason = "the feature's own functions need it")]
impl Core<'_> {
    pub(crate) const fn has_lattices(&self) -> bool {
        false
    }

    pub(crate) const fn offers_parms(&self, _: &Params) -> Result<(), Rc> {
        Ok(())
    }

    pub(crate) const fn parameter_sets(&self) -> Option<u32> {
        None
    }

    pub(crate) const fn lattice_public(
        &self,
        params: LatticeParams,
        _: &[u8],
    ) -> Result<LatticeKey, Rc> {
        match params {}
    }

    pub(crate) const fn check_lattice(
        &self,
        params: LatticeParams,
        _: &LatticeKey,
        _: Option<&Sensitive>,
        _: bool,
    ) -> Result<(), Blame> {
        match params {}
    }

    pub(crate) const fn sign_lattice(&self, _: &Object, _: &[u8]) -> Result<Signature, Rc> {
        Err(Rc::SCHEME)
    }

    pub(crate) const fn kem_secret_decrypt(
        &self,
        _: &Object,
        params: LatticeParams,
        _: Label,
        _: &Encrypted,
    ) -> Result<Digest, Rc> {
        match params {}
    }

    pub(crate) const fn kem_secret_encrypt(
        &self,
        params: LatticeParams,
        _: &LatticeKey,
        _: crate::HashAlg,
        _: Label,
    ) -> Result<(Digest, Encrypted), Rc> {
        match params {}
    }
}
