//! A message on its way to a signature or from one (version 1.85, Part 1, clause 29.4): what is kept of it between two commands.

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{Core, entity::Entity, object::Object};
use crate::{
    bytes::Bytes,
    command::hash_hmac::{hmac_finish, hmac_inner},
    crypto::{Digest, HashState, MU_LEN, shake::Shake},
    rc::{Rc, ensure},
    state::object::{Content, SequenceKind, hashed_name},
    structures::{
        attest::{GENERATED, Tag},
        lattice::{LatticeScheme, SignatureContext},
        public::{Name, PUBLIC_MAX},
        scheme::Scheme,
    },
    wire::{Marshal, Reader, Unmarshal, Writer, marshal},
};

/// The sequence of SignSequenceStart or VerifySequenceStart.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// The key that it is for.
    key: Name,
    pub(crate) verifies: bool,
    /// The first bytes.
    head: Bytes<4>,
    progress: Progress,
    /// The code in the ticket of a verified message, as far as it is.
    ticket: Option<HashState>,
}

#[derive(Clone, Debug)]
enum Progress {
    /// ML-DSA of the message.
    Dsa(Shake),
    /// ML-DSA of its hash, with what precedes that.
    HashDsa(Shake, HashState),
    /// A hash that RSA or a curve signs. ECDAA has a counter.
    Digest(HashState, u16),
    /// The inner hash of an HMAC, and the key of the outer one.
    Hmac(HashState, Bytes<128>),
}

/// What a whole message comes to.
pub(crate) enum Summary {
    Mu([u8; MU_LEN]),
    Digest(Digest, u16),
    Hmac(Digest),
}

impl Message {
    /// The state before the first byte. `n` is the number of the parameter with the context.
    pub(crate) fn new(
        core: &Core<'_>,
        object: &Object,
        context: &SignatureContext,
        verifies: bool,
        n: u32,
    ) -> Result<Self, Rc> {
        let crypto = core.crypto;
        let scheme = object.public.params.scheme();
        let no_context = ensure(context.is_empty(), Rc::VALUE.param(n));
        let start = || scheme.hash().map(|hash| crypto.start(hash)).ok_or(Rc::KEY);
        let progress = match scheme {
            Scheme::Lattice(scheme) => {
                let sponge = core.message_sponge(object, context.as_slice())?;
                match scheme {
                    LatticeScheme::Dsa => Progress::Dsa(sponge),
                    LatticeScheme::HashDsa(_) => Progress::HashDsa(sponge, start()?),
                }
            }
            Scheme::RsaSsa(_) | Scheme::RsaPss(_) | Scheme::EcDsa(_) | Scheme::EcSchnorr(_) => {
                no_context?;
                Progress::Digest(start()?, 0)
            }
            // The TPM does not verify what is anonymous.
            Scheme::EcDaa(..) if !verifies => {
                let counter = context.as_slice().try_into();
                let counter = counter.map_err(|_| Rc::SIZE.param(n))?;
                Progress::Digest(start()?, u16::from_be_bytes(counter))
            }
            Scheme::Hmac(hash) => {
                no_context?;
                let sensitive = object.sensitive.as_ref().ok_or(Rc::HANDLE.handle(1))?;
                let (inner, key) = hmac_inner(crypto, hash, sensitive.secret.as_slice());
                Progress::Hmac(inner, key)
            }
            _ => return Err(Rc::SCHEME.handle(1)),
        };
        let ticket = verifies.then(|| {
            let proof = core.proof(object.hierarchy);
            let (mut inner, mut key) = hmac_inner(crypto, crate::HashAlg::Sha512, proof);
            key.zeroize();
            crypto.update(&mut inner, &Tag::MESSAGE_VERIFIED.0.to_be_bytes());
            inner
        });
        Ok(Self {
            key: identity(core, object),
            verifies,
            head: Bytes::EMPTY,
            progress,
            ticket,
        })
    }

    /// Whether it is for this key.
    pub(crate) fn is_for(&self, core: &Core<'_>, object: &Object) -> bool {
        self.key == identity(core, object)
    }

    /// Whether it begins like what only the TPM itself makes and signs.
    pub(crate) fn looks_generated(&self) -> bool {
        self.head.as_slice() == GENERATED
    }

    pub(crate) fn update(&mut self, core: &Core<'_>, data: &[u8]) -> Result<(), Rc> {
        let crypto = core.crypto;
        let missing = 4usize.saturating_sub(self.head.len()).min(data.len());
        self.head.extend(data.get(..missing).unwrap_or_default())?;
        match &mut self.progress {
            Progress::Dsa(sponge) => sponge.absorb(core.lattices()?, data),
            Progress::HashDsa(_, state) | Progress::Digest(state, _) | Progress::Hmac(state, _) => {
                crypto.update(state, data);
            }
        }
        if let Some(state) = &mut self.ticket {
            crypto.update(state, data);
        }
        Ok(())
    }

    pub(crate) fn finish(&self, core: &Core<'_>) -> Result<Summary, Rc> {
        let crypto = core.crypto;
        Ok(match &self.progress {
            Progress::Dsa(sponge) => Summary::Mu(sponge.clone().finish(core.lattices()?)),
            Progress::HashDsa(sponge, state) => {
                let lattices = core.lattices()?;
                let mut sponge = sponge.clone();
                sponge.absorb(lattices, crypto.finish(state).as_slice());
                Summary::Mu(sponge.finish(lattices))
            }
            Progress::Digest(state, counter) => Summary::Digest(crypto.finish(state), *counter),
            Progress::Hmac(state, key) => Summary::Hmac(hmac_finish(crypto, state, key)),
        })
    }

    /// The code in the ticket: over tag, message and name of the key (Part 2, clause 10.6.5).
    pub(crate) fn ticket(&self, core: &Core<'_>, object: &Object) -> Option<Digest> {
        let crypto = core.crypto;
        let mut inner = self.ticket.clone()?;
        crypto.update(&mut inner, object.name.as_slice());
        let proof = core.proof(object.hierarchy);
        let (_, mut key) = hmac_inner(crypto, crate::HashAlg::Sha512, proof);
        let code = hmac_finish(crypto, &inner, &key);
        key.zeroize();
        inner.state.zeroize();
        Some(code)
    }

    /// Whether hashes in progress and keys are such as the provider makes and takes.
    pub(crate) fn is_sound(&self, hash_sound: impl Fn(&HashState) -> bool) -> bool {
        let progress = match &self.progress {
            Progress::Dsa(_) => true,
            Progress::HashDsa(_, state) | Progress::Digest(state, _) => hash_sound(state),
            Progress::Hmac(state, key) => hash_sound(state) && key.len() == state.alg.block_len(),
        };
        progress && self.ticket.as_ref().is_none_or(hash_sound)
    }
}

/// What tells a key from others: its name, or, of one that has none, the hash of its public area.
fn identity(core: &Core<'_>, object: &Object) -> Name {
    if !object.name.is_empty() {
        return object.name.clone();
    }
    let mut buffer = [0; PUBLIC_MAX];
    let area = marshal(&object.public, &mut buffer).unwrap_or_default();
    hashed_name(core.crypto, Some(crate::HashAlg::Sha256), &[area])
}

/// Codes in progress are as good as keys: who has one can make the code of any longer message.
impl Zeroize for Message {
    fn zeroize(&mut self) {
        self.head.zeroize();
        match &mut self.progress {
            Progress::Dsa(sponge) => sponge.zeroize(),
            Progress::HashDsa(sponge, state) => {
                sponge.zeroize();
                state.state.zeroize();
            }
            Progress::Digest(state, _) => state.state.zeroize(),
            Progress::Hmac(state, key) => {
                state.state.zeroize();
                key.zeroize();
            }
        }
        if let Some(state) = &mut self.ticket {
            state.state.zeroize();
        }
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        self.zeroize();
    }
}

impl ZeroizeOnDrop for Message {}

impl Core<'_> {
    pub(crate) fn message_of(&self, entity: Entity) -> Option<&Message> {
        match self.content_of(entity) {
            Content::Sequence(sequence) => match &sequence.kind {
                SequenceKind::Message(message) => Some(message),
                _ => None,
            },
            _ => None,
        }
    }

    /// Takes more of a message. Whether this was one, and not another sequence.
    pub(crate) fn update_message(&mut self, entity: Entity, data: &[u8]) -> Result<bool, Rc> {
        let Some(mut message) = self.message_of(entity).cloned() else {
            return Ok(false);
        };
        message.update(self, data)?;
        if let Some(sequence) = self.sequence_mut(entity) {
            sequence.kind = SequenceKind::Message(message);
        }
        Ok(true)
    }
}

impl Marshal for Message {
    fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        w.put(&self.key)?;
        w.put(&self.verifies)?;
        w.put(&self.head)?;
        match &self.progress {
            Progress::Dsa(sponge) => w.put(&0u8).and_then(|()| w.put(sponge))?,
            Progress::HashDsa(sponge, state) => {
                w.put(&1u8)?;
                w.put(sponge)?;
                w.put(state)?;
            }
            Progress::Digest(state, counter) => {
                w.put(&2u8)?;
                w.put(state)?;
                w.put(counter)?;
            }
            Progress::Hmac(state, key) => {
                w.put(&3u8)?;
                w.put(state)?;
                w.put(key)?;
            }
        }
        w.put(&self.ticket.is_some())?;
        self.ticket.as_ref().map_or(Ok(()), |state| w.put(state))
    }
}

impl Unmarshal for Message {
    fn read(r: &mut Reader<'_>) -> Result<Self, Rc> {
        Ok(Self {
            key: r.read()?,
            verifies: r.read()?,
            head: r.read()?,
            progress: match r.read::<u8>()? {
                0 => Progress::Dsa(r.read()?),
                1 => Progress::HashDsa(r.read()?, r.read()?),
                2 => Progress::Digest(r.read()?, r.read()?),
                3 => Progress::Hmac(r.read()?, r.read()?),
                _ => return Err(Rc::VALUE),
            },
            ticket: if r.read()? { Some(r.read()?) } else { None },
        })
    }
}

#[cfg(all(test, feature = "rustcrypto"))]
mod tests {
    use super::*;
    use crate::{
        HashAlg,
        crypto::{Hashing as _, RustCrypto},
    };

    #[test]
    fn nothing_of_a_message_is_left_when_it_is_wiped() {
        const fn wiped_when_dropped<T: ZeroizeOnDrop>() {}
        const { wiped_when_dropped::<Message>() };
        let (inner, key) = hmac_inner(&RustCrypto, HashAlg::Sha256, b"key");
        let hash = || RustCrypto.start(HashAlg::Sha256);
        let mut sponge = Shake::new();
        sponge.absorb(&RustCrypto, b"message");
        for progress in [
            Progress::Dsa(sponge.clone()),
            Progress::HashDsa(sponge.clone(), hash()),
            Progress::Digest(hash(), 0),
            Progress::Hmac(inner.clone(), key.clone()),
        ] {
            let mut message = Message {
                key: Name::EMPTY,
                verifies: true,
                head: Bytes::zeroed(4),
                progress,
                ticket: Some(inner.clone()),
            };
            message.zeroize();
            assert!(message.head.is_empty());
            assert!(message.ticket.as_ref().unwrap().state.is_empty());
            let mut buffer = [0; 256];
            match &message.progress {
                Progress::Dsa(sponge) => {
                    assert!(
                        marshal(sponge, &mut buffer)
                            .unwrap()
                            .iter()
                            .all(|b| *b == 0)
                    );
                }
                Progress::HashDsa(sponge, state) => {
                    assert!(
                        marshal(sponge, &mut buffer)
                            .unwrap()
                            .iter()
                            .all(|b| *b == 0)
                    );
                    assert!(state.state.is_empty());
                }
                Progress::Digest(state, _) => assert!(state.state.is_empty()),
                Progress::Hmac(state, key) => {
                    assert!(state.state.is_empty());
                    assert!(key.is_empty());
                }
            }
        }
    }
}
