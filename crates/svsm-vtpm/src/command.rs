//! The commands, grouped as in Part 3 of the specification. Each handler cites its clause.

pub(crate) mod asymmetric; // clause 14
pub(crate) mod attestation; // clauses 18 and 21
pub(crate) mod capability; // clause 30
pub(crate) mod clocks; // clause 29
pub(crate) mod components; // clause 32 of version 1.83
pub(crate) mod context; // clause 28
pub(crate) mod da; // clause 25
pub(crate) mod duplication; // clause 13
#[cfg(feature = "pqc")]
pub(crate) mod encapsulation; // clauses 14.10 and 14.11 of version 1.85
pub(crate) mod ephemeral_ec; // clause 19
pub(crate) mod hash_hmac; // clauses 15.4 to 15.6 and 17
pub(crate) mod hierarchy; // clauses 24 and 26
pub(crate) mod integrity; // clause 22
pub(crate) mod nv; // clause 31
pub(crate) mod object; // clauses 12 and 24.1
pub(crate) mod policy; // clause 23
pub(crate) mod random; // clause 16
pub(crate) mod session; // clause 11
pub(crate) mod signing; // clause 20
pub(crate) mod startup; // clause 9
pub(crate) mod symmetric; // clauses 15.2 and 15.3
pub(crate) mod testing; // clause 10
pub(crate) mod timers; // clause 33 of version 1.83

use crate::{
    handle::Handle,
    rc::{About, Rc, ensure},
    state::{
        Core,
        entity::Entity,
        object::{Content, Sequence},
    },
    table::Command,
    wire::{Marshal, Reader, Unmarshal, Writer},
};

/// A command in execution: its handles and parameters, and the response to be.
pub(crate) struct Call<'c> {
    pub(crate) command: &'static Command,
    pub(crate) entities: [Entity; 3],
    pub(crate) locality: u8,
    /// The command's sessions, or the placeholder for none.
    pub(crate) sessions: [Handle; 3],
    params: Reader<'c>,
    param: u32,
    pub(crate) out: Writer<'c>,
    /// The handle in the response.
    pub(crate) handle: Option<Handle>,
    /// What the command ends: the object of this slot goes once the response is authenticated.
    pub(crate) ends: Option<usize>,
}

impl<'c> Call<'c> {
    pub(crate) const fn new(
        command: &'static Command,
        entities: [Entity; 3],
        sessions: [Handle; 3],
        locality: u8,
        params: Reader<'c>,
        out: &'c mut [u8],
    ) -> Self {
        Self {
            command,
            entities,
            locality,
            sessions,
            params,
            param: 0,
            out: Writer::new(out),
            handle: None,
            ends: None,
        }
    }

    /// The next parameter.
    pub(crate) fn param<T: Unmarshal>(&mut self) -> Result<T, Rc> {
        self.param_with(T::read)
    }

    /// The next parameter, read by `f`.
    pub(crate) fn param_with<T>(
        &mut self,
        f: impl FnOnce(&mut Reader<'c>) -> Result<T, Rc>,
    ) -> Result<T, Rc> {
        self.param += 1;
        f(&mut self.params).param(self.param)
    }

    /// Checks that there are no more parameters.
    pub(crate) fn end(&self) -> Result<(), Rc> {
        ensure(self.params.is_empty(), Rc::SIZE)
    }

    /// The entity that the `n`-th handle names (from 0).
    pub(crate) fn entity(&self, n: usize) -> Entity {
        self.entities.get(n).copied().unwrap_or(Entity {
            handle: Handle::UNASSIGNED,
            slot: None,
        })
    }

    pub(crate) fn handle_at(&self, n: usize) -> Handle {
        self.entity(n).handle
    }

    /// Writes a parameter of the response.
    pub(crate) fn put<T: Marshal + ?Sized>(&mut self, it: &T) -> Result<(), Rc> {
        self.out.put(it)
    }
}

impl Core<'_> {
    pub(crate) fn sequence_mut(&mut self, entity: Entity) -> Option<&mut Sequence> {
        match self.objects.content_mut(entity.slot?)? {
            Content::Sequence(sequence) => Some(sequence),
            _ => None,
        }
    }
}
