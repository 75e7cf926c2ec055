//! ML-KEM and ML-DSA keys: whether this TPM has them, and what it does with them.

use zeroize::Zeroize;

use super::{
    rules::Blame,
    secret::{Encrypted, Label},
};
use crate::{
    crypto::{
        DSA_SEED_LEN, Digest, DsaSet, KEM_SEED_LEN, KemSet, Lattices, MU_LEN, kdf, shake::Shake,
    },
    rc::{Rc, ensure},
    state::{Core, object::Object},
    structures::{
        lattice::{LatticeKey, LatticeParams, LatticeSignature, seed_len},
        public::{Params, Unique},
        sensitive::Sensitive,
        signature::Signature,
    },
};

/// What a response needs beside a public key: Create's, with three sessions.
const BESIDE_KEY: usize = 1280;
/// What a response or a command needs beside a signature: an attestation, with three sessions.
const BESIDE_SIGNATURE: usize = 736;

impl LatticeParams {
    /// The length of buffers without which keys of this kind are of no use.
    const fn buffer_min(self) -> usize {
        let key = self.public_len() + BESIDE_KEY;
        let signature = match self {
            Self::Kem { .. } => 0,
            Self::Dsa { set, .. } | Self::HashDsa { set, .. } => {
                set.signature_len() + BESIDE_SIGNATURE
            }
        };
        if key > signature { key } else { signature }
    }
}

fn seed<const N: usize>(sensitive: &[u8]) -> Result<&[u8; N], Rc> {
    sensitive.first_chunk().ok_or(Rc::KEY)
}

impl<'a> Core<'a> {
    /// Whether a provider was given for them.
    pub(crate) const fn has_lattices(&self) -> bool {
        self.lattices.is_some()
    }

    pub(crate) fn lattices(&self) -> Result<&'a dyn Lattices, Rc> {
        self.lattices.ok_or(Rc::TYPE)
    }

    /// Whether this TPM has keys with these parameters: there is a provider, and all that the key makes fits into a buffer.
    pub(crate) fn offers_parms(&self, params: &Params) -> Result<(), Rc> {
        let Params::Lattice(params) = params else {
            return Ok(());
        };
        self.lattices()?;
        self.fits(*params)
    }

    fn fits(&self, params: LatticeParams) -> Result<(), Rc> {
        let room = self.command_max.min(self.response_max);
        ensure(params.buffer_min() <= room, Rc::PARMS)
    }

    /// `TPMA_ML_PARAMETER_SET`: the sets, and that μ can come from outside.
    pub(crate) fn parameter_sets(&self) -> Option<u32> {
        const EXTERNAL_MU: u32 = 1 << 6;
        self.lattices?;
        let kems = KemSet::ALL.map(|set| LatticeParams::Kem {
            symmetric: None,
            set,
        });
        let dsas = DsaSet::ALL.map(|set| LatticeParams::Dsa {
            set,
            external_mu: true,
        });
        let sets = kems
            .into_iter()
            .chain(dsas)
            .enumerate()
            .filter(|(_, params)| self.fits(*params).is_ok())
            .fold(0, |sets, (n, _)| sets | 1 << n);
        Some(sets | EXTERNAL_MU)
    }

    /// The public key of a seed.
    pub(crate) fn lattice_public(
        &self,
        params: LatticeParams,
        secret: &[u8],
    ) -> Result<LatticeKey, Rc> {
        let lattices = self.lattices()?;
        Ok(match params {
            LatticeParams::Kem { set, .. } => lattices.kem_public(set, seed(secret)?),
            LatticeParams::Dsa { set, .. } | LatticeParams::HashDsa { set, .. } => {
                lattices.dsa_public(set, seed(secret)?)
            }
        })
    }

    /// Checks lengths, and, if `deep`, that both areas are one key.
    pub(crate) fn check_lattice(
        &self,
        params: LatticeParams,
        key: &LatticeKey,
        sensitive: Option<&Sensitive>,
        deep: bool,
    ) -> Result<(), Blame> {
        let lattices = self.lattices().map_err(Blame::Public)?;
        // Any bytes of the right length are a key of ML-DSA.
        let is_key = key.len() == params.public_len()
            && match params {
                LatticeParams::Kem { set, .. } => lattices.is_kem_public(set, key.as_slice()),
                _ => true,
            };
        ensure(is_key, Rc::KEY).map_err(Blame::Public)?;
        let Some(sensitive) = sensitive else {
            return Ok(());
        };
        let whole = sensitive.secret.len() == seed_len(params.alg());
        ensure(whole, Rc::KEY_SIZE).map_err(Blame::Sensitive)?;
        if deep {
            let own = self.lattice_public(params, sensitive.secret.as_slice());
            ensure(own.is_ok_and(|own| own == *key), Rc::BINDING).map_err(Blame::Both)?;
        }
        Ok(())
    }
}

/// The parameter set of a key that signs, the hash of what it signs, and the key.
fn signing_parts(object: &Object) -> Result<(DsaSet, Option<crate::HashAlg>, &LatticeKey), Rc> {
    match (&object.public.params, &object.public.unique) {
        (Params::Lattice(LatticeParams::Dsa { set, .. }), Unique::Lattice(key)) => {
            Ok((*set, None, key))
        }
        (Params::Lattice(LatticeParams::HashDsa { set, hash }), Unique::Lattice(key)) => {
            Ok((*set, Some(*hash), key))
        }
        _ => Err(Rc::SCHEME),
    }
}

impl Core<'_> {
    /// The sponge that takes a message, or its hash, and gives the representative that the key signs.
    pub(crate) fn message_sponge(&self, object: &Object, context: &[u8]) -> Result<Shake, Rc> {
        let (_, hash, key) = signing_parts(object)?;
        let lattices = self.lattices()?;
        Ok(Shake::of_message(lattices, key.as_slice(), hash, context))
    }

    /// The representative of a message that is there as a whole.
    fn mu_of(&self, object: &Object, data: &[u8]) -> Result<[u8; MU_LEN], Rc> {
        let (_, hash, _) = signing_parts(object)?;
        let lattices = self.lattices()?;
        let mut sponge = self.message_sponge(object, &[])?;
        match hash {
            None => sponge.absorb(lattices, data),
            Some(hash) => {
                sponge.absorb(lattices, self.crypto.hash(hash, &[data]).as_slice());
            }
        }
        Ok(sponge.finish(lattices))
    }

    /// Signs a message, without a context.
    pub(crate) fn sign_lattice(&mut self, object: &Object, data: &[u8]) -> Result<Signature, Rc> {
        let mu = self.mu_of(object, data)?;
        self.sign_mu(object, &mu)
    }

    /// Signs the representative of a message.
    pub(crate) fn sign_mu(&mut self, object: &Object, mu: &[u8; MU_LEN]) -> Result<Signature, Rc> {
        let (set, hash, _) = signing_parts(object)?;
        let lattices = self.lattices()?;
        let sensitive = object.sensitive.as_ref().ok_or(Rc::KEY)?;
        let seed: &[u8; DSA_SEED_LEN] = seed(sensitive.secret.as_slice())?;
        let mut random = [0; 32];
        self.random(&mut random)?;
        let value = lattices.dsa_sign(set, seed, mu, &random);
        random.zeroize();
        Ok(Signature::Lattice(LatticeSignature {
            hash,
            value: value.ok_or(Rc::NO_RESULT)?,
        }))
    }

    /// Whether a signature of the representative of a message is right; [`Rc::SIGNATURE`] or [`Rc::SCHEME`] if not.
    pub(crate) fn verify_mu(
        &self,
        object: &Object,
        mu: &[u8; MU_LEN],
        signature: &Signature,
    ) -> Result<(), Rc> {
        let (set, hash, key) = signing_parts(object)?;
        let Signature::Lattice(signature) = signature else {
            return Err(Rc::SCHEME);
        };
        ensure(signature.hash == hash, Rc::SCHEME)?;
        let right =
            self.lattices()?
                .dsa_verify(set, key.as_slice(), mu, signature.value.as_slice());
        ensure(right, Rc::SIGNATURE)
    }

    /// The secret that was sent to a key by ML-KEM (version 1.85, Part 1, clause 47.4): derived from what is shared, ciphertext and key.
    pub(crate) fn kem_secret_decrypt(
        &self,
        object: &Object,
        params: LatticeParams,
        label: Label,
        encrypted: &Encrypted,
    ) -> Result<Digest, Rc> {
        let LatticeParams::Kem { set, .. } = params else {
            return Err(Rc::KEY);
        };
        let Unique::Lattice(key) = &object.public.unique else {
            return Err(Rc::KEY);
        };
        let hash = object.public.name_alg.ok_or(Rc::KEY)?;
        let sensitive = object.sensitive.as_ref().ok_or(Rc::KEY)?;
        let seed: &[u8; KEM_SEED_LEN] = seed(sensitive.secret.as_slice())?;
        let mut shared = self
            .lattices()?
            .decapsulate(set, seed, encrypted.as_slice())
            .ok_or(Rc::SIZE)?;
        let secret = self.kem_secret(hash, &shared, label, encrypted.as_slice(), key);
        shared.zeroize();
        Ok(secret)
    }

    /// The reverse: a fresh secret, and what is sent.
    pub(crate) fn kem_secret_encrypt(
        &mut self,
        params: LatticeParams,
        key: &LatticeKey,
        hash: crate::HashAlg,
        label: Label,
    ) -> Result<(Digest, Encrypted), Rc> {
        let LatticeParams::Kem { set, .. } = params else {
            return Err(Rc::KEY);
        };
        let lattices = self.lattices()?;
        let mut random = [0; 32];
        self.random(&mut random)?;
        let encapsulated = lattices.encapsulate(set, key.as_slice(), &random);
        random.zeroize();
        let (mut shared, ciphertext) = encapsulated.ok_or(Rc::KEY)?;
        let encrypted: Encrypted = ciphertext.resized();
        let secret = self.kem_secret(hash, &shared, label, encrypted.as_slice(), key);
        shared.zeroize();
        Ok((secret, encrypted))
    }

    fn kem_secret(
        &self,
        hash: crate::HashAlg,
        shared: &[u8],
        label: Label,
        ciphertext: &[u8],
        key: &LatticeKey,
    ) -> Digest {
        let mut secret = Digest::zeroed(hash.digest_len());
        let bits = u32::try_from(hash.digest_len() * 8).unwrap_or(0);
        let context = [ciphertext, key.as_slice()];
        let out = secret.as_mut_slice();
        kdf::kdfa(
            self.crypto,
            hash,
            shared,
            label.without_zero(),
            context,
            bits,
            out,
        );
        secret
    }
}
