use super::{
    insn::Insn,
    msr::{MsrProtocol, Termination},
};
use crate::seam::{Reason, Terminate};

/// The set of reasons of this project: not the protocol's, not Linux's.
pub const REASON_SET: u8 = 4;

/// Ends the machine by the GHCB MSR: the host gets a reason of a few bits, and nothing else.
#[derive(Clone, Copy, Debug)]
pub struct Terminator<I>(MsrProtocol<I>);

impl<I: Insn> Terminator<I> {
    /// Ends it by `insn`.
    #[must_use]
    pub const fn new(insn: I) -> Self {
        Self(MsrProtocol::new(insn))
    }
}

/// The reasons as numbers of [`REASON_SET`] or of the protocol's own set.
///
/// | Reason | Set | Code |
/// |---|---|---|
/// | `General` | 0 | 0 |
/// | `ProtocolVersion` | 0 | 1 |
/// | `MissingFeature` | 0 | 2 |
/// | `HostViolation` | 4 | 1 |
/// | `BadImage` | 4 | 2 |
/// | `OutOfMemory` | 4 | 3 |
/// | in order | 4 | 0 |
impl From<Reason> for Termination {
    fn from(reason: Reason) -> Self {
        let (set, code) = match reason {
            Reason::General => (0, 0),
            Reason::ProtocolVersion => (0, 1),
            Reason::MissingFeature => (0, 2),
            Reason::HostViolation => (REASON_SET, 1),
            Reason::BadImage => (REASON_SET, 2),
            Reason::OutOfMemory => (REASON_SET, 3),
        };
        Self { set, code }
    }
}

impl<I: Insn> Terminate for Terminator<I> {
    /// In order: the protocol has no other way to end than to terminate, so this has a code of its own.
    fn power_off(&mut self) -> ! {
        self.0.terminate(Termination {
            set: REASON_SET,
            code: 0,
        })
    }

    fn fatal(&mut self, reason: Reason) -> ! {
        self.0.terminate(reason.into())
    }
}
