//! Structures tags, tickets and the head of attestations (Part 2, clauses 6.9, 10.6 and 10.12).

use super::public::Digest;
use crate::{
    bytes::Bytes,
    handle::Handle,
    rc::{Rc, ensure},
    wire::{Marshal, Reader, Unmarshal, Writer},
};

/// `TPM_ST`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag(pub(crate) u16);

impl Tag {
    pub(crate) const RSP_COMMAND: Self = Self(0x00C4);
    pub(crate) const NO_SESSIONS: Self = Self(0x8001);
    pub(crate) const SESSIONS: Self = Self(0x8002);
    pub(crate) const ATTEST_NV: Self = Self(0x8014);
    pub(crate) const ATTEST_COMMAND_AUDIT: Self = Self(0x8015);
    pub(crate) const ATTEST_SESSION_AUDIT: Self = Self(0x8016);
    pub(crate) const ATTEST_CERTIFY: Self = Self(0x8017);
    pub(crate) const ATTEST_QUOTE: Self = Self(0x8018);
    pub(crate) const ATTEST_TIME: Self = Self(0x8019);
    pub(crate) const ATTEST_CREATION: Self = Self(0x801A);
    pub(crate) const ATTEST_NV_DIGEST: Self = Self(0x801C);
    pub(crate) const CREATION: Self = Self(0x8021);
    pub(crate) const VERIFIED: Self = Self(0x8022);
    pub(crate) const AUTH_SECRET: Self = Self(0x8023);
    pub(crate) const HASHCHECK: Self = Self(0x8024);
    pub(crate) const AUTH_SIGNED: Self = Self(0x8025);
    #[cfg(feature = "pqc")]
    pub(crate) const MESSAGE_VERIFIED: Self = Self(0x8026);
    #[cfg(feature = "pqc")]
    pub(crate) const DIGEST_VERIFIED: Self = Self(0x8027);
}

/// Octets with which everything begins that only the TPM itself makes and signs (`TPM_GENERATED_VALUE`).
pub(crate) const GENERATED: [u8; 4] = *b"\xFFTCG";

/// `TPM2B_DATA`: as long as `TPMT_HA`.
pub(crate) type Data = Bytes<66>;

/// `TPMT_TK_*`: this TPM's word that it saw something.
#[derive(Clone, Debug)]
pub(crate) struct Ticket {
    pub(crate) tag: Tag,
    pub(crate) hierarchy: Handle,
    pub(crate) digest: Digest,
}

impl Ticket {
    /// A ticket that proves nothing.
    pub(crate) const fn null(tag: Tag) -> Self {
        Self {
            tag,
            hierarchy: Handle::NULL,
            digest: Digest::EMPTY,
        }
    }

    /// A ticket with one of these tags.
    pub(crate) fn read(r: &mut Reader<'_>, tags: &[Tag]) -> Result<Self, Rc> {
        let tag = Tag(r.read()?);
        ensure(tags.contains(&tag), Rc::TAG)?;
        let hierarchy: Handle = r.read()?;
        ensure(hierarchy.is_hierarchy(), Rc::VALUE)?;
        Ok(Self {
            tag,
            hierarchy,
            digest: r.read()?,
        })
    }
}

impl Unmarshal for Tag {
    fn read(r: &mut Reader<'_>) -> Result<Self, Rc> {
        Ok(Self(r.read()?))
    }
}

impl Marshal for Tag {
    fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        w.put(&self.0)
    }
}

impl Marshal for Ticket {
    fn write(&self, w: &mut Writer<'_>) -> Result<(), Rc> {
        w.put(&self.tag)?;
        w.put(&self.hierarchy)?;
        w.put(&self.digest)
    }
}
