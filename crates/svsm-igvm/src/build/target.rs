//! The platforms of an image, and what differs between them.

use svsm_stage2::handoff::{self, EncryptionKind, Handoff};
use svsm_stage2::plan::Plan;

use super::{native, snp};
use crate::error::{Error, Result};
use crate::manifest::{Manifest, Platform};

/// A platform that can be built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Native,
    Snp,
}

impl Target {
    /// Those of a manifest that has been checked.
    pub(super) fn all(manifest: &Manifest) -> Result<Vec<Self>> {
        let targets = manifest.platforms.iter().map(|platform| match platform {
            Platform::Native => Ok(Self::Native),
            Platform::Snp => Ok(Self::Snp),
            Platform::Tdx => Err(Error::Bug),
        });
        targets.collect()
    }

    /// Its bit in compatibility masks.
    pub(super) const fn mask(self) -> u32 {
        match self {
            Self::Native => native::MASK,
            Self::Snp => snp::MASK,
        }
    }

    /// The hand-off for it. Everything lies in the same places for all.
    pub(super) const fn handoff(self, plan: &Plan) -> Handoff {
        let mut handoff = plan.handoff;
        (handoff.platform, handoff.encryption) = match self {
            Self::Native => (handoff::Platform::Native, EncryptionKind::None),
            Self::Snp => (handoff::Platform::Snp, EncryptionKind::CBit),
        };
        handoff
    }
}
