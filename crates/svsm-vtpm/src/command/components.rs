//! Attached components (version 1.83, clause 32).

use zeroize::Zeroize;

use super::{Call, hash_hmac::BUFFER_MAX};
use crate::{
    handle::{Handle, HandleKind},
    rc::{Rc, Stop, ensure},
    seam::SentObject,
    state::Core,
    structures::{attributes::ObjectAttributes as A, public::PUBLIC_MAX, sensitive::SENSITIVE_MAX},
    wire::marshal,
};

/// The index that, if it is defined, decides who may send to the first component; the others follow.
const FIRST_ALIAS: u32 = 0x01C9_0000;
/// Properties in one answer, of eight bytes each.
const PROPERTIES_MAX: u32 = (1024 - 4 - 4) / 8;

/// TPM2_AC_GetCapability (version 1.83, clause 32.2).
pub(crate) fn capability(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let from = call.param_with(|r| {
        let tag = r.read::<u32>()?;
        ensure(matches!(tag, 0..=2 | 0x8000_0000), Rc::VALUE).map(|()| tag)
    })?;
    let count: u32 = call.param()?;
    call.end()?;
    let component = core.components.get(call.handle_at(0).index());
    let properties = component.ok_or(Rc::VALUE.handle(1))?.properties();
    let mut chosen = properties.iter().filter(|(tag, _)| *tag >= from);
    call.put(&false)?;
    call.put(&0u32)?;
    let mut n = 0u32;
    while n < count.min(PROPERTIES_MAX) {
        let Some((tag, value)) = chosen.next() else {
            break;
        };
        call.put(tag)?;
        call.put(value)?;
        n += 1;
    }
    call.out.patch(0, &[u8::from(chosen.next().is_some())]);
    call.out.patch(1, &n.to_be_bytes());
    Ok(())
}

/// TPM2_AC_Send (version 1.83, clause 32.3).
pub(crate) fn send(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let data = call.param_with(|r| r.sized(BUFFER_MAX))?;
    call.end()?;
    let (authority, place) = (call.handle_at(1), call.handle_at(2).index());
    let alias = u32::try_from(place).map_or(FIRST_ALIAS, |n| FIRST_ALIAS + n);
    match core.index(Handle(alias)) {
        Some(index) => core.nv_check_writer(authority, &index)?,
        // Any other index authorizes nothing here.
        None => ensure(
            authority.kind() == HandleKind::Permanent,
            Rc::HANDLE.handle(2),
        )?,
    }
    let object = core
        .object_of(call.entity(0))
        .ok_or(Rc::TYPE.handle(1))?
        .clone();
    let bound = [A::FIXED_TPM, A::FIXED_PARENT, A::ENCRYPTED_DUPLICATION];
    let free = !bound.into_iter().any(|attribute| object.has(attribute));
    ensure(free, Rc::ATTRIBUTES.handle(1))?;
    let sensitive = object.sensitive.as_ref().ok_or(Rc::TYPE.handle(1))?;
    let (mut public, mut secret) = ([0; PUBLIC_MAX], [0; SENSITIVE_MAX]);
    let component = core.components.get_mut(place);
    let component = component.ok_or(Rc::VALUE.handle(3))?;
    let public = marshal(&object.public, &mut public)?;
    let taken = marshal(sensitive, &mut secret).map(|sensitive| {
        component.take(SentObject {
            public,
            sensitive,
            data,
        })
    });
    secret.zeroize();
    let (tag, value) = taken?;
    call.put(&tag)?;
    Ok(call.put(&value)?)
}
