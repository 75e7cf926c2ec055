//! Who made the image, as its maker says and signs: ID block and ID authentication (56860, `SNP_LAUNCH_FINISH`).

use super::{Measurement, Policy};
use crate::curve::{ALGORITHM_P384_SHA384, WireKey, WireSignature};
use crate::status::Status;
use p384::ecdsa::SigningKey;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What the owner of an image expects of a launch.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct IdBlock {
    /// The launch digest.
    pub launch_digest: [u8; 48],
    /// A name for a family of images.
    pub family_id: [u8; 16],
    /// A name for the image.
    pub image_id: [u8; 16],
    /// The version of this structure: 1.
    pub version: U32,
    /// The security version of the image.
    pub guest_svn: U32,
    /// The guest's policy.
    pub policy: U64,
}
const _: () = assert!(size_of::<IdBlock>() == 96);

/// Signatures over the ID block, and the keys that check them.
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct IdAuth {
    /// How the ID key signs; [`ALGORITHM_P384_SHA384`].
    pub id_key_algorithm: U32,
    /// How the author key signs.
    pub author_key_algorithm: U32,
    /// Zero.
    pub reserved_008: [u8; 56],
    /// The ID key's, over the ID block.
    pub id_block_signature: WireSignature,
    /// The ID key.
    pub id_key: WireKey,
    /// Zero.
    pub reserved_644: [u8; 60],
    /// The author key's, over the ID key.
    pub id_key_signature: WireSignature,
    /// The author key.
    pub author_key: WireKey,
    /// Zero.
    pub reserved_c84: [u8; 892],
}
const _: () = assert!(size_of::<IdAuth>() == 4096);

impl IdAuth {
    /// Signs `block` with `id_key`, and that key with `author_key`, where there is one.
    #[must_use]
    pub fn sign(block: &IdBlock, id_key: &SigningKey, author_key: Option<&SigningKey>) -> Self {
        let mut auth: Self = FromZeros::new_zeroed();
        auth.id_key_algorithm = U32::new(ALGORITHM_P384_SHA384);
        auth.id_key = WireKey::of(id_key);
        auth.id_block_signature = WireSignature::sign(id_key, block.as_bytes());
        if let Some(author_key) = author_key {
            auth.author_key_algorithm = U32::new(ALGORITHM_P384_SHA384);
            auth.author_key = WireKey::of(author_key);
            auth.id_key_signature = WireSignature::sign(author_key, auth.id_key.as_bytes());
        }
        auth
    }
}

/// An identity with which a host ends a launch.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// What its owner expects.
    pub block: &'a IdBlock,
    /// Proof that it is the owner's.
    pub auth: &'a IdAuth,
    /// Whether the author key counts (`AUTH_KEY_EN`).
    pub author: bool,
}

/// An identity that held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Proven {
    pub(crate) block: IdBlock,
    pub(crate) id_key: [u8; 48],
    pub(crate) author_key: Option<[u8; 48]>,
}

impl Identity<'_> {
    /// Checks it against what was launched, in the firmware's order.
    pub(crate) fn check(&self, measured: &Measurement, policy: Policy) -> Result<Proven, Status> {
        let (block, auth) = (self.block, self.auth);
        if block.launch_digest != measured.0 {
            return Err(Status::BadMeasurement);
        }
        if block.policy.get() != policy.bits() {
            return Err(Status::PolicyFailure);
        }
        let known = |algorithm: U32| algorithm.get() == ALGORITHM_P384_SHA384;
        if !known(auth.id_key_algorithm) || (self.author && !known(auth.author_key_algorithm)) {
            return Err(Status::InvalidParam);
        }
        signed(&auth.id_key, &auth.id_block_signature, block.as_bytes())?;
        let author_key = if self.author {
            let id_key = auth.id_key.as_bytes();
            signed(&auth.author_key, &auth.id_key_signature, id_key)?;
            Some(auth.author_key.digest())
        } else {
            None
        };
        Ok(Proven {
            block: *block,
            id_key: auth.id_key.digest(),
            author_key,
        })
    }
}

fn signed(key: &WireKey, signature: &WireSignature, message: &[u8]) -> Result<(), Status> {
    match key.key() {
        Some(key) if signature.verifies(&key, message) => Ok(()),
        _ => Err(Status::BadSignature),
    }
}
