//! New objects: random ones, and those that a seed determines.
//!
//! The order in which a primary key draws from its generator is frozen, with the generator and the search for primes: first the seed
//! of the object (if it has one), then the key.

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{
    alg::HashAlg,
    bytes::Bytes,
    crypto::{
        Crypto, Digest, Stream, draw_scalar,
        drbg::{self, Drbg, Generator},
        kdf,
    },
    handle::Handle,
    rc::{Rc, Stop, ensure},
    state::{
        Core,
        object::{Object, rsa_exponent},
        selftest::Tests,
    },
    structures::{
        attributes::ObjectAttributes as A,
        lattice::seed_len,
        public::{Derive, PUBLIC_MAX, Params, Public, Unique},
        scheme::KeyedHashScheme,
        sensitive::{Sensitive, SensitiveCreate},
    },
    wire::marshal,
};

/// Where a new object's bits come from.
#[expect(
    clippy::large_enum_variant,
    reason = "it lives on the stack for one command"
)]
pub(crate) enum Source {
    /// The TPM's own generator.
    Random,
    /// A generator that a hierarchy's seed and the template determine.
    Primary(Drbg),
    /// The secret of a derivation parent, label and context.
    Derived(Derivation),
}

/// KDFa as an endless stream.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct Derivation {
    #[zeroize(skip)]
    hash: HashAlg,
    key: Bytes<128>,
    label: Bytes<32>,
    context: Bytes<32>,
    counter: u32,
    /// What is left of the last block.
    block: Digest,
    used: usize,
}

impl Derivation {
    pub(crate) fn new(parent: &Object, derive: Derive) -> Result<Self, Rc> {
        let Params::KeyedHash(KeyedHashScheme::Xor(hash, _)) = parent.public.params else {
            return Err(Rc::TYPE);
        };
        let sensitive = parent.sensitive.as_ref().ok_or(Rc::TYPE)?;
        Ok(Self {
            hash,
            key: sensitive.secret.resized(),
            label: derive.label,
            context: derive.context,
            counter: 0,
            block: Digest::EMPTY,
            used: 0,
        })
    }
}

struct Deriving<'a> {
    state: &'a mut Derivation,
    crypto: &'a dyn Crypto,
}

impl Stream for Deriving<'_> {
    fn fill(&mut self, out: &mut [u8]) {
        let state = &mut *self.state;
        for byte in out {
            if state.used == state.block.len() {
                state.counter += 1;
                state.block = self.crypto.hmac(
                    state.hash,
                    state.key.as_slice(),
                    &[
                        &state.counter.to_be_bytes(),
                        state.label.as_slice(),
                        &[0],
                        state.context.as_slice(),
                        &8192u32.to_be_bytes(),
                    ],
                );
                state.used = 0;
            }
            *byte = state.block.as_slice().get(state.used).copied().unwrap_or(0);
            state.used += 1;
        }
    }
}

impl Core<'_> {
    /// The generator of a primary object: frozen, see the module.
    pub(crate) fn primary_source(
        &self,
        hierarchy: Handle,
        template: &Public,
        data: &[u8],
    ) -> Result<Source, Rc> {
        let mut buffer = [0; PUBLIC_MAX];
        let area = marshal(template, &mut buffer)?;
        let template = self.crypto.hash(HashAlg::Sha512, &[area]);
        let data = self.crypto.hash(HashAlg::Sha512, &[data]);
        let mut seed = [0; drbg::SEED_LEN];
        kdf::kdfa(
            self.crypto,
            HashAlg::Sha512,
            self.primary_seed(hierarchy),
            "PRIMARY",
            [template.as_slice(), data.as_slice()],
            384,
            &mut seed,
        );
        let generator = Drbg::new(self.crypto, &seed);
        seed.zeroize();
        Ok(Source::Primary(generator))
    }

    fn draw(&mut self, source: &mut Source, out: &mut [u8]) -> Result<(), Rc> {
        match source {
            Source::Random => self.random(out)?,
            Source::Primary(drbg) => drbg.generate(self.crypto, out),
            Source::Derived(state) => Deriving {
                state,
                crypto: self.crypto,
            }
            .fill(out),
        }
        Ok(())
    }

    /// Makes the key or data that a checked template describes.
    pub(crate) fn create_object(
        &mut self,
        mut public: Public,
        create: &SensitiveCreate,
        hierarchy: Handle,
        mut source: Source,
    ) -> Result<Object, Stop> {
        self.require(Tests::of_key(&public))?;
        let hash = public.name_alg.ok_or(Rc::HASH)?;
        let mut sensitive = Sensitive {
            alg: public.params.alg(),
            auth: create.auth.clone(),
            seed: Digest::EMPTY,
            secret: Bytes::EMPTY,
        };
        sensitive.auth.trim_end();
        // Parents protect children with it; in symmetric objects it hides the secret that `unique` is made of.
        if public.is_parent() || !public.is_asymmetric() {
            sensitive.seed.resize(hash.digest_len());
            self.draw(&mut source, sensitive.seed.as_mut_slice())?;
        }
        let mut rsa = None;
        match public.params {
            Params::Rsa { bits, exponent, .. } => {
                let seeded = match &source {
                    Source::Random => None,
                    Source::Primary(drbg) => Some(drbg),
                    // Nothing says how to derive RSA keys.
                    Source::Derived(_) => return Err(Rc::TYPE.into()),
                };
                let key = self.rsa_key(bits, rsa_exponent(exponent), seeded)?;
                public.unique = Unique::Rsa(key.n.clone());
                sensitive.secret = key.p.clone();
                rsa = Some(key);
            }
            Params::Ecc { curve, .. } => {
                let crypto = self.crypto;
                let d = match &mut source {
                    Source::Random => draw_scalar(crypto, curve, &mut self.generator()?),
                    Source::Primary(drbg) => {
                        draw_scalar(crypto, curve, &mut Generator { drbg, crypto })
                    }
                    Source::Derived(state) => {
                        draw_scalar(crypto, curve, &mut Deriving { state, crypto })
                    }
                };
                public.unique = Unique::Ecc(crypto.mul(curve, &d, None).ok_or(Rc::FAILURE)?);
                sensitive.secret = d.resized();
            }
            Params::Lattice(params) => {
                // Nothing says how to derive such keys from a derivation parent.
                let derived = matches!(source, Source::Derived(_));
                ensure(!derived, Rc::TYPE)?;
                sensitive.secret.resize(seed_len(params.alg()));
                self.draw(&mut source, sensitive.secret.as_mut_slice())?;
                let key = self.lattice_public(params, sensitive.secret.as_slice())?;
                public.unique = Unique::Lattice(key);
            }
            Params::SymCipher(cipher) => {
                if public.has(A::SENSITIVE_DATA_ORIGIN) {
                    sensitive.secret.resize(cipher.key_len());
                    self.draw(&mut source, sensitive.secret.as_mut_slice())?;
                } else {
                    ensure(create.data.len() == cipher.key_len(), Rc::KEY_SIZE)?;
                    sensitive.secret = create.data.resized();
                }
                set_unique(self.crypto, &mut public, &sensitive, hash);
            }
            Params::KeyedHash(scheme) => {
                let alg = match scheme {
                    KeyedHashScheme::Null => hash,
                    KeyedHashScheme::Hmac(alg) | KeyedHashScheme::Xor(alg, _) => alg,
                };
                if public.has(A::SENSITIVE_DATA_ORIGIN) {
                    sensitive.secret.resize(alg.digest_len());
                    self.draw(&mut source, sensitive.secret.as_mut_slice())?;
                } else {
                    let is_key = public.attributes.intersects(A::SIGN | A::DECRYPT);
                    let fits = !is_key || create.data.len() <= alg.block_len();
                    ensure(fits, Rc::SIZE)?;
                    sensitive.secret = create.data.resized();
                }
                set_unique(self.crypto, &mut public, &sensitive, hash);
            }
        }
        let mut object = Object::assemble(self.crypto, public, Some(sensitive), hierarchy);
        object.rsa = rsa;
        Ok(object)
    }
}

fn set_unique(crypto: &dyn Crypto, public: &mut Public, sensitive: &Sensitive, hash: HashAlg) {
    let parts = [sensitive.seed.as_slice(), sensitive.secret.as_slice()];
    public.unique = Unique::Digest(crypto.hash(hash, &parts));
}
