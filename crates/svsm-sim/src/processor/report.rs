//! Reports, on demand of a guest.

use super::SecurityProcessor;
use super::message::{Payload, Request};
use crate::cpuid::Host;
use crate::curve::{ALGORITHM_P384_SHA384, WireSignature};
use crate::launch::{Chip, Guest};
use crate::report::{Report, ReportVersion};
use crate::status::Status;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The question.
#[derive(FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct ReportRequest {
    report_data: [u8; 64],
    vmpl: U32,
    select: U32,
    reserved_48: [u8; 24],
}
const _: () = assert!(size_of::<ReportRequest>() == 0x60);

impl Guest {
    /// `MSG_REPORT_RSP`: status, length of the report, the report.
    pub(super) fn report<H: Host>(
        &self,
        processor: &SecurityProcessor<'_, H>,
        request: &Request,
        payload: &mut Payload,
    ) -> Result<usize, Status> {
        const HEAD: usize = 0x20;
        let asked = request.payload(size_of::<ReportRequest>(), 1)?;
        let question = ReportRequest::read_from_bytes(asked).map_err(|_| Status::InvalidParam)?;
        payload.put(0x04, &0x4a0_u32.to_le_bytes());
        match self.write_report(processor, request.header.vmpck, &question) {
            Ok(report) => payload.put(HEAD, report.as_bytes()),
            Err(status) => payload.status(status),
        }
        Ok(HEAD + size_of::<Report>())
    }

    fn write_report<H: Host>(
        &self,
        processor: &SecurityProcessor<'_, H>,
        vmpck: u8,
        question: &ReportRequest,
    ) -> Result<Report, Status> {
        let select = question.select.get();
        if select >> 2 != 0 || question.reserved_48 != [0; 24] {
            return Err(Status::InvalidParam);
        }
        self.chip_key_allowed(select)?;
        let vmpl = question.vmpl.get();
        // Nobody speaks for a level above.
        if vmpl < u32::from(vmpck) || vmpl > 3 {
            return Err(Status::InvalidParam);
        }
        let mut report = self.unsigned_report(processor.chip, processor.report_version);
        report.vmpl = question.vmpl;
        report.report_data = question.report_data;
        let key = processor.endorsement.vcek();
        report.signature = WireSignature::sign(key, report.signed_part());
        Ok(report)
    }

    fn unsigned_report<H: Host>(&self, chip: &Chip<H>, version: ReportVersion) -> Report {
        let tcb = U64::new(chip.tcb.to_u64());
        let firmware = [chip.build, chip.abi.1, chip.abi.0];
        let mut report: Report = FromZeros::new_zeroed();
        report.version = U32::new(version.number());
        report.policy = U64::new(self.start.policy.bits());
        report.signature_algorithm = U32::new(ALGORITHM_P384_SHA384);
        report.platform_info = U64::new(chip.info.bits());
        report.measurement = self.measurement.0;
        report.host_data = self.host_data;
        if let Some(identity) = &self.identity {
            report.guest_svn = identity.block.guest_svn;
            report.family_id = identity.block.family_id;
            report.image_id = identity.block.image_id;
            report.id_key_digest = identity.id_key;
            if let Some(author_key) = identity.author_key {
                report.author_key_digest = author_key;
                report.flags = U32::new(Report::AUTHOR_KEY);
            }
        }
        report.report_id = self.report_id;
        report.report_id_ma = [0xff; 32];
        report.chip_id = chip.id;
        // The machine in software has one set of versions, which it runs, reports and has committed to.
        (
            report.current_tcb,
            report.reported_tcb,
            report.committed_tcb,
        ) = (tcb, tcb, tcb);
        (report.current_version, report.committed_version) = (firmware, firmware);
        report.launch_tcb = U64::new(self.launch_tcb.to_u64());
        if version >= ReportVersion::V3 {
            // Family, model and stepping, each with its extended part: the bytes of the signature, nibble by nibble.
            let [low, high, middle, top] = chip.signature().to_le_bytes();
            let extended_family = middle >> 4 | top << 4;
            report.cpuid_family = (high & 0xf).wrapping_add(extended_family);
            report.cpuid_model = low >> 4 | middle << 4;
            report.cpuid_stepping = low & 0xf;
        }
        if version >= ReportVersion::V5 {
            report.launch_mitigations = U64::new(self.launch_mitigations);
            report.current_mitigations = U64::new(chip.mitigations);
        }
        report
    }
}
