mod campaign; // the arguments of campaigns

use core::time::Duration;
use std::path::{Path, PathBuf};

use anyhow::Result;
pub(crate) use campaign::CampaignArgs;
use clap::{Args, Parser, Subcommand, ValueEnum};
use svsm_testbed::show::Format;
use svsm_testbed::{Error, FaultPlan, Images, Machine, Platform, Trace, qemu};

/// Runs firmware images in the software machine and says how they ended.
///
/// The software machine is a hypervisor that stock QEMU starts: it runs an IGVM image as its guest, watches
/// it, and knows how it ended. Neither special hardware nor a patched QEMU is needed.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(Box<RunArgs>),
    Decode(DecodeArgs),
    Campaign(Box<CampaignArgs>),
    Faults(FaultsArgs),
}

/// Lists the lies that the host can tell, and what must come of each.
#[derive(Debug, Args)]
pub(crate) struct FaultsArgs {
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct FaultArgs {
    /// Lies of the host: NAME, a class or `all` come again and again, `-NAME` takes one out, NAME@EVENT comes once at
    /// the first fitting event from that number on; may be given several times (`svsm-testbed faults` lists them)
    #[arg(long, value_name = "NAME[@EVENT]", allow_hyphen_values = true)]
    fault: Vec<String>,

    /// The number from which it is drawn when they come: the same seed, the same schedule
    #[arg(long, value_name = "N", default_value_t = 0)]
    fault_seed: u64,

    /// Not before a level below the highest has run: the lies meet firmware that serves its guest (SEV-SNP)
    #[arg(long)]
    fault_from_guest: bool,

    /// A file with lies that come once each: NAME@EVENT or NAME@EVENT=CHOICE, as the log of a run prints them
    #[arg(long, value_name = "FILE")]
    fault_script: Option<PathBuf>,
}

impl FaultArgs {
    pub(crate) fn plan(&self) -> Result<FaultPlan> {
        let mut plan = FaultPlan::new();
        for text in &self.fault {
            plan.add(text)?;
        }
        if let Some(file) = &self.fault_script {
            let text = std::fs::read_to_string(file).map_err(|cause| Error::Unreadable {
                path: file.clone(),
                wanted_as: "fault script",
                cause,
            })?;
            plan.add_script(&text)?;
        }
        plan.seed(self.fault_seed);
        if self.fault_from_guest {
            plan.from_guest();
        }
        Ok(plan)
    }
}

/// Runs an image: shows its log live and ends with a verdict.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES, args_override_self = true)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) guest: GuestArgs,

    /// How to show the log: in columns, as one JSON object per line, or as the bytes that came
    #[arg(long, value_enum, default_value_t)]
    pub(crate) log: LogArg,

    #[command(flatten)]
    pub(crate) faults: FaultArgs,

    /// Show each exit: its reason, level and address, and what was asked of the host; with =calls only the latter
    #[arg(long, value_enum, value_name = "WHICH", num_args = 0..=1, require_equals = true, default_missing_value = "exits")]
    pub(crate) trace: Option<TraceArg>,

    /// Write the state of all pages at the start and at the end to this file, as JSON (SEV-SNP)
    #[arg(long, value_name = "FILE")]
    pub(crate) rmp: Option<PathBuf>,

    /// Write the exits over time and the pages as a map to this file: HTML if its name ends so, else JSON; may be
    /// given several times
    #[arg(long, value_name = "FILE")]
    pub(crate) timeline: Vec<PathBuf>,

    /// Show at the end what the machine measured and counted: the launch digest, exits by reason and level, pages validated,
    /// requests to the host
    #[arg(long)]
    pub(crate) summary: bool,

    /// Write everything about the run to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json_result: Option<PathBuf>,

    /// Wait for a debugger of the guest on this TCP port, before the guest's first instruction: its CPUs at their levels,
    /// through their page tables; the command that attaches one is printed
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) gdb: Option<u16>,

    /// Wait for a debugger of the software machine itself on this TCP port, before its first instruction
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) gdb_machine: Option<u16>,
}

/// What runs, and in what.
#[derive(Debug, Args)]
pub(crate) struct GuestArgs {
    /// The IGVM image
    pub(crate) image: PathBuf,

    #[command(flatten)]
    pub(crate) images: ImageArgs,

    /// What the image runs in
    #[arg(long, value_enum, default_value_t)]
    pub(crate) machine: MachineArg,

    /// What the software machine pretends to be
    #[arg(long, value_enum, default_value_t)]
    pub(crate) platform: PlatformArg,

    /// Number of CPUs
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) smp: u32,

    /// Memory that the image sees: bytes, or with K, M or G
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = size)]
    pub(crate) memory: u64,

    /// Seconds until the run is ended; 0 for never [default: 60; never with a debugger]
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,

    /// A text that must come up in the log; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub(crate) expect: Vec<String>,

    /// End the run as passed once all expected texts came, for firmware that never switches off
    #[arg(long, requires = "expect")]
    pub(crate) until_expected: bool,

    /// Count instructions instead of time: runs repeat exactly (one CPU only)
    #[arg(long)]
    pub(crate) icount: bool,

    /// ELF file of the software machine [default: svsm-machine beside this program]
    #[arg(long, value_name = "PATH", env = "SVSM_MACHINE_ELF")]
    machine_elf: Option<PathBuf>,

    /// QEMU, version 9.0 or later
    #[arg(long, value_name = "PATH", env = "SVSM_QEMU", default_value = qemu::DEFAULT_PROGRAM)]
    pub(crate) qemu: PathBuf,

    /// Text for the image's command-line parameter
    #[arg(long, value_name = "TEXT")]
    pub(crate) append: Option<String>,

    /// A kernel that the host has for firmware which the guest starts with: it finds it by fw_cfg (SEV-SNP)
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,

    /// The RAM disk to that kernel
    #[arg(long, value_name = "FILE", requires = "kernel")]
    pub(crate) initrd: Option<PathBuf>,

    /// The command line to that kernel
    #[arg(
        long,
        value_name = "TEXT",
        requires = "kernel",
        allow_hyphen_values = true
    )]
    pub(crate) kernel_append: Option<String>,

    /// A disk of the guest's: a file with its blocks, as a virtio device on PCI; may be given several times. What the guest
    /// writes stays in the file, but for the cases of a campaign
    #[arg(long, value_name = "FILE")]
    pub(crate) disk: Vec<PathBuf>,

    /// A word for the software machine's own command line; may be given several times
    #[arg(long, value_name = "WORD")]
    pub(crate) machine_arg: Vec<String>,

    /// An argument for QEMU; may be given several times
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub(crate) qemu_arg: Vec<String>,
}

/// Turns a recorded log back into text, for example one from the serial port of real hardware.
#[derive(Debug, Args)]
pub(crate) struct DecodeArgs {
    /// The recorded bytes [default: standard input]
    pub(crate) file: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) images: ImageArgs,

    /// How to show the log
    #[arg(long, value_enum, default_value_t)]
    pub(crate) log: LogArg,
}

#[derive(Debug, Args)]
pub(crate) struct ImageArgs {
    /// An ELF file that is part of the image, or a directory of them: they turn the log into text and
    /// addresses into names; may be given several times
    #[arg(long, value_name = "PATH")]
    elf: Vec<PathBuf>,

    /// The list of ELF files that the image builder wrote [default: IMAGE.symbols.json, if it is there]
    #[arg(long, value_name = "FILE")]
    symbols: Option<PathBuf>,
}

impl ImageArgs {
    pub(crate) fn load(&self, image: Option<&Path>) -> svsm_testbed::Result<Images> {
        let mut images = Images::new();
        let beside = image.map(|image| {
            let mut beside = image.as_os_str().to_owned();
            beside.push(".symbols.json");
            PathBuf::from(beside)
        });
        if let Some(file) = self
            .symbols
            .clone()
            .or(beside.filter(|file| file.is_file()))
        {
            images.add_symbols(&file)?;
        }
        for path in &self.elf {
            images.add(path)?;
        }
        Ok(images)
    }
}

impl GuestArgs {
    /// How long a run may take, which for some is for ever if nothing else is said.
    pub(crate) fn timeout(&self, endless: bool) -> Option<Duration> {
        let default = if endless { 0 } else { 60 };
        crate::seconds(self.timeout.unwrap_or(default))
    }

    pub(crate) fn machine_elf(&self) -> Option<PathBuf> {
        let beside = || {
            let file = std::env::current_exe().ok()?.with_file_name("svsm-machine");
            file.is_file().then_some(file)
        };
        self.machine_elf.clone().or_else(beside)
    }
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum MachineArg {
    /// The software machine
    #[default]
    L0,
    /// QEMU's PC, with QEMU's own IGVM loader (10.1 or later, if built with it)
    Bare,
}

impl From<MachineArg> for Machine {
    fn from(arg: MachineArg) -> Self {
        match arg {
            MachineArg::L0 => Self::L0,
            MachineArg::Bare => Self::Bare,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum PlatformArg {
    /// A machine without confidential computing
    #[default]
    Native,
    /// A machine with AMD SEV-SNP
    Snp,
}

impl From<PlatformArg> for Platform {
    fn from(arg: PlatformArg) -> Self {
        match arg {
            PlatformArg::Native => Self::Native,
            PlatformArg::Snp => Self::Snp,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum TraceArg {
    /// Requests to the host (SEV-SNP)
    Calls,
    /// All exits
    Exits,
}

impl From<TraceArg> for Trace {
    fn from(arg: TraceArg) -> Self {
        match arg {
            TraceArg::Calls => Self::Calls,
            TraceArg::Exits => Self::Exits,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum LogArg {
    /// Columns: time, CPU, image, level, message
    #[default]
    Text,
    /// One JSON object per line
    Json,
    /// The bytes of the firmware's serial port
    Raw,
}

impl From<LogArg> for Format {
    fn from(arg: LogArg) -> Self {
        match arg {
            LogArg::Text => Self::Text,
            LogArg::Json => Self::Json,
            LogArg::Raw => Self::Raw,
        }
    }
}

fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (text.get(..at), 1 << 10),
        Some((at, 'm' | 'M')) => (text.get(..at), 1 << 20),
        Some((at, 'g' | 'G')) => (text.get(..at), 1 << 30),
        _ => (Some(text), 1),
    };
    number
        .and_then(|number| number.parse::<u64>().ok())
        .and_then(|number| number.checked_mul(unit))
        .ok_or_else(|| "a size is a number, or one with K, M or G behind it".to_owned())
}

const EXAMPLES: &str = "\
Examples:
  svsm-testbed run svsm.igvm
  svsm-testbed run svsm.igvm --smp 4 --memory 1G --elf target/x86_64-unknown-none/firmware
  svsm-testbed run other.igvm --expect 'booting kernel' --until-expected
  svsm-testbed run svsm.igvm --log json --json-result result.json
  svsm-testbed run svsm.igvm --platform snp --trace=calls
  svsm-testbed run svsm.igvm --platform snp --timeline run.html
  svsm-testbed run svsm.igvm --platform snp --fault partial-psc@12
  svsm-testbed run svsm.igvm --platform snp --disk disk.img
  svsm-testbed run svsm.igvm --platform snp --gdb 1234

Exit status:
    0  passed: the firmware said so (or all expected texts came) and switched the machine off
    1  failed: it said so, it said nothing, or an expected text never came
    2  bad usage, a file that cannot be read, or an image that the machine refused
    3  the firmware crashed (triple fault, reset, halted for good) or panicked
    4  time ran out
    5  the testbed failed: QEMU is missing, too old or died, or the software machine failed
  130  interrupted";

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_are_read() {
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("64M"), Ok(64 << 20));
        assert_eq!(size("4g"), Ok(4 << 30));
        for wrong in ["", "M", "-1", "1T", "1.5G", "99999999999G"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
