//! `cargo xtask linux`: a stock Linux kernel on the software machine, without an SVSM.

mod cpio; // an initial RAM disk
mod disk; // one that the guest reads and writes
mod facts; // what a guest said, and whether it is true
mod kernel; // Debian's
pub(crate) mod ovmf; // Debian's firmware for guests
pub(crate) mod tpm; // with a TPM and tpm2-tools

use crate::firmware::{self, Programs};
use crate::setup::{self, Bare, Install};
use crate::{proc, ui, workspace};
use anyhow::{Context, Result, bail};
use core::time::Duration;
use disk::Disk;
use facts::Facts;
use std::path::PathBuf;
use std::process::ExitCode;
use svsm_igvm::{LaunchDigest, Linux, Loader, linux::Platform as ImagePlatform};
use svsm_testbed::images::Images;
use svsm_testbed::{Outcome, Platform as MachinePlatform, Progress, Run};

/// Options of `cargo xtask linux`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without --kernel, Debian's cloud kernel is fetched by the name of its package and kept in
target/linux. Without --initrd, the RAM disk holds a first process that says what the kernel
found, asks for an attestation report, works a little and powers off.

The exit status is the verdict's, as for `cargo xtask boot`.

Examples:
  cargo xtask linux
  cargo xtask linux --platform snp --smp 2
  cargo xtask linux --tpm
  cargo xtask linux --platform snp --kernel vmlinuz --initrd initrd.img --append 'console=ttyS0'")]
pub(crate) struct Args {
    /// The machine to run on.
    #[arg(long, value_enum, default_value_t = Platform::Plain)]
    platform: Platform,
    /// How many processors.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    smp: u32,
    /// How much memory the guest has: 64M to 2G, in steps of 2M.
    #[arg(long, value_name = "SIZE", default_value = "512M")]
    memory: String,
    /// Start this kernel (bzImage).
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// With this initial RAM disk.
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// More for the kernel's command line.
    #[arg(long, value_name = "TEXT", default_value = "")]
    append: String,
    /// How long the run may take, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 180)]
    timeout: u64,
    /// Start it in QEMU itself with `tpm-sim` as its TPM, let tpm2-tools extend, seal, unseal and quote, and move both in between.
    #[arg(long, conflicts_with_all = ["platform", "smp", "memory", "kernel", "initrd", "append"])]
    tpm: bool,
    /// Do not show the guest's console.
    #[arg(long)]
    quiet: bool,
}

/// What protects the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Platform {
    /// Nothing.
    Plain,
    /// AMD SEV-SNP, the guest at VMPL0.
    Snp,
    /// AMD SEV-SNP, the guest at VMPL2 below the reference firmware.
    Svsm,
    /// The same with OVMF in between, which starts the kernel.
    Ovmf,
}

impl Platform {
    /// The level of the guest where it has one.
    const fn level(self) -> u32 {
        match self {
            Self::Plain | Self::Snp => 0,
            Self::Svsm | Self::Ovmf => 2,
        }
    }

    /// Its name in lists.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Snp => "SNP",
            Self::Svsm => "SNP below the SVSM",
            Self::Ovmf => "SNP below the SVSM, by OVMF",
        }
    }
}

/// What the tests start: protection, and processors.
pub(crate) const SIZES: &[(Platform, u32)] = &[
    (Platform::Plain, 1),
    (Platform::Plain, 2),
    (Platform::Snp, 1),
    (Platform::Snp, 2),
    (Platform::Svsm, 1),
    (Platform::Svsm, 2),
    (Platform::Ovmf, 2),
];

/// Brings a kernel, if there is none yet.
pub(crate) fn fetch_kernel() -> Result<()> {
    kernel::fetch().map(drop)
}

/// `cargo xtask linux`.
pub(crate) fn command(args: &Args) -> Result<ExitCode> {
    if args.tpm {
        return tpm::command(args.timeout, args.quiet);
    }
    let own = args.initrd.is_none();
    let lab = Lab::build(args.kernel.clone(), args.initrd.clone())?;
    ui::step(&format!(
        "starting Linux on {} processors with {}",
        args.smp, args.memory
    ));
    let guest = Guest {
        platform: args.platform,
        processors: args.smp,
        memory: size(&args.memory)?,
        append: &args.append,
    };
    let Prepared {
        run,
        promised,
        disk,
    } = lab.run(&guest)?;
    let run = run.timeout(Duration::from_secs(args.timeout));
    let outcome = run.start(&mut |progress| {
        if let (false, Progress::Line(line)) = (args.quiet, progress) {
            println!("{}", line.message);
        }
    })?;
    if own {
        let facts = Facts::of(&outcome);
        println!("\n{facts}");
        if outcome.verdict.is_passed()
            && let Err(error) = facts.check(&guest, promised).and_then(|()| disk.check())
        {
            ui::failure(&format!("{error:#}"));
            return Ok(ExitCode::FAILURE);
        }
    }
    println!(
        "{} ({:.1} s)",
        outcome.verdict,
        outcome.wall_time.as_secs_f64()
    );
    Ok(ExitCode::from(outcome.verdict.exit_code()))
}

/// A Linux guest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guest<'a> {
    /// What protects it.
    pub(crate) platform: Platform,
    /// Its processors.
    pub(crate) processors: u32,
    /// Bytes of its memory.
    pub(crate) memory: u64,
    /// More for its command line.
    pub(crate) append: &'a str,
}

impl Guest<'_> {
    /// A guest of the usual size.
    pub(crate) const fn of(platform: Platform, processors: u32) -> Self {
        Self {
            platform,
            processors,
            memory: 512 << 20,
            append: "",
        }
    }
}

/// Runs a guest of ours and checks what it said. The tests' way in.
pub(crate) fn passes(lab: &Lab, guest: &Guest<'_>) -> Result<Outcome> {
    let Prepared {
        run,
        promised,
        disk,
    } = lab.run(guest)?;
    let outcome = run.start(&mut |_| ())?;
    if !outcome.verdict.is_passed() {
        bail!("{}\n{}", outcome.verdict, crate::bench::tail(&outcome));
    }
    Facts::of(&outcome).check(guest, promised)?;
    disk.check()?;
    Ok(outcome)
}

/// A run that is about to start.
struct Prepared {
    run: Run,
    /// The launch digest that the image's builder promises.
    promised: Option<LaunchDigest>,
    /// What the guest reads and writes, if its first process is ours.
    disk: Disk,
}

/// Everything that runs of Linux need.
#[derive(Debug)]
pub(crate) struct Lab {
    qemu: PathBuf,
    machine: PathBuf,
    programs: Programs,
    kernel: Vec<u8>,
    initrd: Vec<u8>,
    /// The last words of a good run; a RAM disk of somebody else's has its own.
    expected: Option<&'static str>,
    scratch: tempfile::TempDir,
}

impl Lab {
    /// Builds and fetches what is missing.
    pub(crate) fn build(kernel: Option<PathBuf>, initrd: Option<PathBuf>) -> Result<Self> {
        let read = |path: &PathBuf| {
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
        };
        let qemu = setup::qemu(Install::Allowed)?.program;
        let programs = Programs::build(&Bare::find(Install::Allowed)?)?;
        let debian = match (&kernel, &initrd) {
            (Some(_), Some(_)) => None,
            _ => Some(kernel::fetch()?),
        };
        let expected = initrd.is_none().then_some("guest: verdict: passed");
        let initrd = match (&initrd, &debian) {
            (Some(path), _) => read(path)?,
            (None, Some(debian)) => cpio::initrd(&init()?, &debian.modules()?)?,
            (None, None) => bail!("no RAM disk"),
        };
        let kernel = match (&kernel, &debian) {
            (Some(path), _) => read(path)?,
            (None, Some(debian)) => read(&debian.image)?,
            (None, None) => bail!("no kernel"),
        };
        Ok(Self {
            qemu,
            machine: programs.elf("svsm-machine")?,
            programs,
            kernel,
            initrd,
            expected,
            scratch: tempfile::tempdir().context("cannot make a scratch directory")?,
        })
    }

    /// Starts the kernel in QEMU itself, without the software machine, and says how long that took.
    pub(crate) fn without_machine(&self, processors: u32) -> Result<Duration> {
        let kernel = self.scratch.path().join("vmlinuz");
        let initrd = self.scratch.path().join("initrd");
        std::fs::write(&kernel, &self.kernel).context("cannot write the kernel")?;
        std::fs::write(&initrd, &self.initrd).context("cannot write the RAM disk")?;
        let mut qemu = std::process::Command::new("timeout");
        qemu.arg("180")
            .arg(&self.qemu)
            .args([
                "-nodefaults",
                "-no-user-config",
                "-display",
                "none",
                "-no-reboot",
            ])
            .args([
                "-machine", "q35", "-accel", "tcg", "-cpu", "max", "-m", "512M",
            ])
            .args(["-serial", "stdio", "-smp", &processors.to_string()])
            .arg("-kernel")
            .arg(&kernel)
            .arg("-initrd")
            .arg(&initrd)
            .args(["-append", "console=ttyS0 panic=-1"]);
        let start = std::time::Instant::now();
        let said = proc::capture(&mut qemu)?;
        let expected = self.expected.unwrap_or_default();
        if !said.contains(expected) {
            bail!("Linux without the software machine did not say `{expected}`");
        }
        Ok(start.elapsed())
    }

    /// The files, on disk, for an image that starts them below the firmware.
    pub(crate) fn files(&self, append: &str) -> Result<firmware::Guest> {
        let (kernel, initrd) = (
            self.scratch.path().join("vmlinuz"),
            self.scratch.path().join("initrd"),
        );
        std::fs::write(&kernel, &self.kernel).context("cannot write the kernel")?;
        std::fs::write(&initrd, &self.initrd).context("cannot write the RAM disk")?;
        // Our first process asks the SVSM for the report.
        let provider = self.expected.map_or("", |_| "testbed.report_provider=svsm");
        let command_line = format!("console=ttyS0 panic=-1 {provider} {append}");
        Ok(firmware::Guest {
            name: "linux",
            kernel,
            initrd: Some(initrd),
            command_line: command_line.trim().to_owned(),
            firmware: None,
        })
    }

    /// The last words of a good run, if they are known.
    pub(crate) const fn expected(&self) -> Option<&'static str> {
        self.expected
    }

    /// A run with all that belongs to it.
    fn run(&self, guest: &Guest<'_>) -> Result<Prepared> {
        let (run, promised) = self.run_without_disk(guest)?;
        let name = format!("disk {} {}", guest.platform.name(), guest.processors);
        let disk = Disk::create(self.scratch.path().join(name))?;
        Ok(Prepared {
            run: run.disk(disk.file()),
            promised,
            disk,
        })
    }

    fn run_without_disk(&self, guest: &Guest<'_>) -> Result<(Run, Option<LaunchDigest>)> {
        let append = format!("console=ttyS0 panic=-1 {}", guest.append);
        let (image, machine) = match guest.platform {
            Platform::Plain => (ImagePlatform::Native, MachinePlatform::Native),
            Platform::Snp => (ImagePlatform::Snp, MachinePlatform::Snp),
            Platform::Svsm | Platform::Ovmf => return self.run_below(guest),
        };
        let bytes = svsm_igvm::linux(&Linux {
            kernel: &self.kernel,
            initrd: &self.initrd,
            command_line: append.trim(),
            platform: image,
            memory: guest.memory,
            processors: guest.processors,
        })?;
        let file = self
            .scratch
            .path()
            .join(format!("linux-{image:?}-{}.igvm", guest.processors));
        let promised = svsm_igvm::launch_digest(&bytes)?;
        std::fs::write(&file, bytes).context("cannot write the image")?;
        let run = Run::new(file)
            .qemu(&self.qemu)
            .machine_elf(&self.machine)
            .platform(machine)
            .cpus(guest.processors)
            .memory(guest.memory)
            .timeout(Duration::from_secs(180));
        let run = match self.expected {
            Some(text) => run.expect(text),
            None => run,
        };
        Ok((run, promised))
    }
}

impl Lab {
    /// The guest below the reference firmware.
    fn run_below(&self, guest: &Guest<'_>) -> Result<(Run, Option<LaunchDigest>)> {
        let mut files = self.files(guest.append)?;
        if guest.platform == Platform::Ovmf {
            files.name = "ovmf";
            files.firmware = Some(ovmf::fetch()?);
        }
        let image = firmware::image(&self.programs, Loader::Machine, false, Some(&files))?;
        let mut images = Images::new();
        images.add_symbols(&image.symbols)?;
        let run = Run::new(image.file)
            .qemu(&self.qemu)
            .machine_elf(&self.machine)
            .images(images)
            .platform(MachinePlatform::Snp)
            .cpus(guest.processors)
            .memory(guest.memory)
            .timeout(Duration::from_secs(300));
        let mut run = match self.expected {
            Some(text) => run.expect(text),
            None => run,
        };
        if files.firmware.is_some() {
            // Firmware gets the kernel from the host.
            run = run
                .kernel(files.kernel)
                .kernel_command_line(files.command_line);
            run = match files.initrd {
                Some(file) => run.initrd(file),
                None => run,
            };
        }
        Ok((run, image.report.snp.map(|snp| snp.launch_digest)))
    }
}

/// The first process: a static program for this host.
fn init() -> Result<PathBuf> {
    const HOST: &str = "x86_64-unknown-linux-gnu";
    let start = ui::step("building the guest's first process");
    let dir = workspace::target_dir()?.join("init");
    let mut cargo = proc::cargo();
    cargo
        .args(["build", "--quiet", "--release", "-p", "svsm-testbed-init"])
        .args(["--target", HOST])
        .arg("--target-dir")
        .arg(&dir)
        // It runs where no library is.
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .current_dir(workspace::root());
    proc::run(&mut cargo)?;
    ui::note(&format!("done in {}", ui::elapsed(start)));
    Ok(dir.join(HOST).join("release/svsm-testbed-init"))
}

fn size(text: &str) -> Result<u64> {
    let unit = text.chars().last();
    let (digits, shift) = match unit {
        Some('M') => (text.trim_end_matches('M'), 20),
        Some('G') => (text.trim_end_matches('G'), 30),
        _ => (text, 0),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .with_context(|| format!("`{text}` is no size; 512M is one"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("512M").unwrap(), 512 << 20);
        assert_eq!(size("1G").unwrap(), 1 << 30);
        assert_eq!(size("4096").unwrap(), 4096);
        assert!(size("many").is_err() && size("").is_err());
    }
}
