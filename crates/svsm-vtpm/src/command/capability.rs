//! Capabilities (clause 30): what this TPM can do, and what is in it.

mod properties; // TPM_PT

use super::Call;
use crate::{
    alg::{Alg, Curve},
    handle::{Handle, HandleKind},
    rc::{Rc, Stop, ensure},
    state::{
        Core,
        pcr::{Allocation, RULES},
        permanent::{CommandSet, NO_COMMANDS, has_command, set_command},
        session::Active,
    },
    structures::{
        pcr::{PCR_COUNT, PcrSelection},
        public::Params,
    },
    table::{self, Command},
    wire::{Reader, Writer},
};

/// Octets of the data of one answer (`MAX_CAP_DATA`).
const DATA_MAX: u32 = 1024 - 4 - 4;

/// The longest item of a list, a tagged policy.
pub(crate) const ITEM_MAX: usize = 4 + 2 + 64;

/// `TPM_CAP_VENDOR_PROPERTY`: there are none.
const VENDOR: u32 = 0x100;
/// `TPM_CAP_SPDM_SESSION_INFO`: the secure channel that a command came through, of which there are none.
const CHANNELS: u32 = 0xC;

/// Algorithms and their attributes (`TPMA_ALGORITHM`).
const ALGORITHMS: [(Alg, u32); 32] = {
    const ASYMMETRIC: u32 = 1;
    const SYMMETRIC: u32 = 1 << 1;
    const HASH: u32 = 1 << 2;
    const OBJECT: u32 = 1 << 3;
    const SIGNING: u32 = 1 << 8;
    const ENCRYPTING: u32 = 1 << 9;
    const METHOD: u32 = 1 << 10;
    [
        (Alg::RSA, ASYMMETRIC | OBJECT),
        (Alg::SHA1, HASH),
        (Alg::HMAC, HASH | SIGNING),
        (Alg::AES, SYMMETRIC),
        (Alg::MGF1, HASH | METHOD),
        (Alg::KEYEDHASH, HASH | OBJECT | SIGNING | ENCRYPTING),
        (Alg::XOR, HASH | SYMMETRIC),
        (Alg::SHA256, HASH),
        (Alg::SHA384, HASH),
        (Alg::SHA512, HASH),
        (Alg::RSASSA, ASYMMETRIC | SIGNING),
        (Alg::RSAES, ASYMMETRIC | ENCRYPTING),
        (Alg::RSAPSS, ASYMMETRIC | SIGNING),
        (Alg::OAEP, ASYMMETRIC | ENCRYPTING),
        (Alg::ECDSA, ASYMMETRIC | SIGNING),
        (Alg::ECDH, ASYMMETRIC | METHOD),
        (Alg::ECDAA, ASYMMETRIC | SIGNING),
        (Alg::ECSCHNORR, ASYMMETRIC | SIGNING),
        (Alg::KDF1_SP800_56A, HASH | METHOD),
        (Alg::KDF2, HASH | METHOD),
        (Alg::KDF1_SP800_108, HASH | METHOD),
        (Alg::ECC, ASYMMETRIC | OBJECT),
        (Alg::SYMCIPHER, OBJECT),
        (Alg::CMAC, SYMMETRIC | SIGNING),
        (Alg::CTR, SYMMETRIC | ENCRYPTING),
        (Alg::OFB, SYMMETRIC | ENCRYPTING),
        (Alg::CBC, SYMMETRIC | ENCRYPTING),
        (Alg::CFB, SYMMETRIC | ENCRYPTING),
        (Alg::ECB, SYMMETRIC | ENCRYPTING),
        (Alg::MLKEM, ASYMMETRIC | OBJECT | ENCRYPTING),
        (Alg::MLDSA, ASYMMETRIC | OBJECT | SIGNING),
        (Alg::HASH_MLDSA, ASYMMETRIC | OBJECT | SIGNING),
    ]
};

/// Those that this TPM has, by their identifiers.
pub(crate) fn algorithms(core: &Core<'_>) -> impl Iterator<Item = (Alg, u32)> + Clone + use<> {
    let lattices = core.has_lattices();
    ALGORITHMS
        .into_iter()
        .filter(move |(alg, _)| lattices || alg.0 < Alg::MLKEM.0)
}

/// Commands in a set.
pub(crate) struct Commands {
    set: CommandSet,
    /// How many were named, also such that are not implemented.
    named: u32,
}

impl Commands {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &'static Command> {
        table::COMMANDS
            .iter()
            .filter(|command| has_command(&self.set, command.code))
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.named == 0
    }
}

/// `TPML_CC`; codes of commands that are not implemented are ignored.
pub(crate) fn read_commands(r: &mut Reader<'_>) -> Result<Commands, Rc> {
    let count = r.read::<u32>()?;
    ensure(count <= DATA_MAX / 4, Rc::SIZE)?;
    let mut set = NO_COMMANDS;
    for _ in 0..count {
        if let Ok(code) = u16::try_from(r.read::<u32>()?) {
            set_command(&mut set, code, true);
        }
    }
    Ok(Commands { set, named: count })
}

/// Writes up to `count` of the items as a list; whether there are more.
fn list<T>(
    w: &mut Writer<'_>,
    count: u32,
    item_len: u32,
    mut items: impl Iterator<Item = T>,
    put: impl Fn(&mut Writer<'_>, T) -> Result<(), Rc>,
) -> Result<bool, Rc> {
    let max = count.min(DATA_MAX / item_len);
    let at = w.len();
    w.put(&0u32)?;
    let mut n = 0u32;
    while n < max {
        let Some(item) = items.next() else { break };
        put(w, item)?;
        n += 1;
    }
    w.patch(at, &n.to_be_bytes());
    Ok(items.next().is_some())
}

/// TPM2_GetCapability (clause 30.2).
pub(crate) fn get(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    let capability: u32 = call.param_with(|r| {
        let capability = r.read::<u32>()?;
        ensure(matches!(capability, 0..=0xA | CHANNELS | VENDOR), Rc::VALUE)?;
        Ok(capability)
    })?;
    let property: u32 = call.param()?;
    let count: u32 = call.param()?;
    call.end()?;
    ensure(capability != VENDOR, Rc::VALUE.param(1))?;
    call.put(&false)?;
    call.put(&capability)?;
    let more = write_list(core, &mut call.out, capability, property, count, 2)?;
    call.out.patch(0, &[u8::from(more)]);
    Ok(())
}

/// The value of one property as a list has it, and its length; 0 if there is no such property. `number` is the property's in the command.
pub(crate) fn one(
    core: &Core<'_>,
    capability: u32,
    property: u32,
    number: u32,
    out: &mut [u8; ITEM_MAX],
) -> Result<usize, Rc> {
    let mut list = [0; 4 + ITEM_MAX];
    let mut w = Writer::new(&mut list);
    write_list(core, &mut w, capability, property, 1, number)?;
    let mut r = Reader::new(w.written());
    let item = match r.read::<u32>()? {
        0 => &[],
        _ => r.rest(),
    };
    // The list goes on with the next property if there is not this one. Each item begins with what it is about.
    let mut r = Reader::new(item);
    let found = match capability {
        _ if item.is_empty() => None,
        0 | 8 => Some(u32::from(r.read::<u16>()?)),
        // TPMA_CC: the code has 16 bits.
        2 => Some(r.read::<u32>()? & 0xFFFF),
        _ => Some(r.read()?),
    };
    if found != Some(property) {
        return Ok(0);
    }
    out.get_mut(..item.len())
        .ok_or(Rc::SIZE)?
        .copy_from_slice(item);
    Ok(item.len())
}

/// Writes the list of a capability, from a property on, which is the command's parameter with that number; whether there is more.
fn write_list(
    core: &Core<'_>,
    w: &mut Writer<'_>,
    capability: u32,
    property: u32,
    count: u32,
    number: u32,
) -> Result<bool, Rc> {
    match capability {
        0 => list(
            w,
            count,
            6,
            algorithms(core).filter(|(alg, _)| u32::from(alg.0) >= property),
            |w, (alg, attributes)| w.put(&alg).and_then(|()| w.put(&attributes)),
        ),
        1 => handles(core, w, Handle(property), count).map_err(|rc| rc.param(number)),
        2 => list(
            w,
            count,
            4,
            table::COMMANDS
                .iter()
                .filter(|c| u32::from(c.code) >= property && core.offers(c.code)),
            |w, c| w.put(&c.attributes()),
        ),
        3 => commands(core, w, &core.permanent.pp_commands, property, count),
        4 => commands(core, w, &core.permanent.audit_commands, property, count),
        5 => {
            ensure(property == 0, Rc::VALUE.param(number))?;
            w.put(&Allocation(&core.permanent)).map(|()| false)
        }
        6 => list(
            w,
            count,
            8,
            properties::all(core, property),
            |w, (property, value)| w.put(&property).and_then(|()| w.put(&value)),
        ),
        7 => list(
            w,
            count,
            8,
            pcr_properties(property),
            |w, (property, select)| {
                w.put(&property)?;
                w.put(&3u8)?;
                w.bytes(&select)
            },
        ),
        8 => list(
            w,
            count,
            2,
            Curve::ALL
                .iter()
                .filter(|curve| u32::from(curve.id()) >= property),
            |w, curve| w.put(curve),
        ),
        9 => policies(core, w, Handle(property), count).map_err(|rc| rc.param(number)),
        CHANNELS => {
            ensure(property == 0, Rc::VALUE.param(number))?;
            w.put(&0u32).map(|()| false)
        }
        _ => {
            ensure(Handle(property).timer().is_some(), Rc::VALUE.param(number))?;
            let all = core.timers.data(core.time.time);
            let from = all.filter(|timer| timer.handle >= Handle(property));
            list(w, count, 12, from, |w, timer| w.put(&timer))
        }
    }
}

fn commands(
    core: &Core<'_>,
    w: &mut Writer<'_>,
    set: &CommandSet,
    property: u32,
    count: u32,
) -> Result<bool, Rc> {
    let chosen = table::COMMANDS
        .iter()
        .filter(|c| has_command(set, c.code) && u32::from(c.code) >= property)
        .filter(|c| core.offers(c.code));
    list(w, count, 4, chosen, |w, c| w.put(&u32::from(c.code)))
}

/// Handles of a kind, from one on, in ascending order.
fn handles(core: &Core<'_>, w: &mut Writer<'_>, from: Handle, count: u32) -> Result<bool, Rc> {
    const PERMANENT: [Handle; 7] = [
        Handle::OWNER,
        Handle::NULL,
        Handle::PASSWORD,
        Handle::LOCKOUT,
        Handle::ENDORSEMENT,
        Handle::PLATFORM,
        Handle::PLATFORM_NV,
    ];
    let put = |w: &mut Writer<'_>, handle: Handle| w.put(&handle);
    let index = from.index();
    match from.kind() {
        HandleKind::Pcr => {
            let all = (0..PCR_COUNT).map(|pcr| Handle(u32::try_from(pcr).unwrap_or(0)));
            list(w, count, 4, all.filter(|h| *h >= from), put)
        }
        kind @ (HandleKind::Nv | HandleKind::Persistent) => {
            let mut next = core.nv.next_handle(kind, from);
            let all = core::iter::from_fn(|| {
                let handle = next?;
                next = core.nv.next_handle(kind, Handle(handle.0 + 1));
                Some(handle)
            });
            list(w, count, 4, all, put)
        }
        HandleKind::HmacSession => {
            let loaded = core.sessions.handles(|a| matches!(a, Active::Loaded(_)));
            list(w, count, 4, loaded.filter(|h| h.index() >= index), put)
        }
        HandleKind::PolicySession => {
            // Saved sessions are reported under one kind of handle.
            let saved = core.sessions.handles(|a| matches!(a, Active::Saved(_)));
            list(w, count, 4, saved.filter(|h| h.index() >= index), |w, h| {
                w.put(&Handle(Handle::HMAC_FIRST | h.0 & 0x00FF_FFFF))
            })
        }
        HandleKind::Permanent => list(
            w,
            count,
            4,
            PERMANENT
                .into_iter()
                .chain(core.timers.handles())
                .filter(|h| *h >= from),
            put,
        ),
        HandleKind::Transient => list(
            w,
            count,
            4,
            core.objects.handles().filter(|h| *h >= from),
            put,
        ),
        HandleKind::Component | HandleKind::Unknown => Err(Rc::HANDLE),
    }
}

/// `TPM_PT_PCR`: for each property, the PCRs that have it.
fn pcr_properties(from: u32) -> impl Iterator<Item = (u32, [u8; 3])> {
    const PROPERTIES: [u32; 15] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0xA, 0x11, 0x12, 0x13, 0x14];
    PROPERTIES
        .into_iter()
        .filter(move |p| *p >= from)
        .map(|property| {
            let mut selection = PcrSelection::none(crate::HashAlg::Sha1);
            for (pcr, rule) in RULES.iter().enumerate() {
                let locality = property.saturating_sub(1) / 2;
                let has = match property {
                    0 => rule.saved,
                    1 | 3 | 5 | 7 | 9 => rule.extend & 1 << locality != 0,
                    2 | 4 | 6 | 8 | 0xA => rule.reset & 1 << locality != 0,
                    0x11 => !rule.counted,
                    0x12 => rule.dynamic,
                    _ => rule.group,
                };
                if has {
                    selection.set(pcr);
                }
            }
            (property, selection.select)
        })
}

/// `TPML_TAGGED_POLICY`.
fn policies(core: &Core<'_>, w: &mut Writer<'_>, from: Handle, count: u32) -> Result<bool, Rc> {
    ensure(from.kind() == HandleKind::Permanent, Rc::VALUE)?;
    let all = [
        Handle::OWNER,
        Handle::LOCKOUT,
        Handle::ENDORSEMENT,
        Handle::PLATFORM,
    ]
    .into_iter()
    .chain(core.timers.handles())
    .filter(|h| *h >= from);
    list(w, count, 4 + 2 + 64, all, |w, handle| {
        let entity = crate::state::entity::Entity { handle, slot: None };
        let policy = core.policy_of(entity);
        w.put(&handle)?;
        w.put(&policy.alg)?;
        w.bytes(policy.digest.as_slice())
    })
}

/// TPM2_TestParms (clause 30.3).
pub(crate) fn test_parms(core: &mut Core<'_>, call: &mut Call<'_>) -> Result<(), Stop> {
    // What can be read is implemented, if this TPM has it.
    call.param_with(|r| core.offers_parms(&r.read::<Params>()?))?;
    Ok(call.end()?)
}
