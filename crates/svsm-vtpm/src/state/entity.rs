//! What a handle names: names, authorization values and policies of all kinds of entities.

use super::{
    Core,
    object::{Content, Object},
    pcr::rule_of,
    permanent::Policy,
    session::{ACTIVE_MAX, Active},
};
use crate::{
    crypto::Digest,
    handle::{Handle, HandleKind},
    rc::{Rc, ensure},
    structures::{
        attributes::{NvAttributes, ObjectAttributes},
        pcr::PCR_COUNT,
        public::Name,
    },
    table::{Access, Role},
};

/// A handle of a command, and where its object is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entity {
    pub(crate) handle: Handle,
    pub(crate) slot: Option<usize>,
}

impl Core<'_> {
    /// Checks that a handle is one that this TPM could give to a transient object or a session.
    pub(crate) fn check_range(&self, handle: Handle) -> Result<(), Rc> {
        let count = match handle.kind() {
            HandleKind::Transient => self.objects.capacity(),
            HandleKind::HmacSession | HandleKind::PolicySession => ACTIVE_MAX,
            _ => return Ok(()),
        };
        ensure(handle.index() < count, Rc::VALUE)
    }

    /// Checks that a handle names something that is there now, and loads it if it is a persistent object. `n` is the handle's place
    /// in the command.
    pub(crate) fn resolve(&mut self, handle: Handle, n: usize) -> Result<Entity, Rc> {
        let mut slot = None;
        match handle.kind() {
            HandleKind::Permanent => {
                if !self.enabled(handle) {
                    return Err(Rc::HIERARCHY);
                }
                ensure(
                    handle.timer().is_none() || self.timers.has(handle),
                    Rc::VALUE,
                )?;
            }
            HandleKind::Transient => {
                slot = Some(self.objects.transient(handle).ok_or(Rc::REFERENCE_H0)?);
            }
            HandleKind::Persistent => {
                let object = self.persistent_object(handle).ok_or(Rc::HANDLE)?;
                slot = Some(self.objects.add_persistent(n, object));
            }
            HandleKind::HmacSession | HandleKind::PolicySession => {
                // A session of the other kind is there, but is not what was asked for.
                let active = self.sessions.active.get(handle.index());
                let other = matches!(active, Some(Active::Loaded(_)));
                let code = if other { Rc::HANDLE } else { Rc::REFERENCE_H0 };
                self.sessions.loaded(handle).ok_or(code)?;
            }
            HandleKind::Nv => {
                self.check_index(handle)?;
            }
            HandleKind::Pcr => {
                if handle.index() >= PCR_COUNT {
                    return Err(Rc::VALUE);
                }
            }
            HandleKind::Component => {
                ensure(handle.index() < self.components.len(), Rc::VALUE)?;
            }
            HandleKind::Unknown => return Err(Rc::VALUE),
        }
        Ok(Entity { handle, slot })
    }

    pub(crate) fn content_of(&self, entity: Entity) -> &Content {
        entity
            .slot
            .map_or(&Content::Free, |slot| self.objects.content(slot))
    }

    pub(crate) fn object_of(&self, entity: Entity) -> Option<&Object> {
        match self.content_of(entity) {
            Content::Object(object) => Some(object),
            _ => None,
        }
    }

    pub(crate) fn name_of(&self, entity: Entity) -> Name {
        match entity.handle.kind() {
            HandleKind::Transient | HandleKind::Persistent => self
                .object_of(entity)
                .map(|o| o.name.clone())
                .unwrap_or_default(),
            HandleKind::Nv => self
                .index(entity.handle)
                .map(|index| self.index_name(&index.public))
                .unwrap_or_default(),
            _ => Name::new(&entity.handle.0.to_be_bytes()).unwrap_or_default(),
        }
    }

    pub(crate) fn auth_of(&self, entity: Entity) -> Digest {
        match entity.handle.kind() {
            HandleKind::Permanent => match entity.handle {
                Handle::OWNER => self.permanent.owner_auth.clone(),
                Handle::ENDORSEMENT => self.permanent.endorsement_auth.clone(),
                Handle::LOCKOUT => self.permanent.lockout_auth.clone(),
                Handle::PLATFORM => self.clear.platform_auth.clone(),
                timer if timer.timer().is_some() => self.clear.platform_auth.clone(),
                _ => Digest::EMPTY,
            },
            HandleKind::Transient | HandleKind::Persistent => match self.content_of(entity) {
                Content::Object(object) => object
                    .sensitive
                    .as_ref()
                    .map(|s| s.auth.clone())
                    .unwrap_or_default(),
                Content::Sequence(sequence) => sequence.auth.clone(),
                Content::Free => Digest::EMPTY,
            },
            HandleKind::Nv => {
                let mut auth = self.index_auth(entity.handle).unwrap_or_default();
                auth.trim_end();
                auth
            }
            HandleKind::Pcr => self.clear.auth_of_pcr(entity.handle.index()),
            _ => Digest::EMPTY,
        }
    }

    pub(crate) fn policy_of(&self, entity: Entity) -> Policy {
        match entity.handle.kind() {
            HandleKind::Permanent => match entity.handle {
                Handle::OWNER => self.permanent.owner_policy.clone(),
                Handle::ENDORSEMENT => self.permanent.endorsement_policy.clone(),
                Handle::LOCKOUT => self.permanent.lockout_policy.clone(),
                Handle::PLATFORM => self.clear.platform_policy.clone(),
                timer => self.timers.policy(timer),
            },
            HandleKind::Transient | HandleKind::Persistent => self
                .object_of(entity)
                .map(|object| Policy {
                    alg: object.public.name_alg,
                    digest: object.public.policy.clone(),
                })
                .unwrap_or_default(),
            HandleKind::Nv => self
                .index(entity.handle)
                .map(|index| Policy {
                    alg: Some(index.public.name_alg),
                    digest: index.public.policy.clone(),
                })
                .unwrap_or_default(),
            HandleKind::Pcr if rule_of(entity.handle.index()).group => {
                self.permanent.pcr_policy.clone()
            }
            _ => Policy::default(),
        }
    }

    /// Whether wrong guesses of the value need not be counted.
    pub(crate) fn is_da_exempt(&self, entity: Entity) -> bool {
        match entity.handle.kind() {
            HandleKind::Permanent => entity.handle != Handle::LOCKOUT,
            HandleKind::Transient | HandleKind::Persistent => self
                .object_of(entity)
                .is_none_or(|o| o.has(ObjectAttributes::NO_DA)),
            HandleKind::Nv => self
                .index_attributes(entity.handle)
                .is_none_or(|attributes| {
                    attributes.contains(NvAttributes::NO_DA) || attributes.is_pin()
                }),
            _ => true,
        }
    }

    /// Whether the value can authorize this role at all.
    pub(crate) fn auth_available(&self, entity: Entity, role: Role, access: Access) -> bool {
        match entity.handle.kind() {
            // A timer's value is the platform's.
            HandleKind::Permanent => entity.handle.timer().is_none() || self.ph_enable,
            HandleKind::Transient | HandleKind::Persistent => match self.content_of(entity) {
                Content::Object(object) => {
                    object.sensitive.is_some()
                        && (role == Role::Admin || object.has(ObjectAttributes::USER_WITH_AUTH))
                }
                Content::Sequence(_) => true,
                Content::Free => false,
            },
            HandleKind::Nv => {
                let Some(attributes) = self.index_attributes(entity.handle) else {
                    return false;
                };
                let allowed = match access {
                    Access::Write => attributes.contains(NvAttributes::AUTH_WRITE),
                    Access::Read => attributes.contains(NvAttributes::AUTH_READ),
                    Access::Other => true,
                };
                let counted = attributes.is_pin() && access != Access::Other;
                let usable = || {
                    let pin = self.index(entity.handle).map(|index| self.pin(&index));
                    attributes.contains(NvAttributes::WRITTEN)
                        && pin.is_some_and(|pin| pin.count < pin.limit)
                };
                allowed && (!counted || usable())
            }
            _ => true,
        }
    }

    /// Whether a policy can authorize this role.
    pub(crate) fn policy_available(&self, entity: Entity, access: Access) -> bool {
        let policy = self.policy_of(entity);
        match entity.handle.kind() {
            HandleKind::Permanent => policy.alg.is_some(),
            HandleKind::Pcr => rule_of(entity.handle.index()).group,
            HandleKind::Transient | HandleKind::Persistent => self
                .object_of(entity)
                // An empty policy is one that no session fulfils.
                .is_some_and(|o| o.sensitive.is_some()),
            HandleKind::Nv => {
                let Some(index) = self.index(entity.handle) else {
                    return false;
                };
                !index.public.policy.is_empty()
                    && match access {
                        Access::Write => index.public.has(NvAttributes::POLICY_WRITE),
                        Access::Read => index.public.has(NvAttributes::POLICY_READ),
                        Access::Other => true,
                    }
            }
            _ => false,
        }
    }

    /// Whether nothing but a policy can authorize this role.
    pub(crate) fn policy_required(&self, entity: Entity, role: Role) -> bool {
        match (role, entity.handle.kind()) {
            (Role::Duplicate, _) | (Role::Admin, HandleKind::Nv) => true,
            (Role::Admin, HandleKind::Transient | HandleKind::Persistent) => self
                .object_of(entity)
                .is_some_and(|o| o.has(ObjectAttributes::ADMIN_WITH_POLICY)),
            (_, HandleKind::Pcr) => self.policy_of(entity).alg.is_some(),
            _ => false,
        }
    }
}
