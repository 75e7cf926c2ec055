//! The SVSM, when it arrives in memory of the host instead of being loaded: copied first, and the copy checked.

#![expect(unsafe_code, reason = "fills pages of the image")]

use core::fmt;

use sha2::{Digest, Sha384};
use svsm_mm::table::Processor as Tlb;
use svsm_mm::window::TempWindow;
use svsm_platform::Blame;
use svsm_platform::addr::Gpa;
use svsm_platform::seam::Reason;
use svsm_platform::snp::insn::{Processor, RmpSize};
use svsm_platform::snp::{Error as SnpError, HvFeatures, MsrProtocol, Pages};
use svsm_stage2::handoff::{Handoff, Platform};
use svsm_stage2::staged::{self, InPlace, Refused, Windowed};

/// Why a page of the SVSM cannot be reached.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cause {
    /// The window does not show it.
    Window(svsm_mm::Error),
    /// The host does not give it, or the processor does not take it.
    Snp(SnpError),
}

impl From<svsm_mm::Error> for Cause {
    fn from(error: svsm_mm::Error) -> Self {
        Self::Window(error)
    }
}

impl From<SnpError> for Cause {
    fn from(error: SnpError) -> Self {
        Self::Snp(error)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Window(error) => error.fmt(f),
            Self::Snp(error) => error.fmt(f),
        }
    }
}

/// Why there is no SVSM to start.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Failure {
    /// What the image says cannot be.
    Image(svsm_stage2::Error),
    /// The host does not speak as it has to.
    Host(SnpError),
    /// It did not arrive as it was sent.
    Arrival(Refused<Cause>),
}

impl Failure {
    /// What the host is told.
    pub(crate) fn reason(&self) -> Reason {
        let blame = match self {
            Self::Image(_) => return Reason::BadImage,
            Self::Host(SnpError::ProtocolVersion) => return Reason::ProtocolVersion,
            Self::Host(SnpError::Request) => return Reason::MissingFeature,
            Self::Host(error) => Some(error.blame()),
            Self::Arrival(Refused::Page {
                cause: Cause::Snp(error),
                ..
            }) => Some(error.blame()),
            Self::Arrival(refused) => refused.blame(),
        };
        match blame {
            Some(Blame::Host) => Reason::HostViolation,
            _ => Reason::BadImage,
        }
    }
}

impl From<svsm_stage2::Error> for Failure {
    fn from(error: svsm_stage2::Error) -> Self {
        Self::Image(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(error) => error.fmt(f),
            Self::Host(error) => error.fmt(f),
            Self::Arrival(refused) => refused.fmt(f),
        }
    }
}

/// Brings the SVSM to where it belongs, if it arrives elsewhere.
///
/// Not inlined: its pages leave the stack, which is small, before the tables are looked at.
#[inline(never)]
pub(crate) fn receive(handoff: &Handoff, window: &TempWindow<Tlb>) -> Result<InPlace, Failure> {
    let is_snp = handoff.platform == Platform::Snp;
    if is_snp && handoff.staged_svsm.is_some() {
        greet().map_err(Failure::Host)?;
    }
    let accept = |window: &&TempWindow<Tlb>, page| match is_snp {
        true => take(window, page),
        false => Ok(()),
    };
    // SAFETY: nothing of the SVSM is in its pages yet, and stage2 itself has none of them.
    let mut memory = unsafe { Windowed::new(window, accept) };
    staged::receive_svsm(handoff, &mut memory, Sha384::new()).map_err(Failure::Arrival)
}

/// Agrees on a version of the protocol before anything is asked for.
fn greet() -> Result<(), SnpError> {
    let host = MsrProtocol::new(Processor);
    host.sev_info()?.version()?;
    if host.features()?.contains(HvFeatures::SNP) {
        Ok(())
    } else {
        Err(SnpError::Request)
    }
}

/// Has the host give a page, and takes it. There is no page to share with the host yet, so that each takes an exit.
fn take(window: &TempWindow<Tlb>, page: Gpa) -> Result<(), Cause> {
    // SAFETY: the page is one of the SVSM's, in which nothing is yet.
    unsafe { MsrProtocol::new(Processor).change_page(page, true) }?;
    // SAFETY: as above.
    let mut pages = unsafe { Pages::new(Processor, None, window) };
    Ok(pages.validate(page, RmpSize::Size4K, true)?)
}
