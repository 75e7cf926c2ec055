//! Enhanced authorization: the policy commands (clause 23).

mod signed; // assertions that somebody signs or knows: PolicySigned, PolicySecret, PolicyTicket, PolicyAuthorize
mod values; // assertions about values: PCRs, NV, clock, names

pub(crate) use signed::{authorize, policy_signed, secret, ticket};
pub(crate) use values::{authorize_nv, capability, counter_timer, nv, nv_written, pcr};

use super::Call;
use crate::{
    alg::HashAlg,
    crypto::Digest,
    handle::Handle,
    rc::{About, Rc, Stop, ensure},
    state::{
        Core,
        session::{Bound, Session},
    },
    structures::public::Name,
    table,
    wire::Reader,
};

impl Core<'_> {
    /// The policy session that a command's `n`-th handle names (from 0).
    fn policy_session(&mut self, call: &Call<'_>, n: usize) -> Result<&mut Session, Rc> {
        let number = u32::try_from(n).unwrap_or(0) + 1;
        self.sessions
            .loaded_mut(call.handle_at(n))
            .ok_or(Rc::HANDLE.handle(number))
    }

    /// Extends the policy digest by the command's code and more.
    pub(super) fn extend_policy(
        &mut self,
        session: Handle,
        code: u16,
        parts: &[&[u8]],
    ) -> Result<(), Rc> {
        let crypto = self.crypto;
        let session = self.sessions.need(session)?;
        let code = u32::from(code).to_be_bytes();
        let mut list: [&[u8]; 8] = [&[]; 8];
        let head = [session.policy_digest.as_slice(), &code];
        let all = head.iter().chain(parts);
        list.iter_mut()
            .zip(all)
            .for_each(|(place, part)| *place = part);
        session.policy_digest = crypto.hash(session.auth_hash, &list);
        Ok(())
    }

    /// The update that all assertions by an authority make: code, name, and a reference of its choice.
    pub(super) fn extend_by_authority(
        &mut self,
        session: Handle,
        code: u16,
        name: &[u8],
        reference: &[u8],
    ) -> Result<(), Rc> {
        self.extend_policy(session, code, &[name])?;
        let crypto = self.crypto;
        let session = self.sessions.need(session)?;
        session.policy_digest = crypto.hash(
            session.auth_hash,
            &[session.policy_digest.as_slice(), reference],
        );
        Ok(())
    }
}

/// Limits a policy to what a hash says; a session can be limited in one way only.
fn bind(session: &mut Session, bound: Bound) -> Result<(), Rc> {
    ensure(
        session.policy.bound == Bound::Nothing || session.policy.bound == bound,
        Rc::CPHASH,
    )?;
    session.policy.bound = bound;
    Ok(())
}

/// TPM2_PolicyOR (clause 23.6).
pub(crate) fn or(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let digests: [Digest; 8] = call.param_with(|r| {
        let count = r.read::<u32>()?;
        ensure((2..=8).contains(&count), Rc::SIZE)?;
        let mut digests = [const { Digest::EMPTY }; 8];
        for place in digests.iter_mut().take(count as usize) {
            *place = r.read()?;
        }
        Ok(digests)
    })?;
    call.end()?;
    let crypto = core.crypto;
    let session = core.policy_session(call, 0)?;
    let found = session.is_trial() || digests.contains(&session.policy_digest);
    ensure(found, Rc::VALUE.param(1))?;
    let zeros = Digest::zeroed(session.auth_hash.digest_len());
    let code = u32::from(call.command.code).to_be_bytes();
    let mut parts: [&[u8]; 10] = [&[]; 10];
    let all = [zeros.as_slice(), &code]
        .into_iter()
        .chain(digests.iter().map(|d| d.as_slice()));
    parts
        .iter_mut()
        .zip(all)
        .for_each(|(place, part)| *place = part);
    session.policy_digest = crypto.hash(session.auth_hash, &parts);
    Ok(())
}

/// TPM2_PolicyLocality (clause 23.8).
pub(crate) fn locality(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let asked: u8 = call.param()?;
    call.end()?;
    ensure(asked != 0, Rc::RANGE.param(1))?;
    let session = core.policy_session(call, 0)?;
    let old = session.policy.locality;
    // Bits of the first five localities, or the number of one of the others: not both.
    let new = match (old, asked) {
        (0, asked) => asked,
        (32.., asked) => {
            ensure(old == asked, Rc::RANGE.param(1))?;
            asked
        }
        (_, 32..) => return Err(Rc::RANGE.param(1).into()),
        (old, asked) => {
            ensure(old & asked != 0, Rc::RANGE.param(1))?;
            old & asked
        }
    };
    session.policy.locality = new;
    Ok(core.extend_policy(call.handle_at(0), call.command.code, &[&[asked]])?)
}

/// TPM2_PolicyCommandCode (clause 23.11).
pub(crate) fn command_code(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let code: u32 = call.param()?;
    call.end()?;
    let there = table::index_of(code).and_then(table::command);
    ensure(
        there.is_some_and(|c| core.offers(c.code)),
        Rc::POLICY_CC.param(1),
    )?;
    let session = core.policy_session(call, 0)?;
    let old = session.policy.command;
    ensure(old == 0 || old == code, Rc::VALUE.param(1))?;
    session.policy.command = code;
    Ok(core.extend_policy(call.handle_at(0), call.command.code, &[&code.to_be_bytes()])?)
}

/// TPM2_PolicyPhysicalPresence (clause 23.12).
pub(crate) fn physical_presence(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    call.end()?;
    core.policy_session(call, 0)?.policy.presence_needed = true;
    Ok(core.extend_policy(call.handle_at(0), call.command.code, &[])?)
}

/// A digest of the session's algorithm.
fn check_len(session: &Session, digest: &Digest) -> Result<(), Rc> {
    ensure(
        digest.len() == session.auth_hash.digest_len(),
        Rc::SIZE.param(1),
    )
}

/// TPM2_PolicyCpHash (clause 23.13).
pub(crate) fn cp_hash(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let hash: Digest = call.param()?;
    call.end()?;
    let session = core.policy_session(call, 0)?;
    check_len(session, &hash)?;
    bind(session, Bound::Parameters(hash.clone()))?;
    Ok(core.extend_policy(call.handle_at(0), call.command.code, &[hash.as_slice()])?)
}

/// TPM2_PolicyNameHash (clause 23.14).
pub(crate) fn name_hash(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let hash: Digest = call.param()?;
    call.end()?;
    let session = core.policy_session(call, 0)?;
    check_len(session, &hash)?;
    ensure(session.policy.bound == Bound::Nothing, Rc::CPHASH)?;
    session.policy.bound = Bound::Names(hash.clone());
    Ok(core.extend_policy(call.handle_at(0), call.command.code, &[hash.as_slice()])?)
}

/// TPM2_PolicyParameters (version 1.83, clause 23.24).
pub(crate) fn parameters(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let hash: Digest = call.param()?;
    call.end()?;
    let session = core.policy_session(call, 0)?;
    check_len(session, &hash)?;
    ensure(session.policy.bound == Bound::Nothing, Rc::CPHASH)?;
    session.policy.bound = Bound::ParametersAlone(hash.clone());
    Ok(core.extend_policy(call.handle_at(0), call.command.code, &[hash.as_slice()])?)
}

/// TPM2_PolicyTransportSPDM (version 1.83, clause 23.25): a command must come through a secure channel between these keys. There is
/// no such channel here, so that nothing such a session authorizes goes through; its digest is right all the same.
pub(crate) fn transport_spdm(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let requester: Name = call.param()?;
    let tpm: Name = call.param()?;
    call.end()?;
    let crypto = core.crypto;
    let session = core.policy_session(call, 0)?;
    ensure(!session.policy.channel_needed, Rc::VALUE)?;
    check_key_name(&requester).param(1)?;
    check_key_name(&tpm).param(2)?;
    session.policy.channel_needed = true;
    let names = if requester.is_empty() && tpm.is_empty() {
        Digest::EMPTY
    } else {
        let len = |name: &Name| u16::try_from(name.len()).unwrap_or(0).to_be_bytes();
        let (first, second) = (len(&requester), len(&tpm));
        let parts = [&first, requester.as_slice(), &second, tpm.as_slice()];
        crypto.hash(session.auth_hash, &parts)
    };
    Ok(core.extend_policy(call.handle_at(0), call.command.code, &[names.as_slice()])?)
}

/// Checks that something is the name of a key, or nothing.
fn check_key_name(name: &Name) -> Result<(), Rc> {
    if name.is_empty() {
        return Ok(());
    }
    ensure(name.len() >= 2, Rc::SIZE)?;
    let alg = Reader::new(name.as_slice()).read::<HashAlg>();
    let len = 2 + alg.map_err(|_| Rc::HASH)?.digest_len();
    ensure(name.len() == len, Rc::SIZE)
}

/// TPM2_Policy_AC_SendSelect (version 1.83, clause 32.4): the policy allows to send this object to that attached component.
pub(crate) fn ac_send_select(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let object: Name = call.param()?;
    let authority: Name = call.param()?;
    let component: Name = call.param()?;
    let include: bool = call.param()?;
    call.end()?;
    let crypto = core.crypto;
    let session = core.policy_session(call, 0)?;
    ensure(session.policy.bound == Bound::Nothing, Rc::CPHASH)?;
    ensure(session.policy.command == 0, Rc::COMMAND_CODE)?;
    let [object, authority, component] = [&object, &authority, &component].map(|n| n.as_slice());
    let names = crypto.hash(session.auth_hash, &[object, authority, component]);
    session.policy.bound = Bound::Names(names);
    session.policy.command = u32::from(table::AC_SEND);
    let object = if include { object } else { &[] };
    let flag = [u8::from(include)];
    let parts = [object, authority, component, &flag];
    Ok(core.extend_policy(call.handle_at(0), call.command.code, &parts)?)
}

/// TPM2_PolicyDuplicationSelect (clause 23.15).
pub(crate) fn duplication_select(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    const DUPLICATE: u32 = 0x14B;
    let object: Name = call.param()?;
    let parent: Name = call.param()?;
    let include: bool = call.param()?;
    call.end()?;
    let crypto = core.crypto;
    let session = core.policy_session(call, 0)?;
    ensure(session.policy.bound == Bound::Nothing, Rc::CPHASH)?;
    let old = session.policy.command;
    ensure(old == 0 || old == DUPLICATE, Rc::COMMAND_CODE)?;
    let names = crypto.hash(session.auth_hash, &[object.as_slice(), parent.as_slice()]);
    session.policy.bound = Bound::Names(names);
    session.policy.command = DUPLICATE;
    let object = if include { object.as_slice() } else { &[] };
    let flag = [u8::from(include)];
    let parts = [object, parent.as_slice(), &flag];
    Ok(core.extend_policy(call.handle_at(0), call.command.code, &parts)?)
}

/// TPM2_PolicyAuthValue (clause 23.17).
pub(crate) fn auth_value(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    call.end()?;
    let session = core.policy_session(call, 0)?;
    session.policy.auth_value_needed = true;
    session.policy.password_needed = false;
    Ok(core.extend_policy(call.handle_at(0), call.command.code, &[])?)
}

/// TPM2_PolicyPassword (clause 23.18): the digest is that of PolicyAuthValue.
pub(crate) fn password(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    const POLICY_AUTH_VALUE: u16 = 0x16B;
    call.end()?;
    let session = core.policy_session(call, 0)?;
    session.policy.password_needed = true;
    session.policy.auth_value_needed = false;
    Ok(core.extend_policy(call.handle_at(0), POLICY_AUTH_VALUE, &[])?)
}

/// TPM2_PolicyGetDigest (clause 23.19).
pub(crate) fn get_digest(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    call.end()?;
    let digest = core.policy_session(call, 0)?.policy_digest.clone();
    Ok(call.put(&digest)?)
}

/// TPM2_PolicyTemplate (clause 23.21).
pub(crate) fn template(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let hash: Digest = call.param()?;
    call.end()?;
    let session = core.policy_session(call, 0)?;
    ensure(
        matches!(session.policy.bound, Bound::Nothing | Bound::Template(_)),
        Rc::CPHASH,
    )?;
    check_len(session, &hash)?;
    bind(session, Bound::Template(hash.clone())).map_err(|_| Rc::VALUE.param(1))?;
    Ok(core.extend_policy(call.handle_at(0), call.command.code, &[hash.as_slice()])?)
}

/// The algorithm of a policy session.
fn alg_of(core: &mut Core<'_>, call: &Call<'_>, n: usize) -> Result<HashAlg, Rc> {
    core.policy_session(call, n)
        .map(|session| session.auth_hash)
}
