//! Loaded objects and sequences, and the slots they are in.

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::message::Message;
use crate::{
    alg::HashAlg,
    crypto::{Bytes, Crypto, Digest, HashState, RsaKey, cmac::Cmac},
    handle::Handle,
    rc::Rc,
    structures::{
        attributes::ObjectAttributes as A,
        public::{Name, PUBLIC_MAX, Params, Public, Unique},
        sensitive::Sensitive,
    },
    wire::marshal,
};

/// Slots at the end of the embedder's that hold persistent objects while a command uses them.
pub(crate) const EVICT_SLOTS: usize = 3;

/// A loaded object.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) public: Public,
    pub(crate) sensitive: Option<Sensitive>,
    /// The whole private key of an RSA object with its secret part loaded.
    pub(crate) rsa: Option<RsaKey>,
    pub(crate) name: Name,
    pub(crate) qualified_name: Name,
    pub(crate) hierarchy: Handle,
    /// The persistent handle it was loaded from.
    pub(crate) persistent: Option<Handle>,
    /// Loaded by LoadExternal, and not part of a hierarchy.
    pub(crate) external: bool,
    /// Made by CreatePrimary.
    pub(crate) primary: bool,
    /// It or an ancestor has stClear set.
    pub(crate) st_clear: bool,
}

impl Object {
    pub(crate) const fn has(&self, attribute: A) -> bool {
        self.public.attributes.contains(attribute)
    }

    /// Whether other objects can be below it: a restricted decryption key.
    pub(crate) fn is_parent(&self) -> bool {
        self.public.is_parent()
    }

    /// Whether objects are derived from it.
    pub(crate) fn is_derivation_parent(&self) -> bool {
        self.is_parent() && matches!(self.public.params, Params::KeyedHash(_))
    }

    /// Whether objects are stored below it.
    pub(crate) fn is_storage_parent(&self) -> bool {
        self.is_parent() && !matches!(self.public.params, Params::KeyedHash(_))
    }

    /// The object of an area pair. Gives `None` if they cannot be a pair, as far as the RSA key must be computed anyway.
    pub(crate) fn new(
        crypto: &dyn Crypto,
        public: Public,
        sensitive: Option<Sensitive>,
        hierarchy: Handle,
    ) -> Option<Self> {
        let mut rsa = None;
        if let (Some(secret), Unique::Rsa(n), Params::Rsa { exponent, .. }) =
            (&sensitive, &public.unique, &public.params)
        {
            let e = rsa_exponent(*exponent);
            rsa = Some(crypto.complete(n.as_slice(), e, secret.secret.as_slice())?);
        }
        Some(Self {
            rsa,
            ..Self::assemble(crypto, public, sensitive, hierarchy)
        })
    }

    /// The object of an area pair, without the private key of an RSA object.
    pub(crate) fn assemble(
        crypto: &dyn Crypto,
        public: Public,
        sensitive: Option<Sensitive>,
        hierarchy: Handle,
    ) -> Self {
        let name = name_of(crypto, &public);
        Self {
            st_clear: public.has(A::ST_CLEAR),
            public,
            sensitive,
            rsa: None,
            qualified_name: name.clone(),
            name,
            hierarchy,
            persistent: None,
            external: false,
            primary: false,
        }
    }

    /// Sets the qualified name from the parent's (Part 1, clause 16.6).
    pub(crate) fn qualify(&mut self, crypto: &dyn Crypto, parent: &[u8]) {
        self.qualified_name = qualified(crypto, self.public.name_alg, parent, &self.name);
    }
}

impl Public {
    /// Whether this could be a parent's public area.
    pub(crate) fn is_parent(&self) -> bool {
        self.has(A::RESTRICTED | A::DECRYPT) && !self.has(A::SIGN)
    }

    /// Whether this is an asymmetric key.
    pub(crate) const fn is_asymmetric(&self) -> bool {
        matches!(
            self.params,
            Params::Rsa { .. } | Params::Ecc { .. } | Params::Lattice(_)
        )
    }
}

/// The exponent that a public area's field means.
pub(crate) const fn rsa_exponent(field: u32) -> u32 {
    if field == 0 { 65537 } else { field }
}

/// The name of a public area: its algorithm and hash; empty without an algorithm.
pub(crate) fn name_of(crypto: &dyn Crypto, public: &Public) -> Name {
    let mut buffer = [0; PUBLIC_MAX];
    let bytes = marshal(public, &mut buffer).unwrap_or_default();
    hashed_name(crypto, public.name_alg, &[bytes])
}

/// The algorithm's identifier and the hash of the parts.
pub(crate) fn hashed_name(crypto: &dyn Crypto, alg: Option<HashAlg>, parts: &[&[u8]]) -> Name {
    let mut name = Name::EMPTY;
    if let Some(alg) = alg {
        let _ = name.extend(&alg.alg().0.to_be_bytes());
        let _ = name.extend(crypto.hash(alg, parts).as_slice());
    }
    name
}

pub(crate) fn qualified(
    crypto: &dyn Crypto,
    alg: Option<HashAlg>,
    parent: &[u8],
    name: &Name,
) -> Name {
    hashed_name(crypto, alg, &[parent, name.as_slice()])
}

/// What a sequence computes.
#[derive(Clone, Debug)]
#[cfg_attr(
    not(feature = "pqc"),
    expect(
        clippy::large_enum_variant,
        reason = "it lives in slots that have an object's size"
    )
)]
pub(crate) enum SequenceKind {
    Hash(HashState),
    Event([HashState; HashAlg::ALL.len()]),
    /// The inner hash, and the key for the outer one.
    Hmac(HashState, Bytes<128>),
    Cmac(Cmac, Bytes<32>),
    /// What a signature is of, or shall be of.
    Message(Message),
}

/// A hash, HMAC or event that goes on over several commands.
#[derive(Clone, Debug)]
pub(crate) struct Sequence {
    pub(crate) auth: Digest,
    pub(crate) kind: SequenceKind,
    /// Whether the data could pass for what the TPM itself makes; unknown before the first four bytes.
    pub(crate) ticket_safe: bool,
    pub(crate) started: bool,
}

impl Zeroize for Sequence {
    fn zeroize(&mut self) {
        self.auth.zeroize();
        match &mut self.kind {
            SequenceKind::Hmac(state, key) => {
                state.state.zeroize();
                key.zeroize();
            }
            SequenceKind::Cmac(_, key) => key.zeroize(),
            SequenceKind::Message(message) => message.zeroize(),
            SequenceKind::Hash(_) | SequenceKind::Event(_) => {}
        }
    }
}

impl Drop for Sequence {
    fn drop(&mut self) {
        self.zeroize();
    }
}

impl ZeroizeOnDrop for Sequence {}

/// What is in a slot.
#[derive(Clone, Debug, Default)]
#[expect(
    clippy::large_enum_variant,
    reason = "slots are lent by the embedder, all of one size"
)]
pub(crate) enum Content {
    #[default]
    Free,
    Object(Object),
    Sequence(Sequence),
}

/// Room for an object; the embedder lends as many as shall be loaded at a time, and three more for persistent objects in use.
#[derive(Debug, Default)]
pub struct ObjectSlot(Content);

impl ObjectSlot {
    /// A slot with nothing in it.
    pub const EMPTY: Self = Self(Content::Free);
}

/// All loaded objects and sequences.
#[derive(Debug)]
pub(crate) struct Objects<'a> {
    slots: &'a mut [ObjectSlot],
}

impl<'a> Objects<'a> {
    pub(crate) const fn new(slots: &'a mut [ObjectSlot]) -> Self {
        Self { slots }
    }

    /// How many transient objects can be loaded.
    pub(crate) const fn capacity(&self) -> usize {
        self.slots.len().saturating_sub(EVICT_SLOTS)
    }

    pub(crate) fn content(&self, slot: usize) -> &Content {
        self.slots.get(slot).map_or(&Content::Free, |s| &s.0)
    }

    pub(crate) fn content_mut(&mut self, slot: usize) -> Option<&mut Content> {
        self.slots.get_mut(slot).map(|s| &mut s.0)
    }

    /// The slot of a transient handle that names something.
    pub(crate) fn transient(&self, handle: Handle) -> Option<usize> {
        let slot = handle.index();
        (slot < self.capacity() && !matches!(self.content(slot), Content::Free)).then_some(slot)
    }

    pub(crate) fn free_slot(&self) -> Option<usize> {
        (0..self.capacity()).find(|s| matches!(self.content(*s), Content::Free))
    }

    /// Loads an object or a sequence.
    pub(crate) fn add(&mut self, content: Content) -> Result<Handle, Rc> {
        let slot = self.free_slot().ok_or(Rc::OBJECT_MEMORY)?;
        self.put(slot, content);
        Ok(Handle(
            Handle::TRANSIENT_FIRST | u32::try_from(slot).unwrap_or(0),
        ))
    }

    pub(crate) fn put(&mut self, slot: usize, content: Content) {
        if let Some(place) = self.slots.get_mut(slot) {
            place.0 = content;
        }
    }

    /// Loads a persistent object for the command that uses it as its `n`-th handle.
    pub(crate) fn add_persistent(&mut self, n: usize, object: Object) -> usize {
        let slot = self.capacity() + n;
        self.put(slot, Content::Object(object));
        slot
    }

    /// Forgets the persistent objects of the command that ended.
    pub(crate) fn drop_persistent(&mut self) {
        for slot in self.capacity()..self.slots.len() {
            if !matches!(self.content(slot), Content::Free) {
                self.put(slot, Content::Free);
            }
        }
    }

    pub(crate) fn flush(&mut self, slot: usize) {
        self.put(slot, Content::Free);
    }

    /// Flushes all objects for which `of` holds.
    pub(crate) fn flush_where(&mut self, of: impl Fn(&Object) -> bool) {
        for slot in &mut *self.slots {
            if matches!(&slot.0, Content::Object(object) if of(object)) {
                slot.0 = Content::Free;
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        for slot in &mut *self.slots {
            slot.0 = Content::Free;
        }
    }

    /// Handles of all transient objects and sequences.
    pub(crate) fn handles(&self) -> impl Iterator<Item = Handle> {
        (0..self.capacity())
            .filter(|s| !matches!(self.content(*s), Content::Free))
            .map(|s| Handle(Handle::TRANSIENT_FIRST | u32::try_from(s).unwrap_or(0)))
    }
}
