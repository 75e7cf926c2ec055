//! A command between two steps: what was found out about it, without borrowing its bytes.

use core::ops::Range;

use super::{Progress, dispatch};
use crate::{
    crypto::Digest,
    handle::Handle,
    rc::Rc,
    state::{Core, entity::Entity, work::Work},
    structures::attributes::SessionAttributes,
    table::Command,
};

/// A session of a command.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) handle: Handle,
    pub(super) nonce_caller: Digest,
    pub(super) attributes: SessionAttributes,
    pub(super) auth: Digest,
    /// What it authorizes.
    pub(super) entity: Option<Entity>,
    /// The entity's value is part of the HMAC's key.
    pub(super) include_auth: bool,
    /// The hash over code and parameters of the command, if the session's policy is limited to one.
    pub(super) parameter_hash: Digest,
}

impl Session {
    pub(super) const NONE: Self = Self {
        handle: Handle::UNASSIGNED,
        nonce_caller: Digest::EMPTY,
        attributes: SessionAttributes::empty(),
        auth: Digest::EMPTY,
        entity: None,
        include_auth: false,
        parameter_hash: Digest::EMPTY,
    };

    pub(super) const fn is_password(&self) -> bool {
        matches!(self.handle, Handle::PASSWORD)
    }
}

/// How many sessions a command can have.
pub(super) const SESSIONS_MAX: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Submitted,
    /// Handles and sessions are checked; the handler waits for its work.
    Working,
    Done(usize),
}

/// A command and how far it is.
#[derive(Debug)]
pub(super) struct Frame {
    phase: Phase,
    pub(super) locality: u8,
    pub(super) len: usize,
    pub(super) command: Option<&'static Command>,
    pub(super) entities: [Entity; 3],
    pub(super) sessions: [Session; SESSIONS_MAX],
    pub(super) session_count: usize,
    /// The sessions that encrypt and audit, by their places.
    pub(super) decrypt: Option<usize>,
    pub(super) encrypt: Option<usize>,
    pub(super) audit: Option<usize>,
    pub(super) tagged: bool,
    /// Where the parameters are.
    pub(super) params: Range<usize>,
    /// The command's parameter hash with each hash algorithm that somebody asked for, before decryption.
    pub(super) cp_hash: [Digest; crate::HashAlg::ALL.len()],
}

const NO_ENTITY: Entity = Entity {
    handle: Handle::UNASSIGNED,
    slot: None,
};

impl Frame {
    pub(super) const fn new() -> Self {
        Self {
            phase: Phase::Idle,
            locality: 0,
            len: 0,
            command: None,
            entities: [NO_ENTITY; 3],
            sessions: [const { Session::NONE }; SESSIONS_MAX],
            session_count: 0,
            decrypt: None,
            encrypt: None,
            audit: None,
            tagged: false,
            params: 0..0,
            cp_hash: [const { Digest::EMPTY }; crate::HashAlg::ALL.len()],
        }
    }

    pub(super) fn submit(&mut self, locality: u8, len: usize) {
        self.phase = Phase::Submitted;
        self.locality = locality;
        self.len = len;
        self.command = None;
        self.entities = [NO_ENTITY; 3];
        self.session_count = 0;
        self.decrypt = None;
        self.encrypt = None;
        self.audit = None;
        self.tagged = false;
        for hash in &mut self.cp_hash {
            hash.resize(0);
        }
    }

    pub(super) const fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Submitted | Phase::Working)
    }

    pub(super) const fn response_len(&self) -> Option<usize> {
        match self.phase {
            Phase::Done(len) => Some(len),
            _ => None,
        }
    }

    pub(super) fn sessions(&self) -> &[Session] {
        self.sessions.get(..self.session_count).unwrap_or_default()
    }

    pub(super) fn session(&self, n: usize) -> &Session {
        self.sessions.get(n).unwrap_or(&Session::NONE)
    }

    pub(super) fn step(
        &mut self,
        core: &mut Core<'_>,
        command: &mut [u8],
        response: &mut [u8],
    ) -> Progress {
        let len = match self.phase {
            Phase::Submitted => dispatch::begin(self, core, command, response),
            Phase::Working if core.work_step() => None,
            _ => dispatch::run(self, core, command, response),
        };
        self.phase = len.map_or(Phase::Working, Phase::Done);
        if len.is_some() {
            Progress::Done
        } else {
            Progress::Pending
        }
    }

    pub(super) fn cancel(&mut self, core: &mut Core<'_>, response: &mut [u8]) {
        if self.phase == Phase::Working {
            core.work = Work::Idle;
            core.objects.drop_persistent();
            self.phase = Phase::Done(dispatch::error(Rc::CANCELED, response));
        }
    }
}
