//! The image manifest: what goes into an image, in TOML.
//!
//! Every key is described in the [example](EXAMPLE), which is a complete
//! manifest. Unknown keys are refused, because a misspelt one would otherwise
//! change the image without a word.

use core::fmt;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize};
use svsm_stage2::layout;

use crate::error::{Error, Result};
use crate::hex::IdName;
use crate::report::Kind;

mod check;
mod place;
mod size;

pub use check::ManifestFault;
pub use place::Place;
pub use size::Size;

/// A complete manifest with a comment for every key.
pub const EXAMPLE: &str = include_str!("manifest/example.toml");

/// What goes into an image.
///
/// All fields are public, so that a build system can take a manifest from a
/// file and change it; [`check`](Self::check) then says whether it still holds.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Manifest {
    /// The platforms that the image supports.
    pub platforms: Vec<Platform>,
    /// Whether messages of a panic and other details may leave the guest. This
    /// is part of the measured image.
    #[serde(default)]
    pub debug: bool,
    /// The SVSM itself.
    pub svsm: Svsm,
    /// The first stage, which runs in low memory and enters the SVSM.
    pub stage2: Stage2,
    /// The user-mode programs, `init` first.
    #[serde(default, rename = "service")]
    pub services: Vec<Service>,
    /// The guest that the SVSM starts, if it starts one.
    #[serde(default)]
    pub guest: Option<Guest>,
    /// How the archive of user-mode programs comes into memory.
    #[serde(default)]
    pub archive: Archive,
    /// What the SVSM wants to know from the host at start.
    #[serde(default)]
    pub parameters: Parameters,
    /// Memory that the host must provide beside the SVSM's own.
    #[serde(default)]
    pub required_memory: Vec<RequiredMemory>,
    /// Facts about an unprotected machine.
    #[serde(default)]
    pub native: Native,
    /// How the image is launched on SEV-SNP.
    #[serde(default)]
    pub snp: Snp,
    /// Limits that fail the build when they are exceeded.
    #[serde(default)]
    pub budgets: Budgets,
}

/// A platform of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Platform {
    /// A machine without memory protection.
    Native,
    /// AMD SEV-SNP.
    Snp,
    /// Intel TDX. This version cannot build it and says so.
    Tdx,
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Snp => "snp",
            Self::Tdx => "tdx",
        })
    }
}

/// The SVSM: its program and the memory that is its own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Svsm {
    /// The ELF file, linked in the top 2 GiB.
    pub elf: PathBuf,
    /// The guest-physical address of its private memory, a multiple of 2 MiB.
    #[serde(default = "Svsm::default_base")]
    pub base: u64,
    /// How much private memory it has.
    #[serde(default = "Svsm::default_size")]
    pub size: Size,
    /// The stack of the boot CPU, without its guard pages.
    #[serde(default = "Svsm::default_stack")]
    pub stack: Size,
    /// Whether its segments and page tables pass the launch.
    #[serde(default)]
    pub delivery: Delivery,
    /// The guest-physical address at which a staged SVSM arrives; by default, the multiple of 2 MiB behind its private memory
    /// and a staged archive.
    #[serde(default)]
    pub staging_base: Option<u64>,
}

impl Svsm {
    const fn default_base() -> u64 {
        layout::SVSM_BASE.as_u64()
    }

    const fn default_size() -> Size {
        Size::new(layout::SVSM_BYTES)
    }

    const fn default_stack() -> Size {
        Size::new(64 << 10)
    }
}

/// The first stage.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Stage2 {
    /// The ELF file, linked below 640 KiB.
    pub elf: PathBuf,
}

/// A user-mode program.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Service {
    /// Its name in the archive.
    pub name: String,
    /// Its ELF file.
    pub elf: PathBuf,
}

/// What the SVSM starts below itself: a Linux kernel, or firmware (OVMF), which brings its own kernel. The files travel in the
/// archive.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Guest {
    /// The kernel, a `bzImage`.
    pub kernel: Option<PathBuf>,
    /// The initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// The kernel's command line.
    pub command_line: String,
    /// Firmware, which knows SEV-SNP and looks for an SVSM; instead of a kernel.
    pub firmware: Option<PathBuf>,
    /// The level at which it runs on SEV-SNP, 1 to 3; the SVSM has level 0.
    pub vmpl: u8,
    /// Which ACPI tables a kernel gets.
    pub acpi: AcpiTables,
}

/// Which ACPI tables a kernel gets that starts without firmware.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum AcpiTables {
    /// Those of the SVSM, which describe a q35.
    #[default]
    Own,
    /// Those that the host has made, if it has some. They have code (AML), which the kernel runs with all its rights: the host can
    /// take such a kernel over.
    Host,
}

impl Default for Guest {
    fn default() -> Self {
        Self {
            kernel: None,
            initrd: None,
            command_line: String::new(),
            firmware: None,
            vmpl: 2,
            acpi: AcpiTables::Own,
        }
    }
}

impl Guest {
    /// A guest of a kernel alone.
    #[must_use]
    pub fn of_kernel(kernel: PathBuf) -> Self {
        Self {
            kernel: Some(kernel),
            ..Self::default()
        }
    }

    /// A guest that starts with firmware.
    #[must_use]
    pub fn of_firmware(firmware: PathBuf) -> Self {
        Self {
            firmware: Some(firmware),
            ..Self::default()
        }
    }

    fn files_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let files = [&mut self.kernel, &mut self.initrd, &mut self.firmware];
        files.into_iter().flatten()
    }
}

/// How the archive of user-mode programs comes into memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Archive {
    /// Whether it passes the launch.
    pub delivery: Delivery,
    /// The guest-physical address at which a staged archive arrives; by default, the multiple of 2 MiB behind the SVSM's
    /// private memory.
    pub staging_base: Option<u64>,
}

/// Whether something passes the launch of a protected machine, where each page costs time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Delivery {
    /// It does: its pages are loaded where they belong, and measured.
    #[default]
    Measured,
    /// It does not: it arrives where the host can see it, stage2 or the SVSM copies it, and holds the copy against a measured
    /// digest.
    Staged,
}

/// The parameter areas that the SVSM wants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Parameters {
    /// The number of virtual processors.
    pub vp_count: Option<Area>,
    /// The memory map.
    pub memory_map: Option<Area>,
    /// The ACPI table of processors.
    pub madt: Option<Area>,
    /// A flattened device tree.
    pub device_tree: Option<Area>,
    /// The command line.
    pub command_line: Option<Area>,
}

/// A parameter area: its size, or a table of size and `optional`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Area {
    /// How much the host may write.
    pub size: Size,
    /// Whether the area is left out for a loader that cannot fill it.
    pub optional: bool,
}

impl<'de> Deserialize<'de> for Area {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> core::result::Result<Self, D::Error> {
        size::area(deserializer)
    }
}

/// Memory that the host must provide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RequiredMemory {
    /// The guest-physical address of the first byte.
    pub base: u64,
    /// How much.
    pub size: Size,
}

/// Facts about an unprotected machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Native {
    /// The base port of the 16550 that carries the log.
    pub console_port: u16,
    /// The ACPI PM1a control port, by which the machine is powered off.
    pub pm1a_control_port: u16,
}

impl Default for Native {
    fn default() -> Self {
        Self {
            console_port: layout::CONSOLE_PORT,
            pm1a_control_port: layout::POWER_PORT,
        }
    }
}

/// How an image is launched on SEV-SNP. All of it is part of the launch digest or of the attestation report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Snp {
    /// The guest policy (56860, "Guest Policy").
    pub policy: u64,
    /// Whether the host may inject nothing but #HV into the SVSM. Hosts that want equal features at all levels refuse it.
    pub restricted_injection: bool,
    /// Who the image is, for its owner to sign. Without a signature nobody is told.
    pub identity: Identity,
}

/// Who an image is, as its owner says and signs; reports repeat it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Identity {
    /// The name of a family of images.
    pub family_id: IdName,
    /// The name of the image.
    pub image_id: IdName,
    /// The security version of the image: a guest may ask for keys of its own and of lower versions, so it grows when an
    /// older image must no longer be trusted.
    pub guest_svn: u32,
}

impl Identity {
    /// An identity.
    #[must_use]
    pub const fn new(family_id: IdName, image_id: IdName, guest_svn: u32) -> Self {
        Self {
            family_id,
            image_id,
            guest_svn,
        }
    }
}

impl Snp {
    /// Threads may share a core, and the bit that must be set.
    const POLICY: u64 = 1 << 16 | 1 << 17;
}

impl Default for Snp {
    fn default() -> Self {
        Self {
            policy: Self::POLICY,
            restricted_injection: false,
            identity: Identity::default(),
        }
    }
}

/// Limits that fail the build when they are exceeded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Budgets {
    /// All pages of the image.
    pub pages: Option<u64>,
    /// Pages that pass through the launch update of a protected platform.
    pub launch_pages: Option<u64>,
    /// Pages that are measured.
    pub measured_pages: Option<u64>,
    /// The size of the file.
    pub file: Option<Size>,
    /// Pages of one kind.
    #[serde(default)]
    pub kinds: BTreeMap<Kind, u64>,
}

impl Manifest {
    /// Reads a manifest from a file. Paths in it are relative to its folder.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, else as [`parse`](Self::parse).
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::reading(path, source))?;
        let mut manifest = Self::parse(&text, &path.display().to_string())?;
        if let Some(folder) = path.parent() {
            for file in manifest.files_mut() {
                *file = folder.join(&*file);
            }
        }
        Ok(manifest)
    }

    /// Reads a manifest from its text; `name` is what errors call it.
    ///
    /// # Errors
    /// [`Error::Manifest`] names the line, the key and the rule that it breaks.
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        let manifest: Self = toml::from_str(text).map_err(|error| {
            let place = error.span().map(|span| Place::of(text, span.start));
            let fault = ManifestFault::Syntax(error.message().to_owned());
            Error::Manifest {
                name: name.to_owned(),
                place,
                key: String::new(),
                fault,
            }
        })?;
        manifest.check().map_err(|error| match error {
            Error::Manifest {
                place: None,
                key,
                fault,
                ..
            } => Error::Manifest {
                name: name.to_owned(),
                place: Place::of_key(text, &key),
                key,
                fault,
            },
            other => other,
        })?;
        Ok(manifest)
    }

    /// Takes the ELF file called `name` (`svsm`, `stage2`, or a service) from
    /// elsewhere.
    ///
    /// # Errors
    /// [`Error::UnknownElf`] if the manifest has no such program.
    pub fn replace_elf(&mut self, name: &str, path: &Path) -> Result<()> {
        let elf = match name {
            "svsm" => Some(&mut self.svsm.elf),
            "stage2" => Some(&mut self.stage2.elf),
            _ => self
                .services
                .iter_mut()
                .find(|service| service.name == name)
                .map(|service| &mut service.elf),
        };
        *elf.ok_or_else(|| Error::UnknownElf {
            name: name.to_owned(),
        })? = path.to_owned();
        Ok(())
    }

    fn files_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let services = self.services.iter_mut().map(|service| &mut service.elf);
        let guest = self.guest.iter_mut().flat_map(Guest::files_mut);
        [&mut self.svsm.elf, &mut self.stage2.elf]
            .into_iter()
            .chain(services)
            .chain(guest)
    }
}

impl Parameters {
    /// The areas that are wanted, with their keys.
    pub fn wanted(&self) -> impl Iterator<Item = (&'static str, Area)> {
        let areas = [
            ("vp_count", self.vp_count),
            ("memory_map", self.memory_map),
            ("madt", self.madt),
            ("device_tree", self.device_tree),
            ("command_line", self.command_line),
        ];
        areas
            .into_iter()
            .filter_map(|(key, area)| area.map(|area| (key, area)))
    }
}
