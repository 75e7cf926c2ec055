//! Non-volatile storage (clause 31).

mod define; // definition and deletion
mod locks; // write and read locks

pub(crate) use define::{
    change_auth, define_space, define_space2, read_public, read_public2, undefine_space,
    undefine_space_special,
};
pub(crate) use locks::{global_write_lock, read_lock, write_lock};

use super::{
    Call,
    attestation::{Signer, attest, read_scheme},
    hash_hmac::BUFFER_MAX,
};
use crate::{
    handle::Handle,
    rc::{Rc, Stop, ensure},
    state::{Core, index::Index},
    structures::{
        attest::{Data, Tag},
        attributes::NvAttributes as A,
        nv::NvKind,
    },
};

impl Core<'_> {
    /// Whether the handle that authorizes may do so: owner and platform by attribute, an index for itself (clause 31.1).
    fn nv_check_authority(auth: Handle, index: &Index, owner: A, platform: A) -> Result<(), Rc> {
        let allowed = match auth {
            Handle::OWNER => index.public.has(owner),
            Handle::PLATFORM => index.public.has(platform),
            handle => handle == index.public.handle,
        };
        ensure(allowed, Rc::NV_AUTHORIZATION)
    }

    /// What is written to, extended or locked while the TPM is in read-only mode must be gone after the next reset (version 1.83: Part 3,
    /// clause 24.9).
    fn nv_check_read_only(&self, index: &Index) -> Result<(), Rc> {
        let passing = index.public.has(A::ORDERLY | A::CLEAR_ST_CLEAR);
        ensure(!self.read_only || passing, Rc::READ_ONLY)
    }

    /// Checks that an index can be read now.
    pub(crate) fn nv_read_checks(&self, auth: Handle, index: &Index) -> Result<(), Rc> {
        ensure(!index.public.has(A::READ_LOCKED), Rc::NV_LOCKED)?;
        Self::nv_check_authority(auth, index, A::OWNER_READ, A::PP_READ)?;
        ensure(index.public.has(A::WRITTEN), Rc::NV_UNINITIALIZED)
    }

    /// Checks that an index can be written now.
    fn nv_write_checks(&self, auth: Handle, index: &Index) -> Result<(), Rc> {
        self.nv_check_read_only(index)?;
        self.nv_check_writer(auth, index)
    }

    /// Checks that who authorizes may write an index that is not locked.
    pub(crate) fn nv_check_writer(&self, auth: Handle, index: &Index) -> Result<(), Rc> {
        ensure(!index.public.has(A::WRITE_LOCKED), Rc::NV_LOCKED)?;
        Self::nv_check_authority(auth, index, A::OWNER_WRITE, A::PP_WRITE)
    }

    /// The index of a command's second handle.
    fn nv_index(&self, call: &Call<'_>) -> Result<Index, Rc> {
        self.index(call.handle_at(1)).ok_or(Rc::HANDLE.handle(2))
    }

    /// Writes a number of eight bytes.
    fn write_u64(&mut self, index: &mut Index, value: u64) -> Result<(), Rc> {
        self.write_index(index, 0, &value.to_be_bytes())
    }
}

/// TPM2_NV_Write (clause 31.7).
pub(crate) fn write(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let data = call.param_with(|r| r.sized(BUFFER_MAX))?;
    let offset: u16 = call.param()?;
    call.end()?;
    let mut index = core.nv_index(call)?;
    core.nv_write_checks(call.handle_at(0), &index)?;
    let kind = index.public.kind();
    let writable = !matches!(kind, NvKind::Counter | NvKind::Bits | NvKind::Extend);
    ensure(writable, Rc::ATTRIBUTES)?;
    let size = usize::from(index.public.size);
    let offset = usize::from(offset);
    ensure(offset <= size, Rc::VALUE.param(2))?;
    ensure(data.len() + offset <= size, Rc::NV_RANGE)?;
    let whole = index.public.has(A::WRITE_ALL) || index.public.is_pin();
    ensure(!whole || data.len() == size, Rc::NV_RANGE)?;
    Ok(core.write_index(&mut index, offset, data)?)
}

/// TPM2_NV_Increment (clause 31.8).
pub(crate) fn increment(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    call.end()?;
    let mut index = core.nv_index(call)?;
    core.nv_write_checks(call.handle_at(0), &index)?;
    ensure(
        index.public.kind() == NvKind::Counter,
        Rc::ATTRIBUTES.handle(2),
    )?;
    // A new counter begins where no counter has been, so that deleting one does not turn it back.
    let old = if index.public.has(A::WRITTEN) {
        core.index_u64(&index)
    } else {
        core.highest_counter()
    };
    let new = old.wrapping_add(1);
    core.write_u64(&mut index, new)?;
    if new & 0xFF == 0 {
        core.dirty = true;
    }
    Ok(())
}

/// TPM2_NV_Extend (clause 31.9).
pub(crate) fn extend(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let data = call.param_with(|r| r.sized(BUFFER_MAX))?;
    call.end()?;
    let mut index = core.nv_index(call)?;
    core.nv_write_checks(call.handle_at(0), &index)?;
    ensure(
        index.public.kind() == NvKind::Extend,
        Rc::ATTRIBUTES.handle(2),
    )?;
    let len = index.public.name_alg.digest_len();
    let zeros = [0; 64];
    let old = if index.public.has(A::WRITTEN) {
        core.index_data(&index)
    } else {
        zeros.get(..len).unwrap_or_default()
    };
    let new = core.crypto.hash(index.public.name_alg, &[old, data]);
    Ok(core.write_index(&mut index, 0, new.as_slice())?)
}

/// TPM2_NV_SetBits (clause 31.10).
pub(crate) fn set_bits(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let bits: u64 = call.param()?;
    call.end()?;
    let mut index = core.nv_index(call)?;
    core.nv_write_checks(call.handle_at(0), &index)?;
    ensure(
        index.public.kind() == NvKind::Bits,
        Rc::ATTRIBUTES.handle(2),
    )?;
    let old = if index.public.has(A::WRITTEN) {
        core.index_u64(&index)
    } else {
        0
    };
    Ok(core.write_u64(&mut index, old | bits)?)
}

/// TPM2_NV_Read (clause 31.13).
pub(crate) fn read(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let size: u16 = call.param()?;
    let offset: u16 = call.param()?;
    call.end()?;
    let index = core.nv_index(call)?;
    core.nv_read_checks(call.handle_at(0), &index)?;
    ensure(usize::from(size) <= BUFFER_MAX, Rc::VALUE.param(1))?;
    let (size, offset) = (usize::from(size), usize::from(offset));
    ensure(offset <= usize::from(index.public.size), Rc::VALUE.param(2))?;
    let data = core
        .index_data(&index)
        .get(offset..offset + size)
        .ok_or(Rc::NV_RANGE)?;
    Ok(call.out.sized(data)?)
}

/// TPM2_NV_Certify (clause 31.16).
pub(crate) fn certify(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let extra: Data = call.param()?;
    let scheme = read_scheme(call)?;
    let size: u16 = call.param()?;
    let offset: u16 = call.param()?;
    call.end()?;
    let index = core.index(call.handle_at(2)).ok_or(Rc::HANDLE.handle(3))?;
    let signer = Signer::new(core, call.entity(0), scheme, 1, 2)?;
    core.nv_read_checks(call.handle_at(1), &index)?;
    let name = core.index_name(&index.public);
    if size == 0 && offset == 0 {
        // Nothing asked for means a digest of everything.
        return Ok(attest(
            core,
            call,
            &signer,
            Tag::ATTEST_NV_DIGEST,
            &extra,
            |core, w| {
                w.put(&name)?;
                w.put(&core.crypto.hash(signer.hash(), &[core.index_data(&index)]))
            },
        )?);
    }
    ensure(usize::from(size) <= BUFFER_MAX, Rc::VALUE.param(3))?;
    let start = usize::from(offset);
    ensure(start <= usize::from(index.public.size), Rc::VALUE.param(4))?;
    let end = start + usize::from(size);
    ensure(end <= usize::from(index.public.size), Rc::NV_RANGE)?;
    Ok(attest(
        core,
        call,
        &signer,
        Tag::ATTEST_NV,
        &extra,
        |core, w| {
            w.put(&name)?;
            w.put(&offset)?;
            w.sized(core.index_data(&index).get(start..end).unwrap_or_default())
        },
    )?)
}
