//! The reports: one JSON object a line. The README documents the schema.
//!
//! Addresses and register values are strings (`"0x…"`), since not every reader of
//! JSON keeps 64 bits; counts are numbers.

use crate::addr::HpaRange;
use crate::board::{Board, LEVELS, Operation, Slot};
use crate::dma::Refused;
use crate::ending::Ending;
use crate::exit::Reason;
use crate::liar::Effect;
use crate::loader::{LoadError, PageCounts};
use crate::personality::Personality;
use crate::vcpu::Gprs;
use crate::vmcb::{Control, Save, Segment};
use core::fmt::{self, Write};
use core::sync::atomic::Ordering;
use svsm_sim::fault::Fired;

/// What a run begins with.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// The name of the platform.
    pub platform: &'a str,
    /// How many CPUs there are.
    pub cpus: usize,
    /// Bytes of RAM that the guest sees.
    pub memory: u64,
    /// L0's part of RAM.
    pub own: HpaRange,
    /// Bytes of the image file.
    pub image_bytes: usize,
    /// The version of its format.
    pub image_version: u32,
    /// Its pages.
    pub pages: PageCounts,
    /// Bytes of guest memory beside RAM.
    pub backed: u64,
    /// The launch digest, where the platform measures.
    pub digest: Option<&'a [u8]>,
    /// Whether something stands between devices and memory.
    pub remaps: bool,
    /// The time-stamp counter.
    pub tsc: u64,
}

/// What a run ends with.
#[derive(Clone, Copy, Debug)]
pub struct Verdict<'a> {
    /// How it ended.
    pub ending: Ending,
    /// The CPU that ended it.
    pub cpu: usize,
    /// The time-stamp counter.
    pub tsc: u64,
    /// What the CPU counted so far.
    pub slot: Option<&'a Slot>,
    /// The guest's state on that CPU, if it ran one.
    pub guest: Option<GuestState<'a>>,
}

/// The guest's state.
#[derive(Clone, Copy, Debug)]
pub struct GuestState<'a> {
    /// The last exit.
    pub control: &'a Control,
    /// Registers of the control block.
    pub save: &'a Save,
    /// The others.
    pub gprs: &'a Gprs,
    /// The bytes at the next instruction.
    pub code: &'a [u8],
}

/// The `start` line.
///
/// # Errors
/// Those of `out`.
pub fn start(out: &mut impl Write, start: &Start<'_>) -> fmt::Result {
    let Start {
        platform,
        cpus,
        memory,
        own,
        image_bytes,
        image_version,
        pages,
        backed,
        digest,
        remaps,
        tsc,
    } = start;
    let PageCounts {
        data,
        zero,
        unmeasured,
        shared,
        parameter,
    } = pages;
    write!(
        out,
        r#"{{"event":"start","version":"{}","platform":"{platform}","cpus":{cpus},"#,
        env!("CARGO_PKG_VERSION")
    )?;
    write!(
        out,
        r#""memory":{memory},"l0":{{"start":"{:#x}","#,
        own.start().as_u64()
    )?;
    write!(
        out,
        r#""bytes":{}}},"image":{{"bytes":{image_bytes},"#,
        own.len_bytes()
    )?;
    write!(
        out,
        r#""format":{image_version},"pages":{{"data":{data},"zero":{zero},"#
    )?;
    write!(
        out,
        r#""unmeasured":{unmeasured},"shared":{shared},"parameter":{parameter}}},"#
    )?;
    write!(out, r#""backed":{backed}}},"#)?;
    if let Some(digest) = digest {
        out.write_str(r#""digest":""#)?;
        for byte in *digest {
            write!(out, "{byte:02x}")?;
        }
        out.write_str("\",")?;
    }
    writeln!(out, r#""dma_checked":{remaps},"tsc":{tsc}}}"#)
}

/// The `dma-refused` line.
#[derive(Clone, Copy, Debug)]
pub struct RefusedDma(
    /// What was refused.
    pub Refused,
);

impl fmt::Display for RefusedDma {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refused { device, gpa, write } = self.0;
        let (bus, slot, function) = (device >> 8, device >> 3 & 0x1f, device & 7);
        let access = if write { "write" } else { "read" };
        write!(
            f,
            r#"{{"event":"dma-refused","device":"{bus:02x}:{slot:02x}.{function}","gpa":"{gpa:#x}","access":"{access}"}}"#
        )
    }
}

/// The `load-error` line.
///
/// # Errors
/// Those of `out`.
pub fn load_error(out: &mut impl Write, error: &LoadError) -> fmt::Result {
    write!(
        out,
        r#"{{"event":"load-error","offset":{},"reason":"#,
        error.offset
    )?;
    quoted(out, &error.reason)?;
    writeln!(out, "}}")
}

/// The `l0-error` line: L0 itself failed.
///
/// # Errors
/// Those of `out`.
pub fn l0_error(out: &mut impl Write, reason: &dyn fmt::Display) -> fmt::Result {
    out.write_str(r#"{"event":"l0-error","reason":"#)?;
    quoted(out, reason)?;
    writeln!(out, "}}")
}

/// The `verdict` line.
///
/// # Errors
/// Those of `out`.
pub fn verdict(out: &mut impl Write, verdict: &Verdict<'_>) -> fmt::Result {
    let Verdict {
        ending,
        cpu,
        tsc,
        slot,
        guest,
    } = verdict;
    write!(
        out,
        r#"{{"event":"verdict","kind":"{}","reason":"#,
        ending.kind()
    )?;
    quoted(out, ending)?;
    write!(
        out,
        r#","exit":{},"cpu":{cpu},"tsc":{tsc}"#,
        ending.exit_code()
    )?;
    if let Some(slot) = slot {
        let l0_ticks = slot.counters.l0_ticks.load(Ordering::Relaxed);
        let first = slot.counters.first_entry.load(Ordering::Relaxed);
        write!(out, r#","first_entry_tsc":{first},"l0_ticks":{l0_ticks}"#)?;
    }
    if let Ending::BadAccess { gpa, code } = ending {
        write!(out, r#","gpa":"{gpa:#x}","fault":"{code:#x}""#)?;
    }
    if let Some(guest) = guest {
        guest_state(out, guest)?;
    }
    writeln!(out, "}}")
}

/// The `counters` line.
///
/// # Errors
/// Those of `out`.
pub fn counters(out: &mut impl Write, board: &Board, refused: Option<u64>) -> fmt::Result {
    out.write_str(r#"{"event":"counters","cpus":["#)?;
    for (index, slot) in board.slots().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let (id, state) = (slot.apic_id(), slot.state().name());
        write!(
            out,
            r#"{comma}{{"cpu":{index},"apic_id":{id},"state":"{state}","exits":{{"#
        )?;
        let mut total = 0;
        for reason in Reason::ALL {
            let count = slot.counters.exits(reason);
            if count > 0 {
                let comma = if total == 0 { "" } else { "," };
                write!(out, r#"{comma}"{}":{count}"#, reason.name())?;
                total += count;
            }
        }
        let load = |counter: &core::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        write!(out, r#"}},"total":{total},"by_vmpl":{{"#)?;
        by_level(out, slot)?;
        write!(out, r#"}},"l0_ticks":{},"#, load(&slot.counters.l0_ticks))?;
        write!(out, r#""halt_ticks":{},"#, load(&slot.counters.halt_ticks))?;
        write!(
            out,
            r#""guest_ticks":{}}}"#,
            load(&slot.counters.guest_ticks)
        )?;
    }
    out.write_char(']')?;
    if let Some(refused) = refused {
        write!(out, r#","dma":{{"refused":{refused}}}"#)?;
    }
    writeln!(out, "}}")
}

/// The exits of each level that made any, and what was done for the guest.
fn by_level(out: &mut impl Write, slot: &Slot) -> fmt::Result {
    let counters = &slot.counters;
    let mut comma = "";
    for level in (0_u8..).take(LEVELS) {
        let counts = Reason::ALL.map(|reason| (reason, counters.exits_from(level, reason)));
        if counts.iter().all(|(_, count)| *count == 0) {
            continue;
        }
        write!(out, r#"{comma}"{level}":{{"#)?;
        let mut inner = "";
        for (reason, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            write!(out, r#"{inner}"{}":{count}"#, reason.name())?;
            inner = ",";
        }
        out.write_char('}')?;
        comma = ",";
    }
    out.write_str(r#"},"operations":{"#)?;
    comma = "";
    for operation in Operation::ALL {
        let count = counters.operations(operation);
        if count > 0 {
            write!(out, r#"{comma}"{}":{count}"#, operation.name())?;
            comma = ",";
        }
    }
    Ok(())
}

/// An exit and what was answered: the `exit` line, without its end.
#[derive(Clone, Copy, Debug)]
pub struct Traced<'a, P> {
    /// On which CPU.
    pub cpu: usize,
    /// When.
    pub tsc: u64,
    /// From which level, where there are levels.
    pub level: Option<u8>,
    /// At which instruction.
    pub rip: u64,
    /// Why.
    pub reason: Reason,
    /// The code, and what goes with it.
    pub code: [u64; 3],
    /// What knows more about it.
    pub personality: &'a P,
}

impl<P: Personality> fmt::Display for Traced<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cpu, tsc, reason) = (self.cpu, self.tsc, self.reason.name());
        write!(f, r#"{{"event":"exit","cpu":{cpu},"tsc":{tsc},"#)?;
        if let Some(level) = self.level {
            write!(f, r#""vmpl":{level},"#)?;
        }
        let [code, info1, info2] = self.code;
        write!(f, r#""rip":"{:#x}","reason":"{reason}","#, self.rip)?;
        write!(
            f,
            r#""code":"{code:#x}","info1":"{info1:#x}","info2":"{info2:#x}""#
        )?;
        self.personality.describe(f)?;
        f.write_char('}')
    }
}

/// A lie that was told: the `fault` line, without its end.
#[derive(Clone, Copy, Debug)]
pub struct Lie<'a> {
    /// Which, and at which event.
    pub fired: &'a Fired,
    /// On which CPU.
    pub cpu: usize,
    /// To which level, where there are levels.
    pub level: Option<u8>,
    /// Behind the instruction that asked.
    pub rip: u64,
    /// What came of it.
    pub effect: Effect,
}

impl fmt::Display for Lie<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fired {
            fault,
            event,
            choice,
        } = self.fired;
        write!(f, r#"{{"event":"fault","number":{event},"name":"{fault}","#)?;
        write!(f, r#""script":"{fault}@{event}={choice:#x}","#)?;
        let (class, expected) = (fault.class(), fault.expected());
        write!(f, r#""class":"{class}","expected":"{expected}","#)?;
        let cpu = self.cpu;
        write!(f, r#""cpu":{cpu},"#)?;
        if let Some(level) = self.level {
            write!(f, r#""vmpl":{level},"#)?;
        }
        write!(f, r#""rip":"{:#x}","effect":"#, self.rip)?;
        quoted(f, &self.effect)?;
        f.write_char('}')
    }
}

fn guest_state(out: &mut impl Write, guest: &GuestState<'_>) -> fmt::Result {
    let GuestState {
        control,
        save,
        gprs,
        code,
    } = guest;
    write!(out, r#","last_exit":{{"code":"{:#x}","#, control.exit_code)?;
    write!(
        out,
        r#""info1":"{:#x}","info2":"{:#x}"}}"#,
        control.exit_info1, control.exit_info2
    )?;
    out.write_str(r#","registers":{"#)?;
    let [r8, r9, r10, r11, r12, r13, r14, r15] = gprs.r8_to_r15;
    let registers = [
        ("rip", save.rip),
        ("rflags", save.rflags),
        ("rax", save.rax),
        ("rcx", gprs.rcx),
        ("rdx", gprs.rdx),
        ("rbx", gprs.rbx),
        ("rsp", save.rsp),
        ("rbp", gprs.rbp),
        ("rsi", gprs.rsi),
        ("rdi", gprs.rdi),
        ("r8", r8),
        ("r9", r9),
        ("r10", r10),
        ("r11", r11),
        ("r12", r12),
        ("r13", r13),
        ("r14", r14),
        ("r15", r15),
        ("cr0", save.cr0),
        ("cr2", save.cr2),
        ("cr3", save.cr3),
        ("cr4", save.cr4),
        ("efer", save.efer & !crate::vcpu::SVME),
        ("cpl", u64::from(save.cpl)),
    ];
    for (name, value) in registers {
        write!(out, r#""{name}":"{value:#x}","#)?;
    }
    let segments = [
        ("cs", &save.cs),
        ("ds", &save.ds),
        ("es", &save.es),
        ("ss", &save.ss),
        ("fs", &save.fs),
        ("gs", &save.gs),
        ("tr", &save.tr),
        ("ldtr", &save.ldtr),
        ("gdtr", &save.gdtr),
        ("idtr", &save.idtr),
    ];
    for (
        index,
        (
            name,
            Segment {
                selector,
                attributes,
                limit,
                base,
            },
        ),
    ) in segments.into_iter().enumerate()
    {
        let comma = if index == 0 { "" } else { "," };
        write!(
            out,
            r#"{comma}"{name}":{{"selector":"{selector:#x}","base":"{base:#x}","#
        )?;
        write!(
            out,
            r#""limit":"{limit:#x}","attributes":"{attributes:#x}"}}"#
        )?;
    }
    out.write_str(r#"},"code":""#)?;
    for byte in *code {
        write!(out, "{byte:02x}")?;
    }
    out.write_char('"')
}

/// A JSON string.
///
/// # Errors
/// Those of `out`.
pub fn quoted(out: &mut (impl Write + ?Sized), text: &dyn fmt::Display) -> fmt::Result {
    struct Escape<'a, W: ?Sized>(&'a mut W);

    impl<W: Write + ?Sized> Write for Escape<'_, W> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            for character in text.chars() {
                match character {
                    '"' | '\\' => {
                        self.0.write_char('\\')?;
                        self.0.write_char(character)?;
                    }
                    c if c < ' ' => write!(self.0, "\\u{:04x}", u32::from(c))?,
                    c => self.0.write_char(c)?,
                }
            }
            Ok(())
        }
    }

    out.write_char('"')?;
    write!(Escape(out), "{text}")?;
    out.write_char('"')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmcb::Vmcb;

    fn parse(line: &str) -> serde_json::Value {
        assert!(line.ends_with('\n') && line.matches('\n').count() == 1);
        serde_json::from_str(line).unwrap()
    }

    #[test]
    fn every_line_is_json() {
        let mut line = String::new();
        let value = Start {
            platform: "native",
            cpus: 2,
            memory: 1 << 26,
            own: HpaRange::from_u64(1 << 26, 1 << 27).unwrap(),
            image_bytes: 8192,
            image_version: 2,
            pages: PageCounts {
                data: 3,
                ..PageCounts::default()
            },
            backed: 0,
            digest: Some(&[0x12, 0xab]),
            remaps: true,
            tsc: 5,
        };
        start(&mut line, &value).unwrap();
        assert_eq!(parse(&line)["image"]["pages"]["data"], 3);
        assert_eq!(parse(&line)["digest"], "12ab");
        assert_eq!(parse(&line)["dma_checked"], true);

        line.clear();
        let error = LoadError {
            offset: 0x40,
            reason: crate::loader::Reason::NoContext,
        };
        load_error(&mut line, &error).unwrap();
        assert_eq!(parse(&line)["offset"], 0x40);

        line.clear();
        l0_error(&mut line, &"a \"quote\"\n\\").unwrap();
        assert_eq!(parse(&line)["reason"], "a \"quote\"\n\\");

        line.clear();
        let board = Board::new(&[0, 7]);
        board.slot(1).unwrap().count_exit(Reason::Msr, Some(2));
        board.slot(1).unwrap().count_exit(Reason::Cpuid, None);
        let slot = board.slot(1).unwrap();
        slot.counters.count(Operation::Pvalidate, 3);
        counters(&mut line, &board, Some(4)).unwrap();
        let value = parse(&line);
        assert_eq!(value["cpus"][1]["exits"]["msr"], 1);
        assert_eq!(value["cpus"][1]["apic_id"], 7);
        assert_eq!(value["cpus"][1]["total"], 2);
        assert_eq!(value["cpus"][1]["by_vmpl"]["2"]["msr"], 1);
        assert_eq!(value["cpus"][0]["by_vmpl"], serde_json::json!({}));
        assert_eq!(value["cpus"][1]["operations"]["pvalidate"], 3);
        assert_eq!(value["dma"]["refused"], 4);

        let refused = RefusedDma(Refused {
            device: 0x1fb,
            gpa: 0x5000,
            write: true,
        });
        let value = parse(&format!("{refused}\n"));
        assert_eq!(value["device"], "01:1f.3");
        assert_eq!(value["access"], "write");
    }

    #[test]
    fn a_verdict_has_the_guests_state() {
        let board = Board::new(&[0]);
        let mut vmcb = Vmcb::zeroed();
        vmcb.save.rip = u64::MAX;
        let gprs = Gprs::default();
        let guest = GuestState {
            control: &vmcb.control,
            save: &vmcb.save,
            gprs: &gprs,
            code: &[0x0f, 0x0b],
        };
        let mut line = String::new();
        let value = Verdict {
            ending: Ending::BadAccess {
                gpa: 0x1000,
                code: 1 << 33,
            },
            cpu: 0,
            tsc: 1,
            slot: board.slot(0),
            guest: Some(guest),
        };
        verdict(&mut line, &value).unwrap();
        let value = parse(&line);
        assert_eq!(value["kind"], "bad-access");
        assert_eq!(value["gpa"], "0x1000");
        assert_eq!(value["registers"]["rip"], "0xffffffffffffffff");
        assert_eq!(value["registers"]["cs"]["base"], "0x0");
        assert_eq!(value["code"], "0f0b");
    }
}
