//! Messages to the security processor, which the host carries (56421, "SNP guest request").

use super::Snp;
use super::launch::chip;
use super::shared::HostView;
use crate::liar::Effect;
use crate::personality::Hardware;
use crate::phys::HostMemory;
use svsm_sim::endorsement::Endorsement;
use svsm_sim::fault::{Fault, Fired};
use svsm_sim::ghcb::{Malformed, Reply};
use svsm_sim::processor::SecurityProcessor;
use svsm_sim::report::ReportVersion;

/// The pages that certificates take.
const CERTIFICATE_PAGES: usize = 1;
/// The host's own error in the upper half of the error word: the room for certificates is too small.
const INVALID_LENGTH: u64 = 1 << 32;

/// The host's own error in the upper half: to be tried again.
const BUSY: u64 = 2 << 32;

/// Changes one bit of a message: of its header behind the sequence number, or of what is in it.
fn flip(message: &mut [u8; 4096], fired: &Fired) {
    // The authentication tag, the numbers and the header end at 0x60; the length of what follows is at 0x3a.
    let length = u16::from_le_bytes([message[0x3a], message[0x3b]]);
    let at = match fired.below(0, 2) {
        0 => fired.below(1, 0x20),
        _ => 0x60 + fired.below(1, u64::from(length).clamp(1, 0xfa0)),
    };
    if let Some(byte) = usize::try_from(at).ok().and_then(|at| message.get_mut(at)) {
        *byte ^= 1 << fired.below(2, 8);
    }
}

impl<M: HostMemory> Snp<'_, '_, M> {
    /// Carries a message. `data` is where certificates go and how many pages there are, for the extended request.
    pub(super) fn request(
        &mut self,
        request: u64,
        response: u64,
        data: Option<(u64, u64)>,
        hardware: &mut (impl Hardware + Clone),
    ) -> Reply {
        let chip = chip(hardware.clone());
        let endorsement = Endorsement::new(&chip);
        let mut pages = [0; CERTIFICATE_PAGES * 4096];
        if let Some((_, count)) = data {
            let needed = match endorsement.certificate_table(&mut pages) {
                Ok(()) => CERTIFICATE_PAGES as u64,
                Err(bytes) => bytes.div_ceil(4096) as u64,
            };
            if count < needed {
                return Reply {
                    rbx: Some(needed),
                    ..Reply::with_info2(INVALID_LENGTH)
                };
            }
        }
        if self.lies(Fault::BusyProcessor).is_some() {
            return Reply::with_info2(BUSY);
        }
        let mut owned = self.shared.state.lock();
        let mut message = [0; 4096];
        let mut answer = [0; 4096];
        let mut view = HostView {
            map: &self.shared.map,
            rmp: &owned.rmp,
            memory: &mut self.memory,
        };
        if !view.read(request, &mut message) || !view.read(response, &mut answer) {
            return Reply::malformed(Malformed::InvalidInput);
        }
        if let Some((at, _)) = data
            && !view.write(at, &pages)
        {
            return Reply::malformed(Malformed::InvalidInput);
        }
        if let Some(fired) = self.lies(Fault::TamperedRequest) {
            flip(&mut message, &fired);
        }
        let processor = SecurityProcessor {
            chip: &chip,
            endorsement: &endorsement,
            report_version: ReportVersion::V3,
        };
        if let Err(status) = owned.guest.answer(&processor, &message, &mut answer) {
            return Reply::with_info2(u64::from(status.code()));
        }
        let before = self.liar.lock().response.replace(answer);
        if let Some(fired) = self.lies(Fault::TamperedResponse) {
            flip(&mut answer, &fired);
        }
        if self.lies(Fault::ReplayedResponse).is_some() {
            match before {
                Some(before) => answer = before,
                None => self.effect = Some(Effect::Nothing("there was no response before")),
            }
        }
        let mut view = HostView {
            map: &self.shared.map,
            rmp: &owned.rmp,
            memory: &mut self.memory,
        };
        if view.write(response, &answer) {
            Reply::DONE
        } else {
            Reply::malformed(Malformed::InvalidInput)
        }
    }
}
