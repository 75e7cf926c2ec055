//! The endorsement key that the SVSM's attestation report vouches for: the manifest of version 0 is its public area.

use svsm_user::{process, service::Service};
use svsm_vtpm::endorsement::{EndorsementKey, PUBLIC_MAX};
use svsm_vtpm::{EndorsementMark, Tpm};

use super::Failure;

/// What is published, and when it no longer holds.
pub(super) struct Manifest(EndorsementMark);

impl Manifest {
    /// Publishes the key for P-256 (TCG EK Credential Profile, "Template L-2"): what other software makes of this template is the same
    /// key, and it takes no search as an RSA key does.
    pub(super) fn publish(tpm: &mut Tpm<'_>, service: &Service) -> Result<Self, Failure> {
        let template = EndorsementKey::P256.template();
        let mut public = [0; PUBLIC_MAX];
        let len = tpm
            .endorsement_key(template.as_slice(), &mut public, process::yield_now)
            .map_err(|_| Failure::Endorsement)?;
        service.publish(public.get(..len).ok_or(Failure::Endorsement)?)?;
        tpm.endorsement_mark()
            .map(Self)
            .map_err(|_| Failure::Endorsement)
    }

    /// Publishes the new key if the last command made the old one nobody's (`TPM2_ChangeEPS`). To be called before that command is
    /// answered, so that who knows of the change finds nothing old. Without a new key the TPM had better end: what it is, nobody says.
    pub(super) fn follow(&mut self, tpm: &mut Tpm<'_>, service: &Service) -> Result<(), Failure> {
        if tpm.endorsement_mark() != Ok(self.0) {
            *self = Self::publish(tpm, service)?;
        }
        Ok(())
    }
}
