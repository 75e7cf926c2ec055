use core::fmt;

use serde::{Deserialize, Serialize};
use svsm_sim::fault::{Class as Subject, Expected, Fault};

use crate::verdict::Crash;
use crate::{FaultEvent, Outcome, Verdict};

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
    ///
    /// A CPU that an NMI stopped before there were handlers may always do so: [`judge`] says that.
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

/// What came of a run, and whether that may be after the lies that were told: [`Class::may_come_of`] says so, but for an NMI
/// that came before there was a handler. That lie must be tolerated, and where it cannot be, the run stopped rightly.
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
    if came_before_handlers(told(), &outcome.verdict) {
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

/// Whether a triple fault is that of a CPU without a table of handlers, at the very instruction before which it was sent an NMI:
/// that is nothing that any code could bear. What other CPUs were told meanwhile cannot have done it.
fn came_before_handlers<'a>(
    told: impl DoubleEndedIterator<Item = &'a FaultEvent>,
    verdict: &Verdict,
) -> bool {
    let Verdict::Crashed {
        how: Crash::Shutdown,
        cpu: Some(cpu),
        registers,
        ..
    } = verdict
    else {
        return false;
    };
    let Some(lie) = told.rev().find(|lie| lie.cpu == *cpu) else {
        return false;
    };
    let rip = lie.rip.strip_prefix("0x");
    let rip = rip.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    lie.fault() == Some(Fault::StrayNmi)
        && rip.is_some()
        && registers.value("rip") == rip
        && registers.value("idtr.base") == Some(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A triple fault on CPU 1.
    fn crash(how: Crash, rip: u64, table: u64) -> Verdict {
        let registers = [("rip", rip), ("idtr.base", table)];
        Verdict::Crashed {
            how,
            cpu: Some(1),
            registers: registers
                .map(|(name, value)| (name.to_owned(), value))
                .into_iter()
                .collect(),
            reason: None,
            at: None,
        }
    }

    fn lie(name: &str, cpu: u64, rip: &str, effect: &str) -> FaultEvent {
        FaultEvent {
            number: 1,
            name: name.to_owned(),
            script: format!("{name}@1"),
            effect: effect.to_owned(),
            cpu,
            vmpl: None,
            rip: rip.to_owned(),
        }
    }

    fn judged(verdict: Verdict, faults: Vec<FaultEvent>) -> (Class, bool) {
        judge(&Outcome {
            verdict,
            faults,
            ..Outcome::for_tests()
        })
    }

    #[test]
    fn an_nmi_before_there_are_handlers_is_nobodys_fault() {
        let nmi = || lie("stray-nmi", 1, "0x8000", "done");
        let shutdown = || crash(Crash::Shutdown, 0x8000, 0);
        let stopped = (Class::Stopped, true);
        assert_eq!(judged(shutdown(), vec![nmi()]), stopped);
        let earlier = lie("lying-cpuid", 0, "0x9000", "done");
        assert_eq!(judged(shutdown(), vec![earlier, nmi()]), stopped);
        // What did nothing is as if it had not been.
        let void = lie("remap", 1, "0x8000", "nothing: it takes SEV-SNP");
        assert_eq!(judged(shutdown(), vec![nmi(), void]), stopped);
        let other = lie("lying-cpuid", 0, "0x9000", "done");
        assert_eq!(judged(shutdown(), vec![nmi(), other]), stopped);
    }

    #[test]
    fn a_triple_fault_for_another_reason_stays_a_crash() {
        let nmi = || lie("stray-nmi", 1, "0x8000", "done");
        let shutdown = || crash(Crash::Shutdown, 0x8000, 0);
        let crashed = (Class::Crash, false);
        // There was none, it did nothing, or another lie came later.
        assert_eq!(judged(shutdown(), vec![]), crashed);
        let void = lie("stray-nmi", 1, "0x8000", "nothing: it has no NMIs");
        assert_eq!(judged(shutdown(), vec![void]), crashed);
        let later = lie("lying-cpuid", 1, "0x8000", "done");
        assert_eq!(judged(shutdown(), vec![nmi(), later]), crashed);
        // It came to another CPU, or this one went on from there.
        let elsewhere = lie("stray-nmi", 0, "0x8000", "done");
        assert_eq!(judged(shutdown(), vec![elsewhere]), crashed);
        let long_ago = lie("stray-nmi", 1, "0x7ff0", "done");
        assert_eq!(judged(shutdown(), vec![long_ago]), crashed);
        let nowhere = lie("stray-nmi", 1, "?", "done");
        assert_eq!(judged(shutdown(), vec![nowhere]), crashed);
        // There are handlers, or it ended otherwise.
        assert_eq!(
            judged(crash(Crash::Shutdown, 0x8000, 0x1000), vec![nmi()]),
            crashed
        );
        assert_eq!(judged(crash(Crash::Reset, 0x8000, 0), vec![nmi()]), crashed);
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
