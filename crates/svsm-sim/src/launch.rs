//! The launch of a guest: start, pages, finish (56860, `SNP_LAUNCH_START`, `SNP_LAUNCH_UPDATE`, `SNP_LAUNCH_FINISH`).
//!
//! [`Guest`] is what the security processor keeps of a guest: its context page. Commands in a wrong order fail as those of
//! the firmware do, so a host that lies can be played against it. Pages come one by one, 4 KiB each; larger ones do not
//! exist here, and neither do migration agents and initial migration images.

mod guest;
mod identity;
mod measure;
mod policy;

pub use guest::{Chip, Guest, GuestState, Start, Tcb, Update};
pub use identity::{IdAuth, IdBlock, Identity};
pub use measure::Measurement;
pub use policy::{PlatformInfo, Policy};

use crate::status::Status;

/// What a page of a launch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PageType {
    /// Data that is measured.
    Normal = 1,
    /// Registers of a virtual processor.
    Vmsa = 2,
    /// Zeros, whatever the host put there.
    Zero = 3,
    /// Data that is not measured.
    Unmeasured = 4,
    /// The secrets page.
    Secrets = 5,
    /// The CPUID page.
    Cpuid = 6,
}

impl PageType {
    /// Its number on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

impl TryFrom<u8> for PageType {
    type Error = Status;

    fn try_from(number: u8) -> Result<Self, Status> {
        Ok(match number {
            1 => Self::Normal,
            2 => Self::Vmsa,
            3 => Self::Zero,
            4 => Self::Unmeasured,
            5 => Self::Secrets,
            6 => Self::Cpuid,
            _ => return Err(Status::InvalidParam),
        })
    }
}
