//! Assertions about values that the TPM has: PCRs, NV indices, clocks (clauses 23.7, 23.9, 23.10, 23.20 and 23.22).

use super::{
    super::capability::{ITEM_MAX, one},
    Call,
};
use crate::{
    alg::HashAlg,
    crypto::Digest,
    rc::{Rc, Stop, ensure},
    state::{Core, index::Index, pcr::digest_of},
    structures::pcr::PcrSelections,
    wire::{Reader, Unmarshal, Writer, marshal},
};

/// TPM2_PolicyPCR (clause 23.7).
pub(crate) fn pcr(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let expected: Digest = call.param()?;
    let mut pcrs: PcrSelections = call.param()?;
    call.end()?;
    let session = core.policy_session(call, 0)?;
    let (alg, trial, counter) = (
        session.auth_hash,
        session.is_trial(),
        session.policy.pcr_counter,
    );
    let current = digest_of(core.crypto, &core.permanent, &core.pcrs, alg, &mut pcrs);
    let digest = if trial {
        // A trial believes what it is told.
        if expected.is_empty() {
            current
        } else {
            expected
        }
    } else {
        let now = core.reset.pcr_counter;
        ensure(counter.is_none_or(|then| then == now), Rc::PCR_CHANGED)?;
        ensure(
            expected.is_empty() || expected == current,
            Rc::VALUE.param(1),
        )?;
        core.policy_session(call, 0)?.policy.pcr_counter = Some(now);
        current
    };
    let mut buffer = [0; 64];
    let selection = marshal(&pcrs, &mut buffer)?;
    let parts = [selection, digest.as_slice()];
    Ok(core.extend_policy(call.handle_at(0), call.command.code, &parts)?)
}

/// `TPM_EO`: how an operand is compared.
#[derive(Clone, Copy)]
struct Operation(u16);

impl Unmarshal for Operation {
    fn read(r: &mut Reader<'_>) -> Result<Self, Rc> {
        let it = r.read::<u16>()?;
        ensure(it <= 0xB, Rc::VALUE).map(|()| Self(it))
    }
}

impl Operation {
    const NEQ: u16 = 1;

    /// Compares `a` with `b`, of one length.
    fn holds(self, a: &[u8], b: &[u8]) -> bool {
        let negative = |x: &[u8]| x.first().is_some_and(|first| first & 0x80 != 0);
        // Of two's complements with one sign the order is that of their bytes.
        let signed = match (negative(a), negative(b)) {
            (true, false) => core::cmp::Ordering::Less,
            (false, true) => core::cmp::Ordering::Greater,
            _ => a.cmp(b),
        };
        match self.0 {
            0 => a == b,
            1 => a != b,
            2 => signed.is_gt(),
            3 => a > b,
            4 => signed.is_lt(),
            5 => a < b,
            6 => signed.is_ge(),
            7 => a >= b,
            8 => signed.is_le(),
            9 => a <= b,
            0xA => a.iter().zip(b).all(|(a, b)| a & b == *b),
            _ => a.iter().zip(b).all(|(a, b)| a & b == 0),
        }
    }
}

/// The hash of operand, offset and operation.
fn arguments(core: &Core<'_>, alg: HashAlg, operand: &[u8], offset: u16, op: Operation) -> Digest {
    core.crypto
        .hash(alg, &[operand, &offset.to_be_bytes(), &op.0.to_be_bytes()])
}

/// TPM2_PolicyNV (clause 23.9).
pub(crate) fn nv(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let operand: Digest = call.param()?;
    let offset: u16 = call.param()?;
    let operation: Operation = call.param()?;
    call.end()?;
    let session = core.policy_session(call, 2)?;
    let (alg, trial) = (session.auth_hash, session.is_trial());
    let index = core.index(call.handle_at(1)).ok_or(Rc::HANDLE.handle(2))?;
    if !trial {
        core.nv_read_checks(call.handle_at(0), &index)?;
        ensure(
            usize::from(offset) <= usize::from(index.public.size),
            Rc::VALUE.param(2),
        )?;
        let end = usize::from(offset) + operand.len();
        ensure(end <= usize::from(index.public.size), Rc::SIZE.param(1))?;
        let data = core
            .index_data(&index)
            .get(usize::from(offset)..end)
            .unwrap_or_default();
        ensure(operation.holds(data, operand.as_slice()), Rc::POLICY)?;
    }
    let hash = arguments(core, alg, operand.as_slice(), offset, operation);
    let name = core.index_name(&index.public);
    let parts = [hash.as_slice(), name.as_slice()];
    Ok(core.extend_policy(call.handle_at(2), call.command.code, &parts)?)
}

/// TPM2_PolicyCounterTimer (clause 23.10).
pub(crate) fn counter_timer(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let operand: Digest = call.param()?;
    let offset: u16 = call.param()?;
    let operation: Operation = call.param()?;
    call.end()?;
    let session = core.policy_session(call, 0)?;
    let (alg, trial) = (session.auth_hash, session.is_trial());
    // TPMS_TIME_INFO
    let mut info = [0; 8 + 17];
    let mut w = Writer::new(&mut info);
    w.put(&core.time.time)?;
    w.put(&core.clock_info())?;
    let start = usize::from(offset);
    ensure(start <= info.len(), Rc::VALUE.param(2))?;
    let data = info.get(start..start + operand.len()).ok_or(Rc::RANGE)?;
    if !trial {
        ensure(operation.holds(data, operand.as_slice()), Rc::POLICY)?;
    }
    let hash = arguments(core, alg, operand.as_slice(), offset, operation);
    Ok(core.extend_policy(call.handle_at(0), call.command.code, &[hash.as_slice()])?)
}

/// TPM2_PolicyCapability (version 1.83, clause 23.23).
pub(crate) fn capability(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let operand: Digest = call.param()?;
    let offset: u16 = call.param()?;
    let operation: Operation = call.param()?;
    let capability: u32 = call.param()?;
    let property: u32 = call.param()?;
    call.end()?;
    let session = core.policy_session(call, 0)?;
    let (alg, trial) = (session.auth_hash, session.is_trial());
    if !trial {
        // Not those whose property says nothing, and that say nothing here.
        let timers = core.timers.count > 0;
        ensure(
            matches!(capability, 0..=4 | 6..=9) || timers && capability == 0xA,
            Rc::VALUE.param(4),
        )?;
        let mut buffer = [0; ITEM_MAX];
        let len = one(core, capability, property, 5, &mut buffer)?;
        let data = buffer.get(..len).unwrap_or_default();
        if data.is_empty() {
            // What is not there differs from everything, and that is all that can be said of it.
            ensure(operation.0 == Operation::NEQ, Rc::POLICY)?;
        } else {
            let data = data.get(usize::from(offset)..).ok_or(Rc::VALUE.param(2))?;
            let data = data.get(..operand.len()).ok_or(Rc::SIZE.param(1))?;
            ensure(operation.holds(data, operand.as_slice()), Rc::POLICY)?;
        }
    }
    let hash = core.crypto.hash(
        alg,
        &[
            operand.as_slice(),
            &offset.to_be_bytes(),
            &operation.0.to_be_bytes(),
            &capability.to_be_bytes(),
            &property.to_be_bytes(),
        ],
    );
    Ok(core.extend_policy(call.handle_at(0), call.command.code, &[hash.as_slice()])?)
}

/// TPM2_PolicyNvWritten (clause 23.20).
pub(crate) fn nv_written(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let written: bool = call.param()?;
    call.end()?;
    let session = core.policy_session(call, 0)?;
    let old = session.policy.nv_written;
    ensure(old.is_none_or(|old| old == written), Rc::VALUE.param(1))?;
    session.policy.nv_written = Some(written);
    Ok(core.extend_policy(
        call.handle_at(0),
        call.command.code,
        &[&[u8::from(written)]],
    )?)
}

/// TPM2_PolicyAuthorizeNV (clause 23.22).
pub(crate) fn authorize_nv(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    call.end()?;
    let session = core.policy_session(call, 2)?;
    let (alg, trial, digest) = (
        session.auth_hash,
        session.is_trial(),
        session.policy_digest.clone(),
    );
    let index: Index = core.index(call.handle_at(1)).ok_or(Rc::HANDLE.handle(2))?;
    if !trial {
        core.nv_read_checks(call.handle_at(0), &index)?;
        ensure(usize::from(index.public.size) >= 2, Rc::INSUFFICIENT)?;
        // The index holds a TPMT_HA.
        let mut r = Reader::new(core.index_data(&index));
        let hash: HashAlg = r.read().map_err(|_| Rc::HASH)?;
        ensure(hash == alg, Rc::HASH)?;
        let approved = r.take(hash.digest_len())?;
        ensure(approved == digest.as_slice(), Rc::VALUE)?;
    }
    let name = core.index_name(&index.public);
    let handle = call.handle_at(2);
    core.sessions.need(handle)?.policy_digest = Digest::zeroed(alg.digest_len());
    Ok(core.extend_policy(handle, call.command.code, &[name.as_slice()])?)
}
