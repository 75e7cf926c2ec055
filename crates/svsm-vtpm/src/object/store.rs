//! Objects, sequences and sessions as bytes: for contexts that the caller keeps, and for persistent objects.

use crate::{
    alg::HashAlg,
    bytes::Bytes,
    crypto::{HashState, cmac::Cmac},
    handle::Handle,
    rc::Rc,
    state::{
        Core,
        object::{Content, Object, Sequence, SequenceKind},
        session::{Bind, Bound, PolicyState, Session, SessionKind},
    },
    structures::public::Public,
    wire::{Marshal, Reader, Unmarshal, Writer},
};

/// Room that any object, sequence or session fits into.
pub(crate) use crate::structures::lattice::CONTENT_MAX;

/// Room that suffices without ML-KEM and ML-DSA.
pub(crate) const CLASSIC_MAX: usize = 2048;

impl Marshal for Object {
    fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        w.put(&self.hierarchy)?;
        let flags =
            u8::from(self.external) | u8::from(self.primary) << 1 | u8::from(self.st_clear) << 2;
        w.put(&flags)?;
        w.put(&self.qualified_name)?;
        w.put(&self.public)?;
        w.put(&self.sensitive.is_some())?;
        self.sensitive.as_ref().map_or(Ok(()), |s| w.put(s))
    }
}

/// The object that was written.
pub(crate) fn read_object(core: &Core<'_>, r: &mut Reader<'_>) -> Result<Object, Rc> {
    let hierarchy: Handle = r.read()?;
    let flags: u8 = r.read()?;
    let qualified_name = r.read()?;
    let public: Public = r.read()?;
    let sensitive = if r.read()? { Some(r.read()?) } else { None };
    core.offers_parms(&public.params)?;
    let mut object = Object::new(core.crypto, public, sensitive, hierarchy).ok_or(Rc::INTEGRITY)?;
    object.external = flags & 1 != 0;
    object.primary = flags & 2 != 0;
    object.st_clear = flags & 4 != 0;
    object.qualified_name = qualified_name;
    Ok(object)
}

impl Marshal for HashState {
    fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        w.put(&self.alg)?;
        w.put(&self.state)
    }
}

impl Unmarshal for HashState {
    fn read(r: &mut Reader<'_>) -> Result<Self, Rc> {
        Ok(Self {
            alg: r.read()?,
            state: r.read()?,
        })
    }
}

impl Marshal for Sequence {
    fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        w.put(&self.auth)?;
        w.put(&self.ticket_safe)?;
        w.put(&self.started)?;
        match &self.kind {
            SequenceKind::Hash(state) => w.put(&0u8).and_then(|()| w.put(state)),
            SequenceKind::Event(states) => {
                w.put(&1u8)?;
                states.iter().try_for_each(|state| w.put(state))
            }
            SequenceKind::Hmac(state, key) => {
                w.put(&2u8)?;
                w.put(state)?;
                w.put(key)
            }
            SequenceKind::Cmac(state, key) => {
                w.put(&3u8)?;
                w.bytes(&state.chain)?;
                w.bytes(&state.pending)?;
                w.put(&state.len)?;
                w.put(key)
            }
            SequenceKind::Message(message) => w.put(&4u8).and_then(|()| w.put(message)),
        }
    }
}

impl Unmarshal for Sequence {
    fn read(r: &mut Reader<'_>) -> Result<Self, Rc> {
        let auth = r.read()?;
        let ticket_safe = r.read()?;
        let started = r.read()?;
        let kind = match r.read::<u8>()? {
            0 => SequenceKind::Hash(r.read()?),
            1 => SequenceKind::Event([r.read()?, r.read()?, r.read()?, r.read()?]),
            2 => SequenceKind::Hmac(r.read()?, r.read()?),
            3 => SequenceKind::Cmac(
                Cmac {
                    chain: r.array()?,
                    pending: r.array()?,
                    len: r.read()?,
                },
                r.read()?,
            ),
            4 => SequenceKind::Message(r.read()?),
            _ => return Err(Rc::VALUE),
        };
        Ok(Self {
            auth,
            kind,
            ticket_safe,
            started,
        })
    }
}

impl Marshal for Session {
    fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        let kind: u8 = match self.kind {
            SessionKind::Hmac => 0,
            SessionKind::Policy => 1,
            SessionKind::Trial => 3,
        };
        w.put(&kind)?;
        w.put(&self.auth_hash)?;
        w.put(&self.cipher)?;
        w.put(&self.nonce_tpm)?;
        w.put(&self.key)?;
        w.put(&self.start)?;
        w.put(&self.epoch)?;
        w.put(&self.policy_digest)?;
        w.put(&self.policy)?;
        w.put(&self.bind.is_some())?;
        if let Some(bind) = &self.bind {
            w.put(&bind.name)?;
            w.put(&bind.auth)?;
            w.put(&bind.da)?;
            w.put(&bind.lockout)?;
        }
        w.put(&self.audit.is_some())?;
        self.audit.as_ref().map_or(Ok(()), |audit| w.put(audit))
    }
}

impl Unmarshal for Session {
    fn read(r: &mut Reader<'_>) -> Result<Self, Rc> {
        let kind = match r.read::<u8>()? {
            0 => SessionKind::Hmac,
            1 => SessionKind::Policy,
            3 => SessionKind::Trial,
            _ => return Err(Rc::VALUE),
        };
        let auth_hash: HashAlg = r.read()?;
        Ok(Self {
            kind,
            auth_hash,
            cipher: r.read()?,
            nonce_tpm: r.read()?,
            key: r.read()?,
            start: r.read()?,
            epoch: r.read()?,
            policy_digest: r.read()?,
            policy: r.read()?,
            bind: if r.read()? {
                Some(Bind {
                    name: r.read()?,
                    auth: r.read()?,
                    da: r.read()?,
                    lockout: r.read()?,
                })
            } else {
                None
            },
            audit: if r.read()? { Some(r.read()?) } else { None },
        })
    }
}

impl Marshal for PolicyState {
    fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        w.put(&self.command)?;
        w.put(&self.locality)?;
        match &self.bound {
            Bound::Nothing => w.put(&0u8)?,
            Bound::Parameters(hash) => w.put(&1u8).and_then(|()| w.put(hash))?,
            Bound::Names(hash) => w.put(&2u8).and_then(|()| w.put(hash))?,
            Bound::Template(hash) => w.put(&3u8).and_then(|()| w.put(hash))?,
            Bound::ParametersAlone(hash) => w.put(&4u8).and_then(|()| w.put(hash))?,
        }
        w.put(&self.pcr_counter.is_some())?;
        w.put(&self.pcr_counter.unwrap_or(0))?;
        w.put(&self.timeout)?;
        w.put(&self.auth_value_needed)?;
        w.put(&self.password_needed)?;
        w.put(&self.presence_needed)?;
        w.put(&self.channel_needed)?;
        w.put(&self.nv_written.is_some())?;
        w.put(&self.nv_written.unwrap_or(false))
    }
}

impl Unmarshal for PolicyState {
    fn read(r: &mut Reader<'_>) -> Result<Self, Rc> {
        let command = r.read()?;
        let locality = r.read()?;
        let bound = match r.read::<u8>()? {
            0 => Bound::Nothing,
            1 => Bound::Parameters(r.read()?),
            2 => Bound::Names(r.read()?),
            3 => Bound::Template(r.read()?),
            _ => Bound::ParametersAlone(r.read()?),
        };
        let has_counter = r.read::<bool>()?;
        let pcr_counter = Some(r.read()?).filter(|_| has_counter);
        let timeout = r.read()?;
        let auth_value_needed = r.read()?;
        let password_needed = r.read()?;
        let presence_needed = r.read()?;
        let channel_needed = r.read()?;
        let has_written = r.read::<bool>()?;
        let nv_written = Some(r.read()?).filter(|_| has_written);
        Ok(Self {
            command,
            locality,
            bound,
            pcr_counter,
            timeout,
            auth_value_needed,
            password_needed,
            presence_needed,
            channel_needed,
            nv_written,
        })
    }
}

/// An object or a sequence with its kind before it.
pub(crate) fn write_content(content: &Content, w: &mut Writer<'_>) -> Result<(), Rc> {
    match content {
        Content::Free => Err(Rc::HANDLE),
        Content::Object(object) => w.put(&0u8).and_then(|()| w.put(object)),
        Content::Sequence(sequence) => w.put(&1u8).and_then(|()| w.put(sequence)),
    }
}

pub(crate) fn read_content(core: &Core<'_>, r: &mut Reader<'_>) -> Result<Content, Rc> {
    match r.read::<u8>()? {
        0 => read_object(core, r).map(Content::Object),
        _ => r.read().map(Content::Sequence),
    }
}

impl Core<'_> {
    /// The persistent object with this handle, if its hierarchy is enabled.
    pub(crate) fn persistent_object(&self, handle: Handle) -> Option<Object> {
        let mut r = Reader::new(self.nv.content(handle)?);
        let mut object = read_object(self, &mut r).ok()?;
        object.persistent = Some(handle);
        Some(object).filter(|o| self.enabled(o.hierarchy))
    }

    /// Makes an object persistent.
    pub(crate) fn add_persistent(&mut self, handle: Handle, object: &Object) -> Result<(), Rc> {
        let mut buffer: Bytes<CONTENT_MAX> = Bytes::zeroed(CONTENT_MAX);
        let mut w = Writer::new(buffer.as_mut_slice());
        w.put(object)?;
        let len = w.len();
        let bytes = buffer.as_slice().get(..len).ok_or(Rc::NV_SPACE)?;
        self.nv.add(handle, len, |content| {
            content.copy_from_slice(bytes);
            Ok(())
        })?;
        zeroize::Zeroize::zeroize(&mut buffer);
        self.dirty = true;
        Ok(())
    }
}
