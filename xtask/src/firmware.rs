//! Building the reference firmware: its programs for the bare machine, and the image they make.

use crate::proc;
use crate::setup::{BARE_TARGET, Bare};
use crate::ui;
use crate::workspace;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use svsm_igvm::loader::{Directive, Need};
use svsm_igvm::manifest::{AcpiTables, Budgets, Delivery, RequiredMemory, Size};
use svsm_igvm::report::Report;
use svsm_igvm::symbols::Symbols;
use svsm_igvm::{Loader, Manifest};

/// The programs that a boot needs.
#[derive(Debug)]
pub(crate) struct Programs {
    dir: PathBuf,
}

/// What goes into one cargo call. Features of programs in one call are unified, so those with an allocator and those
/// without, those for ring 0 and those for user mode are built apart.
const GROUPS: &[(&str, &[&str])] = &[
    ("stage2", &["firmware-stage2"]),
    ("the SVSM", &["reference-firmware"]),
    (
        "user-mode programs",
        &["init", "pong", "rogue", "vtpm", "worker"],
    ),
    MACHINE,
];

const CALLER: (&str, &[&str]) = ("the calling guest", &["svsm-testbed-caller"]);

const MACHINE: (&str, &[&str]) = ("the software machine", &["svsm-machine"]);

impl Programs {
    /// Builds all of them.
    pub(crate) fn build(bare: &Bare) -> Result<Self> {
        for (what, packages) in GROUPS {
            group(bare, what, packages)?;
        }
        Self::built()
    }

    /// Builds the software machine alone.
    pub(crate) fn build_machine(bare: &Bare) -> Result<Self> {
        let (what, packages) = MACHINE;
        group(bare, what, packages)?;
        Self::built()
    }

    fn built() -> Result<Self> {
        let dir = workspace::target_dir()?
            .join("bare")
            .join(BARE_TARGET)
            .join("firmware");
        Ok(Self { dir })
    }

    /// Builds the small guests of the software machine beside them.
    pub(crate) fn build_guests(bare: &Bare) -> Result<()> {
        group(bare, "the small guests", &["svsm-testbed-guest"])
    }

    /// Builds the guest that calls all services, and makes a kernel's file of it in `dir`.
    pub(crate) fn build_caller(&self, bare: &Bare, dir: &Path) -> Result<PathBuf> {
        let (what, packages) = CALLER;
        group(bare, what, packages)?;
        let program = self.elf("caller")?;
        let program = std::fs::read(&program)
            .with_context(|| format!("cannot read {}", program.display()))?;
        let kernel = dir.join("caller.bzimage");
        let bytes = svsm_testbed_caller::image::kernel(&program)
            .context("the calling guest is not as it should be")?;
        write(&kernel, &bytes)?;
        Ok(kernel)
    }

    /// The ELF file of a program.
    pub(crate) fn elf(&self, name: &str) -> Result<PathBuf> {
        let file = self.dir.join(name);
        if !file.is_file() {
            bail!("the build brought no {}", file.display());
        }
        Ok(file)
    }

    /// The directory of the ELF files.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}

fn group(bare: &Bare, what: &str, packages: &[&str]) -> Result<()> {
    let start = ui::step(&format!("building {what}"));
    let mut cargo = bare.cargo("build")?;
    cargo.args(["--profile", "firmware", "--quiet", "--bins"]);
    for package in packages {
        cargo.args(["-p", package]);
    }
    // The log decoder reads levels and texts from the programs; the filter must let all of them in.
    cargo.env("DEFMT_LOG", "trace");
    proc::run_without_warnings(&mut cargo)?;
    ui::note(&format!("done in {}", ui::elapsed(start)));
    Ok(())
}

/// An image on disk.
#[derive(Debug)]
pub(crate) struct Image {
    /// The IGVM file.
    pub(crate) file: PathBuf,
    /// The list of its programs, for decoding its log.
    pub(crate) symbols: PathBuf,
    /// The names of its programs.
    pub(crate) programs: Vec<String>,
    /// What it is made of.
    pub(crate) report: Report,
}

/// How an image differs from the usual one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Variant {
    /// It is for debugging: local records and messages of panics leave the machine too.
    pub(crate) debug: bool,
    /// On SEV-SNP the host may raise nothing but #HV in the SVSM.
    pub(crate) restricted: bool,
    /// The guest's level, if it is not the usual one.
    pub(crate) vmpl: Option<u8>,
    /// A kernel gets the host's ACPI tables instead of the SVSM's.
    pub(crate) host_acpi: bool,
}

impl From<bool> for Variant {
    fn from(debug: bool) -> Self {
        Self {
            debug,
            ..Self::default()
        }
    }
}

/// A kernel that the firmware starts below itself.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    /// What its image is called.
    pub(crate) name: &'static str,
    /// The kernel.
    pub(crate) kernel: PathBuf,
    /// The initial RAM disk, if it needs one.
    pub(crate) initrd: Option<PathBuf>,
    /// The kernel's command line.
    pub(crate) command_line: String,
    /// What is started instead, and gets the kernel from the host: firmware.
    pub(crate) firmware: Option<PathBuf>,
}

impl Guest {
    /// What of it goes into the image.
    fn manifest(&self) -> svsm_igvm::manifest::Guest {
        if let Some(firmware) = &self.firmware {
            return svsm_igvm::manifest::Guest::of_firmware(firmware.clone());
        }
        let mut guest = svsm_igvm::manifest::Guest::of_kernel(self.kernel.clone());
        guest.initrd.clone_from(&self.initrd);
        guest.command_line.clone_from(&self.command_line);
        guest
    }
}

/// Adds a guest to an image: its files, room for them, and the memory in which old firmware would lie.
fn take_guest(manifest: &mut Manifest, guest: &Guest) -> Result<()> {
    const LARGE: u64 = 2 << 20;
    let bytes = |path: &Path| -> Result<u64> {
        let facts = std::fs::metadata(path);
        Ok(facts
            .with_context(|| format!("cannot read {}", path.display()))?
            .len())
    };
    let wanted = guest.manifest();
    let mut files = 0;
    for file in [&wanted.kernel, &wanted.initrd, &wanted.firmware] {
        files += file.as_deref().map(bytes).transpose()?.unwrap_or(0);
    }
    let own = manifest.svsm.size.bytes();
    manifest.svsm.size = Size::new((own + files).next_multiple_of(LARGE));
    manifest.guest = Some(wanted);
    // Kernels without EFI look there for what a BIOS left, by private accesses.
    manifest.required_memory.push(RequiredMemory {
        base: 0xc_0000,
        size: Size::new(0x4_0000),
    });
    // Budgets are those of the firmware alone.
    manifest.budgets = Budgets::default();
    Ok(())
}

/// Lays the reference firmware out as an image.
pub(crate) fn image(
    programs: &Programs,
    loader: Loader,
    variant: impl Into<Variant>,
    guest: Option<&Guest>,
) -> Result<Image> {
    let Variant {
        debug,
        restricted,
        vmpl,
        host_acpi,
    } = variant.into();
    let start = ui::step(&format!("laying out the image for {loader}"));
    let mut manifest = Manifest::load(&workspace::root().join("reference-firmware/image.toml"))?;
    manifest.debug = debug;
    manifest.snp.restricted_injection |= restricted;
    if let Some(guest) = guest {
        take_guest(&mut manifest, guest)?;
    }
    if let (Some(vmpl), Some(guest)) = (vmpl, &mut manifest.guest) {
        guest.vmpl = vmpl;
    }
    if let (true, Some(guest)) = (host_acpi, &mut manifest.guest) {
        guest.acpi = AcpiTables::Host;
    }
    if !loader.takes(Need::Directive(Directive::SharedPages)) {
        ui::note(&format!(
            "SVSM and programs are measured: {loader} takes no pages that the host can see"
        ));
        manifest.archive.delivery = Delivery::Measured;
        manifest.svsm.delivery = Delivery::Measured;
        manifest.budgets.launch_pages = None;
    }
    let mut names = vec!["svsm".to_owned(), "stage2".to_owned()];
    names.extend(manifest.services.iter().map(|service| service.name.clone()));
    for name in &names {
        manifest.replace_elf(name, &programs.elf(name)?)?;
    }
    let image = svsm_igvm::build(&manifest, &svsm_igvm::Options::new(loader))?;
    let dir = workspace::target_dir()?.join("images");
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let debug = if debug { "-debug" } else { "" };
    let restricted = if restricted { "-restricted" } else { "" };
    let with = guest.map_or("svsm", |guest| guest.name);
    let level = vmpl.map_or_else(String::new, |vmpl| format!("-vmpl{vmpl}"));
    let acpi = if host_acpi { "-host-acpi" } else { "" };
    let file = dir.join(format!(
        "{with}-{loader}{level}{acpi}{restricted}{debug}.igvm"
    ));
    let symbols = Symbols::path_beside(&file);
    write(&file, &image.bytes)?;
    write(
        &symbols,
        serde_json::to_string_pretty(&image.symbols)?.as_bytes(),
    )?;
    ui::note(&format!("{} ({})", file.display(), ui::elapsed(start)));
    Ok(Image {
        file,
        symbols,
        programs: names,
        report: image.report,
    })
}

fn write(file: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(file, bytes).with_context(|| format!("cannot write {}", file.display()))
}
