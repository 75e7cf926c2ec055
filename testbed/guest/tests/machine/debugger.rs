//! A debugger of the guest, which speaks the remote protocol itself.

use core::fmt::Write as _;
use core::net::Ipv4Addr;
use core::time::Duration;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use elf::ElfBytes;
use elf::endian::LittleEndian;
use svsm_testbed::verdict::Crash;
use svsm_testbed::{Cancel, Error, Outcome, Platform, Run, Verdict};
use svsm_testbed_guest::image::{self, Mode};
use tempfile::TempDir;

use crate::lab::programs;

/// Where RIP is in the packet of all registers, in hexadecimal digits.
const RIP: usize = 16 * 16;
const PATIENCE: Duration = Duration::from_secs(30);

/// The debugger's end of the line.
struct Debugger(TcpStream);

impl Debugger {
    fn attach(port: u16) -> Self {
        let began = Instant::now();
        loop {
            match TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    stream.set_nodelay(true).unwrap();
                    return Self(stream);
                }
                Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn send(&mut self, packet: &str) {
        let sum = packet.bytes().fold(0_u8, u8::wrapping_add);
        write!(self.0, "${packet}#{sum:02x}").unwrap();
    }

    fn byte(&mut self) -> u8 {
        let mut byte = [0];
        self.0.read_exact(&mut byte).unwrap();
        byte[0]
    }

    /// The next packet, with its repetitions written out; it is acknowledged.
    fn receive(&mut self) -> String {
        while self.byte() != b'$' {}
        let mut packet = String::new();
        loop {
            match self.byte() {
                b'#' => break,
                b'*' => {
                    let count = usize::from(self.byte()) - 29;
                    let last = packet.chars().last().unwrap();
                    packet.extend(core::iter::repeat_n(last, count));
                }
                byte => packet.push(char::from(byte)),
            }
        }
        let _sum = [self.byte(), self.byte()];
        self.0.write_all(b"+").unwrap();
        packet
    }

    fn ask(&mut self, packet: &str) -> String {
        self.send(packet);
        self.receive()
    }

    fn must(&mut self, packet: &str) {
        assert_eq!(self.ask(packet), "OK", "{packet}");
    }

    /// Looks at the thread that stopped.
    fn registers(&mut self) -> String {
        self.ask("g")
    }

    fn rip(&mut self) -> u64 {
        word(&self.registers(), RIP)
    }

    /// What a `monitor` command prints.
    fn monitor(&mut self, command: &str) -> String {
        let digits = hex(command.as_bytes());
        let mut answer = self.ask(&format!("qRcmd,{digits}"));
        let mut text = String::new();
        while let Some(part) = answer.strip_prefix('O').filter(|part| *part != "K") {
            text.push_str(&String::from_utf8(bytes(part)).unwrap());
            answer = self.receive();
        }
        assert_eq!(answer, "OK");
        text
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn bytes(digits: &str) -> Vec<u8> {
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(core::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn word(digits: &str, at: usize) -> u64 {
    u64::from_le_bytes(bytes(&digits[at..at + 16]).try_into().unwrap())
}

/// A function of the guests' program by a part of its name.
fn symbol(guest: &Path, part: &str) -> u64 {
    let file = std::fs::read(guest).unwrap();
    let file = ElfBytes::<LittleEndian>::minimal_parse(&file).unwrap();
    let (symbols, names) = file.symbol_table().unwrap().unwrap();
    let found = symbols.iter().find(|symbol| {
        let name = names.get(symbol.st_name as usize);
        symbol.st_symtype() == elf::abi::STT_FUNC && name.is_ok_and(|name| name.contains(part))
    });
    found.unwrap_or_else(|| panic!("no {part}")).st_value
}

/// The guests' program as it is at an address.
fn code(guest: &Path, at: u64, len: usize) -> Vec<u8> {
    let file = std::fs::read(guest).unwrap();
    let file = ElfBytes::<LittleEndian>::minimal_parse(&file).unwrap();
    let segment = file
        .segments()
        .unwrap()
        .iter()
        .find(|segment| (segment.p_vaddr..segment.p_vaddr + segment.p_filesz).contains(&at))
        .unwrap();
    let from = usize::try_from(at - segment.p_vaddr).unwrap();
    file.segment_data(&segment).unwrap()[from..from + len].to_vec()
}

/// Ends a run when its debugger fails.
struct CancelOnPanic(Cancel);

impl Drop for CancelOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.cancel();
        }
    }
}

/// Runs a guest whose debugger does what `debug` does; `None` if that cannot be done here.
fn debug(
    name: &str,
    platform: Platform,
    cpus: u32,
    debug: impl FnOnce(&mut Debugger, &Path) + Send,
) -> Option<Outcome> {
    let (machine, guest): (PathBuf, PathBuf) = programs()?;
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("guest.igvm");
    let program = std::fs::read(&guest).unwrap();
    let image = match platform {
        Platform::Snp => image::snp(&program, false),
        _ => image::native(&program, Mode::Long),
    };
    std::fs::write(&path, image.unwrap()).unwrap();
    // Free a moment ago, and nobody else is told of it.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let cancel = Cancel::default();
    let run = Run::new(path)
        .cancel(cancel.clone())
        .machine_elf(machine)
        .platform(platform)
        .cpus(cpus)
        .command_line(name)
        .memory(64 << 20)
        .gdb(port)
        .timeout(Duration::from_secs(90));
    thread::scope(|scope| {
        let run = scope.spawn(|| run.start(&mut |_| ()));
        let qemu = svsm_testbed::qemu::DEFAULT_PROGRAM.as_ref();
        if svsm_testbed::qemu::check_version(qemu).is_ok() {
            // A debugger that fails leaves no guest behind that waits for it.
            let failing = CancelOnPanic(cancel);
            debug(&mut Debugger::attach(port), &guest);
            drop(failing);
        }
        match run.join().unwrap() {
            Ok(outcome) => Some(outcome),
            Err(error @ (Error::QemuMissing { .. } | Error::QemuTooOld { .. })) => {
                eprintln!("skipped: {error}");
                None
            }
            Err(error) => panic!("{name}: {error}"),
        }
    })
}

#[test]
fn a_debugger_stops_and_steps_a_guest_of_sev_snp() {
    let Some(outcome) = debug("snp-levels", Platform::Snp, 1, |gdb, guest| {
        let features = gdb.ask("qSupported:multiprocess+;swbreak+;hwbreak+;xmlRegisters=i386");
        assert!(features.contains("qXfer:features:read+"), "{features}");
        let xml = gdb.ask("qXfer:features:read:target.xml:0,7ff");
        assert!(xml.contains("i386:x86-64"), "{xml}");
        // It waits before its first instruction, and shows the code that was measured.
        let stop = gdb.ask("?");
        assert!(stop.starts_with("T05thread:"), "{stop}");
        let entry = {
            let file = std::fs::read(guest).unwrap();
            ElfBytes::<LittleEndian>::minimal_parse(&file)
                .unwrap()
                .ehdr
                .e_entry
        };
        gdb.must("Hgp1.1");
        assert_eq!(gdb.rip(), entry);
        assert_eq!(
            gdb.ask(&format!("m{entry:x},10")),
            hex(&code(guest, entry, 16))
        );

        let off = symbol(guest, "4bare9power_off");
        gdb.must(&format!("Z0,{off:x},1"));
        let stop = gdb.ask("vCont;c");
        assert!(
            stop.starts_with("T05") && stop.contains("hwbreak"),
            "{stop}"
        );
        let registers = gdb.registers();
        assert_eq!(word(&registers, RIP), off);
        // Memory is what it was: the breakpoint is the CPU's.
        assert_eq!(gdb.ask(&format!("m{off:x},10")), hex(&code(guest, off, 16)));
        // The stack is there, can be written, and holds the return address.
        let rsp = word(&registers, 7 * 16);
        let was = gdb.ask(&format!("m{rsp:x},8"));
        assert!((0x20_0000..0x30_0000).contains(&word(&was, 0)), "{was}");
        gdb.must(&format!("M{:x},4:0badcafe", rsp - 64));
        assert_eq!(gdb.ask(&format!("m{:x},4", rsp - 64)), "0badcafe");
        // What no table maps is not there.
        assert!(gdb.ask("m7fff00000000,8").starts_with('E'));
        assert_eq!(gdb.monitor("vmpl"), format!("CPU 0: VMPL0 at {off:#x}\n"));
        let page = gdb.monitor(&format!("rmp {off:#x}"));
        assert!(
            page.contains("private-valid") && page.contains("VMPL0 rwux"),
            "{page}"
        );
        assert!(gdb.monitor("help").contains("monitor rmp ADDR"));

        // One instruction, with the breakpoint still in its place.
        let stop = gdb.ask("vCont;s:p1.1");
        assert!(
            stop.starts_with("T05") && !stop.contains("hwbreak"),
            "{stop}"
        );
        let after = gdb.rip();
        assert!(after > off && after <= off + 15, "{after:#x}");
        for _ in 0..20 {
            assert!(gdb.ask("vCont;s:p1.1").starts_with("T05"));
        }
        gdb.must(&format!("z0,{off:x},1"));
        // To the end.
        assert_eq!(gdb.ask("vCont;c"), "W00");
    }) else {
        return;
    };
    assert!(
        outcome.log_contains("snp-levels: ok"),
        "{:?}\n{:?}",
        outcome.verdict,
        outcome.log
    );
}

#[test]
fn a_debugger_interrupts_all_cpus_and_another_one_follows_it() {
    let Some(outcome) = debug("spin", Platform::Native, 2, |gdb, _| {
        gdb.send("vCont;c");
        thread::sleep(Duration::from_secs(2));
        gdb.0.write_all(&[3]).unwrap();
        let stop = gdb.receive();
        assert!(stop.starts_with("T02"), "{stop}");
        gdb.must("Hg1");
        let rip = gdb.rip();
        assert!((0x20_0000..0x30_0000).contains(&rip), "{rip:#x}");
        assert!(gdb.ask("qfThreadInfo").starts_with('m'));
        // It runs on when its debugger goes, and stops for the next one.
        gdb.must("D");
        let port = gdb.0.peer_addr().unwrap().port();
        gdb.0.shutdown(Shutdown::Both).unwrap();
        *gdb = Debugger::attach(port);
        let stop = gdb.ask("?");
        assert!(stop.starts_with("T05"), "{stop}");
        // What stands cannot be interrupted, and still runs afterwards.
        gdb.0.write_all(&[3]).unwrap();
        gdb.send("vCont;c");
        thread::sleep(Duration::from_millis(300));
        gdb.0.write_all(&[3]).unwrap();
        assert!(gdb.receive().starts_with("T02"));
        // It is killed, as by a reset button.
        gdb.send("k");
    }) else {
        return;
    };
    match &outcome.verdict {
        Verdict::Crashed {
            how: Crash::Reset, ..
        } => {}
        other => panic!("{other:?}\n{:?}", outcome.log),
    }
}

#[test]
fn a_debugger_sees_a_crash_before_the_run_ends() {
    let Some(outcome) = debug("bad-access", Platform::Native, 1, |gdb, _| {
        let stop = gdb.ask("vCont;c");
        assert!(stop.starts_with("T0b"), "{stop}");
        gdb.must("Hg1");
        let rip = gdb.rip();
        assert!((0x20_0000..0x30_0000).contains(&rip), "{rip:#x}");
        assert_eq!(gdb.ask("vCont;c"), "X06");
    }) else {
        return;
    };
    match &outcome.verdict {
        Verdict::Crashed {
            how: Crash::BadAccess,
            ..
        } => {}
        other => panic!("{other:?}\n{:?}", outcome.log),
    }
}

#[test]
fn a_debugger_watches_memory_and_leaves_nothing_behind() {
    let Some(outcome) = debug("power-off", Platform::Native, 1, |gdb, guest| {
        let main = symbol(guest, "4bare4main");
        gdb.must(&format!("Z1,{main:x},1"));
        assert!(gdb.ask("vCont;c").contains("hwbreak"));
        gdb.must("Hg1");
        let rsp = word(&gdb.registers(), 7 * 16);
        // The first thing that a function does is to save registers.
        gdb.must(&format!("Z2,{:x},8", rsp - 8));
        let stop = gdb.ask("vCont;c");
        assert!(stop.contains(&format!("watch:{:x};", rsp - 8)), "{stop}");
        // All registers can be written, and are there afterwards.
        let registers = gdb.registers();
        gdb.must(&format!("G{registers}"));
        assert_eq!(gdb.registers(), registers);
        // The fifth breakpoint has no place.
        for at in 1..=2 {
            gdb.must(&format!("Z0,{at:x},1"));
        }
        assert!(gdb.ask("Z0,3,1").starts_with('E'));
        // Its breakpoints go with it.
        gdb.must("D");
    }) else {
        return;
    };
    assert!(
        outcome.log_contains("power-off: ok"),
        "{:?}",
        outcome.verdict
    );
}
