//! Defining and deleting indices (clauses 31.3 to 31.6 and 31.15).

use super::Call;
use crate::{
    crypto::Digest,
    handle::Handle,
    rc::{Rc, Stop, ensure},
    state::Core,
    structures::{
        attributes::NvAttributes as A,
        nv::{NvKind, NvPublic, NvPublic2},
    },
};

/// Attributes that only the TPM itself sets.
const STATE: A = A::WRITE_LOCKED.union(A::READ_LOCKED).union(A::WRITTEN);

/// TPM2_NV_DefineSpace (clause 31.3).
pub(crate) fn define_space(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let auth: Digest = call.param()?;
    let public: NvPublic = call.param_with(|r| r.sized_as())?;
    define(core, call, auth, &public)
}

/// TPM2_NV_DefineSpace2 (version 1.83, clause 31.17).
pub(crate) fn define_space2(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let auth: Digest = call.param()?;
    let NvPublic2(public) = call.param_with(|r| r.sized_as())?;
    define(core, call, auth, &public)
}

fn define(
    core: &mut Core<'_>,
    call: &Call<'_>,
    mut auth: Digest,
    public: &NvPublic,
) -> Result<(), Stop> {
    call.end()?;
    auth.trim_end();
    let digest_len = public.name_alg.digest_len();
    let policy = public.policy.len();
    ensure(policy == 0 || policy == digest_len, Rc::SIZE.param(2))?;
    ensure(auth.len() <= digest_len, Rc::SIZE.param(1))?;
    let platform = call.handle_at(0) == Handle::PLATFORM;
    ensure(
        !platform || core.clear.ph_enable_nv,
        Rc::HIERARCHY.handle(1),
    )?;
    check(public).map_err(|rc| rc.param(2))?;
    ensure(
        public.has(A::PLATFORM_CREATE) == platform,
        Rc::ATTRIBUTES.handle(1),
    )?;
    ensure(
        !public.has(A::POLICY_DELETE) || platform,
        Rc::ATTRIBUTES.param(2),
    )?;
    ensure(platform || core.clear.sh_enable, Rc::HIERARCHY.handle(1))?;
    ensure(core.nv.content(public.handle).is_none(), Rc::NV_DEFINED)?;
    Ok(core.add_index(public, &auth)?)
}

fn check(public: &NvPublic) -> Result<(), Rc> {
    let has = |attribute| public.has(attribute);
    let digest_len = public.name_alg.digest_len();
    let kind = public.attributes.kind().ok_or(Rc::ATTRIBUTES)?;
    let size = usize::from(public.size);
    match kind {
        NvKind::Counter | NvKind::Bits => ensure(size == 8, Rc::SIZE)?,
        NvKind::Extend => ensure(size == digest_len, Rc::SIZE)?,
        NvKind::PinFail | NvKind::PinPass => ensure(size == 8, Rc::SIZE)?,
        NvKind::Ordinary => {}
    }
    ensure(!public.attributes.intersects(STATE), Rc::ATTRIBUTES)?;
    // An index that nobody could read or write would be of no use.
    let readers = A::PP_READ | A::OWNER_READ | A::AUTH_READ | A::POLICY_READ;
    let writers = A::PP_WRITE | A::OWNER_WRITE | A::AUTH_WRITE | A::POLICY_WRITE;
    ensure(public.attributes.intersects(readers), Rc::ATTRIBUTES)?;
    ensure(public.attributes.intersects(writers), Rc::ATTRIBUTES)?;
    ensure(
        !(has(A::CLEAR_ST_CLEAR) && kind == NvKind::Counter),
        Rc::ATTRIBUTES,
    )?;
    // A restart that clears it would have to unlock it, too.
    ensure(
        !(has(A::CLEAR_ST_CLEAR) && has(A::WRITE_DEFINE)),
        Rc::ATTRIBUTES,
    )?;
    ensure(
        !(has(A::ORDERLY) && public.is_pin() && !has(A::NO_DA)),
        Rc::ATTRIBUTES,
    )?;
    if public.is_pin() {
        // A PIN is not to be changed by who knows it, nor locked, nor guessed.
        ensure(
            !has(A::AUTH_WRITE) && !has(A::GLOBAL_LOCK) && !has(A::WRITE_DEFINE),
            Rc::ATTRIBUTES,
        )?;
        ensure(kind != NvKind::PinFail || has(A::NO_DA), Rc::ATTRIBUTES)?;
    }
    ensure(!has(A::WRITE_ALL) || size <= super::BUFFER_MAX, Rc::SIZE)?;
    Ok(())
}

/// TPM2_NV_UndefineSpace (clause 31.4).
pub(crate) fn undefine_space(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    call.end()?;
    let index = core.nv_index(call)?;
    ensure(
        !index.public.has(A::POLICY_DELETE),
        Rc::ATTRIBUTES.handle(2),
    )?;
    // The owner does not delete what belongs to the platform.
    let owner = call.handle_at(0) == Handle::OWNER;
    ensure(
        !(owner && index.public.has(A::PLATFORM_CREATE)),
        Rc::NV_AUTHORIZATION,
    )?;
    core.remove_index(index.public.handle);
    Ok(())
}

/// TPM2_NV_UndefineSpaceSpecial (clause 31.5).
pub(crate) fn undefine_space_special(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    call.end()?;
    let index = core.index(call.handle_at(0)).ok_or(Rc::HANDLE.handle(1))?;
    ensure(index.public.has(A::POLICY_DELETE), Rc::ATTRIBUTES.handle(1))?;
    core.remove_index(index.public.handle);
    Ok(())
}

/// TPM2_NV_ReadPublic (clause 31.6).
pub(crate) fn read_public(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    call.end()?;
    let index = core.index(call.handle_at(0)).ok_or(Rc::HANDLE.handle(1))?;
    call.out.sized_as(&index.public)?;
    Ok(call.put(&core.index_name(&index.public))?)
}

/// TPM2_NV_ReadPublic2 (version 1.83, clause 31.18).
pub(crate) fn read_public2(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    call.end()?;
    let index = core.index(call.handle_at(0)).ok_or(Rc::HANDLE.handle(1))?;
    let name = core.index_name(&index.public);
    call.out.sized_as(&NvPublic2(index.public))?;
    Ok(call.put(&name)?)
}

/// TPM2_NV_ChangeAuth (clause 31.15).
pub(crate) fn change_auth(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let mut auth: Digest = call.param()?;
    call.end()?;
    auth.trim_end();
    let index = core.index(call.handle_at(0)).ok_or(Rc::HANDLE.handle(1))?;
    ensure(
        auth.len() <= index.public.name_alg.digest_len(),
        Rc::SIZE.param(1),
    )?;
    core.set_index_auth(&index, &auth);
    Ok(())
}
