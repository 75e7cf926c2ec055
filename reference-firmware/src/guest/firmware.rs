//! Firmware as the guest: it finds itself below 4 GiB with the pages that its list asks for, and validates all other memory by
//! calls, when it wants to.

use svsm_guest::firmware::{Contents, Firmware, Section};
use svsm_platform::addr::{Gpa, GpaRange};
use svsm_platform::seam::Stopped;
use svsm_platform::snp::Error;
use svsm_platform::snp::vmsa::Vmsa;

use super::launch::{Secrets, loaded_pages, write, write_cpuid};
use super::memory::Machine;
use super::{Facts, Failure};
use crate::machine::snp;

/// Where an x86 processor starts after a reset.
const RESET_VECTOR: u32 = 0xffff_fff0;

/// Puts the firmware into place, with what it asks for. Answers how its first CPU starts, and where that calls us.
pub(super) fn lay_out(
    facts: &Facts,
    file: &[u8],
    machine: &mut Machine,
) -> Result<(Vmsa, Gpa), Failure> {
    let failed = |stopped: Stopped<Error>| Failure::Snp(stopped.cause);
    let firmware = Firmware::for_svsm(file).map_err(Failure::Layout)?;
    let page = |at: u32| Gpa::new(at.into()).ok_or(Failure::Memory);
    let calling_area = firmware.page(Contents::CallingArea);
    let calling_area = page(calling_area.ok_or(Failure::NoKernel)?)?;
    let home = range(firmware.base(), file.len() as u64)?;

    // Nothing but the image says where the SVSM is, and a wrong one must not give it away.
    if home.overlaps(&facts.svsm) || home.overlaps(&facts.loaded) {
        return Err(Failure::Memory);
    }

    let mut secrets = Some(Secrets::take(facts, calling_area, machine)?);
    // Memory that is the guest's already when it validates it is none that it may trust.
    for range in facts.map.ranges() {
        for page in loaded_pages(facts, &range)? {
            machine.give_up(page).map_err(Failure::Snp)?;
        }
    }
    machine.prepare(home, facts.level).map_err(failed)?;
    write(machine, firmware.base(), file).map_err(|_| Failure::Memory)?;
    for section in firmware.sections() {
        let Section { gpa, bytes, .. } = section;
        let range = range(gpa.into(), bytes.into())?;
        if !facts.map.ranges().any(|ram| ram.contains_range(&range)) {
            return Err(Failure::Memory);
        }
        machine.prepare(range, facts.level).map_err(failed)?;
        match section.contents {
            Contents::Secrets => {
                let secrets = secrets.take().ok_or(Failure::NoKernel)?;
                secrets.write(machine, page(gpa)?)?;
            }
            Contents::Cpuid => write_cpuid(machine, page(gpa)?)?,
            // All of it is clear: there are no digests of a kernel. Plain OVMF then takes any; builds that want them take none.
            Contents::Zero | Contents::CallingArea | Contents::KernelHashes => {}
        }
    }
    let signature = snp::cpuid().and_then(|page| page.entry(1, 0));
    let signature = signature.ok_or(Failure::NoKernel)?.registers().eax;
    let vmsa = Vmsa::reset_vector(RESET_VECTOR, signature, facts.level, facts.features);
    Ok((vmsa, calling_area))
}

fn range(start: u64, bytes: u64) -> Result<GpaRange, Failure> {
    let start = Gpa::new(start).ok_or(Failure::Memory)?;
    GpaRange::new(start, bytes).ok_or(Failure::Memory)
}
