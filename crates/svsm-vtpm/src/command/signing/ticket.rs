//! Tickets of version 1.85 for verified signatures (Part 2, clause 10.6.5).

use super::is_unprovable;
use crate::{
    alg::Alg,
    command::Call,
    crypto::Digest,
    handle::Handle,
    rc::{Rc, ensure},
    state::{Core, object::Object},
    structures::attest::{Tag, Ticket},
    wire::Reader,
};

/// Writes `TPMT_TK_VERIFIED`, which for a digest says how that was made.
pub(super) fn put_verified(
    call: &mut Call<'_>,
    tag: Tag,
    object: &Object,
    alg: Option<Alg>,
    code: Digest,
) -> Result<(), Rc> {
    let (hierarchy, code) = if is_unprovable(object) {
        (Handle::NULL, Digest::EMPTY)
    } else {
        (object.hierarchy, code)
    };
    call.put(&tag)?;
    call.put(&hierarchy)?;
    alg.map_or(Ok(()), |alg| call.put(&alg))?;
    call.put(&code)
}

/// Reads a `TPMT_TK_VERIFIED` of any kind, with the algorithm in it.
pub(super) fn read_verified(r: &mut Reader<'_>) -> Result<(Ticket, Option<Alg>), Rc> {
    let tag: Tag = r.read()?;
    let known = matches!(
        tag,
        Tag::VERIFIED | Tag::MESSAGE_VERIFIED | Tag::DIGEST_VERIFIED
    );
    ensure(known, Rc::TAG)?;
    let hierarchy: Handle = r.read()?;
    ensure(hierarchy.is_hierarchy(), Rc::VALUE)?;
    let alg = if tag == Tag::DIGEST_VERIFIED {
        let alg = r.read()?;
        let known = alg == Alg::SHAKE256 || crate::HashAlg::from_alg(alg).is_some();
        ensure(known, Rc::HASH)?;
        Some(alg)
    } else {
        None
    };
    let ticket = Ticket {
        tag,
        hierarchy,
        digest: r.read()?,
    };
    Ok((ticket, alg))
}

/// The proof in a ticket over what PolicyAuthorize authorizes; `None` if nothing of this kind can be one.
pub(super) fn authorization(
    core: &Core<'_>,
    ticket: &Ticket,
    alg: Option<Alg>,
    message: [&[u8]; 2],
    name: &[u8],
) -> Option<Digest> {
    let tag = ticket.tag.0.to_be_bytes();
    let [approved, reference] = message;
    if ticket.tag == Tag::MESSAGE_VERIFIED {
        let parts = [&tag[..], approved, reference, name];
        return Some(core.seal_of(ticket.hierarchy, &parts));
    }
    let alg = alg?;
    let digest = core.crypto.hash(crate::HashAlg::from_alg(alg)?, &message);
    let alg = alg.0.to_be_bytes();
    let parts = [&tag[..], digest.as_slice(), name, &alg];
    Some(core.seal_of(ticket.hierarchy, &parts))
}
