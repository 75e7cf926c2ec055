//! What the embedder does with endorsement keys below the commands: as the platform's manufacturer, who needs no authorization.

use super::{Error, Tpm};
use crate::{
    alg::HashAlg,
    crypto::Digest,
    endorsement::{Credential, EndorsementKey},
    handle::Handle,
    object::rules,
    rc::{Rc, Stop, ensure},
    seam::SeamError,
    state::{Core, selftest::Tests, work::Work},
    structures::{
        attributes::NvAttributes as A,
        nv::{NV_INDEX_MAX, NvPublic},
        public::Public,
        sensitive::SensitiveCreate,
    },
    wire::{Reader, Writer},
};

/// Attributes of what the manufacturer provisions: everybody reads it, only the platform deletes it, nobody overwrites it.
/// swtpm and COCONUT-SVSM provision their certificates with the same ones.
const PROVISIONED: A = A::PLATFORM_CREATE
    .union(A::PP_WRITE)
    .union(A::WRITE_DEFINE)
    .union(A::WRITE_LOCKED)
    .union(A::PP_READ)
    .union(A::OWNER_READ)
    .union(A::AUTH_READ)
    .union(A::NO_DA)
    .union(A::WRITTEN);

/// Which endorsement keys a TPM has: all of them change when this does, and only then.
///
/// Computed from the endorsement hierarchy's seed, of which it tells nothing. It is the same over power cycles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EndorsementMark([u8; 32]);

impl Tpm<'_> {
    /// Makes the endorsement key of a template (`TPMT_PUBLIC`), writes its public area (`TPMT_PUBLIC`) into the front of `into`, and says
    /// how long that is. [`PUBLIC_MAX`](crate::endorsement::PUBLIC_MAX) bytes are always enough.
    ///
    /// It is the key that `TPM2_CreatePrimary` makes of this template in the endorsement hierarchy. The TPM needs power, but no
    /// startup; no slot is taken, and no later answer is another one. Between two steps, of which an RSA key takes many,
    /// `between` is called.
    ///
    /// The template decides what the key can be used for. Take [`EndorsementKey::template`] and not what an NV index holds: a guest that
    /// has the platform's authorization can define that index anew.
    ///
    /// # Errors
    ///
    /// - [`Error::Busy`] while a command is under way, and [`Error::Off`] before the power came.
    /// - [`Error::Response`] with the code that `TPM2_CreatePrimary` would give, without a number.
    /// - [`Error::BufferTooSmall`].
    pub fn endorsement_key(
        &mut self,
        template: &[u8],
        into: &mut [u8],
        mut between: impl FnMut(),
    ) -> Result<usize, Error> {
        self.ready()?;
        let public = read_template(template).map_err(Error::Response)?;
        let core = &mut self.core;
        core.work = Work::Idle;
        let made = loop {
            match core.endorsement_key(&public) {
                Err(Stop::Work) => {
                    while core.work_step() {
                        between();
                    }
                }
                Err(Stop::Code(rc)) => break Err(Error::Response(rc)),
                Ok(public) => break Ok(public),
            }
            between();
        };
        core.work = Work::Idle;
        let mut w = Writer::new(into);
        w.put(&made?).map_err(|_| Error::BufferTooSmall)?;
        Ok(w.len())
    }

    /// Which endorsement keys there are: to be compared after a command, so that whoever vouches for them notices a change before the
    /// command is answered.
    ///
    /// # Errors
    ///
    /// [`Error::Off`] before the power came.
    pub fn endorsement_mark(&self) -> Result<EndorsementMark, Error> {
        if !self.core.is_loaded() {
            return Err(Error::Off);
        }
        let seed = self.core.primary_seed(Handle::ENDORSEMENT);
        let mark = self
            .core
            .crypto
            .hmac(HashAlg::Sha256, seed, &[b"ENDORSEMENT-MARK"]);
        let mark = mark.as_slice().first_chunk().copied();
        mark.map(EndorsementMark)
            .ok_or(Error::Response(Rc::FAILURE))
    }

    /// Puts something of an endorsement key into its NV index, in place of what is there, and commits the permanent state.
    ///
    /// The index is the platform's (`TPMA_NV_PLATFORMCREATE`), so that it outlives `TPM2_Clear`; everybody can read it, and nobody can
    /// write it any more. What it holds stays when the key changes (`TPM2_ChangeEPS`): see [`Tpm::endorsement_mark`], and
    /// [`Tpm::withdraw`].
    ///
    /// # Errors
    ///
    /// - [`Error::Busy`] while a command is under way, and [`Error::Off`] before the power came.
    /// - [`Error::Response`]: `TPM_RC_HANDLE` for what has no index, `TPM_RC_SIZE` for no bytes or more than 4096, `TPM_RC_NV_SPACE`.
    /// - [`Error::Seam`] if the state cannot be committed now. The next command tries again.
    pub fn provision(
        &mut self,
        key: EndorsementKey,
        credential: Credential,
        data: &[u8],
    ) -> Result<(), Error> {
        self.ready()?;
        let handle = index_of(key, credential)?;
        self.core
            .put_provisioned(handle, data)
            .map_err(Error::Response)?;
        self.commit_now()
    }

    /// Removes what an NV index holds of an endorsement key, whoever defined it, and commits the permanent state. Nothing may be there.
    ///
    /// # Errors
    ///
    /// - [`Error::Busy`] while a command is under way, and [`Error::Off`] before the power came.
    /// - [`Error::Response`] with `TPM_RC_HANDLE` for what has no index.
    /// - [`Error::Seam`] if the state cannot be committed now. The next command tries again.
    pub fn withdraw(&mut self, key: EndorsementKey, credential: Credential) -> Result<(), Error> {
        self.ready()?;
        let handle = index_of(key, credential)?;
        if self.core.index(handle).is_some() {
            self.core.remove_index(handle);
        }
        self.commit_now()
    }

    /// That no command is under way.
    pub(crate) const fn idle(&self) -> Result<(), Error> {
        if self.frame.is_running() {
            return Err(Error::Busy);
        }
        Ok(())
    }

    fn ready(&self) -> Result<(), Error> {
        self.idle()?;
        if !self.core.is_loaded() {
            return Err(Error::Off);
        }
        Ok(())
    }

    pub(crate) fn commit_now(&mut self) -> Result<(), Error> {
        self.core
            .commit()
            .map_err(|_| Error::Seam(SeamError::StoreUnavailable))
    }
}

fn index_of(key: EndorsementKey, credential: Credential) -> Result<Handle, Error> {
    key.index(credential).ok_or(Error::Response(Rc::HANDLE))
}

fn read_template(template: &[u8]) -> Result<Public, Rc> {
    let mut r = Reader::new(template);
    let public = Public::read_template(&mut r)?;
    ensure(r.is_empty(), Rc::SIZE)?;
    rules::check_creation(&public, None, 0)?;
    Ok(public)
}

impl Core<'_> {
    fn endorsement_key(&mut self, template: &Public) -> Result<Public, Stop> {
        // Before startup nothing was tested yet.
        self.require(Tests::BASE | Tests::of_key(template))?;
        let source = self.primary_source(Handle::ENDORSEMENT, template, &[])?;
        let nothing = SensitiveCreate::default();
        let object = self.create_object(template.clone(), &nothing, Handle::ENDORSEMENT, source)?;
        Ok(object.public.clone())
    }

    fn put_provisioned(&mut self, handle: Handle, data: &[u8]) -> Result<(), Rc> {
        ensure(!data.is_empty() && data.len() <= NV_INDEX_MAX, Rc::SIZE)?;
        let public = NvPublic {
            handle,
            name_alg: HashAlg::Sha256,
            attributes: PROVISIONED,
            policy: Digest::EMPTY,
            size: u16::try_from(data.len()).map_err(|_| Rc::SIZE)?,
        };
        // The new one must fit before the old one goes.
        let old = self.nv.content(handle).map_or(0, <[u8]>::len);
        let room = self.nv.free() + old;
        ensure(NV_PUBLIC_BYTES + data.len() <= room, Rc::NV_SPACE)?;
        if old != 0 {
            self.remove_index(handle);
        }
        self.add_index(&public, &Digest::EMPTY)?;
        let mut index = self.index(handle).ok_or(Rc::HANDLE)?;
        self.write_index(&mut index, 0, data)
    }
}

/// Room that an index takes beside its data: the entry's head, the public area, an authorization value.
const NV_PUBLIC_BYTES: usize = 8 + 14 + 2 + 32;
