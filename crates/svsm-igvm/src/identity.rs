//! Signing who an image is: the ID block of SEV-SNP.
//!
//! An ID block names the launch digest for which it was made, so a host cannot use it for another image. Its key is not the
//! secret of any machine; keep it where releases are signed. Signatures repeat (RFC 6979): same image, same key, same bytes.

use core::fmt;
use std::path::Path;

use igvm::{Arch, IgvmDirectiveHeader, IgvmFile, IgvmRevision};
use igvm_defs::{IGVM_VHS_SNP_ID_BLOCK_PUBLIC_KEY, IGVM_VHS_SNP_ID_BLOCK_SIGNATURE};
use p384::SecretKey;
use p384::ecdsa::SigningKey;
use p384::pkcs8::DecodePrivateKey;
use svsm_sim::curve::{WireKey, WireSignature};
use svsm_sim::launch::{IdAuth, IdBlock};
use zerocopy::little_endian::{U32, U64};

use crate::digest::launch_digest;
use crate::error::{Error, Result};
use crate::file::{Architecture, ImageFile, PlatformType};
use crate::manifest::Identity;
use crate::reference::snp_facts;

/// The only page size of the format.
const PAGE_FIELD: u32 = 4096;

/// The largest file that is written again: the writer panics where an offset does not fit into 32 bits.
const MAX_BYTES: usize = 1 << 31;

/// The only version of an ID block.
const BLOCK_VERSION: u32 = 1;

/// The keys that sign an identity: P-384.
#[derive(Clone)]
pub struct Keys {
    id: SigningKey,
    author: Option<SigningKey>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(..)")
    }
}

/// Why something is not a private key that can sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyFault {
    /// It is encrypted.
    Encrypted,
    /// It is no private key of P-384, in SEC 1 or PKCS #8, PEM or DER.
    NotP384,
}

impl fmt::Display for KeyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Encrypted => "the key is encrypted; decrypt it first",
            Self::NotP384 => {
                "not a private key of the curve P-384 (SEC 1 or PKCS #8, in PEM or DER)"
            }
        })
    }
}

impl core::error::Error for KeyFault {}

impl Keys {
    /// The key that signs the identity, and, if there is one, the key of the author who vouches for that key.
    ///
    /// Both are private keys in PEM or DER, SEC 1 or PKCS #8.
    ///
    /// # Errors
    /// A [`KeyFault`] if one of them is no such key.
    pub fn parse(id: &[u8], author: Option<&[u8]>) -> core::result::Result<Self, KeyFault> {
        Ok(Self {
            id: key(id)?,
            author: author.map(key).transpose()?,
        })
    }

    /// Reads both from files.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Key`] with the file at fault.
    pub fn load(id: &Path, author: Option<&Path>) -> Result<Self> {
        let load = |path: &Path| {
            let bytes = std::fs::read(path).map_err(|source| Error::reading(path, source))?;
            key(&bytes).map_err(|fault| Error::Key {
                path: path.to_owned(),
                fault,
            })
        };
        Ok(Self {
            id: load(id)?,
            author: author.map(load).transpose()?,
        })
    }
}

fn key(bytes: &[u8]) -> core::result::Result<SigningKey, KeyFault> {
    const ENCRYPTED: [&str; 2] = ["-----BEGIN ENCRYPTED PRIVATE KEY", "Proc-Type: 4,ENCRYPTED"];
    let secret = match core::str::from_utf8(bytes) {
        Ok(text) if text.contains("-----BEGIN ") => {
            if ENCRYPTED.iter().any(|mark| text.contains(mark)) {
                return Err(KeyFault::Encrypted);
            }
            // Other blocks, such as parameters of the curve, may stand before the key.
            let block = |label: &str| {
                let start = text.find(&format!("-----BEGIN {label}-----"))?;
                let mark = format!("-----END {label}-----");
                let rest = text.get(start..)?;
                rest.get(..rest.find(&mark)? + mark.len())
            };
            block("EC PRIVATE KEY")
                .and_then(|block| SecretKey::from_sec1_pem(block).ok())
                .or_else(|| {
                    block("PRIVATE KEY").and_then(|block| SecretKey::from_pkcs8_pem(block).ok())
                })
        }
        _ => SecretKey::from_sec1_der(bytes)
            .ok()
            .or_else(|| SecretKey::from_pkcs8_der(bytes).ok()),
    };
    secret.map(SigningKey::from).ok_or(KeyFault::NotP384)
}

/// Signs the SEV-SNP part of an image: gives it an ID block for its launch digest, in place of any that it had.
///
/// # Errors
/// [`Error::File`] if the file is damaged, [`Error::NoSnp`] if it has no such part, [`Error::Foreign`] if it has headers that
/// cannot be written again.
pub fn sign(bytes: &[u8], identity: &Identity, keys: &Keys) -> Result<Vec<u8>> {
    if bytes.len() > MAX_BYTES {
        return Err(Error::TooLarge);
    }
    let digest = launch_digest(bytes)?.ok_or(Error::NoSnp)?;
    let read = ImageFile::read(bytes)?;
    let mut platforms = read.platforms().all().iter();
    let platform = platforms.find(|platform| platform.kind == PlatformType::SNP);
    let mask = platform.ok_or(Error::NoSnp)?.mask;
    let (policy, _) = snp_facts(&read);
    let block = IdBlock {
        launch_digest: digest.0,
        family_id: identity.family_id.0,
        image_id: identity.image_id.0,
        version: U32::new(BLOCK_VERSION),
        guest_svn: U32::new(identity.guest_svn),
        policy: U64::new(policy),
    };
    let auth = IdAuth::sign(&block, &keys.id, keys.author.as_ref());

    let file = IgvmFile::new_from_binary(bytes, None).map_err(|_| Error::Foreign)?;
    let is_old = |header: &IgvmDirectiveHeader| {
        matches!(header, IgvmDirectiveHeader::SnpIdBlock { compatibility_mask, .. }
            if compatibility_mask & mask != 0)
    };
    let mut directives: Vec<_> = file
        .directives()
        .iter()
        .filter(|header| !is_old(header))
        .cloned()
        .collect();
    // Pages stand behind everything else but contexts, so that all loaders measure alike.
    let pages = directives
        .iter()
        .position(|header| matches!(header, IgvmDirectiveHeader::PageData { .. }))
        .unwrap_or(directives.len());
    directives.insert(pages, header(mask, &block, &auth, keys.author.is_some()));
    let revision = revision(&read);
    let mut signed = Vec::new();
    IgvmFile::new(
        revision,
        file.platforms().to_vec(),
        file.initializations().to_vec(),
        directives,
    )
    .and_then(|file| file.serialize(&mut signed))
    .map_err(|_| Error::Foreign)?;
    // What was signed is what is there.
    if launch_digest(&signed)? != Some(digest) {
        return Err(Error::Foreign);
    }
    Ok(signed)
}

fn revision(file: &ImageFile<'_>) -> IgvmRevision {
    let fixed = file.fixed();
    let arch = match fixed.architecture {
        Architecture::X64 => Arch::X64,
        Architecture::AArch64 => Arch::AArch64,
    };
    match fixed.version {
        1 => IgvmRevision::V1,
        _ => IgvmRevision::V2 {
            arch,
            page_size: PAGE_FIELD,
        },
    }
}

fn header(mask: u32, block: &IdBlock, auth: &IdAuth, author: bool) -> IgvmDirectiveHeader {
    let signature = |wire: &WireSignature| {
        Box::new(IGVM_VHS_SNP_ID_BLOCK_SIGNATURE {
            r_comp: wire.r,
            s_comp: wire.s,
        })
    };
    let key = |wire: &WireKey| {
        Box::new(IGVM_VHS_SNP_ID_BLOCK_PUBLIC_KEY {
            curve: wire.curve.get(),
            reserved: 0,
            qx: wire.x,
            qy: wire.y,
        })
    };
    IgvmDirectiveHeader::SnpIdBlock {
        compatibility_mask: mask,
        author_key_enabled: author.into(),
        reserved: [0; 3],
        ld: block.launch_digest,
        family_id: block.family_id,
        image_id: block.image_id,
        version: block.version.get(),
        guest_svn: block.guest_svn.get(),
        id_key_algorithm: auth.id_key_algorithm.get(),
        author_key_algorithm: auth.author_key_algorithm.get(),
        id_key_signature: signature(&auth.id_block_signature),
        id_public_key: key(&auth.id_key),
        author_key_signature: signature(&auth.id_key_signature),
        author_public_key: key(&auth.author_key),
    }
}
