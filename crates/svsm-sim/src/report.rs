//! The attestation report: who a guest is, on which machine, in the security processor's own words (56860,
//! "ATTESTATION_REPORT").

use crate::curve::WireSignature;
use core::mem::offset_of;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A report.
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Report {
    /// Which of the fields below are there: 2 to 5.
    pub version: U32,
    /// The security version of the image, as its owner says.
    pub guest_svn: U32,
    /// The guest's [policy](crate::launch::Policy).
    pub policy: U64,
    /// The family of the image, as its owner says.
    pub family_id: [u8; 16],
    /// The image, as its owner says.
    pub image_id: [u8; 16],
    /// The level that asked.
    pub vmpl: U32,
    /// How it is signed; [`ALGORITHM_P384_SHA384`](crate::curve::ALGORITHM_P384_SHA384).
    pub signature_algorithm: U32,
    /// Security versions of what runs now.
    pub current_tcb: U64,
    /// What the machine is like: [`PlatformInfo`](crate::launch::PlatformInfo).
    pub platform_info: U64,
    /// Bit 0: the author key counts. Bit 1: the chip's key is masked. Bits 4:2: which key signed, 0 for the VCEK.
    pub flags: U32,
    /// Zero.
    pub reserved_04c: U32,
    /// What the guest wants to say.
    pub report_data: [u8; 64],
    /// The launch digest.
    pub measurement: [u8; 48],
    /// What the host wanted to say at the end of the launch.
    pub host_data: [u8; 32],
    /// The digest of the key that signed the ID block.
    pub id_key_digest: [u8; 48],
    /// The digest of the key that signed that key.
    pub author_key_digest: [u8; 48],
    /// A name of this guest.
    pub report_id: [u8; 32],
    /// The name of its migration agent; all ones where there is none.
    pub report_id_ma: [u8; 32],
    /// Security versions from which the signing key is derived.
    pub reported_tcb: U64,
    /// From version 3 on: the processor's family, extended part added.
    pub cpuid_family: u8,
    /// From version 3 on: its model, extended part on top.
    pub cpuid_model: u8,
    /// From version 3 on: its stepping.
    pub cpuid_stepping: u8,
    /// Zero.
    pub reserved_18b: [u8; 21],
    /// The machine's name.
    pub chip_id: [u8; 64],
    /// Security versions below which the machine does not go.
    pub committed_tcb: U64,
    /// The firmware that runs: build, minor, major.
    pub current_version: [u8; 3],
    /// Zero.
    pub reserved_1eb: u8,
    /// The firmware below which the machine does not go: build, minor, major.
    pub committed_version: [u8; 3],
    /// Zero.
    pub reserved_1ef: u8,
    /// Security versions when the guest was launched.
    pub launch_tcb: U64,
    /// From version 5 on: mitigations when the guest was launched.
    pub launch_mitigations: U64,
    /// From version 5 on: mitigations now.
    pub current_mitigations: U64,
    /// Zero.
    pub reserved_208: [u8; 152],
    /// Over all of the above.
    pub signature: WireSignature,
}
const _: () = {
    assert!(size_of::<Report>() == 0x4a0);
    assert!(offset_of!(Report, report_data) == 0x050);
    assert!(offset_of!(Report, measurement) == 0x090);
    assert!(offset_of!(Report, host_data) == 0x0c0);
    assert!(offset_of!(Report, author_key_digest) == 0x110);
    assert!(offset_of!(Report, report_id_ma) == 0x160);
    assert!(offset_of!(Report, reported_tcb) == 0x180);
    assert!(offset_of!(Report, cpuid_family) == 0x188);
    assert!(offset_of!(Report, chip_id) == 0x1a0);
    assert!(offset_of!(Report, committed_tcb) == 0x1e0);
    assert!(offset_of!(Report, committed_version) == 0x1ec);
    assert!(offset_of!(Report, launch_tcb) == 0x1f0);
    assert!(offset_of!(Report, current_mitigations) == 0x200);
    assert!(offset_of!(Report, signature) == 0x2a0);
};

impl Report {
    /// Bit 0 of the flags: the author key counts.
    pub const AUTHOR_KEY: u32 = 1 << 0;

    /// What is signed.
    #[must_use]
    pub fn signed_part(&self) -> &[u8] {
        self.as_bytes()
            .get(..offset_of!(Self, signature))
            .unwrap_or_default()
    }

    /// Which key signed: 0 the VCEK, 1 the VLEK, 7 none.
    #[must_use]
    pub const fn signing_key(&self) -> u32 {
        self.flags.get() >> 2 & 7
    }
}

/// Which layout a firmware writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum ReportVersion {
    /// The oldest that is around.
    V2 = 2,
    /// Tells the processor's family, model and stepping.
    V3 = 3,
    /// As 3.
    V4 = 4,
    /// Tells mitigations.
    V5 = 5,
}

impl ReportVersion {
    /// Its number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }
}
