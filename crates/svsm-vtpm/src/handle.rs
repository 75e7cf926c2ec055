//! Handles: the names by which commands call entities (Part 2, clause 7).

use crate::{
    rc::Rc,
    wire::{Marshal, Reader, Unmarshal, Writer},
};

/// `TPM_HANDLE`: any number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Handle(pub u32);

#[expect(missing_docs, reason = "the specification's names, without TPM_RH_")]
impl Handle {
    pub const OWNER: Self = Self(0x4000_0001);
    pub const NULL: Self = Self(0x4000_0007);
    pub const UNASSIGNED: Self = Self(0x4000_0008);
    pub const PASSWORD: Self = Self(0x4000_0009);
    pub const LOCKOUT: Self = Self(0x4000_000A);
    pub const ENDORSEMENT: Self = Self(0x4000_000B);
    pub const PLATFORM: Self = Self(0x4000_000C);
    pub const PLATFORM_NV: Self = Self(0x4000_000D);

    pub(crate) const HMAC_FIRST: u32 = 0x0200_0000;
    pub(crate) const POLICY_FIRST: u32 = 0x0300_0000;
    pub(crate) const TRANSIENT_FIRST: u32 = 0x8000_0000;
    pub(crate) const PLATFORM_PERSISTENT: u32 = 0x8180_0000;
    pub(crate) const ACT_FIRST: u32 = 0x4000_0110;
}

/// What a handle names, by its first octet (`TPM_HT`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HandleKind {
    Pcr,
    Nv,
    HmacSession,
    PolicySession,
    Permanent,
    Transient,
    Persistent,
    /// An attached component.
    Component,
    Unknown,
}

impl Handle {
    pub(crate) const fn kind(self) -> HandleKind {
        match self.0 >> 24 {
            0x00 => HandleKind::Pcr,
            0x01 => HandleKind::Nv,
            0x02 => HandleKind::HmacSession,
            0x03 => HandleKind::PolicySession,
            0x40 => HandleKind::Permanent,
            0x80 => HandleKind::Transient,
            0x81 => HandleKind::Persistent,
            0x90 => HandleKind::Component,
            _ => HandleKind::Unknown,
        }
    }

    /// The part that counts entities of one kind.
    pub(crate) const fn index(self) -> usize {
        (self.0 & 0x00FF_FFFF) as usize
    }

    pub(crate) const fn is_session(self) -> bool {
        matches!(
            self.kind(),
            HandleKind::HmacSession | HandleKind::PolicySession
        )
    }

    /// The number of the authenticated countdown timer that this could name.
    pub(crate) const fn timer(self) -> Option<usize> {
        if self.0 >> 4 == Self::ACT_FIRST >> 4 {
            Some((self.0 & 0xF) as usize)
        } else {
            None
        }
    }

    /// Whether this is a hierarchy's handle: owner, endorsement, platform or null.
    pub(crate) const fn is_hierarchy(self) -> bool {
        matches!(
            self,
            Self::OWNER | Self::ENDORSEMENT | Self::PLATFORM | Self::NULL
        )
    }
}

impl Unmarshal for Handle {
    fn read(r: &mut Reader<'_>) -> Result<Self, Rc> {
        Ok(Self(r.read()?))
    }
}

impl Marshal for Handle {
    fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        w.put(&self.0)
    }
}
