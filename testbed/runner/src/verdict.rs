//! How a run ended, from everything that was seen.

use core::fmt;

use serde::Serialize;
use svsm_log::Verdict as OwnVerdict;

use crate::images::TraceEntry;
use crate::machine::{End, EndKind, Registers};

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
#[non_exhaustive]
pub enum Verdict {
    /// The firmware says it passed, and switched the machine off.
    Passed,
    /// The firmware says it failed.
    Failed {
        /// In its own numbering.
        code: u32,
    },
    /// The firmware did well, but texts that were asked for never came.
    Unmet {
        /// The texts.
        missing: Vec<String>,
    },
    /// The machine was switched off in an orderly way, but the firmware never said how it went.
    NoVerdict,
    /// The firmware crashed.
    Crashed {
        /// In which way.
        how: Crash,
        /// The CPU on which it happened.
        cpu: Option<u64>,
        /// The registers of that CPU.
        registers: Registers,
        /// What the machine says about it.
        reason: Option<String>,
        /// What was executing, if the symbols are known.
        at: Option<TraceEntry>,
    },
    /// The firmware panicked.
    Panicked(Panic),
    /// Time ran out.
    TimedOut,
    /// Somebody stopped it.
    Interrupted,
    /// The machine refused the image.
    LoadError {
        /// Why.
        message: String,
    },
    /// The software machine failed itself.
    MachineError {
        /// Why.
        message: String,
    },
    /// QEMU did not start, or died.
    QemuFailed {
        /// How it ended.
        status: String,
        /// The last it said.
        stderr: String,
    },
}

/// The ways to crash.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Crash {
    /// A triple fault.
    Shutdown,
    /// The machine was reset.
    Reset,
    /// All CPUs halted for good.
    Halted,
    /// It touched an address behind which there is nothing.
    BadAccess,
    /// A CPU got into a state that cannot be.
    InvalidState,
    /// It asked its host to end it.
    Terminated,
    /// It broke the rules of memory ownership.
    Violation,
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shutdown => "triple fault",
            Self::Reset => "the machine was reset",
            Self::Halted => "all CPUs halted for good",
            Self::BadAccess => "access to nothing",
            Self::InvalidState => "impossible state of a CPU",
            Self::Terminated => "ended at its own request",
            Self::Violation => "violation of memory ownership",
        })
    }
}

/// A panic, as far as the log shows it.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Panic {
    /// The image that panicked.
    pub image: String,
    /// The message, if the image shows it.
    pub message: Option<String>,
    /// File, line and column.
    pub location: String,
    /// Innermost first.
    pub trace: Vec<TraceEntry>,
}

impl Verdict {
    /// The exit status of the command.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Passed => 0,
            Self::Failed { .. } | Self::Unmet { .. } | Self::NoVerdict => 1,
            Self::LoadError { .. } => 2,
            Self::Crashed { .. } | Self::Panicked(_) => 3,
            Self::TimedOut => 4,
            Self::MachineError { .. } | Self::QemuFailed { .. } => 5,
            Self::Interrupted => 130,
        }
    }

    /// Whether it is [`Passed`](Self::Passed).
    #[must_use]
    pub const fn is_passed(&self) -> bool {
        matches!(self, Self::Passed)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("PASSED"),
            Self::Failed { code } => write!(f, "FAILED with code {code:#x}"),
            Self::Unmet { missing } => write!(f, "FAILED: never seen: {missing:?}"),
            Self::NoVerdict => f.write_str("NO VERDICT: switched off without saying how it went"),
            Self::Crashed {
                how,
                cpu,
                reason,
                at,
                ..
            } => {
                match reason {
                    Some(reason) => write!(f, "CRASHED: {reason}")?,
                    None => write!(f, "CRASHED: {how}")?,
                }
                if let Some(cpu) = cpu {
                    write!(f, " (CPU {cpu})")?;
                }
                match at.as_ref().and_then(|at| at.function.as_ref()) {
                    Some(function) => write!(f, " in {function}"),
                    None => Ok(()),
                }
            }
            Self::Panicked(panic) => {
                write!(f, "PANICKED: {} at {}", panic.image, panic.location)?;
                panic
                    .message
                    .as_ref()
                    .map_or(Ok(()), |message| write!(f, ": {message}"))
            }
            Self::TimedOut => f.write_str("TIMED OUT"),
            Self::Interrupted => f.write_str("INTERRUPTED"),
            Self::LoadError { message } => write!(f, "IMAGE REFUSED: {message}"),
            Self::MachineError { message } => write!(f, "MACHINE ERROR: {message}"),
            Self::QemuFailed { status, .. } => write!(f, "QEMU FAILED: {status}"),
        }
    }
}

/// Why the runner stopped looking.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Stop {
    /// QEMU ended by itself.
    Exited {
        /// How.
        status: String,
        /// Whether a signal ended it, which no machine asks for.
        killed: bool,
    },
    /// The machine gave its verdict and then did not end.
    Lingered,
    /// Time ran out.
    TimedOut,
    /// Somebody asked.
    Interrupted,
    /// Every expected text was seen, and that was to be the end.
    Satisfied,
}

/// All that the verdict is made of.
#[derive(Clone, Debug)]
pub(crate) struct Evidence {
    pub(crate) stop: Stop,
    /// The last that the firmware said about itself.
    pub(crate) own: Option<OwnVerdict>,
    /// The last panic that it did not outlive with a verdict.
    pub(crate) panic: Option<Panic>,
    /// The end as the machine saw it.
    pub(crate) end: Option<End>,
    /// What it said about itself or the image before that.
    pub(crate) complaint: Option<String>,
    /// Whether the machine reported anything at all.
    pub(crate) machine_spoke: bool,
    pub(crate) expected: bool,
    pub(crate) missing: Vec<String>,
    pub(crate) stderr: String,
    /// What was executing at the end.
    pub(crate) at: Option<TraceEntry>,
}

/// The verdict. Who was closest to the failure is believed first: the user, the machine, the firmware.
pub(crate) fn judge(evidence: Evidence) -> Verdict {
    let Evidence {
        stop,
        own,
        panic,
        end,
        complaint,
        machine_spoke,
        expected,
        missing,
        stderr,
        at,
    } = evidence;
    match stop {
        Stop::Interrupted => return Verdict::Interrupted,
        Stop::Satisfied => return Verdict::Passed,
        _ => {}
    }
    let Some(end) = end else {
        return match (stop, panic) {
            (_, Some(panic)) => Verdict::Panicked(panic),
            (
                Stop::Exited {
                    status,
                    killed: false,
                },
                None,
            ) if machine_spoke => {
                let message = format!("it ended without a verdict (QEMU: {status})");
                Verdict::MachineError {
                    message: with_stderr(message, &stderr),
                }
            }
            (Stop::Exited { status, .. }, None) => Verdict::QemuFailed { status, stderr },
            _ => Verdict::TimedOut,
        };
    };
    let reason = || {
        end.reason
            .clone()
            .unwrap_or_else(|| "it does not say why".to_owned())
    };
    let complaint = || complaint.clone().unwrap_or_else(reason);
    let crashed = |how| Verdict::Crashed {
        how,
        cpu: end.cpu,
        registers: end.registers.clone(),
        reason: end.reason.clone(),
        at: at.clone(),
    };
    match (&end.kind, panic) {
        (EndKind::LoadError, _) => Verdict::LoadError {
            message: complaint(),
        },
        (EndKind::L0Error, _) => Verdict::MachineError {
            message: complaint(),
        },
        (_, Some(panic)) => Verdict::Panicked(panic),
        (EndKind::Shutdown, None) => crashed(Crash::Shutdown),
        (EndKind::Reset, None) => crashed(Crash::Reset),
        (EndKind::Halted, None) => crashed(Crash::Halted),
        (EndKind::BadAccess, None) => crashed(Crash::BadAccess),
        (EndKind::InvalidState, None) => crashed(Crash::InvalidState),
        (EndKind::Terminated, None) => crashed(Crash::Terminated),
        (EndKind::Violation, None) => crashed(Crash::Violation),
        (EndKind::Unsupported, None) => Verdict::MachineError {
            message: format!("the firmware did what it does not model: {}", reason()),
        },
        (EndKind::PowerOff, None) => match own {
            Some(OwnVerdict::Failed(code)) => Verdict::Failed { code },
            _ if !missing.is_empty() => Verdict::Unmet { missing },
            Some(OwnVerdict::Passed) => Verdict::Passed,
            // Firmware that does not know our records can still say what was asked for.
            None if expected => Verdict::Passed,
            None => Verdict::NoVerdict,
        },
        (EndKind::Other(word), None) => Verdict::MachineError {
            message: format!("unknown end `{word}`: {}", reason()),
        },
    }
}

fn with_stderr(message: String, stderr: &str) -> String {
    match stderr.trim() {
        "" => message,
        said => format!("{message}: {said}"),
    }
}

#[cfg(test)]
mod tests;
