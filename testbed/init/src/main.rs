//! The first process of a Linux guest.
//!
//! It says on the console what the kernel found out about itself, asks for an attestation report where that can be had,
//! works a little, and powers the machine off. Every line that counts begins with `guest:` and holds one fact, so that
//! whoever started the guest can look for it.

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, Mode, mkdirat};
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, finit_module, reboot};
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::time::Instant;

/// Non-blocking reads, as the C library has them.
const NONBLOCK: i32 = 0o4000;

/// For `finit_module`: the kernel shall decompress the file.
const COMPRESSED: i32 = 4;

/// Bytes of a block of the disk that is written.
const BLOCK: usize = 4096;

fn main() {
    if std::env::args().nth(1).as_deref() == Some("child") {
        return;
    }
    match run() {
        Ok(()) => say("verdict: passed"),
        Err(error) => say(&format!("verdict: failed: {error:#}")),
    }
    // All of it is on the wire before the kernel has its own last words.
    let _ = rustix::termios::tcdrain(std::io::stdout());
    kernel_speaks(true);
    if let Err(error) = reboot(RebootCommand::PowerOff) {
        say(&format!("cannot power off: {error}"));
    }
}

fn say(fact: &str) {
    println!("guest: {fact}");
}

fn run() -> Result<()> {
    mounts()?;
    kernel_speaks(false);
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    say(&format!("kernel: {}", release.trim()));
    let online = fs::read_to_string("/sys/devices/system/cpu/online")?;
    say(&format!("cpus: {}", online.trim()));
    for line in kernel_log()? {
        let told = [
            "Memory Encryption Features",
            "SEV:",
            "SNP running",
            "SVSM",
            "x2apic",
            "software IO TLB",
        ];
        if !line.starts_with("ACPI:") && told.iter().any(|text| line.contains(text)) {
            say(&format!("log: {line}"));
        }
    }
    modules()?;
    report()?;
    disk()?;
    work()
}

/// Whether the kernel writes its messages to the console, too: they would come into the middle of this process's lines.
/// Emergencies do in any case. Nothing depends on it where the kernel has no such switch.
fn kernel_speaks(yes: bool) {
    let level = if yes { "7" } else { "1" };
    let _ = fs::write("/proc/sys/kernel/printk", level);
}

fn mounts() -> Result<()> {
    for (kind, at) in [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys")] {
        // What the kernel made itself is there already.
        let _ = mkdirat(CWD, at, Mode::from_raw_mode(0o755));
        match mount(kind, at, kind, MountFlags::empty(), None) {
            Ok(()) | Err(rustix::io::Errno::BUSY) => {}
            Err(error) => bail!("cannot mount {kind} at {at}: {error}"),
        }
    }
    Ok(())
}

/// What the kernel logged, without levels and times.
fn kernel_log() -> Result<Vec<String>> {
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(NONBLOCK)
        .open("/dev/kmsg")
        .context("cannot open /dev/kmsg")?;
    let mut lines = Vec::new();
    let mut record = [0; 8192];
    // One record a read, until there are no more for now.
    while let Ok(bytes) = file.read(&mut record) {
        let text = String::from_utf8_lossy(record.get(..bytes).unwrap_or_default());
        let message = text.split_once(';').map_or("", |(_, message)| message);
        lines.push(message.lines().next().unwrap_or_default().to_owned());
    }
    Ok(lines)
}

/// Loads what lies in `/modules`, in the order of the names.
fn modules() -> Result<()> {
    let Ok(entries) = fs::read_dir("/modules") else {
        return Ok(());
    };
    let mut paths: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    paths.sort();
    for path in paths {
        let file = File::open(&path)?;
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let compressed = path.extension().is_some_and(|ending| ending != "ko");
        let flags = if compressed { COMPRESSED } else { 0 };
        match finit_module(&file, &CString::default(), flags) {
            Ok(()) => say(&format!("module: {name}")),
            Err(error) => say(&format!("module: {name}: {error}")),
        }
    }
    // The file system in which reports are asked for comes as a module too.
    let _ = mount(
        "configfs",
        "/sys/kernel/config",
        "configfs",
        MountFlags::empty(),
        None,
    );
    Ok(())
}

/// Asks for an attestation report about data that whoever started the guest knows.
fn report() -> Result<()> {
    let at = "/sys/kernel/config/tsm/report/testbed";
    // Without protection there is no such file system, or nobody behind it.
    if let Err(error) = fs::create_dir(at) {
        say(&format!("report: none ({error})"));
        return Ok(());
    }
    if let Some(provider) = option("report_provider") {
        fs::write(format!("{at}/service_provider"), provider)
            .context("there is no such service provider")?;
    }
    let data: Vec<u8> = (0..64).collect();
    // A report is asked for at the kernel's own level: it has no key for a higher one.
    if let Ok(floor) = fs::read_to_string(format!("{at}/privlevel_floor")) {
        fs::write(format!("{at}/privlevel"), floor.trim()).context("the level of the report")?;
    }
    fs::write(format!("{at}/inblob"), &data).context("report data")?;
    let provider = fs::read_to_string(format!("{at}/provider")).unwrap_or_default();
    say(&format!("report: provider {}", provider.trim()));
    for blob in ["outblob", "auxblob", "manifestblob"] {
        if let Ok(bytes) = fs::read(format!("{at}/{blob}")) {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            say(&format!("report: {blob} {hex}"));
        } else if blob == "outblob" {
            bail!("the report cannot be read");
        }
    }
    Ok(())
}

/// Reads all of the first disk, and leaves a word in its last block, for whoever made it.
fn disk() -> Result<()> {
    let mut options = OpenOptions::new();
    let Ok(mut disk) = options.read(true).write(true).open("/dev/vda") else {
        say("disk: none");
        return Ok(());
    };
    let mut content = Vec::new();
    disk.read_to_end(&mut content)
        .context("the disk cannot be read")?;
    let hash = fnv(&content);
    say(&format!("disk: {} bytes, hash {hash:016x}", content.len()));
    let mut last = [0; BLOCK];
    for (to, from) in last.iter_mut().zip(b"written by the guest") {
        *to = *from;
    }
    let end = content.len().saturating_sub(BLOCK);
    disk.seek(SeekFrom::Start(u64::try_from(end)?))?;
    disk.write_all(&last)
        .and_then(|()| disk.sync_all())
        .context("the disk cannot be written")?;
    let interrupts = fs::read_to_string("/proc/interrupts")?;
    for line in interrupts.lines().filter(|line| line.contains("virtio")) {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        say(&format!("disk: interrupt {}", words.join(" ")));
    }
    Ok(())
}

/// The hash of Fowler, Noll and Vo (FNV-1a, 64 bits).
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The value of a word `testbed.NAME=VALUE` of the kernel's command line.
fn option(name: &str) -> Option<String> {
    let line = fs::read_to_string("/proc/cmdline").ok()?;
    line.split_ascii_whitespace()
        .find_map(|word| {
            word.strip_prefix("testbed.")?
                .strip_prefix(name)?
                .strip_prefix('=')
        })
        .map(str::to_owned)
}

/// A little of everything: processes, memory, system calls, a pipe.
fn work() -> Result<()> {
    timed("50 processes", || {
        for _ in 0..50 {
            let status = Command::new("/proc/self/exe").arg("child").status()?;
            if !status.success() {
                bail!("a child ended with {status}");
            }
        }
        Ok(())
    })?;
    timed("64 MiB of memory", || {
        let mut memory = vec![0_u8; 64 << 20];
        for (at, page) in memory.chunks_mut(4096).enumerate() {
            if let Some(byte) = page.first_mut() {
                *byte = u8::try_from(at % 251)?;
            }
        }
        let good = memory
            .chunks(4096)
            .enumerate()
            .all(|(at, page)| page.first().map(|byte| usize::from(*byte)) == Some(at % 251));
        if good {
            Ok(())
        } else {
            bail!("memory lost what was written")
        }
    })?;
    timed("100000 system calls", || {
        for _ in 0..100_000 {
            core::hint::black_box(rustix::thread::gettid());
        }
        Ok(())
    })?;
    timed("a pipe", || {
        let (mut reader, mut writer) = std::io::pipe()?;
        for round in 0..1000_u32 {
            writer.write_all(&round.to_le_bytes())?;
            let mut back = [0; 4];
            reader.read_exact(&mut back)?;
            if u32::from_le_bytes(back) != round {
                bail!("the pipe lost a word");
            }
        }
        Ok(())
    })
}

fn timed(what: &str, action: impl FnOnce() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    action().with_context(|| what.to_owned())?;
    say(&format!(
        "work: {what} in {} ms",
        start.elapsed().as_millis()
    ));
    Ok(())
}
