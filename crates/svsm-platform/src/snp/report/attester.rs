use core::fmt;

use super::{ChipKey, KeyRequest, ReportRequest};
use crate::{
    level::Vmpl,
    seam::Report,
    snp::message::{Aead, Channel, Error, GuestRequest, ResponsePage},
};

/// A channel, a way to the host, and a page for answers: what the [`Report`] seam needs.
pub struct Attester<'c, A, T> {
    channel: &'c mut Channel<A>,
    host: T,
    page: &'c mut ResponsePage,
    level: Vmpl,
    signer: ChipKey,
}

impl<'c, A: Aead, T: GuestRequest> Attester<'c, A, T> {
    /// Reports in the name of the channel's level, with whichever key the chip has.
    #[must_use]
    pub const fn new(channel: &'c mut Channel<A>, host: T, page: &'c mut ResponsePage) -> Self {
        let level = channel.level();
        Self {
            channel,
            host,
            page,
            level,
            signer: ChipKey::Any,
        }
    }

    /// The same in the name of `level`, the channel's or one below.
    #[must_use]
    pub fn for_level(self, level: Vmpl) -> Self {
        Self { level, ..self }
    }

    /// The same, signed by `signer`.
    #[must_use]
    pub fn signed_by(self, signer: ChipKey) -> Self {
        Self { signer, ..self }
    }
}

impl<A: Aead, T: GuestRequest> Report for Attester<'_, A, T> {
    type KeyRequest = KeyRequest;
    type Error = Error<T::Error>;

    fn report<'b>(
        &mut self,
        nonce: &[u8; 64],
        buffer: &'b mut [u8],
    ) -> Result<&'b [u8], Self::Error> {
        let request = ReportRequest {
            data: *nonce,
            level: self.level,
            signer: self.signer,
        };
        let report = self
            .channel
            .report(&request, &mut self.host, None, self.page)?;
        let needed = report.len();
        let place = buffer.get_mut(..needed).ok_or(Error::Buffer { needed })?;
        place.copy_from_slice(report);
        Ok(place)
    }

    fn derive_key(
        &mut self,
        request: &Self::KeyRequest,
        key: &mut [u8; 32],
    ) -> Result<(), Self::Error> {
        self.channel
            .derive_key(request, &mut self.host, self.page, key)
    }
}

impl<A, T> fmt::Debug for Attester<'_, A, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attester")
            .field("channel", &self.channel)
            .field("level", &self.level)
            .field("signer", &self.signer)
            .finish_non_exhaustive()
    }
}
