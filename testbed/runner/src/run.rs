use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::log::{Interpreter, TimeSource};
use crate::qemu::{self, Settings};
use crate::session::{self, Plan};
use crate::{Error, FaultPlan, Images, LogLine, MachineEvent, Outcome, Result, Trace};

/// What the image runs in.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Machine {
    /// The software machine, a hypervisor that QEMU starts and that runs the image as its guest.
    #[default]
    L0,
    /// QEMU's PC itself, which then loads the image: for builds of QEMU that can. A crash has no
    /// registers there, and there is no confidential computing.
    Bare,
}

/// What the software machine pretends to be.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Platform {
    /// A machine without confidential computing.
    #[default]
    Native,
    /// A machine with AMD SEV-SNP.
    Snp,
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Native => f.write_str("native"),
            Self::Snp => f.write_str("snp"),
        }
    }
}

/// Stops a run from elsewhere: from a signal handler, or from another thread.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Stops the run, which then ends within a fraction of a second.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What happens during a run, as it happens.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// QEMU is running; this is its command line.
    Started(&'a [String]),
    /// Bytes of the firmware's serial port, as they came.
    Bytes(&'a [u8]),
    /// A line of the log.
    Line(&'a LogLine),
    /// An event of the machine.
    Machine(&'a MachineEvent),
}

/// One run of one image: settings, then [`start`](Self::start).
#[derive(Debug)]
#[must_use = "nothing happens before `start`"]
pub struct Run {
    image: PathBuf,
    machine: Machine,
    machine_elf: Option<PathBuf>,
    platform: Platform,
    cpus: u32,
    memory: u64,
    timeout: Option<Duration>,
    qemu: PathBuf,
    icount: bool,
    gdb: Option<u16>,
    gdb_machine: Option<u16>,
    images: Images,
    faults: FaultPlan,
    trace: Trace,
    pages: bool,
    expected: Vec<String>,
    stop_when_expected: bool,
    machine_args: Vec<String>,
    command_line: Option<String>,
    offer: Offer,
    disks: Vec<PathBuf>,
    qemu_args: Vec<OsString>,
    cancel: Cancel,
}

/// What the host has for firmware that the guest starts with.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Offer {
    pub(crate) kernel: Option<PathBuf>,
    pub(crate) initrd: Option<PathBuf>,
    pub(crate) command_line: Option<String>,
}

/// The most CPUs that the software machine can have.
const MAX_CPUS: u32 = 64;

impl Run {
    /// The least memory an image can be given.
    pub const MIN_MEMORY: u64 = 32 << 20;

    /// A run of `image` on one CPU with 256 MiB, for at most a minute.
    pub fn new(image: impl Into<PathBuf>) -> Self {
        Self {
            image: image.into(),
            machine: Machine::default(),
            machine_elf: None,
            platform: Platform::default(),
            cpus: 1,
            memory: 256 << 20,
            timeout: Some(Duration::from_secs(60)),
            qemu: qemu::DEFAULT_PROGRAM.into(),
            icount: false,
            gdb: None,
            gdb_machine: None,
            images: Images::new(),
            faults: FaultPlan::new(),
            trace: Trace::Off,
            pages: false,
            expected: Vec::new(),
            stop_when_expected: false,
            machine_args: Vec::new(),
            command_line: None,
            offer: Offer::default(),
            disks: Vec::new(),
            qemu_args: Vec::new(),
            cancel: Cancel::default(),
        }
    }

    /// What the image runs in.
    pub fn machine(mut self, machine: Machine) -> Self {
        self.machine = machine;
        self
    }

    /// The ELF file of the software machine. [`Machine::L0`] needs it.
    pub fn machine_elf(mut self, elf: impl Into<PathBuf>) -> Self {
        self.machine_elf = Some(elf.into());
        self
    }

    /// What the software machine pretends to be.
    pub fn platform(mut self, platform: Platform) -> Self {
        self.platform = platform;
        self
    }

    /// How many CPUs.
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    /// How much memory the image sees, in bytes.
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = bytes;
        self
    }

    /// How long it may take; `None` for as long as it likes.
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.timeout = timeout.into();
        self
    }

    /// Which QEMU.
    pub fn qemu(mut self, program: impl Into<PathBuf>) -> Self {
        self.qemu = program.into();
        self
    }

    /// Counts instructions instead of time: one tick of the guest's time-stamp counter is one instruction,
    /// and a run repeats exactly. One CPU only.
    pub fn icount(mut self, icount: bool) -> Self {
        self.icount = icount;
        self
    }

    /// Waits for a debugger of the guest on this TCP port of the local host, before the guest's first instruction. It
    /// sees the guest's CPUs as threads, each at the level that it runs at.
    pub fn gdb(mut self, port: impl Into<Option<u16>>) -> Self {
        self.gdb = port.into();
        self
    }

    /// Waits for a debugger of the software machine itself on this TCP port of the local host, before its first
    /// instruction. It sees QEMU's CPUs.
    pub fn gdb_machine(mut self, port: impl Into<Option<u16>>) -> Self {
        self.gdb_machine = port.into();
        self
    }

    /// The ELF files that the image was made of, to decode its log.
    pub fn images(mut self, images: Images) -> Self {
        self.images = images;
        self
    }

    /// The lies of the host. [`Machine::L0`] tells them.
    pub fn faults(mut self, faults: FaultPlan) -> Self {
        self.faults = faults;
        self
    }

    /// Which exits are reported one by one, as [`MachineEvent::Exit`]. An outcome does not keep them.
    pub fn trace(mut self, trace: Trace) -> Self {
        self.trace = trace;
        self
    }

    /// Whether the state of all pages is reported at the start and at the end ([`Outcome::pages`], SEV-SNP).
    pub fn pages(mut self, pages: bool) -> Self {
        self.pages = pages;
        self
    }

    /// A text that must come up in the log. A firmware that does not know the verdict records of
    /// `svsm-log` passes if all of these came and it switched the machine off.
    pub fn expect(mut self, text: impl Into<String>) -> Self {
        self.expected.push(text.into());
        self
    }

    /// Ends the run as passed once all expected texts came: for firmware that never switches off.
    pub fn stop_when_expected(mut self, stop: bool) -> Self {
        self.stop_when_expected = stop;
        self
    }

    /// One more word for the software machine's command line.
    pub fn machine_arg(mut self, word: impl Into<String>) -> Self {
        self.machine_args.push(word.into());
        self
    }

    /// The kernel that the host has for firmware which the guest starts with, as QEMU's `-kernel`: firmware finds it by fw_cfg.
    /// SEV-SNP only; the image does not see it, and nobody measures it.
    pub fn kernel(mut self, file: impl Into<PathBuf>) -> Self {
        self.offer.kernel = Some(file.into());
        self
    }

    /// The RAM disk to that kernel.
    pub fn initrd(mut self, file: impl Into<PathBuf>) -> Self {
        self.offer.initrd = Some(file.into());
        self
    }

    /// The command line to that kernel.
    pub fn kernel_command_line(mut self, text: impl Into<String>) -> Self {
        self.offer.command_line = Some(text.into());
        self
    }

    /// One more disk of the guest's: the blocks of this file, by virtio on PCI. What the guest writes stays in the file.
    pub fn disk(mut self, file: impl Into<PathBuf>) -> Self {
        self.disks.push(file.into());
        self
    }

    /// The text that the software machine puts into the image's command-line parameter.
    pub fn command_line(mut self, text: impl Into<String>) -> Self {
        self.command_line = Some(text.into());
        self
    }

    /// One more argument for QEMU.
    pub fn qemu_arg(mut self, argument: impl Into<OsString>) -> Self {
        self.qemu_args.push(argument.into());
        self
    }

    /// What stops this run from elsewhere.
    pub fn cancel(mut self, cancel: Cancel) -> Self {
        self.cancel = cancel;
        self
    }

    /// Runs the image to its end. `progress` sees everything as it happens.
    ///
    /// Whatever the firmware does, this returns: in time, with a verdict, and with QEMU gone.
    ///
    /// # Errors
    /// When the run cannot begin: settings, files or QEMU itself are not as they must be.
    pub fn start(self, progress: &mut dyn FnMut(Progress<'_>)) -> Result<Outcome> {
        self.check()?;
        let image_len = fs::metadata(&self.image)
            .map_err(Error::unreadable(&self.image, "image"))?
            .len();
        fs::File::open(&self.image).map_err(Error::unreadable(&self.image, "image"))?;
        if let Some(elf) = self
            .machine_elf
            .as_deref()
            .filter(|_| self.machine == Machine::L0)
        {
            fs::File::open(elf).map_err(Error::unreadable(elf, "software machine"))?;
        }
        for (file, wanted_as) in [
            (&self.offer.kernel, "kernel"),
            (&self.offer.initrd, "RAM disk"),
        ] {
            if let Some(file) = file {
                fs::File::open(file).map_err(Error::unreadable(file, wanted_as))?;
            }
        }
        let forgets = self.qemu_args.iter().any(|arg| arg == "-snapshot");
        for file in &self.disks {
            let disk = fs::OpenOptions::new().read(true).write(!forgets).open(file);
            disk.map_err(Error::unreadable(file, "disk"))?;
        }
        let version = qemu::check_version(&self.qemu)?;
        if self.machine == Machine::Bare {
            qemu::check_igvm(&self.qemu, version)?;
        }
        let words = self.machine_words();
        let arguments = qemu::arguments(&self.settings(image_len, &words));
        let clock = if self.icount {
            TimeSource::Ticks
        } else {
            TimeSource::Arrival
        };
        let plan = Plan {
            program: self.qemu,
            arguments,
            version,
            machine: self.machine,
            timeout: self.timeout,
            expected: self.expected,
            stop_when_expected: self.stop_when_expected,
            cancel: self.cancel,
        };
        session::run(plan, Interpreter::new(self.images, clock), progress)
    }

    /// The words for the software machine's own command line.
    fn machine_words(&self) -> Vec<String> {
        let mut words = self.faults.words();
        match self.trace {
            Trace::Off => {}
            Trace::Calls => words.push("trace=calls".to_owned()),
            Trace::Exits => words.push("trace=exits".to_owned()),
        }
        if self.pages {
            words.push("rmp".to_owned());
        }
        words.extend(self.machine_args.iter().cloned());
        words
    }

    fn settings<'a>(&'a self, image_len: u64, machine_args: &'a [String]) -> Settings<'a> {
        Settings {
            machine: self.machine,
            machine_elf: self.machine_elf.as_deref(),
            image: &self.image,
            image_len,
            platform: self.platform,
            cpus: self.cpus,
            memory: self.memory,
            icount: self.icount,
            gdb: self.gdb,
            gdb_machine: self.gdb_machine,
            machine_args,
            command_line: self.command_line.as_deref(),
            offer: &self.offer,
            disks: &self.disks,
            qemu_args: &self.qemu_args,
        }
    }

    fn check(&self) -> Result<()> {
        let bad = |what| Err(Error::BadSetting(what));
        if self.cpus == 0 {
            return bad("a machine has at least one CPU");
        }
        if self.icount && self.cpus > 1 {
            return bad("counting instructions takes a machine with one CPU");
        }
        if self.gdb == Some(0) || self.gdb_machine == Some(0) {
            return bad("a debugger needs a port that it can name, and 0 is none");
        }
        if self.gdb.is_some() && self.gdb == self.gdb_machine {
            return bad("debuggers of the guest and of the machine need a port each");
        }
        if self.machine == Machine::Bare && self.gdb_machine.is_some() {
            return bad("to debug the software machine takes the software machine");
        }
        if self.machine == Machine::L0 && self.gdb.is_some() {
            if self.icount {
                return bad(
                    "a debugger of the guest has a CPU of its own, and counting instructions takes one CPU",
                );
            }
            if self.cpus >= MAX_CPUS {
                return bad("with a debugger of the guest, a machine has at most 63 CPUs");
            }
        }
        if self.memory < Self::MIN_MEMORY || !self.memory.is_multiple_of(4096) {
            return bad("memory is at least 32 MiB, in whole pages");
        }
        if self.stop_when_expected && self.expected.is_empty() {
            return bad("to stop when expected texts came takes a text to expect");
        }
        if self.expected.iter().any(String::is_empty) {
            return bad("an empty text is no expectation");
        }
        if self.machine == Machine::L0 && self.machine_elf.is_none() {
            return Err(Error::NoMachine);
        }
        self.faults.check(self.platform)?;
        let only_l0 = !self.machine_words().is_empty() || self.command_line.is_some();
        let is_offered = self.offer != Offer::default();
        if is_offered && (self.machine, self.platform) != (Machine::L0, Platform::Snp) {
            return bad("to offer firmware a kernel takes the software machine, and SEV-SNP");
        }
        if self.offer.kernel.is_none() && is_offered {
            return bad("a RAM disk and a command line for firmware take a kernel with them");
        }
        if self.machine == Machine::Bare && only_l0 {
            return bad("words for the software machine take the software machine");
        }
        Ok(())
    }

    /// The image.
    #[must_use]
    pub fn image(&self) -> &Path {
        &self.image
    }
}
