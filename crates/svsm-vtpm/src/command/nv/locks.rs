//! Locks that keep an index from being written or read (clauses 31.11, 31.12 and 31.14).

use super::Call;
use crate::{
    handle::{Handle, HandleKind},
    rc::{Rc, Stop, ensure},
    state::Core,
    structures::attributes::NvAttributes as A,
};

/// TPM2_NV_WriteLock (clause 31.11).
pub(crate) fn write_lock(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    call.end()?;
    let mut index = core.nv_index(call)?;
    match core.nv_write_checks(call.handle_at(0), &index) {
        // What is locked stays locked.
        Err(Rc::NV_LOCKED) => return Ok(()),
        checked => checked?,
    }
    let lockable = index
        .public
        .attributes
        .intersects(A::WRITE_DEFINE | A::WRITE_ST_CLEAR);
    ensure(lockable, Rc::ATTRIBUTES.handle(2))?;
    let attributes = index.public.attributes | A::WRITE_LOCKED;
    core.set_index_attributes(&mut index, attributes);
    Ok(())
}

/// TPM2_NV_GlobalWriteLock (clause 31.12).
pub(crate) fn global_write_lock(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    call.end()?;
    let mut next = core.nv.next_handle(HandleKind::Nv, Handle(0));
    while let Some(handle) = next {
        next = core.nv.next_handle(HandleKind::Nv, Handle(handle.0 + 1));
        if let Some(mut index) = core.index(handle).filter(|i| i.public.has(A::GLOBAL_LOCK)) {
            let attributes = index.public.attributes | A::WRITE_LOCKED;
            core.set_index_attributes(&mut index, attributes);
        }
    }
    Ok(())
}

/// TPM2_NV_ReadLock (clause 31.14).
pub(crate) fn read_lock(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    call.end()?;
    let mut index = core.nv_index(call)?;
    core.nv_check_read_only(&index)?;
    match core.nv_read_checks(call.handle_at(0), &index) {
        Err(Rc::NV_LOCKED) => return Ok(()),
        // What was never written can be locked, too.
        Ok(()) | Err(Rc::NV_UNINITIALIZED) => {}
        Err(rc) => return Err(rc.into()),
    }
    ensure(index.public.has(A::READ_ST_CLEAR), Rc::ATTRIBUTES.handle(2))?;
    let attributes = index.public.attributes | A::READ_LOCKED;
    core.set_index_attributes(&mut index, attributes);
    Ok(())
}
