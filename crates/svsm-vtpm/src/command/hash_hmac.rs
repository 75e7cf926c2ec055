//! Hash, HMAC and event sequences, and the hash of a buffer (clauses 15.4, 15.5 and 17).

use zeroize::Zeroize;

use super::Call;
use crate::{
    alg::HashAlg,
    bytes::Bytes,
    crypto::{Crypto, Digest, HashState, cmac::Cmac},
    handle::Handle,
    rc::{Rc, Stop, ensure},
    state::{
        Core,
        object::{Content, Object, Sequence, SequenceKind},
    },
    structures::{
        attest::{GENERATED, Tag, Ticket},
        attributes::ObjectAttributes as A,
        public::Params,
        scheme::KeyedHashScheme,
    },
};

/// `MAX_DIGEST_BUFFER`.
pub(crate) const BUFFER_MAX: usize = 1024;

/// What an object's code is computed with.
#[derive(Clone, Copy)]
enum MacAlg {
    Hmac(HashAlg),
    Cmac,
}

/// `TPMI_ALG_MAC_SCHEME+`: a hash, CMAC, or the key's own.
fn read_mac_scheme(r: &mut crate::wire::Reader<'_>) -> Result<crate::alg::Alg, Rc> {
    use crate::alg::Alg;
    let alg: Alg = r.read()?;
    let known = matches!(alg, Alg::NULL | Alg::CMAC) || HashAlg::from_alg(alg).is_some();
    ensure(known, Rc::SYMMETRIC)?;
    Ok(alg)
}

/// The algorithm of a keyed hash or symmetric object, after the parameter that may choose it (clauses 15.4 to 15.6). What the key and the
/// parameter say together comes first, then what the key may be used for.
fn mac_alg(object: &Object, asked: crate::alg::Alg) -> Result<MacAlg, Rc> {
    use crate::alg::Alg;
    let fixed = match object.public.params {
        Params::KeyedHash(KeyedHashScheme::Null) => Alg::NULL,
        Params::KeyedHash(KeyedHashScheme::Hmac(hash) | KeyedHashScheme::Xor(hash, _)) => {
            hash.alg()
        }
        Params::SymCipher(cipher) => cipher.mode.alg(),
        _ => return Err(Rc::TYPE.handle(1)),
    };
    let alg = match (fixed, asked) {
        (Alg::NULL, asked) => asked,
        (fixed, Alg::NULL) => fixed,
        (fixed, asked) if asked == fixed => fixed,
        _ => return Err(Rc::VALUE.param(2)),
    };
    ensure(alg != Alg::NULL, Rc::VALUE.param(2))?;
    let mac = match object.public.params {
        Params::KeyedHash(_) => HashAlg::from_alg(alg).map(MacAlg::Hmac),
        _ => (alg == Alg::CMAC).then_some(MacAlg::Cmac),
    };
    let mac = mac.ok_or(Rc::SCHEME.param(2))?;
    ensure(!object.has(A::RESTRICTED), Rc::ATTRIBUTES.handle(1))?;
    ensure(object.has(A::SIGN), Rc::KEY.handle(1))?;
    Ok(mac)
}

fn secret(object: &Object) -> Result<&[u8], Rc> {
    object
        .sensitive
        .as_ref()
        .map(|s| s.secret.as_slice())
        .ok_or(Rc::KEY)
}

/// TPM2_HMAC and TPM2_MAC (clauses 15.5 and 15.6).
pub(crate) fn mac(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let data = call.param_with(|r| r.sized(BUFFER_MAX))?;
    let asked = call.param_with(read_mac_scheme)?;
    call.end()?;
    let object = core.object_of(call.entity(0)).ok_or(Rc::TYPE.handle(1))?;
    let key = secret(object)?;
    match mac_alg(object, asked)? {
        MacAlg::Hmac(hash) => call.put(&core.crypto.hmac(hash, key, &[data]))?,
        MacAlg::Cmac => {
            let mut state = Cmac::new();
            state.update(core.crypto, key, data);
            call.out.sized(&state.finish(core.crypto, key))?;
        }
    }
    Ok(())
}

/// TPM2_HMAC_Start and TPM2_MAC_Start (clauses 17.2 and 17.3).
pub(crate) fn mac_start(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let mut auth: Digest = call.param()?;
    let asked = call.param_with(read_mac_scheme)?;
    call.end()?;
    let object = core.object_of(call.entity(0)).ok_or(Rc::TYPE.handle(1))?;
    let alg = mac_alg(object, asked)?;
    let key = secret(object)?;
    auth.trim_end();
    let kind = match alg {
        MacAlg::Hmac(hash) => {
            let (inner, key) = hmac_inner(core.crypto, hash, key);
            SequenceKind::Hmac(inner, key)
        }
        MacAlg::Cmac => SequenceKind::Cmac(Cmac::new(), Bytes::new(key).ok_or(Rc::KEY)?),
    };
    add(core, call, auth, kind)
}

/// TPM2_HashSequenceStart (clause 17.4).
pub(crate) fn sequence_start(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let mut auth: Digest = call.param()?;
    let alg = call.param_with(HashAlg::read_or_null)?;
    call.end()?;
    auth.trim_end();
    let kind = match alg {
        Some(hash) => SequenceKind::Hash(core.crypto.start(hash)),
        None => SequenceKind::Event(HashAlg::ALL.map(|hash| core.crypto.start(hash))),
    };
    add(core, call, auth, kind)
}

fn add(
    core: &mut Core<'_>,
    call: &mut Call<'_>,
    auth: Digest,
    kind: SequenceKind,
) -> Result<(), Stop> {
    let sequence = Sequence {
        auth,
        kind,
        ticket_safe: true,
        started: false,
    };
    call.handle = Some(core.objects.add(Content::Sequence(sequence))?);
    Ok(())
}

/// The inner hash of an HMAC before the first byte, and the key as a block.
pub(crate) fn hmac_inner(
    crypto: &dyn Crypto,
    hash: HashAlg,
    key: &[u8],
) -> (HashState, Bytes<128>) {
    let mut block: Bytes<128> = if key.len() > hash.block_len() {
        crypto.hash(hash, &[key]).resized()
    } else {
        Bytes::new(key).unwrap_or_default()
    };
    block.resize(hash.block_len());
    let mut inner = crypto.start(hash);
    xor(&mut block, 0x36);
    crypto.update(&mut inner, block.as_slice());
    xor(&mut block, 0x36);
    (inner, block)
}

fn xor(block: &mut Bytes<128>, with: u8) {
    block.as_mut_slice().iter_mut().for_each(|b| *b ^= with);
}

pub(crate) fn hmac_finish(crypto: &dyn Crypto, inner: &HashState, key: &Bytes<128>) -> Digest {
    let mut outer = key.clone();
    xor(&mut outer, 0x5C);
    let inner_digest = crypto.finish(inner);
    let result = crypto.hash(inner.alg, &[outer.as_slice(), inner_digest.as_slice()]);
    outer.zeroize();
    result
}

impl Sequence {
    fn update(&mut self, crypto: &dyn Crypto, data: &[u8]) {
        if !self.started && !data.is_empty() {
            // What begins like the TPM's own structures gets no ticket; a shorter first part could hide that.
            self.ticket_safe = data.len() >= GENERATED.len() && !data.starts_with(&GENERATED);
            self.started = true;
        }
        match &mut self.kind {
            SequenceKind::Hash(state) | SequenceKind::Hmac(state, _) => crypto.update(state, data),
            SequenceKind::Event(states) => {
                states
                    .iter_mut()
                    .for_each(|state| crypto.update(state, data));
            }
            SequenceKind::Cmac(state, key) => state.update(crypto, key.as_slice(), data),
            // It has an update of its own.
            SequenceKind::Message(_) => {}
        }
    }
}

/// TPM2_SequenceUpdate (clause 17.5).
pub(crate) fn sequence_update(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let data = call.param_with(|r| r.sized(BUFFER_MAX))?;
    call.end()?;
    if core.update_message(call.entity(0), data)? {
        return Ok(());
    }
    let crypto = core.crypto;
    let sequence = core.sequence_mut(call.entity(0)).ok_or(Rc::MODE.param(1))?;
    sequence.update(crypto, data);
    Ok(())
}

/// TPM2_SequenceComplete (clause 17.6).
pub(crate) fn sequence_complete(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let data = call.param_with(|r| r.sized(BUFFER_MAX))?;
    let hierarchy: Handle = call.param()?;
    crate::table::Kind::Hierarchy
        .check(hierarchy)
        .map_err(|rc| rc.param(2))?;
    call.end()?;
    let crypto = core.crypto;
    let sequence = core
        .sequence_mut(call.entity(0))
        .ok_or(Rc::MODE.handle(1))?;
    ensure(
        !matches!(
            sequence.kind,
            SequenceKind::Event(_) | SequenceKind::Message(_)
        ),
        Rc::MODE.handle(1),
    )?;
    sequence.update(crypto, data);
    match &sequence.kind {
        SequenceKind::Hash(state) => {
            let alg = state.alg;
            let digest = crypto.finish(state);
            let safe = sequence.ticket_safe || !sequence.started;
            call.put(&digest)?;
            call.put(&hash_ticket(core, alg, &digest, hierarchy, safe))?;
        }
        SequenceKind::Hmac(inner, key) => {
            let code = hmac_finish(crypto, inner, key);
            call.put(&code)?;
            call.put(&Ticket::null(Tag::HASHCHECK))?;
        }
        SequenceKind::Cmac(state, key) => {
            let code = state.clone().finish(crypto, key.as_slice());
            call.out.sized(&code)?;
            call.put(&Ticket::null(Tag::HASHCHECK))?;
        }
        SequenceKind::Event(_) | SequenceKind::Message(_) => {}
    }
    call.ends = call.entity(0).slot;
    Ok(())
}

/// The ticket that lets a restricted key sign a digest: its data are not the TPM's own.
pub(crate) fn hash_ticket(
    core: &Core<'_>,
    alg: HashAlg,
    digest: &Digest,
    hierarchy: Handle,
    safe: bool,
) -> Ticket {
    if !safe || hierarchy == Handle::NULL {
        return Ticket::null(Tag::HASHCHECK);
    }
    Ticket {
        tag: Tag::HASHCHECK,
        hierarchy,
        digest: hash_ticket_digest(core, hierarchy, alg, digest),
    }
}

/// The proof in a hash ticket.
pub(crate) fn hash_ticket_digest(
    core: &Core<'_>,
    hierarchy: Handle,
    alg: HashAlg,
    digest: &Digest,
) -> Digest {
    core.seal_of(
        hierarchy,
        &[
            &Tag::HASHCHECK.0.to_be_bytes(),
            &alg.alg().0.to_be_bytes(),
            digest.as_slice(),
        ],
    )
}

/// TPM2_EventSequenceComplete (clause 17.7).
pub(crate) fn event_complete(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let data = call.param_with(|r| r.sized(BUFFER_MAX))?;
    call.end()?;
    let crypto = core.crypto;
    let pcr = call.handle_at(0);
    let sequence = core
        .sequence_mut(call.entity(1))
        .ok_or(Rc::MODE.handle(2))?;
    ensure(
        matches!(sequence.kind, SequenceKind::Event(_)),
        Rc::MODE.handle(2),
    )?;
    if pcr != Handle::NULL {
        let rule = crate::state::pcr::rule_of(pcr.index());
        ensure(
            call.locality < 5 && rule.extend & 1 << call.locality != 0,
            Rc::LOCALITY,
        )?;
    }
    sequence.update(crypto, data);
    let SequenceKind::Event(states) = &sequence.kind else {
        return Err(Rc::MODE.into());
    };
    let digests =
        [0, 1, 2, 3].map(|i: usize| states.get(i).map(|state| (state.alg, crypto.finish(state))));
    call.put(&HashAlg::COUNT)?;
    for (bank, digest) in digests.iter().flatten() {
        call.put(bank)?;
        call.out.bytes(digest.as_slice())?;
        if pcr != Handle::NULL {
            core.extend_pcr(*bank, pcr.index(), digest.as_slice());
        }
    }
    if pcr != Handle::NULL {
        core.pcr_changed(pcr.index());
    }
    call.ends = call.entity(1).slot;
    Ok(())
}

/// TPM2_Hash (clause 15.4).
pub(crate) fn hash(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let data = call.param_with(|r| r.sized(BUFFER_MAX))?;
    let alg: HashAlg = call.param()?;
    let hierarchy: Handle = call.param()?;
    crate::table::Kind::Hierarchy
        .check(hierarchy)
        .map_err(|rc| rc.param(3))?;
    call.end()?;
    let digest = core.crypto.hash(alg, &[data]);
    call.put(&digest)?;
    let safe = !data.starts_with(&GENERATED);
    Ok(call.put(&hash_ticket(core, alg, &digest, hierarchy, safe))?)
}
