//! What an attestation report of a guest must say if the guest came from an image.

use core::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha384};

use crate::digest::{LaunchDigest, launch_digest};
use crate::error::{Error, Result};
use crate::file::{Body, ImageFile, PlatformType, SnpIdBlock};
use crate::hex::{Hex, IdName};

/// The size of a public key as the security processor keeps it, and as reports hash it (56860, "ECDSA P-384 Public Key").
const KEY_BYTES: usize = 0x404;

/// What an attestation report must say of a guest that was launched from an image on SEV-SNP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[non_exhaustive]
pub struct Reference {
    /// The launch digest.
    pub launch_digest: LaunchDigest,
    /// The guest policy.
    pub policy: u64,
    /// Who its owner says that it is, if that is signed. Without a signature of its owner, an image has no say in it: a host
    /// can launch it with an identity of the host's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<SignedIdentity>,
}

/// A signed identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[non_exhaustive]
pub struct SignedIdentity {
    /// The name of the family of images.
    pub family_id: IdName,
    /// The name of the image.
    pub image_id: IdName,
    /// The security version of the image.
    pub guest_svn: u32,
    /// The digest of the key that signed.
    pub id_key_digest: Hex<48>,
    /// The digest of the key that signed that key, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author_key_digest: Option<Hex<48>>,
}

impl Reference {
    /// What the SEV-SNP part of an image stands for; `None` if it has no such part.
    ///
    /// # Errors
    /// [`Error::File`] if the file is damaged, [`Error::StaleIdentity`] if its ID block is for another
    /// launch digest, so that it could not be launched.
    pub fn of(bytes: &[u8]) -> Result<Option<Self>> {
        let Some(launch_digest) = launch_digest(bytes)? else {
            return Ok(None);
        };
        let file = ImageFile::read(bytes)?;
        let (policy, block) = snp_facts(&file);
        if block.is_some_and(|block| *block.launch_digest != launch_digest.0) {
            return Err(Error::StaleIdentity);
        }
        Ok(Some(Self {
            launch_digest,
            policy,
            identity: block.map(|block| SignedIdentity::of(&block)),
        }))
    }
}

/// The policy and the identity that a file has for SEV-SNP. Where there is no policy, launches use none.
pub(crate) fn snp_facts<'a>(file: &ImageFile<'a>) -> (u64, Option<SnpIdBlock<'a>>) {
    let mut platforms = file.platforms().all().iter();
    let mask = platforms
        .find(|platform| platform.kind == PlatformType::SNP)
        .map_or(0, |platform| platform.mask);
    let (mut policy, mut identity) = (0, None);
    for header in file.headers() {
        match &header.body {
            Body::GuestPolicy {
                mask: of,
                policy: found,
            } if of & mask != 0 => policy = *found,
            Body::SnpIdBlock(block) if block.mask & mask != 0 => identity = Some(*block),
            _ => {}
        }
    }
    (policy, identity)
}

impl SignedIdentity {
    fn of(block: &SnpIdBlock<'_>) -> Self {
        Self {
            family_id: IdName(block.family_id),
            image_id: IdName(block.image_id),
            guest_svn: block.guest_svn,
            id_key_digest: key_digest(block.id_key),
            author_key_digest: block.author_key.map(key_digest),
        }
    }
}

/// What reports call the digest of a key: that of the security processor's structure, which lacks the file's reserved word.
fn key_digest(key: &[u8; 152]) -> Hex<48> {
    let mut wire = [0; KEY_BYTES];
    let (curve, rest) = key.split_at(4);
    let numbers = rest.iter().skip(4);
    for (to, from) in wire.iter_mut().zip(curve.iter().chain(numbers)) {
        *to = *from;
    }
    Hex(Sha384::digest(wire).into())
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "SEV-SNP launch digest: {}", self.launch_digest)?;
        writeln!(f, "guest policy: {:#x}", self.policy)?;
        let Some(identity) = &self.identity else {
            return Ok(());
        };
        let SignedIdentity {
            family_id,
            image_id,
            guest_svn,
            id_key_digest,
            author_key_digest,
        } = identity;
        writeln!(
            f,
            "signed as: family \"{family_id}\", image \"{image_id}\", security version {guest_svn}"
        )?;
        writeln!(f, "ID key digest: {id_key_digest}")?;
        if let Some(digest) = author_key_digest {
            writeln!(f, "author key digest: {digest}")?;
        }
        Ok(())
    }
}
