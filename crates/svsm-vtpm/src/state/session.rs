//! Sessions: their slots, and which of the many handles are loaded or saved (Part 1, clause 19).

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{
    alg::HashAlg,
    crypto::Digest,
    handle::Handle,
    rc::Rc,
    structures::{public::Name, scheme::ParameterCipher},
};

/// Sessions that exist at a time, loaded or saved.
pub(crate) const ACTIVE_MAX: usize = 64;

/// What a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionKind {
    Hmac,
    Policy,
    Trial,
}

/// What a policy session has learned, besides its digest.
#[derive(Clone, Debug, Default)]
pub(crate) struct PolicyState {
    /// The command that the policy is limited to; 0 for any.
    pub(crate) command: u32,
    /// Localities that the policy is limited to: bits, or one extended locality; 0 for any.
    pub(crate) locality: u8,
    /// What the policy is limited to by a hash over the command's parameters or names.
    pub(crate) bound: Bound,
    /// The PCR counter at the first PolicyPCR.
    pub(crate) pcr_counter: Option<u32>,
    /// When the policy expires, in milliseconds of the TPM's time; 0 for never.
    pub(crate) timeout: u64,
    pub(crate) auth_value_needed: bool,
    pub(crate) password_needed: bool,
    pub(crate) presence_needed: bool,
    /// The command must come through a secure channel, which is not to be had here.
    pub(crate) channel_needed: bool,
    /// The index must be written, or must not be.
    pub(crate) nv_written: Option<bool>,
}

/// A hash that the authorized command must agree with; a session has at most one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Bound {
    #[default]
    Nothing,
    Parameters(Digest),
    Names(Digest),
    Template(Digest),
    /// As `Parameters`, but not over the names.
    ParametersAlone(Digest),
}

/// A loaded session.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) kind: SessionKind,
    pub(crate) auth_hash: HashAlg,
    pub(crate) cipher: ParameterCipher,
    pub(crate) nonce_tpm: Digest,
    pub(crate) key: Digest,
    /// What the session is bound to: the name and the authorization value of an entity.
    pub(crate) bind: Option<Bind>,
    /// The audit digest, once the session audits.
    pub(crate) audit: Option<Digest>,
    /// The policy digest; empty for HMAC sessions.
    pub(crate) policy_digest: Digest,
    pub(crate) policy: PolicyState,
    /// When the session began, in milliseconds of the TPM's time.
    pub(crate) start: u64,
    /// The TPM was started this many times when it began.
    pub(crate) epoch: u64,
}

/// The entity that a session is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bind {
    pub(crate) name: Name,
    pub(crate) auth: Digest,
    /// The entity is protected against dictionary attacks.
    pub(crate) da: bool,
    pub(crate) lockout: bool,
}

impl Zeroize for Session {
    fn zeroize(&mut self) {
        self.key.zeroize();
        self.nonce_tpm.zeroize();
        if let Some(bind) = &mut self.bind {
            bind.auth.zeroize();
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.zeroize();
    }
}

impl ZeroizeOnDrop for Session {}

impl Session {
    pub(crate) fn is_policy(&self) -> bool {
        self.kind != SessionKind::Hmac
    }

    pub(crate) const fn is_trial(&self) -> bool {
        matches!(self.kind, SessionKind::Trial)
    }

    /// Back to what the session was when it began (PolicyRestart).
    pub(crate) fn restart_policy(&mut self) {
        self.policy_digest = Digest::zeroed(self.auth_hash.digest_len());
        self.policy = PolicyState::default();
    }
}

/// Room for a session; the embedder lends as many as shall be loaded at a time.
#[derive(Debug, Default)]
pub struct SessionSlot(Option<Session>);

impl SessionSlot {
    /// A slot with nothing in it.
    pub const EMPTY: Self = Self(None);
}

/// Where a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Active {
    Free,
    Loaded(u8),
    /// Saved under this number.
    Saved(u64),
}

/// All sessions.
#[derive(Debug)]
pub(crate) struct Sessions<'a> {
    slots: &'a mut [SessionSlot],
    pub(crate) active: [Active; ACTIVE_MAX],
    /// Which active sessions are policy or trial sessions.
    policy: u64,
}

impl<'a> Sessions<'a> {
    pub(crate) const fn new(slots: &'a mut [SessionSlot]) -> Self {
        Self {
            slots,
            active: [Active::Free; ACTIVE_MAX],
            policy: 0,
        }
    }

    /// The sessions that are of policies, one bit each.
    pub(crate) const fn policy_set(&self) -> u64 {
        self.policy
    }

    pub(crate) const fn set_policy_set(&mut self, policy: u64) {
        self.policy = policy;
    }

    /// What is in a slot.
    pub(crate) fn in_slot(&self, slot: usize) -> Option<&Session> {
        self.slots.get(slot)?.0.as_ref()
    }

    /// Fills a slot or empties it, whatever `active` says.
    pub(crate) fn set_slot(&mut self, slot: usize, session: Option<Session>) {
        if let Some(place) = self.slots.get_mut(slot) {
            place.0 = session;
        }
    }

    pub(crate) const fn slots(&self) -> usize {
        self.slots.len()
    }

    /// How many can be loaded at a time.
    pub(crate) fn capacity(&self) -> usize {
        self.slots.len().min(ACTIVE_MAX)
    }

    fn slot(&self, handle: Handle) -> Option<usize> {
        match self.active.get(handle.index()) {
            Some(Active::Loaded(slot)) if handle == self.handle(handle.index()) => {
                Some(usize::from(*slot))
            }
            _ => None,
        }
    }

    /// The handle of the active session with this number.
    pub(crate) fn handle(&self, index: usize) -> Handle {
        let index = u32::try_from(index).unwrap_or(0) & 0xFF_FFFF;
        let is_policy = self
            .policy
            .checked_shr(index)
            .is_some_and(|bits| bits & 1 == 1);
        let first = if is_policy {
            Handle::POLICY_FIRST
        } else {
            Handle::HMAC_FIRST
        };
        Handle(first | index)
    }

    pub(crate) fn loaded(&self, handle: Handle) -> Option<&Session> {
        self.slots.get(self.slot(handle)?)?.0.as_ref()
    }

    pub(crate) fn loaded_mut(&mut self, handle: Handle) -> Option<&mut Session> {
        let slot = self.slot(handle)?;
        self.slots.get_mut(slot)?.0.as_mut()
    }

    /// Why a session handle leads nowhere: a loaded session of the other kind has this number, or none has.
    pub(crate) fn missing(&self, handle: Handle) -> Rc {
        match self.active.get(handle.index()) {
            Some(Active::Loaded(_)) => Rc::HANDLE,
            _ => Rc::REFERENCE_S0,
        }
    }

    /// The session, or the code for one that is not there.
    pub(crate) fn need(&mut self, handle: Handle) -> Result<&mut Session, Rc> {
        self.loaded_mut(handle).ok_or(Rc::REFERENCE_S0)
    }

    pub(crate) fn state(&self, handle: Handle) -> Active {
        let state = self
            .active
            .get(handle.index())
            .copied()
            .unwrap_or(Active::Free);
        if handle == self.handle(handle.index()) {
            state
        } else {
            Active::Free
        }
    }

    /// Loads a new session.
    pub(crate) fn add(&mut self, session: Session) -> Result<Handle, Rc> {
        let slot = self.free_slot().ok_or(Rc::SESSION_MEMORY)?;
        let index = self
            .active
            .iter()
            .position(|a| *a == Active::Free)
            .ok_or(Rc::SESSION_HANDLES)?;
        self.put(slot, index, session);
        Ok(self.handle(index))
    }

    pub(crate) fn free_slot(&self) -> Option<usize> {
        self.slots
            .iter()
            .take(ACTIVE_MAX)
            .position(|s| s.0.is_none())
    }

    pub(crate) fn has_free_handle(&self) -> bool {
        self.active.contains(&Active::Free)
    }

    /// Puts a session that was saved as `index` back into a free slot.
    pub(crate) fn put(&mut self, slot: usize, index: usize, session: Session) {
        self.policy = self.policy & !(1 << index) | u64::from(session.is_policy()) << index;
        if let (Some(place), Some(active), Ok(number)) = (
            self.slots.get_mut(slot),
            self.active.get_mut(index),
            u8::try_from(slot),
        ) {
            place.0 = Some(session);
            *active = Active::Loaded(number);
        }
    }

    /// Takes a loaded session out of its slot and remembers under which number it was saved.
    pub(crate) fn save(&mut self, handle: Handle, number: u64) {
        if let Some(slot) = self.slot(handle)
            && let (Some(place), Some(active)) = (
                self.slots.get_mut(slot),
                self.active.get_mut(handle.index()),
            )
        {
            place.0 = None;
            *active = Active::Saved(number);
        }
    }

    /// Ends a session, loaded or saved.
    pub(crate) fn flush(&mut self, handle: Handle) {
        if let Some(slot) = self.slot(handle)
            && let Some(place) = self.slots.get_mut(slot)
        {
            place.0 = None;
        }
        if let Some(active) = self.active.get_mut(handle.index()) {
            *active = Active::Free;
        }
    }

    /// Ends all sessions, or only the loaded ones.
    pub(crate) fn clear(&mut self, saved: bool) {
        for slot in &mut *self.slots {
            slot.0 = None;
        }
        for active in &mut self.active {
            if saved || matches!(active, Active::Loaded(_)) {
                *active = Active::Free;
            }
        }
    }

    pub(crate) fn count(&self, of: impl Fn(Active) -> bool) -> usize {
        self.active.iter().filter(|a| of(**a)).count()
    }

    /// Handles of the sessions for which `of` holds, by their numbers.
    pub(crate) fn handles(&self, of: impl Fn(Active) -> bool) -> impl Iterator<Item = Handle> {
        (0..ACTIVE_MAX)
            .filter(move |i| self.active.get(*i).is_some_and(|a| of(*a)))
            .map(|i| self.handle(i))
    }
}
