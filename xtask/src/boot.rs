//! `cargo xtask boot`: the firmware, its image, and a run of it.

use crate::firmware::{self, Guest, Programs, Variant};
use crate::linux::{Lab, ovmf};
use crate::setup::{self, Bare, Install};
use crate::{proc, ui, workspace};
use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::process::ExitCode;
use svsm_igvm::Loader;

/// Options of `cargo xtask boot`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The exit status is the verdict's:
  0  the firmware passed its own checks and switched the machine off
  1  it failed them, or said nothing before it switched off
  2  the command line, a tool or the image is not as it must be
  3  it crashed or panicked
  4  it did not end in time
  5  the software machine or QEMU failed, or the runner could not do its work
  130  interrupted

Examples:
  cargo xtask boot                                     # the SVSM on SEV-SNP, and Linux below it
  cargo xtask boot --no-guest --smp 4 --memory 1G
  cargo xtask boot --caller 'services tpm'             # a guest that uses the TPM, instead of Linux
  cargo xtask boot --kernel vmlinuz --initrd initrd.img --guest-append 'console=ttyS0'
  cargo xtask boot --firmware debian                   # OVMF below the SVSM, and Linux by it
  cargo xtask boot --vmpl 1                            # the guest right below the SVSM
  cargo xtask boot --host-acpi                         # QEMU's ACPI tables for the guest
  cargo xtask boot --platform native --log json --timeout 30
  cargo xtask boot --no-guest --restricted-injection   # interrupts by the #HV doorbell, and so ticks
  cargo xtask boot --no-guest --debug-image --gdb 1234
  cargo xtask boot --image some.igvm")]
pub(crate) struct Args {
    /// The machine to run on. TDX is not built yet.
    #[arg(long, value_enum, default_value_t = Platform::Snp)]
    platform: Platform,
    /// How many processors.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    smp: u32,
    /// How much memory the image sees [default: 512M with a guest, else 256M]
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// Run this image instead of building one.
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// How long the run may take, in seconds; 0 for as long as it likes [default: 300 with a guest, else 60; with a debugger: 0]
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Wait for a debugger of the guest (the firmware, and what runs below it) on this TCP port of the local host.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    gdb: Option<u16>,
    /// Wait for a debugger of the software machine itself on this TCP port of the local host.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    gdb_machine: Option<u16>,
    /// How the log is shown.
    #[arg(long, value_enum, default_value_t = Log::Text)]
    log: Log,
    /// Build the image for debugging: local records and messages of panics leave the machine too.
    #[arg(long)]
    debug_image: bool,
    /// On SEV-SNP, let the host raise nothing but #HV in the SVSM.
    #[arg(long, conflicts_with = "image")]
    restricted_injection: bool,
    /// Text for the image's command line.
    #[arg(long, value_name = "TEXT")]
    append: Option<String>,
    /// The SVSM alone, without a guest below it.
    #[arg(long, conflicts_with_all = ["kernel", "initrd", "guest_append", "caller", "firmware"])]
    no_guest: bool,
    /// Start the small guest that calls all services below the SVSM, instead of Linux; these words say what it does:
    /// `services`, `tpm`, `hostile=N` calls with `seed=S` before it, `figures`.
    #[arg(long, value_name = "WORDS", conflicts_with_all = ["kernel", "initrd", "guest_append"])]
    caller: Option<String>,
    /// Start this kernel (bzImage) below the SVSM, instead of Debian's.
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// With this initial RAM disk, instead of one that checks the guest.
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// Start this firmware below the SVSM (OVMF; `debian` fetches Debian's), which gets the kernel from the host.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["caller", "image"])]
    firmware: Option<PathBuf>,
    /// A disk of the guest's: a file with its blocks, as a virtio device; may be given several times.
    #[arg(long, value_name = "FILE")]
    disk: Vec<PathBuf>,
    /// More for the guest kernel's command line.
    #[arg(long, value_name = "TEXT", default_value = "")]
    guest_append: String,
    /// The guest's level on SEV-SNP [default: 2]
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u8).range(1..=3), conflicts_with_all = ["image", "no_guest"])]
    vmpl: Option<u8>,
    /// Give a kernel the ACPI tables that the host has made, whose code it runs, instead of the SVSM's.
    #[arg(long, conflicts_with_all = ["image", "no_guest", "firmware"])]
    host_acpi: bool,
    /// What starts the image: the software machine, or QEMU's own loader where it has one.
    #[arg(long, value_enum, default_value_t = Machine::L0)]
    machine: Machine,
}

/// How long a boot with a guest may take, in seconds.
const GUEST_SECONDS: u64 = 300;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Platform {
    /// An unprotected PC.
    Native,
    /// SEV-SNP, the SVSM at VMPL0.
    Snp,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Machine {
    /// The software machine.
    L0,
    /// QEMU without it.
    Bare,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Log {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
    /// The bytes of the serial port.
    Raw,
}

/// `cargo xtask boot`.
pub(crate) fn command(args: &Args) -> Result<ExitCode> {
    if args.firmware.is_some() && args.platform == Platform::Native {
        bail!("a guest, and so its firmware, takes `--platform snp`");
    }
    let qemu = setup::qemu(Install::Allowed)?;
    let bare = Bare::find(Install::Allowed)?;
    let programs = Programs::build(&bare)?;
    let has_guest = args.platform == Platform::Snp && !args.no_guest && args.image.is_none();
    let scratch = tempfile::tempdir().context("cannot make a scratch directory")?;
    let caller = match &args.caller {
        Some(words) if has_guest => Some(Guest {
            name: "caller",
            kernel: programs.build_caller(&bare, scratch.path())?,
            initrd: None,
            command_line: words.clone(),
            firmware: None,
        }),
        _ => None,
    };
    let lab = (has_guest && caller.is_none())
        .then(|| Lab::build(args.kernel.clone(), args.initrd.clone()))
        .transpose()?;
    let mut guest = match &lab {
        Some(lab) => Some(lab.files(&args.guest_append)?),
        None => caller,
    };
    if let (Some(guest), Some(firmware)) = (&mut guest, &args.firmware) {
        guest.name = "ovmf";
        guest.firmware = Some(ovmf::find(firmware)?);
    }
    let (image, symbols) = match &args.image {
        Some(image) => (image.clone(), None),
        None => {
            let loader = match args.machine {
                Machine::L0 => Loader::Machine,
                Machine::Bare => Loader::Qemu,
            };
            let variant = Variant {
                debug: args.debug_image,
                restricted: args.restricted_injection,
                vmpl: args.vmpl,
                host_acpi: args.host_acpi,
            };
            let built = firmware::image(&programs, loader, variant, guest.as_ref())?;
            (built.file, Some(built.symbols))
        }
    };
    let usual = if has_guest { "512M" } else { "256M" };
    let memory = args.memory.as_deref().unwrap_or(usual);
    ui::step(&format!("booting on {} processors with {memory}", args.smp));
    let mut run = proc::cargo();
    run.args(["run", "--quiet", "-p", "svsm-testbed", "--", "run"])
        .arg(&image)
        .current_dir(workspace::root());
    run.arg("--qemu").arg(&qemu.program);
    match args.machine {
        Machine::L0 => run.arg("--machine-elf").arg(programs.elf("svsm-machine")?),
        Machine::Bare => run.args(["--machine", "bare"]),
    };
    match symbols {
        Some(symbols) => run.arg("--symbols").arg(symbols),
        None => run.arg("--elf").arg(programs.dir()),
    };
    run.args([
        "--platform",
        &value(&args.platform),
        "--log",
        &value(&args.log),
    ]);
    run.args([
        "--smp",
        &args.smp.to_string(),
        "--memory",
        memory,
        "--summary",
    ]);
    if let Some(guest) = guest.as_ref().filter(|guest| guest.firmware.is_some()) {
        run.arg("--kernel").arg(&guest.kernel);
        if let Some(initrd) = &guest.initrd {
            run.arg("--initrd").arg(initrd);
        }
        run.args(["--kernel-append", &guest.command_line]);
    }
    for file in &args.disk {
        run.arg("--disk").arg(std::path::absolute(file)?);
    }
    let expected = match &lab {
        Some(lab) => lab.expected(),
        None => args.caller.as_ref().and(Some("caller: done")),
    };
    if let Some(text) = expected {
        run.args(["--expect", text]);
    }
    // A guest takes its time, and whoever debugs takes longer.
    let is_timed = has_guest && args.gdb.is_none() && args.gdb_machine.is_none();
    let seconds = args.timeout.or(is_timed.then_some(GUEST_SECONDS));
    if let Some(seconds) = seconds {
        run.args(["--timeout", &seconds.to_string()]);
    }
    if let Some(text) = &args.append {
        run.args(["--append", text]);
    }
    for (option, port) in [("--gdb", args.gdb), ("--gdb-machine", args.gdb_machine)] {
        if let Some(port) = port {
            run.args([option, &port.to_string()]);
        }
    }
    let status = run.status().context("cannot start the runner")?;
    Ok(ExitCode::from(
        status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .unwrap_or(5),
    ))
}

fn value(of: &impl clap::ValueEnum) -> String {
    of.to_possible_value()
        .map(|value| value.get_name().to_owned())
        .unwrap_or_default()
}
