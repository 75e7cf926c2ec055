//! What a platform's firmware does with an image while it is loaded.

use super::error::Reason;
use crate::addr::Gpa;
use crate::phys::GuestMemory;

/// What a page of an image is to the launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageKind {
    /// Measured, with its contents.
    Normal,
    /// Private, but not measured.
    Unmeasured,
    /// Open to the host.
    Shared,
    /// Filled by the firmware with secrets.
    Secrets,
    /// Filled by the host with what CPUID shall say, and checked by the firmware.
    Cpuid,
    /// The registers of the first CPU.
    Vmsa,
}

/// A launch: told of each page of the image, in the file's order, after the page was written.
pub trait Launch {
    /// Takes a page.
    ///
    /// # Errors
    /// [`Reason::Launch`], or what is wrong with memory.
    fn page(
        &mut self,
        gpa: Gpa,
        kind: PageKind,
        memory: &mut impl GuestMemory,
    ) -> Result<(), Reason>;
}

/// The launch on a platform that has none.
#[derive(Clone, Copy, Debug)]
pub struct NoLaunch;

impl Launch for NoLaunch {
    fn page(&mut self, _: Gpa, _: PageKind, _: &mut impl GuestMemory) -> Result<(), Reason> {
        Ok(())
    }
}
