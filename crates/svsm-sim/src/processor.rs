//! The security processor's answers to guests: encrypted messages through pages that the host carries (56860, "Guest
//! Messages").
//!
//! [`Guest::answer`] takes the page of a request and fills that of the answer. It needs no randomness: sequence numbers are
//! the nonces, and signatures follow from key and message.

mod key;
mod message;
mod report;

pub use message::{Header, MessageType};

use crate::cpuid::{CpuidPage, Host, Rejected};
use crate::endorsement::Endorsement;
use crate::launch::{Chip, Guest, GuestState};
use crate::report::ReportVersion;
use crate::status::Status;
use message::{Payload, Request};
use zerocopy::{FromZeros, IntoBytes};

/// What a security processor has at hand when it answers.
#[derive(Clone, Copy, Debug)]
pub struct SecurityProcessor<'a, H> {
    /// The machine.
    pub chip: &'a Chip<H>,
    /// Its keys.
    pub endorsement: &'a Endorsement,
    /// Which layout its reports have.
    pub report_version: ReportVersion,
}

impl Guest {
    /// Answers the message in `request` (`SNP_GUEST_REQUEST`). A request that makes sense as a message is answered, if only
    /// with a status; its key's sequence moves on by two.
    ///
    /// # Errors
    /// What the host reads instead, and hands to the guest as the low word of `SW_EXITINFO2`: `response` and the sequence
    /// are as before. [`Status::InvalidParam`] for a header that makes no sense, [`Status::BadMeasurement`] for a message
    /// that is not the guest's own, [`Status::AeadOverflow`] for one that is out of sequence.
    pub fn answer<H: Host>(
        &mut self,
        processor: &SecurityProcessor<'_, H>,
        request: &[u8; 4096],
        response: &mut [u8; 4096],
    ) -> Result<(), Status> {
        self.expect(GuestState::Running)?;
        let request = Request::open(request, &self.keys.vmpck, &self.message_counts)?;
        let mut payload = Payload::new();
        let kind = MessageType::try_from(request.header.message_type)?;
        let len = match kind {
            MessageType::CpuidRequest => cpuid(processor, &request, &mut payload)?,
            MessageType::KeyRequest => self.derived_key(processor, &request, &mut payload)?,
            MessageType::ReportRequest => self.report(processor, &request, &mut payload)?,
            MessageType::TscInfoRequest => self.tsc_info(processor, &request, &mut payload)?,
        };
        request.answer(&self.keys.vmpck, &payload, len, response)?;
        // Above, the sequence was found to have room for this.
        if let Some(count) = self.message_counts.get_mut(request.key_index()) {
            *count = count.saturating_add(2);
        }
        Ok(())
    }

    /// `MSG_TSC_INFO_RSP`: status, scale, offset, factor.
    fn tsc_info<H: Host>(
        &self,
        processor: &SecurityProcessor<'_, H>,
        request: &Request,
        payload: &mut Payload,
    ) -> Result<usize, Status> {
        const LEN: usize = 128;
        let asked = request.payload(LEN, 1)?;
        if asked.iter().any(|byte| *byte != 0) {
            payload.status(Status::InvalidParam);
            return Ok(LEN);
        }
        let scale = processor.chip.tsc_scale(self.start.tsc_khz);
        payload.put(0x08, &scale.to_le_bytes());
        payload.put(0x18, &processor.chip.tsc_factor.to_le_bytes());
        Ok(LEN)
    }
}

/// `MSG_CPUID_RSP`: a CPUID table with the rest of its page left out, and what the security processor makes of it.
fn cpuid<H: Host>(
    processor: &SecurityProcessor<'_, H>,
    request: &Request,
    payload: &mut Payload,
) -> Result<usize, Status> {
    const LEN: usize = 0xc10;
    let asked = request.payload(LEN, 1)?;
    let mut table: CpuidPage = FromZeros::new_zeroed();
    for (to, from) in table.as_mut_bytes().iter_mut().zip(asked) {
        *to = *from;
    }
    let checked = table.sanitize(&processor.chip.host);
    // The answer has the status where the question has the count, and the count behind it.
    if checked != Err(Rejected::Malformed) {
        payload.put(0x10, table.entries().as_bytes());
        payload.put(0x04, table.count.as_bytes());
    }
    if checked.is_err() {
        payload.status(Status::InvalidParam);
    }
    Ok(LEN)
}
