//! Which QEMU, and its command line.

use core::fmt;
use core::time::Duration;
use std::ffi::OsString;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde::Serialize;

use crate::run::{Machine, Offer, Platform};
use crate::{Error, Result};

/// What is started when nothing else is named.
pub const DEFAULT_PROGRAM: &str = "qemu-system-x86_64";

/// The oldest version that can run the software machine: before it, TCG has no x2APIC.
pub const OLDEST: Version = Version {
    major: 9,
    minor: 0,
    patch: 0,
};

/// Memory that QEMU gets beyond what the image sees and the length of its file: the software machine
/// lives there, with the pages that back addresses without memory.
pub const MACHINE_RESERVE: u64 = 128 << 20;

/// How long QEMU may take to say what it is.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much it may say.
const MOST_PRINTED: u64 = 64 << 10;

/// A version of QEMU.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Version {
    /// 10 in 10.0.2.
    pub major: u32,
    /// 0 in 10.0.2.
    pub minor: u32,
    /// 2 in 10.0.2.
    pub patch: u32,
}

impl Version {
    /// Reads what `--version` prints.
    #[must_use]
    pub fn parse(banner: &str) -> Option<Self> {
        let number = banner
            .lines()
            .next()?
            .strip_prefix("QEMU emulator version ")?;
        let number = number.split_whitespace().next()?;
        let mut parts = number.split('.').map(str::parse);
        let mut part = || parts.next().and_then(core::result::Result::ok);
        Some(Self {
            major: part()?,
            minor: part()?,
            patch: part().unwrap_or(0),
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Asks `program` for its version, and refuses one that is too old.
///
/// # Errors
/// When it does not start, is no QEMU or is too old.
pub fn check_version(program: &Path) -> Result<Version> {
    let found = Version::parse(&ask(program, &["--version"])?).ok_or_else(|| Error::NotQemu {
        program: program.to_owned(),
    })?;
    if found < OLDEST {
        return Err(Error::QemuTooOld {
            found,
            needed: OLDEST,
        });
    }
    Ok(found)
}

/// Refuses a QEMU that cannot load IGVM images by itself.
///
/// # Errors
/// When it does not start, or does not know the object `igvm-cfg`.
pub fn check_igvm(program: &Path, found: Version) -> Result<()> {
    let objects = ask(program, &["-object", "help"])?;
    if objects.lines().any(|line| line.trim() == "igvm-cfg") {
        Ok(())
    } else {
        Err(Error::QemuWithoutIgvm { found })
    }
}

/// What `program` prints. Whatever it is, it gets a few seconds and a few lines.
fn ask(program: &Path, args: &[&str]) -> Result<String> {
    let (ours, its) = UnixStream::pair().map_err(Error::System)?;
    let mut child = {
        // It holds the other end, and goes: then ours ends when the program does.
        let mut command = Command::new(program);
        command
            .args(args)
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        let spawned = command.stdout(OwnedFd::from(its)).spawn();
        spawned.map_err(|cause| Error::QemuMissing {
            program: program.to_owned(),
            cause,
        })?
    };
    let mut printed = Vec::new();
    let until = Instant::now() + PATIENCE;
    let read = ours
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| (&ours).take(MOST_PRINTED).read_to_end(&mut printed));
    let ended = read.is_ok() && Instant::now() < until;
    // Both fail only if it has ended already.
    let _ = child.kill();
    let _ = child.wait();
    let said = String::from_utf8_lossy(&printed).into_owned();
    if ended {
        Ok(said)
    } else {
        Err(Error::NotQemu {
            program: program.to_owned(),
        })
    }
}

/// What the command line depends on.
#[derive(Clone, Debug)]
pub(crate) struct Settings<'a> {
    pub(crate) machine: Machine,
    pub(crate) machine_elf: Option<&'a Path>,
    pub(crate) image: &'a Path,
    pub(crate) image_len: u64,
    pub(crate) platform: Platform,
    pub(crate) cpus: u32,
    pub(crate) memory: u64,
    pub(crate) icount: bool,
    pub(crate) gdb: Option<u16>,
    pub(crate) gdb_machine: Option<u16>,
    pub(crate) machine_args: &'a [String],
    pub(crate) command_line: Option<&'a str>,
    pub(crate) offer: &'a Offer,
    pub(crate) disks: &'a [PathBuf],
    pub(crate) qemu_args: &'a [OsString],
}

/// Everything after the program's name.
///
/// The first serial port is file descriptor 1, the second (or QMP, where there is no software machine to
/// use it) descriptor 0: both are there before QEMU is, so nothing has to be waited for, no path can be
/// too long, and they close when QEMU ends.
pub(crate) fn arguments(settings: &Settings<'_>) -> Vec<OsString> {
    let Settings {
        machine,
        cpus,
        memory,
        ..
    } = *settings;
    let mut args: Vec<OsString> = Vec::new();
    let mut add = |words: &[&str]| args.extend(words.iter().map(OsString::from));
    add(&[
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
    ]);
    // An x2APIC register reads the clock in the middle of a block of translated instructions, where QEMU
    // cannot tell how many it has counted: it aborts. So a counted run translates them one by one.
    let accel = if settings.icount {
        "tcg,one-insn-per-tb=on"
    } else {
        "tcg"
    };
    // A debugger of the guest has a CPU of its own, which the guest does not see.
    let watches = machine == Machine::L0 && settings.gdb.is_some();
    let smp = cpus.saturating_add(u32::from(watches)).to_string();
    add(&["-accel", accel, "-smp", &smp]);
    add(&["-chardev", "file,id=com1,path=/dev/fd/1,append=on"]);
    add(&["-serial", "chardev:com1"]);
    match machine {
        Machine::L0 => {
            let reserve =
                MACHINE_RESERVE.saturating_add(settings.image_len.next_multiple_of(1 << 20));
            let ram = memory.saturating_add(reserve);
            add(&["-machine", "q35", "-cpu", "max,+svm,+npt,phys-bits=52"]);
            add(&["-m", &format!("{}K", ram.div_ceil(1024))]);
            add(&["-chardev", "file,id=report,path=/dev/fd/0,append=on"]);
            add(&["-serial", "chardev:report"]);
            add(&["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
            // By this the software machine keeps devices from memory, and virtio devices do not go past it. Interrupts do.
            add(&["-device", "intel-iommu,intremap=off,aw-bits=48"]);
            add(&["-global", "virtio-device.iommu_platform=on"]);
            let mut line = format!("memory={memory} platform={}", settings.platform);
            if let Some(port) = settings.gdb {
                let at = format!("host=127.0.0.1,port={port},server=on,wait=off,nodelay=on");
                add(&["-chardev", &format!("socket,id=gdb,{at}")]);
                add(&[
                    "-device",
                    "isa-serial,chardev=gdb,index=3,iobase=0x5f8,irq=3",
                ]);
                line.push_str(" gdb");
            }
            for word in settings.machine_args {
                line.push(' ');
                line.push_str(word);
            }
            if let Some(text) = settings.command_line {
                line.push_str(" -- ");
                line.push_str(text);
            }
            add(&["-append", &line]);
            args.extend([
                "-kernel".into(),
                settings.machine_elf.unwrap_or(Path::new("")).into(),
            ]);
            args.extend(["-initrd".into(), settings.image.into()]);
            args.extend(offered(settings.offer));
        }
        Machine::Bare => {
            add(&["-machine", "q35,igvm-cfg=igvm0", "-cpu", "max"]);
            add(&["-m", &format!("{}K", memory.div_ceil(1024))]);
            add(&["-chardev", "socket,id=report,fd=0"]);
            add(&["-mon", "chardev=report,mode=control"]);
            let mut object = OsString::from("igvm-cfg,id=igvm0,file=");
            object.push(escape_commas(settings.image));
            args.extend(["-object".into(), object]);
        }
    }
    let mut add = |words: &[&str]| args.extend(words.iter().map(OsString::from));
    if settings.icount {
        add(&["-icount", "shift=0,sleep=off", "-rtc", "clock=vm"]);
    }
    // Without the software machine, QEMU's CPU is the guest's.
    let stub = match machine {
        Machine::L0 => settings.gdb_machine,
        Machine::Bare => settings.gdb,
    };
    if let Some(port) = stub {
        add(&["-gdb", &format!("tcp:127.0.0.1:{port}"), "-S"]);
    }
    for (number, file) in settings.disks.iter().enumerate() {
        // Of a bare `file=`, what stands before a colon would be a protocol.
        let mut drive = OsString::from(format!("if=none,id=disk{number},format=raw,"));
        drive.push("file.driver=file,file.filename=");
        drive.push(escape_commas(file));
        args.extend(["-drive".into(), drive, "-device".into()]);
        args.push(format!("virtio-blk-pci-non-transitional,drive=disk{number}").into());
    }
    args.extend(settings.qemu_args.iter().cloned());
    args
}

/// Files that the software machine shows firmware under the keys of a kernel: QEMU's own are those of the software machine.
fn offered(offer: &Offer) -> Vec<OsString> {
    let file = |name: &str, path: &Path| {
        let mut value = OsString::from(format!("name=opt/svsm/{name},file="));
        value.push(escape_commas(path));
        ["-fw_cfg".into(), value]
    };
    let mut args = Vec::new();
    for (name, path) in [("kernel", &offer.kernel), ("initrd", &offer.initrd)] {
        args.extend(path.iter().flat_map(|path| file(name, path)));
    }
    if let Some(text) = &offer.command_line {
        let text = text.replace(',', ",,");
        args.extend([
            "-fw_cfg".into(),
            format!("name=opt/svsm/cmdline,string={text}").into(),
        ]);
    }
    args
}

/// In QEMU's option lists a comma within a value is doubled.
fn escape_commas(path: &Path) -> OsString {
    path.to_str()
        .map_or_else(|| path.into(), |text| text.replace(',', ",,").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_distributions_print_them() {
        let debian = "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright …";
        assert_eq!(
            Version::parse(debian),
            Some(Version {
                major: 10,
                minor: 0,
                patch: 2
            })
        );
        let git = "QEMU emulator version 9.1.0-rc2 (v9.1.0-rc2-5-g1)";
        assert_eq!(
            Version::parse(git),
            Some(Version {
                major: 9,
                minor: 1,
                patch: 0
            })
        );
        assert_eq!(Version::parse("BusyBox v1.35"), None);
        assert!(
            Version {
                major: 8,
                minor: 2,
                patch: 9
            } < OLDEST
        );
    }

    fn settings(machine: Machine) -> Settings<'static> {
        Settings {
            machine,
            machine_elf: Some(Path::new("l0.elf")),
            image: Path::new("a,b.igvm"),
            image_len: 5000,
            platform: Platform::Native,
            cpus: 2,
            memory: 64 << 20,
            icount: false,
            gdb: None,
            gdb_machine: None,
            machine_args: &[],
            command_line: None,
            offer: const {
                &Offer {
                    kernel: None,
                    initrd: None,
                    command_line: None,
                }
            },
            disks: &[],
            qemu_args: &[],
        }
    }

    fn joined(settings: &Settings<'_>) -> String {
        let words: Vec<_> = arguments(settings)
            .iter()
            .map(|w| w.to_string_lossy().into_owned())
            .collect();
        words.join(" ")
    }

    #[test]
    fn software_machine_gets_the_image_as_its_module_and_memory_of_its_own() {
        let machine_args = &["trace".to_owned()];
        let line = joined(&Settings {
            machine_args,
            command_line: Some("a b"),
            ..settings(Machine::L0)
        });
        assert!(
            line.contains("-append memory=67108864 platform=native trace -- a b "),
            "{line}"
        );
        assert!(line.contains("-m 197632K"), "{line}");
        assert!(line.contains("-kernel l0.elf -initrd a,b.igvm"), "{line}");
    }

    #[test]
    fn a_debugger_of_the_guest_has_a_port_and_a_cpu_and_one_of_the_machine_is_qemus() {
        let line = joined(&Settings {
            gdb: Some(1234),
            gdb_machine: Some(1235),
            ..settings(Machine::L0)
        });
        assert!(line.contains("-smp 3 "), "{line}");
        assert!(
            line.contains("id=gdb,host=127.0.0.1,port=1234,server=on"),
            "{line}"
        );
        assert!(
            line.contains("-append memory=67108864 platform=native gdb "),
            "{line}"
        );
        assert!(line.contains("-gdb tcp:127.0.0.1:1235 -S"), "{line}");
        let without = joined(&settings(Machine::L0));
        assert!(
            !without.contains("gdb") && without.contains("-smp 2 "),
            "{without}"
        );
    }

    #[test]
    fn firmware_is_offered_a_kernel_that_is_not_the_machines() {
        let offer = Offer {
            kernel: Some("vm,linuz".into()),
            initrd: Some("disk".into()),
            command_line: Some("console=ttyS0,115200".to_owned()),
        };
        let line = joined(&Settings {
            offer: &offer,
            ..settings(Machine::L0)
        });
        for word in [
            "-kernel l0.elf ",
            "-fw_cfg name=opt/svsm/kernel,file=vm,,linuz",
            "-fw_cfg name=opt/svsm/initrd,file=disk",
            "-fw_cfg name=opt/svsm/cmdline,string=console=ttyS0,,115200",
        ] {
            assert!(line.contains(word), "{word} in {line}");
        }
    }

    #[test]
    fn disks_are_virtio_devices_whose_dma_is_checked() {
        let line = joined(&Settings {
            disks: &["a:z".into(), "b,c".into()],
            ..settings(Machine::L0)
        });
        for word in [
            "-device intel-iommu,intremap=off,aw-bits=48 -global virtio-device.iommu_platform=on",
            "-drive if=none,id=disk0,format=raw,file.driver=file,file.filename=a:z -device virtio-blk-pci-non-transitional,drive=disk0",
            "-drive if=none,id=disk1,format=raw,file.driver=file,file.filename=b,,c",
        ] {
            assert!(line.contains(word), "{word} in {line}");
        }
        assert!(!joined(&settings(Machine::Bare)).contains("iommu"));
    }

    #[test]
    fn bare_machine_gets_the_image_by_its_own_loader() {
        let line = joined(&Settings {
            gdb: Some(1234),
            ..settings(Machine::Bare)
        });
        assert!(
            line.contains("-object igvm-cfg,id=igvm0,file=a,,b.igvm"),
            "{line}"
        );
        assert!(line.contains("-gdb tcp:127.0.0.1:1234 -S"), "{line}");
        assert!(!line.contains("isa-debug-exit"), "{line}");
    }
}
