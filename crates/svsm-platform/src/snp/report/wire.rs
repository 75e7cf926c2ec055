use core::mem::offset_of;

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U32, U64},
};

/// A report: who the guest is and on which machine, in the security processor's words (56860, "ATTESTATION_REPORT").
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct AttestationReport {
    /// The layout's version, from 2 on. Newer ones have meaning where older ones have zeros.
    pub version: U32,
    /// The security version of the guest, as its owner says.
    pub guest_svn: U32,
    /// What the host may do to the guest.
    pub policy: U64,
    /// The family of the image, as its owner calls it.
    pub family_id: [u8; 16],
    /// The image, as its owner calls it.
    pub image_id: [u8; 16],
    /// The level in whose name it is.
    pub vmpl: U32,
    /// 1: ECDSA with P-384 and SHA-384.
    pub signature_algo: U32,
    /// The security versions of the firmware that runs.
    pub current_tcb: U64,
    /// What the machine is like.
    pub platform_info: U64,
    /// Bit 0: an author signed for the key that signed for the guest. Bit 1: the chip's name is masked. Bits 4:2: who signed, 0 for
    /// the VCEK, 1 for the VLEK, 7 for nobody.
    pub key_info: U32,
    reserved_04c: U32,
    /// What the guest asked to have said.
    pub report_data: [u8; 64],
    /// The launch digest.
    pub measurement: [u8; 48],
    /// What the host had to say at launch.
    pub host_data: [u8; 32],
    /// The digest of the key that signed for the guest.
    pub id_key_digest: [u8; 48],
    /// The digest of the key that signed for that.
    pub author_key_digest: [u8; 48],
    /// The name of this guest.
    pub report_id: [u8; 32],
    /// The name of its migration agent; all ones if it has none.
    pub report_id_ma: [u8; 32],
    /// The security versions from which the signing key was derived.
    pub reported_tcb: U64,
    /// From version 3 on: family, extended family added.
    pub cpuid_family: u8,
    /// From version 3 on: model, extended model on top.
    pub cpuid_model: u8,
    /// From version 3 on.
    pub cpuid_stepping: u8,
    reserved_18b: [u8; 21],
    /// The chip's name.
    pub chip_id: [u8; 64],
    /// The security versions below which the chip does not go.
    pub committed_tcb: U64,
    /// The firmware that runs: build, minor, major.
    pub current_version: [u8; 3],
    reserved_1eb: u8,
    /// The firmware below which the chip does not go: build, minor, major.
    pub committed_version: [u8; 3],
    reserved_1ef: u8,
    /// The security versions of the firmware that launched the guest.
    pub launch_tcb: U64,
    /// From version 5 on: the mitigations at launch.
    pub launch_mit_vector: U64,
    /// From version 5 on: the mitigations now.
    pub current_mit_vector: U64,
    reserved_208: [u8; 152],
    /// R and S of the signature over all of the above, each of 72 bytes and little-endian; then zeros.
    pub signature: [u8; 512],
}
const _: () = {
    assert!(size_of::<AttestationReport>() == AttestationReport::LEN);
    assert!(offset_of!(AttestationReport, report_data) == 0x050);
    assert!(offset_of!(AttestationReport, host_data) == 0x0c0);
    assert!(offset_of!(AttestationReport, reported_tcb) == 0x180);
    assert!(offset_of!(AttestationReport, chip_id) == 0x1a0);
    assert!(offset_of!(AttestationReport, launch_tcb) == 0x1f0);
    assert!(offset_of!(AttestationReport, signature) == 0x2a0);
};

impl AttestationReport {
    /// The length of a report of versions 2 to 5.
    pub const LEN: usize = 0x4a0;

    /// The report in `bytes`; `None` if they are too few, or of a version older than 2. What follows the report is not looked at.
    ///
    /// Nothing is verified here. What came through a [`Channel`](super::Channel) needs no more than that, others check the signature.
    #[must_use]
    pub fn view(bytes: &[u8]) -> Option<&Self> {
        let (report, _) = Self::ref_from_prefix(bytes).ok()?;
        (report.version.get() >= 2).then_some(report)
    }
}
