//! What can go wrong.

use core::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::executable::ElfFault;
use crate::file::FileError;
#[cfg(feature = "attest")]
use crate::identity::KeyFault;
use crate::loader::Refusal;
use crate::manifest::{ManifestFault, Place};
use crate::report::Report;

/// A result of this crate.
pub type Result<T> = core::result::Result<T, Error>;

/// Why an image was not built or not understood. This is a tool's error: it
/// names files, lines and offsets, so that a person finds the place.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    Io {
        /// What was tried: "read" or "write".
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The manifest breaks a rule.
    Manifest {
        /// The manifest's file.
        name: String,
        /// The line and column, if the manifest came as text.
        place: Option<Place>,
        /// The key; empty if the text itself is wrong.
        key: String,
        /// The rule.
        fault: ManifestFault,
    },
    /// The manifest has no program of this name.
    UnknownElf {
        /// The name.
        name: String,
    },
    /// An ELF file cannot be part of an image.
    Elf {
        /// The file.
        path: PathBuf,
        /// Why.
        fault: ElfFault,
    },
    /// The parts of the image do not fit together.
    Plan(svsm_stage2::Error),
    /// The page tables that the plan asks for cannot be made.
    Tables(svsm_mm::Error),
    /// The parts of a guest that starts directly do not fit together.
    Guest(svsm_guest::Error),
    /// The guest's firmware, which ends at 4 GiB, would lie in the SVSM's memory, or in memory that the manifest requires.
    GuestOverlap {
        /// The first byte of the firmware.
        base: u64,
    },
    /// The image is larger than the file format can say.
    TooLarge,
    /// The loader does not take what the manifest needs.
    Loader(Refusal),
    /// A budget is exceeded; the report's table says which.
    Budget(Box<Report>),
    /// An IGVM file is damaged or hostile.
    File(FileError),
    /// A file is no key that can sign.
    #[cfg(feature = "attest")]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        fault: KeyFault,
    },
    /// The image has no part for SEV-SNP.
    NoSnp,
    /// The image's ID block was signed for another launch digest.
    StaleIdentity,
    /// The image has headers that cannot be written again.
    Foreign,
    /// An invariant of this crate does not hold.
    Bug,
}

impl Error {
    pub(crate) fn reading(path: &Path, source: io::Error) -> Self {
        Self::Io {
            verb: "read",
            path: path.to_owned(),
            source,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { verb, path, source } => {
                write!(f, "cannot {verb} {}: {source}", path.display())
            }
            Self::Manifest {
                name,
                place,
                key,
                fault,
            } => {
                f.write_str(name)?;
                if let Some(place) = place {
                    write!(f, ":{place}")?;
                }
                if key.is_empty() {
                    write!(f, ": {fault}")
                } else {
                    write!(f, ": {key}: {fault}")
                }
            }
            Self::UnknownElf { name } => write!(
                f,
                "the manifest has no program \"{name}\": there are \"svsm\", \"stage2\" and its \
                 services"
            ),
            Self::Elf { path, fault } => write!(f, "{}: {fault}", path.display()),
            Self::Plan(error) => write!(f, "the image cannot be laid out: {error}"),
            Self::Tables(error) => write!(f, "the page tables cannot be made: {error}"),
            Self::Guest(error) => error.fmt(f),
            Self::GuestOverlap { base } => write!(
                f,
                "the guest's firmware goes to {base:#x}..0x100000000, where the SVSM's or other required memory is"
            ),
            Self::TooLarge => f.write_str("the image is too large for an IGVM file"),
            Self::Loader(refusal) => refusal.fmt(f),
            Self::Budget(report) => write!(f, "the image exceeds its budget\n{report}"),
            Self::File(error) => error.fmt(f),
            #[cfg(feature = "attest")]
            Self::Key { path, fault } => write!(f, "{}: {fault}", path.display()),
            Self::NoSnp => f.write_str("the image has no part for SEV-SNP"),
            Self::StaleIdentity => {
                f.write_str("the image's ID block was signed for another launch digest")
            }
            Self::Foreign => f.write_str("the image has headers that cannot be written again"),
            Self::Bug => f.write_str("a broken invariant of svsm-igvm"),
        }
    }
}

impl core::error::Error for Error {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Elf { fault, .. } => Some(fault),
            Self::File(error) => Some(error),
            Self::Plan(error) => Some(error),
            Self::Tables(error) => Some(error),
            _ => None,
        }
    }
}

impl From<FileError> for Error {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Loader(refusal)
    }
}
