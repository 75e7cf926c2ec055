//! Context management (clause 28).

use zeroize::Zeroize;

use super::Call;
use crate::{
    alg::{HashAlg, Mode},
    bytes::Bytes,
    crypto::{Digest, kdf},
    handle::{Handle, HandleKind},
    object::store::{CLASSIC_MAX, CONTENT_MAX, read_content, write_content},
    rc::{Rc, Stop, ensure},
    state::{
        Core,
        object::Content,
        session::{Active, Session},
    },
    structures::attributes::ObjectAttributes as A,
    table::Kind,
    wire::{Reader, Writer},
};

/// The layout of what is in a context: raised when that of objects, sequences or sessions changes, since contexts outlive an exchange of
/// this code below them (Shutdown(STATE), or a suspended TPM).
const LAYOUT: u16 = 2;

/// The longest context data: a digest and an encrypted object.
pub(crate) const BLOB_MAX: usize = 2 + 32 + CONTENT_MAX;
/// The same of a TPM without post-quantum keys.
pub(crate) const CLASSIC_BLOB_MAX: usize = 2 + 32 + CLASSIC_MAX;

/// `savedHandle` of objects (Part 2, clause 14.5).
const SAVED_OBJECT: Handle = Handle(0x8000_0000);
const SAVED_SEQUENCE: Handle = Handle(0x8000_0001);
const SAVED_ST_CLEAR: Handle = Handle(0x8000_0002);

/// `TPMS_CONTEXT` without its data.
#[derive(Clone, Copy)]
struct Head {
    sequence: u64,
    saved: Handle,
    hierarchy: Handle,
}

impl Core<'_> {
    /// Key and start value for a context, which no other context has.
    fn context_key(&self, head: &Head) -> [u8; 48] {
        let mut key = [0; 48];
        kdf::kdfa(
            self.crypto,
            HashAlg::Sha256,
            self.proof(head.hierarchy),
            "CONTEXT",
            [&head.sequence.to_be_bytes(), &head.saved.0.to_be_bytes()],
            384,
            &mut key,
        );
        key
    }

    fn context_crypt(&self, head: &Head, data: &mut [u8]) {
        let mut key = self.context_key(head);
        let (aes, vector) = key.split_at(32);
        let mut iv = [0; 16];
        iv.copy_from_slice(vector);
        self.crypto.encrypt(Mode::Ctr, aes, &mut iv, data);
        key.zeroize();
    }

    /// The code over a context: it holds until the next reset, or, for what asks for it, restart.
    fn context_integrity(&self, head: &Head, data: &[u8]) -> Digest {
        let clear = if head.saved == SAVED_ST_CLEAR {
            self.reset.clear_count
        } else {
            u32::MAX
        };
        self.crypto.hmac(
            HashAlg::Sha256,
            self.proof(head.hierarchy),
            &[
                &LAYOUT.to_be_bytes(),
                &self.permanent.total_reset_count.to_be_bytes(),
                &clear.to_be_bytes(),
                &head.sequence.to_be_bytes(),
                &head.saved.0.to_be_bytes(),
                data,
            ],
        )
    }
}

/// TPM2_ContextSave (clause 28.2).
pub(crate) fn save(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    call.end()?;
    let entity = call.entity(0);
    let mut buffer = [0; CONTENT_MAX];
    let mut w = Writer::new(&mut buffer);
    let head = if entity.handle.is_session() {
        let session = core.sessions.loaded(entity.handle).ok_or(Rc::FAILURE)?;
        w.put(session)?;
        core.reset.session_context += 1;
        let sequence = core.reset.session_context;
        Head {
            sequence,
            saved: entity.handle,
            hierarchy: Handle::NULL,
        }
    } else {
        let content = core.content_of(entity);
        write_content(content, &mut w)?;
        let (saved, hierarchy) = match content {
            Content::Object(object) if object.st_clear => (SAVED_ST_CLEAR, object.hierarchy),
            Content::Object(object) => (SAVED_OBJECT, object.hierarchy),
            _ => (SAVED_SEQUENCE, Handle::NULL),
        };
        core.reset.object_context += 1;
        Head {
            sequence: core.reset.object_context,
            saved,
            hierarchy,
        }
    };
    let len = w.len();
    let data = buffer.get_mut(..len).ok_or(Rc::MEMORY)?;
    core.context_crypt(&head, data);
    let integrity = core.context_integrity(&head, data);
    call.put(&head.sequence)?;
    call.put(&head.saved)?;
    call.put(&head.hierarchy)?;
    call.out.sized_by(|w| {
        w.put(&integrity)?;
        w.bytes(data)
    })?;
    if entity.handle.is_session() {
        core.sessions.save(entity.handle, head.sequence);
    }
    Ok(())
}

/// TPM2_ContextLoad (clause 28.3).
pub(crate) fn load(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let (head, mut blob) = call.param_with(|r| {
        let head = Head {
            sequence: r.read()?,
            saved: r.read()?,
            hierarchy: r.read()?,
        };
        let saved = head.saved;
        ensure(
            saved.is_session() || saved.kind() == HandleKind::Transient,
            Rc::VALUE,
        )?;
        Kind::Hierarchy.check(head.hierarchy)?;
        let max = if r.lattices() {
            BLOB_MAX
        } else {
            CLASSIC_BLOB_MAX
        };
        Ok((head, Bytes::<BLOB_MAX>::new(r.sized(max)?).ok_or(Rc::SIZE)?))
    })?;
    call.end()?;
    let session = head.saved.is_session();
    if !session {
        ensure(head.saved <= SAVED_ST_CLEAR, Rc::VALUE.param(1))?;
    }
    ensure(core.enabled(head.hierarchy), Rc::HIERARCHY.param(1))?;
    let mut r = Reader::new(blob.as_slice());
    let integrity: Digest = r.read().map_err(|_| Rc::SIZE.param(1))?;
    let at = blob.len() - r.rest().len();
    ensure(at < blob.len(), Rc::SIZE.param(1))?;
    let data = blob.as_mut_slice().get_mut(at..).unwrap_or_default();
    ensure(
        core.context_integrity(&head, data) == integrity,
        Rc::INTEGRITY.param(1),
    )?;
    core.context_crypt(&head, data);
    let mut r = Reader::new(data);
    call.handle = Some(if session {
        // Each saved session can be loaded once, and only from its last context.
        let known = core.sessions.state(head.saved) == Active::Saved(head.sequence);
        ensure(known, Rc::HANDLE.param(1))?;
        let slot = core.sessions.free_slot().ok_or(Rc::SESSION_MEMORY)?;
        let session: Session = r.read().map_err(|_| Rc::INTEGRITY.param(1))?;
        ensure(r.rest().is_empty(), Rc::INTEGRITY.param(1))?;
        core.sessions.put(slot, head.saved.index(), session);
        head.saved
    } else {
        let content = read_content(core, &mut r).map_err(|_| Rc::INTEGRITY.param(1))?;
        ensure(r.rest().is_empty(), Rc::INTEGRITY.param(1))?;
        core.objects.add(content)?
    });
    blob.zeroize();
    Ok(())
}

/// TPM2_FlushContext (clause 28.4).
pub(crate) fn flush(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let handle: Handle = call.param()?;
    Kind::Context.check(handle).map_err(|rc| rc.param(1))?;
    core.check_range(handle).map_err(|rc| rc.param(1))?;
    call.end()?;
    if handle.is_session() {
        let index = handle.index();
        let state = core
            .sessions
            .active
            .get(index)
            .copied()
            .unwrap_or(Active::Free);
        let own = core.sessions.handle(index);
        let known = match state {
            Active::Free => false,
            Active::Loaded(_) => own == handle,
            // Which kind a saved session is of is not told.
            Active::Saved(_) => true,
        };
        ensure(known, Rc::HANDLE.param(1))?;
        if core.exclusive_audit == Some(own) {
            core.exclusive_audit = None;
        }
        core.sessions.flush(own);
    } else {
        let slot = core.objects.transient(handle).ok_or(Rc::HANDLE.param(1))?;
        core.objects.flush(slot);
    }
    Ok(())
}

/// TPM2_EvictControl (clause 28.5).
pub(crate) fn evict_control(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let persistent: Handle = call.param()?;
    ensure(
        persistent.kind() == HandleKind::Persistent,
        Rc::VALUE.param(1),
    )?;
    call.end()?;
    let auth = call.handle_at(0);
    let entity = call.entity(1);
    let object = core.object_of(entity).ok_or(Rc::ATTRIBUTES.handle(2))?;
    // Nothing that is a part of no hierarchy, or that a reset or restart ends, can stay.
    let temporary = object.external || object.hierarchy == Handle::NULL;
    ensure(
        !temporary && !object.st_clear && !object.has(A::ST_CLEAR),
        Rc::ATTRIBUTES.handle(2),
    )?;
    ensure(object.sensitive.is_some(), Rc::ATTRIBUTES.handle(2))?;
    if let Some(handle) = object.persistent {
        ensure(handle == persistent, Rc::HANDLE.handle(2))?;
    }
    let platforms = object.hierarchy == Handle::PLATFORM;
    if auth == Handle::PLATFORM {
        ensure(
            platforms || object.persistent.is_some(),
            Rc::HIERARCHY.handle(2),
        )?;
    } else {
        ensure(!platforms, Rc::HIERARCHY.handle(2))?;
    }
    let object = object.clone();
    if let Some(handle) = object.persistent {
        core.nv.remove(handle);
        core.dirty = true;
        return Ok(());
    }
    let range_of_platform = persistent.0 >= Handle::PLATFORM_PERSISTENT;
    ensure(
        (auth == Handle::PLATFORM) == range_of_platform,
        Rc::RANGE.param(1),
    )?;
    ensure(core.nv.content(persistent).is_none(), Rc::NV_DEFINED)?;
    Ok(core.add_persistent(persistent, &object)?)
}
