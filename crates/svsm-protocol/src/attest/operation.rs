//! What a guest wants attested, and where the answers go (58019, "Attest Services Operation Structure").

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::Guid;

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Wire {
    report: WireBuffer,
    nonce: U64,
    nonce_bytes: U16,
    reserved: [u8; 6],
    manifest: WireBuffer,
    certificates: WireBuffer,
}
const _: () = assert!(size_of::<Wire>() == 0x40);

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct WireBuffer {
    at: U64,
    bytes: U32,
    reserved: U32,
}

/// What follows for a single service.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct WireService {
    guid: Guid,
    version: U32,
    reserved: U32,
}
const _: () = assert!(size_of::<WireService>() == 0x18);

/// A buffer of the guest's, of which nothing is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Buffer {
    pub(super) at: u64,
    pub(super) bytes: u32,
}

/// The structure, whose reserved fields have been checked.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) report: Buffer,
    pub(super) nonce: u64,
    pub(super) nonce_bytes: u16,
    pub(super) manifest: Buffer,
    pub(super) certificates: Buffer,
    /// Of a single service; else zeros.
    pub(super) service: Guid,
    pub(super) version: u32,
}

impl Operation {
    pub(super) const MAX_BYTES: usize = size_of::<Wire>() + size_of::<WireService>();

    /// How many bytes it has.
    pub(super) const fn bytes(single: bool) -> usize {
        if single {
            Self::MAX_BYTES
        } else {
            size_of::<Wire>()
        }
    }

    /// Reads one; `None` if a reserved field is not zero, or there is no nonce.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (wire, rest) = Wire::ref_from_prefix(bytes).ok()?;
        let (service, version) = match WireService::ref_from_bytes(rest) {
            Ok(wire) if wire.reserved.get() == 0 => (wire.guid, wire.version.get()),
            Ok(_) => return None,
            Err(_) => (Guid([0; 16]), 0),
        };
        let buffers = [&wire.report, &wire.manifest, &wire.certificates];
        let is_clean = wire.reserved == [0; 6] && buffers.iter().all(|b| b.reserved.get() == 0);
        let buffer = |wire: &WireBuffer| Buffer {
            at: wire.at.get(),
            bytes: wire.bytes.get(),
        };
        (is_clean && wire.nonce_bytes.get() != 0).then(|| Self {
            report: buffer(&wire.report),
            nonce: wire.nonce.get(),
            nonce_bytes: wire.nonce_bytes.get(),
            manifest: buffer(&wire.manifest),
            certificates: buffer(&wire.certificates),
            service,
            version,
        })
    }
}
