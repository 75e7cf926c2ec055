use core::fmt;

use serde::{Deserialize, Serialize};
use svsm_sim::fault::{Class as Subject, Expected, Fault};

use crate::verdict::Crash;
use crate::{Outcome, Verdict};

/// What came of a run against a host that lies.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Class {
    /// The same end as with an honest host.
    Correct,
    /// An orderly end of another kind: the firmware said that it failed, or did not get as far as what was expected.
    Refused,
    /// The firmware asked to be ended, with a reason.
    Terminated,
    /// The hardware, or the host itself, stopped it: an access to a page that a lie had left with another owner, the
    /// reset that was the lie, or an NMI before there was a handler for one. Nothing wrong was used.
    Stopped,
    /// It panicked: with a reason, but not in the way in which it should end.
    Panicked,
    /// It neither ended nor went on: time ran out, or all CPUs halted.
    Hang,
    /// It lost control: a triple fault, a reset of its own, a state that no CPU can be in, an access to nothing.
    Crash,
    /// It broke the rules of memory ownership, and no lie had changed them.
    Violation,
    /// The testbed failed; the image is not to blame.
    Error,
    /// Somebody stopped it.
    Interrupted,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Correct,
        Self::Refused,
        Self::Terminated,
        Self::Stopped,
        Self::Panicked,
        Self::Hang,
        Self::Crash,
        Self::Violation,
        Self::Error,
        Self::Interrupted,
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Correct => "correct",
            Self::Refused => "refused",
            Self::Terminated => "terminated",
            Self::Stopped => "stopped",
            Self::Panicked => "PANICKED",
            Self::Hang => "HANG",
            Self::Crash => "CRASH",
            Self::Violation => "VIOLATION",
            Self::Error => "error",
            Self::Interrupted => "interrupted",
        }
    }

    /// Whether a run may end so if this was the worst that had to be expected of the lies that were told; `None`: no lie was.
    #[must_use]
    pub const fn may_come_of(self, worst: Option<Expected>) -> bool {
        match self {
            Self::Correct => true,
            Self::Refused | Self::Terminated | Self::Stopped => {
                matches!(worst, Some(Expected::Detected | Expected::Denied))
            }
            Self::Hang => matches!(worst, Some(Expected::Denied)),
            _ => false,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What came of a run, and whether that may be after the lies that were told.
#[must_use]
pub fn judge(outcome: &Outcome) -> (Class, bool) {
    let told = || outcome.faults.iter().filter(|told| told.had_effect());
    let faults = || told().filter_map(crate::FaultEvent::fault);
    let worst =
        faults()
            .map(svsm_sim::fault::Fault::expected)
            .max_by_key(|expected| match expected {
                Expected::Tolerated => 0,
                Expected::Detected => 1,
                Expected::Denied => 2,
            });
    let owner_changed = faults().any(|fault| {
        let of_pages = matches!(fault.class(), Subject::PageState | Subject::Memory);
        of_pages && fault.expected() != Expected::Tolerated
    });
    let reset = faults().any(|fault| fault == Fault::Reset);
    if faults().any(|fault| fault == Fault::StrayNmi) && has_no_handlers(&outcome.verdict) {
        return (Class::Stopped, true);
    }
    let class = match &outcome.verdict {
        Verdict::Passed => Class::Correct,
        Verdict::Failed { .. } | Verdict::Unmet { .. } | Verdict::NoVerdict => Class::Refused,
        Verdict::Panicked(_) => Class::Panicked,
        Verdict::TimedOut => Class::Hang,
        Verdict::Interrupted => Class::Interrupted,
        Verdict::Crashed { how, .. } => match how {
            Crash::Terminated => Class::Terminated,
            Crash::Halted => Class::Hang,
            Crash::BadAccess | Crash::Violation if owner_changed => Class::Stopped,
            Crash::Reset if reset => Class::Stopped,
            Crash::Violation => Class::Violation,
            _ => Class::Crash,
        },
        _ => Class::Error,
    };
    (class, class.may_come_of(worst))
}

/// Whether it ended in a triple fault before there was a table of handlers: an NMI there is nothing that any code could bear.
fn has_no_handlers(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Crashed { how: Crash::Shutdown, registers, .. }
        if registers.value("idtr.base") == Some(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_nmi_before_there_are_handlers_is_nobodys_fault() {
        let crash = |how, base: u64| Verdict::Crashed {
            how,
            cpu: Some(0),
            registers: [("idtr.base".to_owned(), base)].into_iter().collect(),
            reason: None,
            at: None,
        };
        assert!(has_no_handlers(&crash(Crash::Shutdown, 0)));
        assert!(!has_no_handlers(&crash(Crash::Shutdown, 0x1000)));
        assert!(!has_no_handlers(&crash(Crash::Reset, 0)));
        assert!(!has_no_handlers(&Verdict::Passed));
    }

    #[test]
    fn what_may_come_follows_from_the_lies() {
        use Expected::{Denied, Detected, Tolerated};
        assert!(Class::Correct.may_come_of(None));
        assert!(!Class::Terminated.may_come_of(None));
        assert!(!Class::Refused.may_come_of(Some(Tolerated)));
        assert!(Class::Terminated.may_come_of(Some(Detected)));
        assert!(!Class::Hang.may_come_of(Some(Detected)));
        assert!(Class::Hang.may_come_of(Some(Denied)));
        for worst in [None, Some(Tolerated), Some(Detected), Some(Denied)] {
            for never in [
                Class::Crash,
                Class::Panicked,
                Class::Violation,
                Class::Error,
            ] {
                assert!(!never.may_come_of(worst));
            }
        }
    }
}
