use core::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::qemu::Version;

/// Why a run could not begin. How a run *ended* is a [`Verdict`](crate::Verdict).
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A file that was asked for cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What it was wanted for.
        wanted_as: &'static str,
        /// Why not.
        cause: io::Error,
    },
    /// An ELF file has no build id, or its tables are damaged.
    BadElf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// A list of symbol files is not one.
    BadSymbols {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// A setting, or two together, make no sense.
    BadSetting(&'static str),
    /// Faults that are none.
    BadFault(String),
    /// The file that keeps what a campaign did.
    CampaignState {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// There is no ELF file of the software machine.
    NoMachine,
    /// QEMU is not there, or does not start.
    QemuMissing {
        /// What was tried.
        program: PathBuf,
        /// Why it did not start.
        cause: io::Error,
    },
    /// This is no QEMU: it does not say its version.
    NotQemu {
        /// What was tried.
        program: PathBuf,
    },
    /// QEMU is too old.
    QemuTooOld {
        /// What was found.
        found: Version,
        /// What it takes.
        needed: Version,
    },
    /// This QEMU was built without a loader for IGVM images.
    QemuWithoutIgvm {
        /// What was found.
        found: Version,
    },
    /// The operating system refused a socket or a thread.
    System(io::Error),
}

/// The result of preparing a run.
pub type Result<T> = core::result::Result<T, Error>;

impl Error {
    pub(crate) fn unreadable(
        path: &Path,
        wanted_as: &'static str,
    ) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::Unreadable {
            path: path.to_owned(),
            wanted_as,
            cause,
        }
    }

    /// The exit status of the command: 2 for what the user gave, 5 for the testbed's own tools.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Unreadable { .. }
            | Self::BadElf { .. }
            | Self::BadSymbols { .. }
            | Self::BadSetting(_)
            | Self::BadFault(_)
            | Self::CampaignState { .. }
            | Self::NoMachine => 2,
            Self::QemuMissing { .. }
            | Self::NotQemu { .. }
            | Self::QemuTooOld { .. }
            | Self::QemuWithoutIgvm { .. }
            | Self::System(_) => 5,
        }
    }

    /// What to do about it, where that is known.
    #[must_use]
    pub const fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::QemuMissing { .. } => Some(
                "install it (Debian, Ubuntu: apt-get install qemu-system-x86; Fedora: dnf install \
                 qemu-system-x86-core), or name one with --qemu",
            ),
            Self::QemuTooOld { .. } => Some(
                "older versions lack x2APIC under TCG; on Debian 12: apt-get install -t \
                 bookworm-backports qemu-system-x86; or name another one with --qemu",
            ),
            Self::QemuWithoutIgvm { .. } => Some(
                "take a QEMU of version 10.1 or later built with --enable-igvm, or the software \
                 machine (--machine l0), which needs no support by QEMU",
            ),
            Self::NoMachine => Some(
                "build the package svsm-machine for the bare machine and name its ELF file with \
                 --machine-elf or SVSM_MACHINE_ELF",
            ),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable {
                path,
                wanted_as,
                cause,
            } => {
                write!(f, "cannot read {} ({wanted_as}): {cause}", path.display())
            }
            Self::BadElf { path, cause } | Self::BadSymbols { path, cause } => {
                write!(f, "{}: {cause}", path.display())
            }
            Self::BadSetting(what) => f.write_str(what),
            Self::BadFault(what) => f.write_str(what),
            Self::CampaignState { path, cause } => write!(f, "{}: {cause}", path.display()),
            Self::NoMachine => f.write_str("no ELF file of the software machine"),
            Self::QemuMissing { program, cause } => {
                write!(f, "cannot start {}: {cause}", program.display())
            }
            Self::NotQemu { program } => {
                write!(
                    f,
                    "{} does not say its version as QEMU does",
                    program.display()
                )
            }
            Self::QemuTooOld { found, needed } => {
                write!(f, "QEMU {found} is too old, it takes {needed}")
            }
            Self::QemuWithoutIgvm { found } => {
                write!(
                    f,
                    "QEMU {found} was built without an IGVM loader (no object igvm-cfg)"
                )
            }
            Self::System(cause) => write!(f, "the system refused: {cause}"),
        }
    }
}

impl core::error::Error for Error {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Unreadable { cause, .. }
            | Self::QemuMissing { cause, .. }
            | Self::System(cause) => Some(cause),
            _ => None,
        }
    }
}
