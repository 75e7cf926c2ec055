//! Assertions by an authority: a key that signs, a value that is known, or a ticket about either (clauses 23.3 to 23.5 and 23.16).

use super::{Bound, Call, alg_of, bind};
use crate::{
    alg::HashAlg,
    bytes::Bytes,
    command::signing::Verified,
    crypto::Digest,
    handle::Handle,
    rc::{About, Rc, Stop, ensure},
    state::{Core, session::SessionKind},
    structures::{
        attest::{Tag, Ticket},
        public::Name,
        signature::Signature,
    },
    wire::{Reader, Unmarshal},
};

/// The parameters that the assertions have in common.
struct Assertion {
    nonce: Digest,
    cp_hash: Digest,
    reference: Digest,
    expiration: i32,
}

impl Assertion {
    fn read(call: &mut Call<'_>) -> Result<Self, Rc> {
        Ok(Self {
            nonce: call.param()?,
            cp_hash: call.param()?,
            reference: call.param()?,
            expiration: call.param()?,
        })
    }

    /// Checks nonce, expiration and parameter hash against the session, the last one of which is the command's `n`-th handle.
    /// Gives the time at which the assertion ends, 0 for never.
    fn check(&self, core: &mut Core<'_>, call: &Call<'_>, n: usize) -> Result<u64, Rc> {
        let now = core.time.time;
        let session = core.policy_session(call, n)?;
        let mut timeout = 0;
        if session.kind == SessionKind::Policy {
            if !self.nonce.is_empty() {
                ensure(self.nonce == session.nonce_tpm, Rc::NONCE.param(1))?;
            }
            if self.expiration != 0 {
                let seconds = u64::from(self.expiration.unsigned_abs());
                // With a nonce the time runs from the session's start, else from when the power came.
                let start = if self.nonce.is_empty() {
                    0
                } else {
                    session.start
                };
                timeout = start.saturating_add(seconds.saturating_mul(1000)).max(1);
                ensure(timeout >= now, Rc::EXPIRED.param(4))?;
            }
        }
        // A trial session believes what it is told.
        if !self.cp_hash.is_empty() && session.kind == SessionKind::Policy {
            let fits = self.cp_hash.len() == session.auth_hash.digest_len();
            ensure(fits, Rc::SIZE.param(2))?;
            let bound = Bound::Parameters(self.cp_hash.clone());
            let free = session.policy.bound == Bound::Nothing || session.policy.bound == bound;
            ensure(free, Rc::CPHASH)?;
        }
        Ok(timeout)
    }

    /// Lets the session know.
    fn apply(
        &self,
        core: &mut Core<'_>,
        session: Handle,
        code: u16,
        name: &[u8],
        timeout: u64,
    ) -> Result<(), Rc> {
        core.extend_by_authority(session, code, name, self.reference.as_slice())?;
        let session = core.sessions.need(session)?;
        if !self.cp_hash.is_empty() {
            let bound = Bound::Parameters(self.cp_hash.clone());
            if session.is_trial() {
                session.policy.bound = bound;
            } else {
                bind(session, bound)?;
            }
        }
        if timeout != 0 {
            let old = session.policy.timeout;
            session.policy.timeout = if old == 0 { timeout } else { old.min(timeout) };
        }
        Ok(())
    }

    /// A ticket that says the same later, if a negative expiration asks for one.
    fn respond(
        &self,
        core: &mut Core<'_>,
        call: &mut Call<'_>,
        tag: Tag,
        authority: (Handle, &[u8]),
        timeout: u64,
    ) -> Result<(), Rc> {
        let (hierarchy, name) = authority;
        let session = core.policy_session(call, 1)?;
        if self.expiration >= 0 || session.kind != SessionKind::Policy || hierarchy == Handle::NULL
        {
            call.put(&Digest::EMPTY)?;
            return call.put(&Ticket::null(tag));
        }
        let expires = expiry_bytes(timeout, !self.nonce.is_empty());
        let digest = self.ticket(core, tag, hierarchy, name, expires.as_slice());
        call.put(&expires)?;
        call.put(&Ticket {
            tag,
            hierarchy,
            digest,
        })
    }

    /// The proof in a ticket of an assertion; it holds for this boot.
    fn ticket(
        &self,
        core: &Core<'_>,
        tag: Tag,
        hierarchy: Handle,
        name: &[u8],
        expires: &[u8],
    ) -> Digest {
        let epoch = core.permanent.total_reset_count.to_be_bytes();
        core.seal_of(
            hierarchy,
            &[
                &tag.0.to_be_bytes(),
                &lengths([self.cp_hash.len(), self.reference.len(), name.len()]),
                self.cp_hash.as_slice(),
                self.reference.as_slice(),
                name,
                expires,
                &epoch,
            ],
        )
    }
}

/// Lengths of neighbours, so that what belongs to which is unambiguous.
fn lengths(of: [usize; 3]) -> [u8; 3] {
    of.map(|len| u8::try_from(len).unwrap_or(u8::MAX))
}

/// The bit of a timeout that says it is one of a session, not one of the TPM's time since the power came.
const OF_SESSION: u64 = 1 << 63;

/// `TPM2B_TIMEOUT`, which has room for eight bytes (Part 2, clause 10.4.10): the moment, and in its highest bit whether it is one of
/// a session.
fn expiry_bytes(timeout: u64, nonce: bool) -> Bytes<8> {
    let flag = if nonce { OF_SESSION } else { 0 };
    Bytes::new(&(timeout & !OF_SESSION | flag).to_be_bytes()).unwrap_or_default()
}

/// TPM2_PolicySigned (clause 23.3).
pub(crate) fn policy_signed(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let assertion = Assertion::read(call)?;
    let signature: Signature = call.param()?;
    call.end()?;
    let object = core
        .object_of(call.entity(0))
        .ok_or(Rc::HANDLE.handle(1))?
        .clone();
    let trial = core.policy_session(call, 1)?.is_trial();
    let timeout = assertion.check(core, call, 1)?;
    if !trial {
        let hash = signature.hash().ok_or(Rc::SCHEME.param(5))?;
        let digest = core.crypto.hash(
            hash,
            &[
                assertion.nonce.as_slice(),
                &assertion.expiration.to_be_bytes(),
                assertion.cp_hash.as_slice(),
                assertion.reference.as_slice(),
            ],
        );
        core.verify(&object, &digest, &signature).param(5)?;
    }
    let name = object.name.as_slice();
    assertion.apply(core, call.handle_at(1), call.command.code, name, timeout)?;
    let tag = Tag::AUTH_SIGNED;
    Ok(assertion.respond(core, call, tag, (object.hierarchy, name), timeout)?)
}

/// TPM2_PolicySecret (clause 23.4).
pub(crate) fn secret(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let assertion = Assertion::read(call)?;
    call.end()?;
    let entity = call.entity(0);
    // The use of a PIN is counted. That of its value has been refused before it was looked at; this is for who has a policy.
    let counted = |core: &Core<'_>| core.index(entity.handle).is_some_and(|i| i.public.is_pin());
    ensure(!(core.read_only && counted(core)), Rc::READ_ONLY)?;
    let timeout = assertion.check(core, call, 1)?;
    let name = core.name_of(entity);
    assertion.apply(
        core,
        call.handle_at(1),
        call.command.code,
        name.as_slice(),
        timeout,
    )?;
    let hierarchy = match core.object_of(entity) {
        Some(object) => object.hierarchy,
        None => match entity.handle {
            Handle::PLATFORM | Handle::ENDORSEMENT => entity.handle,
            Handle::NULL => Handle::NULL,
            handle if handle.kind() == crate::handle::HandleKind::Nv => {
                let platform = core.index(handle).is_some_and(|index| {
                    index
                        .public
                        .has(crate::structures::attributes::NvAttributes::PLATFORM_CREATE)
                });
                if platform {
                    Handle::PLATFORM
                } else {
                    Handle::OWNER
                }
            }
            _ => Handle::OWNER,
        },
    };
    let tag = Tag::AUTH_SECRET;
    Ok(assertion.respond(core, call, tag, (hierarchy, name.as_slice()), timeout)?)
}

/// TPM2_PolicyTicket (clause 23.5).
pub(crate) fn ticket(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let expires: Bytes<8> = call.param()?;
    let cp_hash: Digest = call.param()?;
    let reference: Digest = call.param()?;
    let name: Name = call.param()?;
    let ticket = call.param_with(|r| Ticket::read(r, &[Tag::AUTH_SIGNED, Tag::AUTH_SECRET]))?;
    call.end()?;
    let now = core.time.time;
    ensure(
        !core.policy_session(call, 0)?.is_trial(),
        Rc::ATTRIBUTES.handle(1),
    )?;
    ensure(expires.len() == 8, Rc::SIZE.param(1))?;
    let mut r = Reader::new(expires.as_slice());
    let timeout = u64::read(&mut r)? & !OF_SESSION;
    let assertion = Assertion {
        nonce: Digest::EMPTY,
        cp_hash,
        reference,
        expiration: 0,
    };
    assertion.check(core, call, 0)?;
    let expected = assertion.ticket(
        core,
        ticket.tag,
        ticket.hierarchy,
        name.as_slice(),
        expires.as_slice(),
    );
    ensure(expected == ticket.digest, Rc::TICKET.param(5))?;
    ensure(timeout == 0 || timeout >= now, Rc::EXPIRED.param(1))?;
    // The digest is that of the command which the ticket is about.
    let code = if ticket.tag == Tag::AUTH_SIGNED {
        0x160
    } else {
        0x151
    };
    Ok(assertion.apply(core, call.handle_at(0), code, name.as_slice(), timeout)?)
}

/// TPM2_PolicyAuthorize (clause 23.16).
pub(crate) fn authorize(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let approved: Digest = call.param()?;
    let reference: Digest = call.param()?;
    let name: Name = call.param()?;
    let ticket = call.param_with(|r| Verified::read(core, r))?;
    call.end()?;
    let name_alg = Reader::new(name.as_slice()).read::<HashAlg>();
    let hash = name_alg.map_err(|_| Rc::HASH.param(3))?;
    let full = name.len() == hash.digest_len() + 2;
    ensure(full, Rc::SIZE.param(3))?;
    let session_alg = alg_of(core, call, 0)?;
    let session = core.policy_session(call, 0)?;
    if !session.is_trial() {
        ensure(session.policy_digest == approved, Rc::VALUE.param(1))?;
        let parts = [approved.as_slice(), reference.as_slice()];
        let proven = ticket.proves(core, parts, hash, name.as_slice());
        ensure(proven, Rc::VALUE.param(4))?;
    }
    let handle = call.handle_at(0);
    core.sessions.need(handle)?.policy_digest = Digest::zeroed(session_alg.digest_len());
    let code = call.command.code;
    Ok(core.extend_by_authority(handle, code, name.as_slice(), reference.as_slice())?)
}
