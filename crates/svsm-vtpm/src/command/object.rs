//! Objects (clause 12), and primary ones (clause 24.1).

mod creation; // creation data and tickets
mod credential; // activating and making credentials

pub(crate) use creation::creation_ticket;
pub(crate) use credential::{activate_credential, make_credential};

use creation::CreationData;

use super::Call;
use crate::{
    bytes::Bytes,
    crypto::Digest,
    handle::Handle,
    object::{
        create::{Derivation, Source},
        protect::Private,
        rules,
    },
    rc::{About, Rc, Stop, ensure},
    state::{
        Core,
        entity::Entity,
        object::{Content, Object, name_of},
        session::Bound,
    },
    structures::{
        attest::Data,
        attributes::ObjectAttributes as A,
        pcr::PcrSelections,
        public::{PUBLIC_MAX, Public},
        sensitive::{Sensitive, SensitiveCreate},
    },
    table::Kind,
    wire::Reader,
};

impl Core<'_> {
    /// The object that a command wants as parent of what it makes or loads.
    pub(crate) fn storage_parent(&self, entity: Entity, n: u32) -> Result<&Object, Rc> {
        self.object_of(entity)
            .filter(|o| o.is_storage_parent())
            .ok_or(Rc::TYPE.handle(n))
    }

    /// Checks a policy that is bound to a template (PolicyTemplate) against the template of a creation.
    fn check_template_policy(&self, call: &Call<'_>, template: &[u8]) -> Result<(), Rc> {
        let Some(session) = self.sessions.loaded(call.sessions[0]) else {
            return Ok(());
        };
        match &session.policy.bound {
            Bound::Template(hash) => {
                let same = self.crypto.hash(session.auth_hash, &[template]) == *hash;
                ensure(same, Rc::POLICY_FAIL)
            }
            _ => Ok(()),
        }
    }
}

/// The auth value of a new object must not be longer than its name's hash.
fn check_auth(public: &Public, auth: &Digest) -> Result<(), Rc> {
    let mut auth = auth.clone();
    auth.trim_end();
    // Without a name algorithm, the object came by LoadExternal, and nothing but the type limits the value.
    let most = public
        .name_alg
        .map_or(auth.len(), crate::HashAlg::digest_len);
    ensure(auth.len() <= most, Rc::SIZE)
}

/// The parameters that Create and CreatePrimary have in common.
struct Creation {
    sensitive: SensitiveCreate,
    template: Bytes<PUBLIC_MAX>,
    public: Public,
    outside_info: Data,
    pcrs: PcrSelections,
}

impl Creation {
    fn read(call: &mut Call<'_>) -> Result<Self, Rc> {
        let sensitive = call.param_with(SensitiveCreate::read_sized)?;
        let (template, public) = call.param_with(|r| {
            let before = r.clone();
            let public = Public::read_sized(r, false)?;
            let len = before.rest().len() - r.rest().len();
            let template = before.rest().get(2..len).unwrap_or_default();
            Ok((Bytes::new(template).ok_or(Rc::SIZE)?, public))
        })?;
        let it = Self {
            sensitive,
            template,
            public,
            outside_info: call.param()?,
            pcrs: call.param()?,
        };
        call.end()?;
        Ok(it)
    }

    fn check(&self, core: &Core<'_>, call: &Call<'_>, parent: Option<&Object>) -> Result<(), Rc> {
        core.offers_parms(&self.public.params).param(2)?;
        rules::check_creation(&self.public, parent, self.sensitive.data.len()).param(2)?;
        check_auth(&self.public, &self.sensitive.auth).param(1)?;
        core.check_template_policy(call, self.template.as_slice())
    }
}

/// TPM2_Create (clause 12.1).
pub(crate) fn create(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let creation = Creation::read(call)?;
    let parent = core.storage_parent(call.entity(0), 1)?.clone();
    creation.check(core, call, Some(&parent))?;
    let object = core.create_object(
        creation.public.clone(),
        &creation.sensitive,
        parent.hierarchy,
        Source::Random,
    )?;
    let Some(sensitive) = &object.sensitive else {
        return Err(Rc::FAILURE.into());
    };
    let private = core.sensitive_to_private(sensitive, &object.name, &parent)?;
    call.put(&private)?;
    call.out.sized_as(&object.public)?;
    let data = CreationData::new(
        core,
        call,
        &object,
        Some(&parent),
        creation.pcrs,
        creation.outside_info,
    );
    Ok(data.respond(core, call, &object)?)
}

/// TPM2_CreatePrimary (clause 24.1).
pub(crate) fn create_primary(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let creation = Creation::read(call)?;
    let hierarchy = call.handle_at(0);
    ensure(core.objects.free_slot().is_some(), Rc::OBJECT_MEMORY)?;
    creation.check(core, call, None)?;
    let data = creation.sensitive.data.as_slice();
    let source = core.primary_source(hierarchy, &creation.public, data)?;
    let object = make_primary(
        core,
        creation.public.clone(),
        &creation.sensitive,
        hierarchy,
        source,
    )?;
    call.out.sized_as(&object.public)?;
    let data = CreationData::new(
        core,
        call,
        &object,
        None,
        creation.pcrs,
        creation.outside_info,
    );
    data.respond(core, call, &object)?;
    call.put(&object.name)?;
    call.handle = Some(core.objects.add(Content::Object(object))?);
    Ok(())
}

fn make_primary(
    core: &mut Core<'_>,
    public: Public,
    sensitive: &SensitiveCreate,
    hierarchy: Handle,
    source: Source,
) -> Result<Object, Stop> {
    let mut object = core.create_object(public, sensitive, hierarchy, source)?;
    object.primary = true;
    object.qualify(core.crypto, &hierarchy.0.to_be_bytes());
    Ok(object)
}

/// TPM2_Load (clause 12.2).
pub(crate) fn load(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let private: Private = call.param()?;
    let public = call.param_with(|r| Public::read_sized(r, false))?;
    call.end()?;
    ensure(core.objects.free_slot().is_some(), Rc::OBJECT_MEMORY)?;
    ensure(!private.is_empty(), Rc::SIZE.param(1))?;
    let parent = core.storage_parent(call.entity(0), 1)?.clone();
    ensure(public.name_alg.is_some(), Rc::HASH.param(2))?;
    let name = name_of(core.crypto, &public);
    let sensitive = core
        .private_to_sensitive(private.as_slice(), &name, &parent)
        .param(1)?;
    let object = core.load_child(public, sensitive, &parent, [2, 1])?;
    call.put(&object.name)?;
    call.handle = Some(core.objects.add(Content::Object(object))?);
    Ok(())
}

impl Core<'_> {
    /// The object of areas that belong below a parent; `numbers` are those of the parameters for both areas.
    pub(crate) fn load_child(
        &self,
        public: Public,
        sensitive: Sensitive,
        parent: &Object,
        numbers: [u32; 2],
    ) -> Result<Object, Rc> {
        let [of_public, of_sensitive] = numbers;
        self.offers_parms(&public.params).param(of_public)?;
        rules::check_attributes(&public, Some(parent)).param(of_public)?;
        rules::check_schemes(&public).param(of_public)?;
        rules::check_key(self, &public, Some(&sensitive), false)
            .map_err(|blame| blame.numbered(of_public, of_sensitive))?;
        let mut object = Object::new(self.crypto, public, Some(sensitive), parent.hierarchy)
            .ok_or(Rc::BINDING)?;
        object.st_clear |= parent.st_clear;
        object.external = parent.external;
        object.qualify(self.crypto, parent.qualified_name.as_slice());
        Ok(object)
    }
}

/// TPM2_LoadExternal (clause 12.3).
pub(crate) fn load_external(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let sensitive = call.param_with(|r: &mut Reader<'_>| {
        if r.rest().starts_with(&[0, 0]) {
            r.take(2)?;
            return Ok(None);
        }
        r.sized_as::<Sensitive>().map(Some)
    })?;
    let public = call.param_with(|r| Public::read_sized(r, true))?;
    let hierarchy: Handle = call.param()?;
    Kind::Hierarchy.check(hierarchy).param(3)?;
    call.end()?;
    ensure(core.objects.free_slot().is_some(), Rc::OBJECT_MEMORY)?;
    ensure(core.enabled(hierarchy), Rc::HIERARCHY.param(3))?;
    core.offers_parms(&public.params).param(2)?;
    if sensitive.is_some() {
        ensure(hierarchy == Handle::NULL, Rc::HIERARCHY.param(3))?;
        // It must not look like a key of this TPM.
        let ours = A::FIXED_TPM | A::FIXED_PARENT | A::RESTRICTED;
        ensure(!public.attributes.intersects(ours), Rc::ATTRIBUTES.param(2))?;
        if public.name_alg.is_some() {
            rules::check_attributes(&public, None).param(2)?;
        }
        rules::check_schemes(&public).param(2)?;
    } else {
        // Of a key that somebody else holds, its attributes are that one's matter.
        rules::check_schemes(&public).param(2)?;
    }
    rules::check_key(core, &public, sensitive.as_ref(), true)
        .map_err(|blame| blame.numbered(2, 1))?;
    let mut object = Object::new(core.crypto, public, sensitive, hierarchy).ok_or(Rc::BINDING)?;
    // It is below no parent: its qualified name is its name.
    object.external = true;
    call.put(&object.name)?;
    call.handle = Some(core.objects.add(Content::Object(object))?);
    Ok(())
}

/// TPM2_ReadPublic (clause 12.4).
pub(crate) fn read_public(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    call.end()?;
    // A sequence has no public area.
    let object = core.object_of(call.entity(0)).ok_or(Rc::SEQUENCE)?;
    call.out.sized_as(&object.public)?;
    call.put(&object.name)?;
    Ok(call.put(&object.qualified_name)?)
}

/// TPM2_Unseal (clause 12.7).
pub(crate) fn unseal(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    call.end()?;
    let object = core.object_of(call.entity(0)).ok_or(Rc::TYPE.handle(1))?;
    let is_data = matches!(
        object.public.params,
        crate::structures::public::Params::KeyedHash(_)
    );
    ensure(is_data, Rc::TYPE.handle(1))?;
    let is_key = object
        .public
        .attributes
        .intersects(A::SIGN | A::DECRYPT | A::RESTRICTED);
    ensure(!is_key, Rc::ATTRIBUTES.handle(1))?;
    let sensitive = object.sensitive.as_ref().ok_or(Rc::TYPE.handle(1))?;
    Ok(call.put(&sensitive.secret)?)
}

/// TPM2_ObjectChangeAuth (clause 12.8).
pub(crate) fn change_auth(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let auth: Digest = call.param()?;
    call.end()?;
    let object = core
        .object_of(call.entity(0))
        .ok_or(Rc::TYPE.handle(1))?
        .clone();
    check_auth(&object.public, &auth).param(1)?;
    // The value is part of what the parent protects, so the parent must be the right one.
    let parent = core
        .object_of(call.entity(1))
        .ok_or(Rc::TYPE.handle(2))?
        .clone();
    let expected = crate::state::object::qualified(
        core.crypto,
        object.public.name_alg,
        parent.qualified_name.as_slice(),
        &object.name,
    );
    // An object without a name has no parent.
    let is_child = object.public.name_alg.is_some() && expected == object.qualified_name;
    ensure(is_child, Rc::TYPE.handle(2))?;
    let mut sensitive = object.sensitive.clone().ok_or(Rc::TYPE.handle(1))?;
    sensitive.auth = auth;
    sensitive.auth.trim_end();
    let private = core.sensitive_to_private(&sensitive, &object.name, &parent)?;
    Ok(call.put(&private)?)
}

/// TPM2_CreateLoaded (clause 12.9).
pub(crate) fn create_loaded(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let sensitive = call.param_with(SensitiveCreate::read_sized)?;
    let template: Bytes<PUBLIC_MAX> = call.param()?;
    call.end()?;
    let entity = call.entity(0);
    let hierarchy = entity.handle;
    let parent = if hierarchy.is_hierarchy() {
        None
    } else {
        let parent = core.object_of(entity).filter(|o| o.is_parent());
        Some(parent.ok_or(Rc::TYPE.handle(1))?.clone())
    };
    ensure(core.objects.free_slot().is_some(), Rc::OBJECT_MEMORY)?;
    let derived = parent.as_ref().is_some_and(Object::is_derivation_parent);
    let mut r = Reader::sent_to(core.has_lattices(), template.as_slice());
    let (public, derive) = if derived {
        Public::read_derived(&mut r).map(|(public, derive)| (public, Some(derive)))
    } else {
        Public::read_template(&mut r).map(|public| (public, None))
    }
    .param(2)?;
    ensure(r.is_empty(), Rc::SIZE.param(2))?;
    ensure(public.name_alg.is_some(), Rc::HASH.param(2))?;
    core.offers_parms(&public.params).param(2)?;
    let storage = parent.as_ref().filter(|_| !derived);
    check_auth(&public, &sensitive.auth).param(1)?;
    if derived {
        // What is derived is neither asked for nor random.
        ensure(
            !public.has(A::SENSITIVE_DATA_ORIGIN),
            Rc::ATTRIBUTES.param(2),
        )?;
        rules::check_attributes(&public, parent.as_ref()).param(2)?;
        rules::check_schemes(&public).param(2)?;
    } else {
        rules::check_creation(&public, storage, sensitive.data.len()).param(2)?;
    }
    core.check_template_policy(call, template.as_slice())?;

    let object = match (&parent, derive) {
        (None, _) => {
            let source = core.primary_source(hierarchy, &public, sensitive.data.as_slice())?;
            make_primary(core, public, &sensitive, hierarchy, source)?
        }
        (Some(parent), derive) => {
            let (source, public) = match derive {
                Some(mut derive) => {
                    // Label and context come from the template, or else from the caller's secret data.
                    let mut data = Reader::new(sensitive.data.as_slice());
                    if !data.is_empty() {
                        let given: crate::structures::public::Derive = data.read().param(1)?;
                        if derive.label.is_empty() {
                            derive.label = given.label;
                        }
                        if derive.context.is_empty() {
                            derive.context = given.context;
                        }
                    }
                    let mut public = public;
                    public.attributes |= A::SENSITIVE_DATA_ORIGIN;
                    (
                        Source::Derived(Derivation::new(parent, derive).handle(1)?),
                        public,
                    )
                }
                None => (Source::Random, public),
            };
            let mut object = core.create_object(public, &sensitive, parent.hierarchy, source)?;
            if derived {
                object.public.attributes -= A::SENSITIVE_DATA_ORIGIN;
                object.name = name_of(core.crypto, &object.public);
            }
            object.st_clear |= parent.st_clear;
            object.qualify(core.crypto, parent.qualified_name.as_slice());
            object
        }
    };
    match (storage, &object.sensitive) {
        (Some(parent), Some(sensitive)) => {
            call.put(&core.sensitive_to_private(sensitive, &object.name, parent)?)?;
        }
        // Nothing needs to be kept of what can be made again.
        _ => call.put(&Private::EMPTY)?,
    }
    call.out.sized_as(&object.public)?;
    call.put(&object.name)?;
    call.handle = Some(core.objects.add(Content::Object(object))?);
    Ok(())
}
