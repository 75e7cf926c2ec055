//! The programs, when they arrive in memory of the host instead of being loaded: copied first, and the copy checked.
#![expect(
    unsafe_code,
    reason = "reads memory that the host can change, and fills pages of the image"
)]

use core::ptr::{NonNull, with_exposed_provenance_mut};

use sha2::{Digest, Sha384 as Hasher};
use svsm_mm::table::Processor as Tlb;
use svsm_mm::window::{TempWindow, Window};
use svsm_platform::addr::{Gpa, GpaRange, Gva};
use svsm_platform::encryption::{Encryption, Visibility};
use svsm_platform::seam::PageState;
use svsm_platform::snp::insn::{Processor, RmpSize};
use svsm_platform::snp::{Error as SnpError, Pages, Reach};
use svsm_stage2::handoff::Handoff;
use svsm_stage2::staged::{self, Contents, Refused};

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
    let mut here = Here {
        window: handoff.window.gva,
        entries: handoff.window.table,
        encryption,
        archive: handoff.archive.map(|archive| archive.gpa_range()),
    };
    staged::receive(handoff, &mut here, Hash(Hasher::new()))
}

/// Memory as the first CPU reaches it before there is anything else.
#[derive(Clone, Copy)]
struct Here {
    window: Gva,
    entries: Gva,
    encryption: Encryption,
    /// What is still to be taken into use: all of it at once, since asking takes long.
    archive: Option<GpaRange>,
}

impl Here {
    fn slot(&self) -> Option<Gva> {
        self.window.checked_add(SLOT * 4096)
    }

    fn window(&self) -> Result<TempWindow<Tlb>, Failure> {
        let entry = self.entries.checked_add(SLOT * 8).and_then(pointer);
        let (entry, place) = entry
            .zip(self.slot().and_then(pointer))
            .ok_or(Failure::Bug)?;
        // SAFETY: the hand-off was checked: the entry translates the place, and nothing is in it between two uses by this CPU.
        Ok(unsafe { TempWindow::new(entry.cast(), place, 1, self.encryption, Tlb) }?)
    }
}

fn pointer(at: Gva) -> Option<NonNull<u8>> {
    NonNull::new(with_exposed_provenance_mut(at.as_u64() as usize))
}

// SAFETY: the window maps what it is asked for, as private, while the function runs.
unsafe impl Reach for Here {
    fn reaches_large(&self) -> bool {
        false
    }

    fn reach<R>(&mut self, page: Gpa, size: RmpSize, run: impl FnOnce(Gva) -> R) -> Option<R> {
        let (RmpSize::Size4K, Ok(window)) = (size, self.window()) else {
            return None;
        };
        // SAFETY: only the page's state is changed through this, by instructions that access nothing of it.
        let _shown = unsafe { window.map(page, Visibility::Private) }.ok()?;
        Some(run(self.slot()?))
    }
}

impl staged::Memory for Here {
    type Error = Failure;

    fn fetch(&mut self, shared: Gpa, into: &mut Contents) -> Result<(), Failure> {
        let window = self.window()?;
        // SAFETY: the page is shared with the host, which may change it at any time; each byte is read once.
        let page = unsafe { window.map(shared, Visibility::Shared) }?;
        Ok(page.read(0, into)?)
    }

    fn accept(&mut self, _: Gpa) -> Result<(), Failure> {
        match self.archive.take() {
            Some(range) if machine::is_snp() => {
                // SAFETY: the pages are the archive's, in which nothing is yet.
                let mut pages = unsafe { Pages::new(Processor, snp::ghcb(), *self) };
                pages
                    .make_private(range)
                    .map_err(|stopped| Failure::Snp(stopped.cause))
            }
            _ => Ok(()),
        }
    }

    fn write(&mut self, private: Gpa, contents: &Contents) -> Result<(), Failure> {
        let window = self.window()?;
        // SAFETY: the page is the archive's, which nobody looks at before all of it was checked.
        let page = unsafe { window.map(private, Visibility::Private) }?;
        Ok(page.write(0, contents)?)
    }

    fn read(&mut self, private: Gpa, into: &mut Contents) -> Result<(), Failure> {
        let window = self.window()?;
        // SAFETY: as above.
        let page = unsafe { window.map(private, Visibility::Private) }?;
        Ok(page.read(0, into)?)
    }
}

struct Hash(Hasher);

impl staged::Sha384 for Hash {
    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(self) -> [u8; 48] {
        self.0.finalize().into()
    }
}
