//! A bench on which the firmware is run again and again: QEMU, the software machine and one image.

use crate::firmware::{self, Guest, Image, Programs, Variant};
use crate::setup::{self, Bare, Install};
use anyhow::{Context, Result};
use core::fmt;
use core::time::Duration;
use std::path::PathBuf;
use svsm_igvm::Loader;
use svsm_testbed::{Images, Outcome, Platform, Run};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

/// An image under which the host may raise nothing but #HV.
pub(crate) const RESTRICTED: Variant = Variant {
    debug: false,
    restricted: true,
    vmpl: None,
    host_acpi: false,
};

/// The sizes of machines that the firmware must boot on: processors, and memory in MiB.
pub(crate) const SIZES: &[Size] = &[
    Size::new(1, 64),
    Size::new(1, 256),
    Size::new(1, 4096),
    Size::new(2, 64),
    Size::new(2, 256),
    Size::new(2, 4096),
    Size::new(4, 64),
    Size::new(4, 256),
    Size::new(4, 4096),
];

/// The size of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    /// Its processors.
    pub(crate) cpus: u32,
    /// Its memory.
    pub(crate) mib: u64,
}

impl Size {
    const fn new(cpus: u32, mib: u64) -> Self {
        Self { cpus, mib }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let processors = if self.cpus == 1 {
            "processor"
        } else {
            "processors"
        };
        write!(f, "{} {processors}, {} MiB", self.cpus, self.mib)
    }
}

/// What all runs have in common.
#[derive(Debug)]
pub(crate) struct Bench {
    qemu: PathBuf,
    machine: PathBuf,
    /// The firmware's programs.
    pub(crate) programs: Programs,
    /// Its image for the software machine.
    pub(crate) image: Image,
    debug_image: Image,
    restricted_image: Image,
    caller: PathBuf,
    /// Files of this bench alone.
    scratch: TempDir,
}

impl Bench {
    /// Builds everything.
    pub(crate) fn build() -> Result<Self> {
        let qemu = setup::qemu(Install::Allowed)?.program;
        let bare = Bare::find(Install::Allowed)?;
        let programs = Programs::build(&bare)?;
        let scratch = tempfile::tempdir().context("cannot make a scratch directory")?;
        Ok(Self {
            caller: programs.build_caller(&bare, scratch.path())?,
            scratch,
            qemu,
            machine: programs.elf("svsm-machine")?,
            image: firmware::image(&programs, Loader::Machine, false, None)?,
            debug_image: firmware::image(&programs, Loader::Machine, true, None)?,
            restricted_image: firmware::image(&programs, Loader::Machine, RESTRICTED, None)?,
            programs,
        })
    }

    /// A run of the firmware's image.
    pub(crate) fn run(&self, size: Size) -> Result<Run> {
        self.run_image(&self.image, size)
    }

    /// A run of the firmware's image for debugging.
    pub(crate) fn run_debug(&self, size: Size) -> Result<Run> {
        self.run_image(&self.debug_image, size)
    }

    /// A run of the firmware on SEV-SNP, in which the host may raise nothing but #HV.
    pub(crate) fn run_restricted(&self, size: Size) -> Result<Run> {
        let run = self.run_image(&self.restricted_image, size)?;
        Ok(run.platform(Platform::Snp))
    }

    /// A run of the firmware on SEV-SNP with the guest that calls all services; its command line says which, and how.
    pub(crate) fn run_caller(&self, size: Size, command_line: &str) -> Result<Run> {
        self.run_caller_in(size, command_line, Variant::default())
    }

    /// The same with another image.
    pub(crate) fn run_caller_in(
        &self,
        size: Size,
        command_line: &str,
        variant: Variant,
    ) -> Result<Run> {
        let image = self.caller_image(command_line, variant)?;
        self.run_caller_image(&image, size)
    }

    /// The image of such a run, for many of them.
    pub(crate) fn caller_image(&self, command_line: &str, variant: Variant) -> Result<CallerImage> {
        let guest = Guest {
            name: "caller",
            kernel: self.caller.clone(),
            initrd: None,
            command_line: command_line.to_owned(),
            firmware: None,
        };
        let image = firmware::image(&self.programs, Loader::Machine, variant, Some(&guest))?;
        // The next such image has the same name.
        let restricted = if variant.restricted {
            "restricted-"
        } else {
            ""
        };
        let level = variant
            .vmpl
            .map_or_else(String::new, |vmpl| format!("vmpl{vmpl}-"));
        let acpi = if variant.host_acpi { "host-acpi-" } else { "" };
        let file = self.scratch.path().join(format!(
            "{restricted}{level}{acpi}{}.igvm",
            command_line.replace(|c: char| !c.is_ascii_alphanumeric(), "-")
        ));
        std::fs::copy(&image.file, &file).context("cannot copy an image")?;
        let symbols = image.symbols;
        Ok(CallerImage { file, symbols })
    }

    /// A run of such an image.
    pub(crate) fn run_caller_image(&self, image: &CallerImage, size: Size) -> Result<Run> {
        let mut images = Images::new();
        images.add_symbols(&image.symbols)?;
        Ok(self
            .run_file(image.file.clone(), size)
            .images(images)
            .platform(Platform::Snp)
            .expect("caller: done"))
    }

    fn run_image(&self, image: &Image, size: Size) -> Result<Run> {
        let mut images = Images::new();
        images.add_symbols(&image.symbols)?;
        Ok(self.run_file(image.file.clone(), size).images(images))
    }

    /// A run of some other image, which may be anything.
    pub(crate) fn run_file(&self, file: PathBuf, size: Size) -> Run {
        Run::new(file)
            .qemu(&self.qemu)
            .machine_elf(&self.machine)
            .cpus(size.cpus)
            .memory(size.mib * MIB)
            .timeout(Duration::from_secs(120))
    }
}

/// An image with the guest that calls all services.
#[derive(Debug)]
pub(crate) struct CallerImage {
    file: PathBuf,
    symbols: PathBuf,
}

/// The end of a log, for whoever has to find out why a run went wrong.
pub(crate) fn tail(outcome: &Outcome) -> String {
    const LINES: usize = 15;
    let from = outcome.log.len().saturating_sub(LINES);
    let lines = outcome.log.iter().skip(from).map(|line| {
        let image = line.image.as_deref().unwrap_or("-");
        format!("    {image}: {}\n", line.message)
    });
    lines.collect()
}
