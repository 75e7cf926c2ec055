//! The TPM's properties: `TPM_PT` (Part 2, clause 6.13).

use crate::{
    alg::{Alg, Curve},
    command::{
        context::{BLOB_MAX, CLASSIC_BLOB_MAX},
        hash_hmac::BUFFER_MAX,
    },
    handle::{Handle, HandleKind},
    object::store::CONTENT_MAX,
    state::{
        Core,
        clock::UPDATE_MS,
        permanent::Orderly,
        session::{ACTIVE_MAX, Active},
    },
    structures::{
        attributes::NvAttributes,
        nv::{NV_INDEX_MAX, NvKind},
    },
    table,
};

const FIXED: u32 = 0x100;
const VARIABLE: u32 = 0x200;
/// Persistent objects that there is always room for, if indices leave it.
const PERSISTENT_MIN: u32 = 7;
/// Bytes that a persistent object takes at most, RSA-2048.
const PERSISTENT_LEN: usize = 800;
/// Bytes that a counter takes.
const COUNTER_LEN: usize = 160;

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Properties from one on, with their values, in ascending order.
pub(super) fn all(core: &Core<'_>, from: u32) -> impl Iterator<Item = (u32, u32)> {
    let fixed = (FIXED..FIXED + 0x32).filter_map(move |p| Some((p, fixed(core, p - FIXED)?)));
    let variable = (VARIABLE..VARIABLE + 0x15).map(move |p| (p, variable(core, p - VARIABLE)));
    fixed
        .chain(variable)
        .filter(move |(property, _)| *property >= from)
}

fn fixed(core: &Core<'_>, property: u32) -> Option<u32> {
    let vendor = |n: usize| {
        let (words, _) = core.identity.vendor.as_chunks::<4>();
        words.get(n).copied().map_or(0, u32::from_be_bytes)
    };
    Some(match property {
        0x00 => u32::from_be_bytes(*b"2.0\0"),
        0x01 => 0,
        // Revision, day and year of the specification.
        0x02 => 159,
        0x03 => 312,
        0x04 => 2019,
        0x05 => u32::from_be_bytes(core.identity.manufacturer),
        0x06 => vendor(0),
        0x07 => vendor(1),
        0x08 => vendor(2),
        0x09 => vendor(3),
        0x0A => 1,
        0x0B => core.identity.firmware[0],
        0x0C => core.identity.firmware[1],
        0x0D => count(BUFFER_MAX),
        0x0E => count(core.objects.capacity()),
        0x0F => PERSISTENT_MIN,
        0x10 => count(core.sessions.capacity()),
        0x11 => count(ACTIVE_MAX),
        0x12 => 24,
        0x13 => 3,
        0x14 => u32::from(u16::MAX),
        0x16 => 0,
        0x17 => count(NV_INDEX_MAX),
        // NV is memory, and objects are copied into it.
        0x18 => 0b110,
        0x19 => u32::try_from(UPDATE_MS).unwrap_or(u32::MAX),
        0x1A => u32::from(Alg::SHA256.0),
        0x1B => u32::from(Alg::AES.0),
        0x1C => 256,
        0x1D => 0xFF,
        0x1E => count(core.command_max),
        0x1F => count(core.response_max),
        0x20 => 64,
        0x21 | 0x22 if core.has_lattices() => count(BLOB_MAX),
        0x21 | 0x22 => count(CLASSIC_BLOB_MAX),
        // PC Client, revision 1.05.
        0x23 => 1,
        0x24 => 0,
        0x25 => 0x105,
        0x26 => 0,
        0x27 => 0,
        0x28 => 128,
        0x29 | 0x2A => count(
            table::COMMANDS
                .iter()
                .filter(|c| core.offers(c.code))
                .count(),
        ),
        0x2B => 0,
        0x2C => count(BUFFER_MAX),
        0x2D => 0,
        0x2E => 1024,
        // TPM_PT_ML_PARAMETER_SETS, of version 1.85.
        0x31 => return core.parameter_sets(),
        _ => return None,
    })
}

fn variable(core: &Core<'_>, property: u32) -> u32 {
    let permanent = &core.permanent;
    let bit = |on: bool, at: u32| u32::from(on) << at;
    match property {
        0x00 => {
            bit(!permanent.owner_auth.is_empty(), 0)
                | bit(!permanent.endorsement_auth.is_empty(), 1)
                | bit(!permanent.lockout_auth.is_empty(), 2)
                | bit(permanent.disable_clear, 8)
                | bit(permanent.failed_tries >= permanent.max_tries, 9)
                | bit(true, 10)
        }
        0x01 => {
            bit(core.ph_enable, 0)
                | bit(core.clear.sh_enable, 1)
                | bit(core.clear.eh_enable, 2)
                | bit(core.clear.ph_enable_nv, 3)
                | bit(core.read_only, 4)
                | bit(Orderly::from_u8(permanent.orderly) != Orderly::None, 31)
        }
        0x02 => count(core.nv.count(HandleKind::Nv)),
        0x03 => count(core.sessions.count(|a| matches!(a, Active::Loaded(_)))),
        0x04 => {
            let loaded = core.sessions.count(|a| matches!(a, Active::Loaded(_)));
            count(core.sessions.capacity() - loaded)
        }
        0x05 => count(core.sessions.count(|a| a != Active::Free)),
        0x06 => count(core.sessions.count(|a| a == Active::Free)),
        0x07 => count(core.objects.capacity() - core.objects.handles().count()),
        0x08 => count(core.nv.count(HandleKind::Persistent)),
        0x09 if core.has_lattices() => count(core.nv.free() / CONTENT_MAX),
        0x09 => count(core.nv.free() / PERSISTENT_LEN),
        0x0A => count(counters(core)),
        0x0B => count(core.nv.free() / COUNTER_LEN),
        0x0C => permanent.algorithm_set,
        0x0D => count(Curve::ALL.len()),
        0x0E => permanent.failed_tries,
        0x0F => permanent.max_tries,
        0x10 => permanent.recovery_time,
        0x11 => permanent.lockout_recovery,
        0x12 => 0,
        0x13 => (permanent.audit_counter >> 32) as u32,
        _ => (permanent.audit_counter & 0xFFFF_FFFF) as u32,
    }
}

fn counters(core: &Core<'_>) -> usize {
    core.nv
        .handles()
        .filter(|h| h.kind() == HandleKind::Nv)
        .filter_map(|h: Handle| core.index(h))
        .filter(|i| i.public.kind() == NvKind::Counter && i.public.has(NvAttributes::WRITTEN))
        .count()
}
