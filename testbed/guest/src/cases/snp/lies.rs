//! A host that lies: for each lie, a guest that sees it. The run's script says when it comes; whatever comes before the
//! event is the guest's own setting up of its page, two requests in the register.

use super::super::wait;
use super::door;
use super::levels;
use super::mail;
use super::{FREE, Failed, Result, VC, check, exits, own};
use crate::bare::ghcb::{
    self, BUFFER, RAX, RBX, RCX, RDX, SCRATCH, event, page, pvalidate, request,
};
use crate::bare::insn;
use crate::bare::trap::{INTERRUPTS, NMIS, caught_code};
use crate::bare::{read, write};
use crate::layout::SHARED;
use core::sync::atomic::{AtomicU64, Ordering};

const FEATURES: u64 = 0x8000_fffd;

/// Pages for these guests.
const fn small(n: u64) -> u64 {
    FREE + (20 << 20) + n * 0x1000
}

const LARGE: u64 = FREE + (24 << 20);

/// Shows the lie with this name.
pub(in super::super) fn show(fault: &str) -> Result {
    match fault {
        "early-psc" => early(),
        "partial-psc" => partial(),
        "psc-backwards" => backwards(),
        "psc-rewrite" => rewrite(),
        "psc-wrong-size" => wrong_size(),
        "psc-refused" => check(
            "a change",
            u64::from(ghcb::change(small(0), ghcb::SHARE) != 0),
            1,
        ),
        "psc-elsewhere" => elsewhere(),
        "remap" => swapped(true),
        "replay" => swapped(false),
        "smash" => smashed(),
        "junk-output" => check(
            "RAX",
            u64::from(event(FEATURES, 0, 0, &[]).rax.is_some()),
            1,
        ),
        "junk-buffer" => junk_buffer(),
        "wrong-exit-info" => check("known", u64::from(event(FEATURES, 0, 0, &[]).info1 < 3), 0),
        "wrong-exception" => check("SW_EXITINFO1", event(FEATURES, 0, 0, &[]).info1, 1),
        "missing-output" => missing(),
        "refused-exit" => check("SW_EXITINFO1", event(FEATURES, 0, 0, &[]).info1, 2),
        "spurious-return" => check("SW_EXITINFO2", event(FEATURES, 0, 0, &[]).info2, 0),
        "wrong-msr-response" => check(
            "the right one",
            u64::from(request(0x080) & 0xfff == 0x081),
            0,
        ),
        "lying-cpuid" => lying_cpuid(),
        "lying-device" => lying_device(),
        "lying-features" => check("SNP", event(FEATURES, 0, 0, &[]).info2 & 1, 0),
        "stray-interrupt" => stray_interrupt(),
        "forbidden-vector" => forbidden_vector(),
        "stray-nmi" => stray_nmi(),
        "stray-vc" => stray_exception(),
        "stray-doorbell" => door::stray_ring(false),
        "doorbell-junk" => door::stray_ring(true),
        "lost-interrupt" => lost_interrupt(),
        "delayed-exit" => check("SNP", event(FEATURES, 0, 0, &[]).info2 & 1, 1),
        "reordered-exits" => reordered(),
        "reset" => {
            let _ = event(FEATURES, 0, 0, &[]);
            Err(Failed {
                what: "it goes on",
                got: 0,
            })
        }
        "tampered-request" => mail::tampered_request(),
        "tampered-response" => mail::tampered_response(),
        "replayed-response" => mail::replayed_response(),
        "busy-processor" => busy(),
        "ap-refused" => check("creation", levels::start_raw(1), 2),
        "ap-idle" => levels::idle(),
        "run-vmpl-elsewhere" => levels::elsewhere(),
        _ => Err(Failed {
            what: "no guest shows this lie",
            got: 0,
        }),
    }
}

/// Puts a list of page-state changes into the buffer, from entry `current` on, and sends it.
fn list(current: u64, entries: &[u64]) -> u64 {
    ghcb::set(BUFFER, current | (entries.len() as u64 - 1) << 16);
    for (index, entry) in (1..).zip(entries) {
        ghcb::set(BUFFER + 8 * index, *entry);
    }
    event(0x8000_0010, 0, 0, &[(SCRATCH, page() + BUFFER)]).info2
}

const fn share(n: u64) -> u64 {
    small(n) | 2 << 52
}

fn progress() -> u64 {
    ghcb::field(BUFFER) & 0xffff
}

fn early() -> Result {
    check("SW_EXITINFO2", list(0, &[share(0), share(1), share(2)]), 0)?;
    check("all of it", u64::from(progress() > 2), 0)?;
    // The rest comes for who asks for it.
    check(
        "SW_EXITINFO2",
        list(progress(), &[share(0), share(1), share(2)]),
        0,
    )?;
    check("progress", progress(), 3)?;
    write(SHARED + small(2), 1_u8);
    Ok(())
}

fn partial() -> Result {
    check("SW_EXITINFO2", list(0, &[share(0), share(1)]), 0)?;
    check("progress", progress(), 2)?;
    write(SHARED + small(0), 1_u8);
    // The second is private still, and not valid.
    exits("a read", insn::try_read(small(1)), 0x404)
}

fn backwards() -> Result {
    let entries = [share(0), share(1), share(2)];
    check("SW_EXITINFO2", list(0, &entries), 0)?;
    check("progress", progress(), 1)?;
    check("SW_EXITINFO2", list(1, &entries), 0)?;
    check("progress", progress(), 0)
}

fn rewrite() -> Result {
    check("SW_EXITINFO2", list(0, &[share(0)]), 0)?;
    let frame = ghcb::field(BUFFER + 8) & 0x000f_ffff_ffff_f000;
    check(
        "the page is the one that was asked for",
        u64::from(frame == small(0)),
        0,
    )
}

fn wrong_size() -> Result {
    check("sharing", list(0, &[LARGE | 2 << 52 | 1 << 56]), 0)?;
    check("taking back", list(0, &[LARGE | 1 << 52 | 1 << 56]), 0)?;
    check("PVALIDATE", pvalidate(LARGE, 1, 1), 6)?;
    check("PVALIDATE", pvalidate(LARGE, 0, 1), 0)
}

fn elsewhere() -> Result {
    check("a change", ghcb::change(small(0), ghcb::SHARE), 0)?;
    exits("a read", insn::try_read(small(0)), 0x404)
}

/// A page that the host took and gave back while nobody looked.
fn swapped(same: bool) -> Result {
    let at = small(0);
    check("sharing", ghcb::change(at, ghcb::SHARE), 0)?;
    check("taking back", ghcb::change(at, ghcb::PRIVATE), 0)?;
    own(at)?;
    write(at, 0x5ec2e7_u64);
    let _ = event(FEATURES, 0, 0, &[]);
    exits("a read", insn::try_read(at), 0x404)?;
    // Who validates it again without need sees that it had changed.
    check("PVALIDATE", pvalidate(at, 0, 1), 0)?;
    check(
        "the content",
        u64::from(read::<u64>(at) == 0x5ec2e7),
        u64::from(same),
    )
}

fn smashed() -> Result {
    check("sharing", list(0, &[LARGE | 2 << 52 | 1 << 56]), 0)?;
    check("taking back", list(0, &[LARGE | 1 << 52 | 1 << 56]), 0)?;
    check("PVALIDATE", pvalidate(LARGE, 1, 1), 0)?;
    write(LARGE + 0x5000, 9_u64);
    let _ = event(FEATURES, 0, 0, &[]);
    check("memory", read(LARGE + 0x5000), 9)?;
    check("PVALIDATE", pvalidate(LARGE, 1, 1), 6)
}

fn junk_buffer() -> Result {
    ghcb::set(BUFFER, 0);
    let _ = event(FEATURES, 0, 0, &[]);
    check("untouched", u64::from(ghcb::field(BUFFER) == 0), 0)
}

fn missing() -> Result {
    let answer = event(0x72, 0, 0, &[(RAX, 0x8000_001f), (RCX, 0)]);
    check("valid", u64::from(answer.rbx.is_some()), 0)?;
    check("the C-bit", ghcb::field(RBX) & 0x3f, 51)
}

fn lying_cpuid() -> Result {
    let highest = || request(4) >> 32;
    check("true", u64::from(highest() == 7), 0)?;
    check("the highest leaf", highest(), 7)
}

fn lying_device() -> Result {
    let id = || event(0x7c, 0, 0, &[(RCX, 0x802)]).rax;
    check("true", u64::from(id() == Some(0)), 0)?;
    check("the id", id().unwrap_or(1), 0)
}

fn interrupts() -> u64 {
    u64::from(INTERRUPTS.load(Ordering::SeqCst))
}

fn stray_interrupt() -> Result {
    let before = interrupts();
    let _ = event(FEATURES, 0, 0, &[]);
    check("with interrupts off", interrupts(), before)?;
    check("exceptions", u64::from(insn::try_window().is_some()), 0)?;
    check("interrupts", interrupts(), before + 1)
}

fn forbidden_vector() -> Result {
    let _ = event(FEATURES, 0, 0, &[]);
    check("the vector", insn::try_window().map_or(0, u64::from), 3)
}

fn stray_nmi() -> Result {
    let before = NMIS.load(Ordering::SeqCst);
    let _ = event(FEATURES, 0, 0, &[]);
    wait("an NMI", || NMIS.load(Ordering::SeqCst) > before)
}

fn stray_exception() -> Result {
    insn::wrmsr(ghcb::GHCB, 0x080);
    check("an exception", u64::from(insn::try_vmgexit() == VC), 1)?;
    // Nothing that this instruction raises has a code but this one.
    check("its own", u64::from(caught_code() == 0x403), 0)
}

/// Has the APIC's timer fire once.
fn timer() {
    for (register, value) in [
        (0x80f, 0x1ff),
        (0x83e, 0xb),
        (0x832, 0x71),
        (0x838, 100_000),
    ] {
        let _ = event(0x7c, 1, 0, &[(RCX, register), (RAX, value), (RDX, 0)]);
    }
}

fn end_of_interrupt() {
    let _ = event(0x7c, 1, 0, &[(RCX, 0x80b), (RAX, 0), (RDX, 0)]);
}

/// Whether the timer has run down.
fn is_over() -> bool {
    event(0x7c, 0, 0, &[(RCX, 0x839)]).rax == Some(0)
}

fn lost_interrupt() -> Result {
    let before = interrupts();
    let look_around = || {
        for _ in 0..50 {
            let _ = event(FEATURES, 0, 0, &[]);
        }
    };
    timer();
    insn::sti();
    let over = wait("the timer", is_over);
    look_around();
    insn::cli();
    over?;
    check("interrupts", interrupts(), before)?;
    insn::sti();
    // QEMU may be late with the first; only one is lost.
    let came = wait("the next interrupt", || {
        timer();
        look_around();
        interrupts() > before
    });
    insn::cli();
    end_of_interrupt();
    came
}

static ROUNDS: AtomicU64 = AtomicU64::new(0);

/// What another CPU does: exits all the time.
extern "C" fn busy_neighbour() -> ! {
    loop {
        let _ = request(0xabc);
        ROUNDS.fetch_add(1, Ordering::SeqCst);
    }
}

fn reordered() -> Result {
    levels::start_on(1, 0, 1, busy_neighbour)?;
    // Whichever of the two meets the lie, the other exits meanwhile.
    wait("the other CPU", || {
        let _ = event(FEATURES, 0, 0, &[]);
        ROUNDS.load(Ordering::SeqCst) > 3
    })?;
    check("SNP", event(FEATURES, 0, 0, &[]).info2 & 1, 1)
}

fn busy() -> Result {
    for at in [small(0), small(1)] {
        check("sharing", ghcb::change(at, ghcb::SHARE), 0)?;
    }
    let ask = || event(0x8000_0011, small(0), small(1), &[]).info2;
    check("SW_EXITINFO2", ask(), 2 << 32)?;
    // This is no message: now somebody looks at it.
    check("busy", u64::from(ask() == 2 << 32), 0)
}
