use zerocopy::{
    Immutable, IntoBytes,
    little_endian::{U32, U64},
};

use super::ChipKey;
use crate::level::Vmpl;

bitflags::bitflags! {
    /// What goes into a derived key (56860, MSG_KEY_REQ, GUEST_FIELD_SELECT): a guest that differs in one of these gets another.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct KeyFields: u64 {
        /// The guest's policy.
        const POLICY = 1 << 0;
        /// The image, as its owner calls it.
        const IMAGE_ID = 1 << 1;
        /// The family of the image, as its owner calls it.
        const FAMILY_ID = 1 << 2;
        /// The launch digest.
        const MEASUREMENT = 1 << 3;
        /// The security version of the guest.
        const GUEST_SVN = 1 << 4;
        /// The security versions of the firmware.
        const TCB_VERSION = 1 << 5;
        /// The mitigations at launch.
        const LAUNCH_MIT_VECTOR = 1 << 6;
    }
}

/// Asks for a key that the same guest gets again, and no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRequest {
    level: Vmpl,
    root: u32,
    fields: KeyFields,
    guest_svn: u32,
    tcb_version: u64,
    launch_mit_vector: u64,
}

impl KeyRequest {
    /// A key of `level`, which no level below it gets, from the root of this chip. It depends on who signed for the guest and on
    /// what the host said at launch, and on nothing else until asked to.
    #[must_use]
    pub const fn new(level: Vmpl) -> Self {
        Self {
            level,
            root: 0,
            fields: KeyFields::empty(),
            guest_svn: 0,
            tcb_version: 0,
            launch_mit_vector: 0,
        }
    }

    /// The same from that key of the chip.
    #[must_use]
    pub const fn from_chip_key(self, key: ChipKey) -> Self {
        Self {
            root: (key as u32) << 1,
            ..self
        }
    }

    /// The same from the root key that migrates with the guest (VMRK).
    #[must_use]
    pub const fn from_migration_key(self) -> Self {
        Self { root: 1, ..self }
    }

    /// The same, but dependent on these too. The values of fields for which the guest may say an older one are asked for by
    /// [`with_guest_svn`](Self::with_guest_svn) and its kin; this leaves them out.
    #[must_use]
    pub const fn bound_to(self, fields: KeyFields) -> Self {
        let told = KeyFields::GUEST_SVN
            .union(KeyFields::TCB_VERSION)
            .union(KeyFields::LAUNCH_MIT_VECTOR);
        Self {
            fields: self.fields.union(fields.difference(told)),
            ..self
        }
    }

    /// The same for this security version of the guest, which may be older than the one that runs.
    #[must_use]
    pub const fn with_guest_svn(self, svn: u32) -> Self {
        Self {
            fields: self.fields.union(KeyFields::GUEST_SVN),
            guest_svn: svn,
            ..self
        }
    }

    /// The same for these security versions of the firmware, which may be older than those that run.
    #[must_use]
    pub const fn with_tcb_version(self, tcb: u64) -> Self {
        Self {
            fields: self.fields.union(KeyFields::TCB_VERSION),
            tcb_version: tcb,
            ..self
        }
    }

    /// The same for these mitigations, of those at launch. Only newer firmware can do that.
    #[must_use]
    pub const fn with_launch_mitigations(self, mitigations: u64) -> Self {
        Self {
            fields: self.fields.union(KeyFields::LAUNCH_MIT_VECTOR),
            launch_mit_vector: mitigations,
            ..self
        }
    }

    /// The level whose key it is.
    #[must_use]
    pub const fn level(&self) -> Vmpl {
        self.level
    }

    /// The message, and the oldest version of it that can say this.
    pub(super) fn wire(&self) -> (u8, WireKeyRequest) {
        let wire = WireKeyRequest {
            root: U32::new(self.root),
            reserved: U32::ZERO,
            fields: U64::new(self.fields.bits()),
            vmpl: U32::new(self.level.as_u8().into()),
            guest_svn: U32::new(self.guest_svn),
            tcb_version: U64::new(self.tcb_version),
            launch_mit_vector: U64::new(self.launch_mit_vector),
        };
        let new = self.fields.contains(KeyFields::LAUNCH_MIT_VECTOR);
        (if new { 2 } else { 1 }, wire)
    }
}

/// MSG_KEY_REQ; version 1 ends before the last field.
#[derive(Immutable, IntoBytes)]
#[repr(C)]
pub(super) struct WireKeyRequest {
    root: U32,
    reserved: U32,
    fields: U64,
    vmpl: U32,
    guest_svn: U32,
    tcb_version: U64,
    launch_mit_vector: U64,
}
const _: () = assert!(size_of::<WireKeyRequest>() == 0x28);

impl WireKeyRequest {
    pub(super) fn bytes(&self, version: u8) -> &[u8] {
        let len = if version == 1 { 0x20 } else { 0x28 };
        self.as_bytes().get(..len).unwrap_or_default()
    }
}
