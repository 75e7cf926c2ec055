//! The programs, when they arrive in memory of the host instead of being loaded: copied first, and the copy checked.
#![expect(
    unsafe_code,
    reason = "reads memory that the host can change, and fills pages of the image"
)]

use core::ptr::{NonNull, with_exposed_provenance_mut};

use sha2::{Digest, Sha384};
use svsm_mm::table::Processor as Tlb;
use svsm_mm::window::TempWindow;
use svsm_platform::addr::Gva;
use svsm_platform::encryption::Encryption;
use svsm_platform::seam::PageState;
use svsm_platform::snp::insn::Processor;
use svsm_platform::snp::{Error as SnpError, Pages};
use svsm_stage2::handoff::Handoff;
use svsm_stage2::staged::{self, Payload, Refused, Windowed};

use crate::machine::snp;
use crate::{machine, smp};

/// The slot of the hand-off's window that is used here: the first CPU's own, for pages that are not the SVSM's yet. The CPU has
/// no other use for it before there is a guest.
const SLOT: u64 = smp::MAX_CPUS as u64;

/// Why a page of the archive cannot be reached.
#[derive(Clone, Copy, Debug, defmt::Format)]
pub(crate) enum Failure {
    /// The window does not show it.
    Window(svsm_mm::Error),
    /// The host does not give it, or the processor does not take it.
    Snp(SnpError),
    /// A limit of this firmware.
    Bug,
}

impl From<svsm_mm::Error> for Failure {
    fn from(error: svsm_mm::Error) -> Self {
        Self::Window(error)
    }
}

/// Brings the archive to where it belongs, if it arrives elsewhere. Answers how many pages that were.
///
/// # Errors
/// What the host did not do, or that the archive is not what the image says.
#[inline(never)]
pub(crate) fn receive(handoff: &Handoff, encryption: Encryption) -> Result<u64, Refused<Failure>> {
    let mut rest = handoff.archive.map(|archive| archive.gpa_range());
    let accept = |window: &TempWindow<Tlb>, _| match rest.take() {
        // All of it at once, since asking takes long.
        Some(range) if machine::is_snp() => {
            // SAFETY: the pages are the archive's, in which nothing is yet.
            let mut pages = unsafe { Pages::new(Processor, snp::ghcb(), window) };
            pages
                .make_private(range)
                .map_err(|stopped| Failure::Snp(stopped.cause))
        }
        _ => Ok(()),
    };
    let window = window(handoff, encryption);
    let window = window.map_err(|cause| Refused::Page {
        payload: Payload::Archive,
        page: handoff.svsm.start(),
        cause,
    })?;
    // SAFETY: nobody looks at the archive before all of it was checked.
    let mut memory = unsafe { Windowed::new(window, accept) };
    staged::receive(handoff, &mut memory, Sha384::new())
}

/// The slot as a window.
fn window(handoff: &Handoff, encryption: Encryption) -> Result<TempWindow<Tlb>, Failure> {
    let pointer = |base: Gva, offset: u64| {
        let at = base.checked_add(offset).ok_or(Failure::Bug)?;
        NonNull::new(with_exposed_provenance_mut::<u8>(at.as_u64() as usize)).ok_or(Failure::Bug)
    };
    let entry = pointer(handoff.window.table, SLOT * 8)?;
    let place = pointer(handoff.window.gva, SLOT * 4096)?;
    // SAFETY: the hand-off was checked: the entry translates the place, and nothing is in it between two uses by this CPU.
    Ok(unsafe { TempWindow::new(entry.cast(), place, 1, encryption, Tlb) }?)
}
