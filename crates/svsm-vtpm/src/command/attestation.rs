//! Attestation (clause 18): what the TPM says about itself and what is in it, signed.

mod x509; // certificates

pub(crate) use x509::certify_x509;

use super::{
    Call,
    object::creation_ticket,
    signing::{is_signing_key, select_scheme},
};
use crate::{
    alg::HashAlg,
    bytes::Bytes,
    crypto::{Digest, kdf},
    handle::Handle,
    rc::{About, Rc, Stop, ensure},
    state::{
        Core,
        entity::Entity,
        pcr::digest_of,
        permanent::{has_command, set_command},
    },
    structures::{
        attest::{Data, GENERATED, Tag, Ticket},
        attributes::ObjectAttributes as A,
        pcr::PcrSelections,
        public::Name,
        scheme::{Scheme, SchemeField},
        signature::Signature,
    },
    table,
    wire::{Marshal, Writer},
};

/// Room for a marshalled attestation: the longest is the certificate of 1024 bytes of NV.
pub(super) const ATTEST_MAX: usize = 4 + 2 + 68 + 68 + 17 + 8 + 68 + 2 + 2 + 1024 + 256;

/// Who signs an attestation, and how. A null key signs nothing.
pub(super) struct Signer {
    pub(super) entity: Entity,
    scheme: Scheme,
    hash: HashAlg,
}

impl Signer {
    /// Checks the key, which is the command's `n`-th handle, and the scheme, its `p`-th parameter.
    pub(super) fn new(
        core: &Core<'_>,
        entity: Entity,
        asked: Scheme,
        n: u32,
        p: u32,
    ) -> Result<Self, Rc> {
        if entity.handle == Handle::NULL {
            return Ok(Self {
                entity,
                scheme: Scheme::Null,
                hash: HashAlg::Sha256,
            });
        }
        let object = core.object_of(entity).ok_or(Rc::KEY.handle(n))?;
        ensure(is_signing_key(object), Rc::KEY.handle(n))?;
        ensure(!object.has(A::X509_SIGN), Rc::ATTRIBUTES.handle(n))?;
        let scheme = select_scheme(object, asked).param(p)?;
        // ML-DSA that signs messages has no hash of its own.
        let hash = match scheme {
            Scheme::Lattice(_) => scheme.hash().or(object.public.name_alg),
            _ => scheme.hash(),
        };
        let hash = hash.ok_or(Rc::SCHEME.param(p))?;
        Ok(Self {
            entity,
            scheme,
            hash,
        })
    }

    /// The algorithm by which what is signed is hashed.
    pub(super) const fn hash(&self) -> HashAlg {
        self.hash
    }

    pub(super) fn is_null(&self) -> bool {
        self.entity.handle == Handle::NULL
    }
}

/// Reads the scheme parameter that all of these commands have.
pub(super) fn read_scheme(call: &mut Call<'_>) -> Result<Scheme, Rc> {
    call.param_with(|r| Scheme::read(r, SchemeField::Signing))
}

/// Marshals the attestation of which `attested` writes the end, signs it, and puts both into the response.
pub(super) fn attest(
    core: &mut Core<'_>,
    call: &mut Call<'_>,
    signer: &Signer,
    tag: Tag,
    extra: &Data,
    attested: impl FnOnce(&Core<'_>, &mut Writer<'_>) -> Result<(), Rc>,
) -> Result<(), Rc> {
    let mut clock = core.clock_info();
    let mut firmware = firmware_version(core);
    let qualified = match core.object_of(signer.entity) {
        Some(object) => {
            let private = matches!(object.hierarchy, Handle::OWNER | Handle::NULL);
            if private {
                // Nobody but the privacy administrator shall recognize a TPM by its counters.
                let noise = obfuscation(core, object.qualified_name.as_slice());
                firmware = firmware.wrapping_add(noise.0);
                clock.reset_count = clock.reset_count.wrapping_add(noise.1);
                clock.restart_count = clock.restart_count.wrapping_add(noise.2);
            }
            object.qualified_name.clone()
        }
        None => Name::new(&Handle::NULL.0.to_be_bytes()).unwrap_or_default(),
    };
    let mut buffer: Bytes<ATTEST_MAX> = Bytes::zeroed(ATTEST_MAX);
    let mut w = Writer::new(buffer.as_mut_slice());
    w.bytes(&GENERATED)?;
    w.put(&tag)?;
    w.put(&qualified)?;
    w.put(extra)?;
    w.put(&clock)?;
    w.put(&firmware)?;
    attested(core, &mut w)?;
    let len = w.len();
    buffer.resize(len);
    call.put(&buffer)?;
    let signature = if signer.is_null() {
        Signature::Null
    } else {
        core.sign_data(signer.entity, signer.scheme, signer.hash, buffer.as_slice())?
    };
    call.put(&signature)
}

fn firmware_version(core: &Core<'_>) -> u64 {
    let [high, low] = core.identity.firmware;
    u64::from(high) << 32 | u64::from(low)
}

/// Numbers that hide others, the same ones for the same key.
fn obfuscation(core: &Core<'_>, name: &[u8]) -> (u64, u32, u32) {
    let mut noise = [0; 16];
    kdf::kdfa(
        core.crypto,
        HashAlg::Sha256,
        &core.permanent.sh_proof,
        "OBFUSCATE",
        [name, &[]],
        128,
        &mut noise,
    );
    let mut r = crate::wire::Reader::new(&noise);
    (
        r.read().unwrap_or(0),
        r.read().unwrap_or(0),
        r.read().unwrap_or(0),
    )
}

/// TPM2_Certify (clause 18.2).
pub(crate) fn certify(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let extra: Data = call.param()?;
    let scheme = read_scheme(call)?;
    call.end()?;
    let signer = Signer::new(core, call.entity(1), scheme, 2, 2)?;
    let object = core.object_of(call.entity(0)).ok_or(Rc::TYPE.handle(1))?;
    let (name, qualified) = (object.name.clone(), object.qualified_name.clone());
    Ok(attest(
        core,
        call,
        &signer,
        Tag::ATTEST_CERTIFY,
        &extra,
        |_, w| {
            w.put(&name)?;
            w.put(&qualified)
        },
    )?)
}

/// TPM2_CertifyCreation (clause 18.3).
pub(crate) fn certify_creation(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let extra: Data = call.param()?;
    let creation: Digest = call.param()?;
    let scheme = read_scheme(call)?;
    let ticket = call.param_with(|r| Ticket::read(r, &[Tag::CREATION]))?;
    call.end()?;
    let signer = Signer::new(core, call.entity(0), scheme, 1, 3)?;
    // A sequence has no name, so that no ticket is about it.
    let name = core.name_of(call.entity(1));
    let expected = creation_ticket(core, ticket.hierarchy, &name, &creation);
    ensure(expected == ticket.digest, Rc::TICKET.param(4))?;
    Ok(attest(
        core,
        call,
        &signer,
        Tag::ATTEST_CREATION,
        &extra,
        |_, w| {
            w.put(&name)?;
            w.put(&creation)
        },
    )?)
}

/// TPM2_Quote (clause 18.4).
pub(crate) fn quote(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let extra: Data = call.param()?;
    let scheme = read_scheme(call)?;
    let mut pcrs: PcrSelections = call.param()?;
    call.end()?;
    let signer = Signer::new(core, call.entity(0), scheme, 1, 2)?;
    // Without a key nothing says how PCRs are hashed.
    ensure(!signer.is_null(), Rc::SCHEME.param(2))?;
    Ok(attest(
        core,
        call,
        &signer,
        Tag::ATTEST_QUOTE,
        &extra,
        |core, w| {
            let digest = digest_of(
                core.crypto,
                &core.permanent,
                &core.pcrs,
                signer.hash,
                &mut pcrs,
            );
            w.put(&pcrs)?;
            w.put(&digest)
        },
    )?)
}

/// TPM2_GetSessionAuditDigest (clause 18.5).
pub(crate) fn get_session_audit_digest(
    core: &mut Core<'_>,
    call: &mut Call<'_>,
) -> Result<(), Stop> {
    let extra: Data = call.param()?;
    let scheme = read_scheme(call)?;
    call.end()?;
    let handle = call.handle_at(2);
    let session = core.sessions.loaded(handle).ok_or(Rc::HANDLE.handle(3))?;
    let digest = session.audit.clone().ok_or(Rc::TYPE.handle(3))?;
    let exclusive = core.exclusive_audit == Some(handle);
    let signer = Signer::new(core, call.entity(1), scheme, 2, 2)?;
    Ok(attest(
        core,
        call,
        &signer,
        Tag::ATTEST_SESSION_AUDIT,
        &extra,
        |_, w| {
            w.put(&exclusive)?;
            w.put(&digest)
        },
    )?)
}

/// TPM2_GetCommandAuditDigest (clause 18.6).
pub(crate) fn get_command_audit_digest(
    core: &mut Core<'_>,
    call: &mut Call<'_>,
) -> Result<(), Stop> {
    let extra: Data = call.param()?;
    let scheme = read_scheme(call)?;
    call.end()?;
    let signer = Signer::new(core, call.entity(1), scheme, 2, 2)?;
    attest(
        core,
        call,
        &signer,
        Tag::ATTEST_COMMAND_AUDIT,
        &extra,
        |core, w| {
            let alg = core.permanent.audit_alg;
            let mut state = core.crypto.start(alg);
            for command in table::COMMANDS.iter().filter(|c| core.offers(c.code)) {
                if has_command(&core.permanent.audit_commands, command.code) {
                    core.crypto
                        .update(&mut state, &u32::from(command.code).to_be_bytes());
                }
            }
            w.put(&core.permanent.audit_counter)?;
            w.put(&alg)?;
            w.put(&core.reset.audit_digest)?;
            w.put(&core.crypto.finish(&state))
        },
    )?;
    if !signer.is_null() {
        // What is signed is done with.
        core.reset.audit_digest = Digest::EMPTY;
    }
    Ok(())
}

/// TPM2_GetTime (clause 18.7).
pub(crate) fn get_time(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let extra: Data = call.param()?;
    let scheme = read_scheme(call)?;
    call.end()?;
    let signer = Signer::new(core, call.entity(1), scheme, 2, 2)?;
    Ok(attest(
        core,
        call,
        &signer,
        Tag::ATTEST_TIME,
        &extra,
        |core, w| {
            core.time.time.write(w)?;
            w.put(&core.clock_info())?;
            w.put(&firmware_version(core))
        },
    )?)
}

/// TPM2_SetCommandCodeAuditStatus (clause 21.2).
pub(crate) fn set_audit_status(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let alg = call.param_with(HashAlg::read_or_null)?;
    let set = call.param_with(super::capability::read_commands)?;
    let clear = call.param_with(super::capability::read_commands)?;
    call.end()?;
    if let Some(alg) = alg.filter(|alg| *alg != core.permanent.audit_alg) {
        // The algorithm is changed alone, so that the change itself is in the old digest.
        ensure(set.is_empty() && clear.is_empty(), Rc::VALUE.param(1))?;
        core.permanent.audit_alg = alg;
        core.reset.audit_digest = Digest::EMPTY;
    } else {
        for command in set.iter() {
            if core.offers(command.code) {
                set_command(&mut core.permanent.audit_commands, command.code, true);
            }
        }
        let itself = table::SET_AUDIT_STATUS;
        for command in clear.iter().filter(|c| c.code != itself) {
            set_command(&mut core.permanent.audit_commands, command.code, false);
        }
    }
    core.dirty = true;
    Ok(())
}
