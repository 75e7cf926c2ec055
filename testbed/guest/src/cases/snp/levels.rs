//! Several levels on one CPU, and virtual CPUs on others (24593, "VMPLs"; 56421, "SNP AP creation").

use super::{Clause, Failed, Result, check, own};
use crate::bare::ghcb::{self, RAX, RDX, event, pvalidate, request, rmpadjust};
use crate::bare::insn::{self, rdmsr};
use crate::bare::trap::{INTERRUPTS, NMIS};
use crate::bare::{read, write};
use crate::layout::VMSA;
use core::sync::atomic::{AtomicU64, Ordering};

const AREA: u64 = super::FREE + (30 << 20) + 0x1000;
const STACK: u64 = super::FREE + (30 << 20) + 0x10_000;
const EFER: u64 = 0xd0;
const RIP: u64 = 0x178;
const RSP: u64 = 0x1d8;
const RCX: u64 = 0x308;
const RFLAGS: u64 = 0x170;
const FEATURES: u64 = 0x3b0;
const XMM3: u64 = 0x470 + 3 * 16;
const SVME: u64 = 1 << 12;
/// Read, write and both kinds of execution.
const ALL: u64 = 0xf << 8;

/// How often the lower level ran.
static RUNS: AtomicU64 = AtomicU64::new(0);
static SEEN: AtomicU64 = AtomicU64::new(0);

/// What VMPL1 runs: counts, and goes back to VMPL0, for ever.
extern "C" fn lower() -> ! {
    loop {
        RUNS.fetch_add(1, Ordering::SeqCst);
        SEEN.store(rdmsr(0xc001_0131), Ordering::SeqCst);
        let _ = request(0x16);
    }
}

/// What VMPL1 runs to see its GHCB register as it was.
extern "C" fn finder() -> ! {
    SEEN.store(rdmsr(ghcb::GHCB), Ordering::SeqCst);
    loop {
        let _ = request(0x16);
    }
}

/// What VMPL1 runs where it must not succeed.
extern "C" fn intruder() -> ! {
    write(super::FREE + (29 << 20), 1_u8);
    loop {
        let _ = request(0x16);
    }
}

/// What another CPU runs at VMPL0 without ever leaving it.
extern "C" fn restless() -> ! {
    RUNS.fetch_add(1, Ordering::SeqCst);
    loop {
        core::hint::spin_loop();
    }
}

/// What may not happen to the save area of a virtual CPU that runs.
pub(in super::super) fn in_use() -> Result {
    RUNS.store(0, Ordering::SeqCst);
    start_on(1, 0, 1, restless)?;
    super::super::wait("the CPU to run", || RUNS.load(Ordering::SeqCst) == 1)?;
    let at = AREA + 0x1000;
    check("RMPADJUST", rmpadjust(at, 0, 1), 3)?;
    check("sharing", u64::from(ghcb::change(at, ghcb::SHARE) != 0), 1)?;
    // Once it is destroyed it is a page like others.
    check(
        "destruction",
        event(0x8000_0013, 1 << 32 | 2, 0, &[]).info1,
        0,
    )?;
    super::super::wait("the CPU to stop", || rmpadjust(at, 0, 1) == 0)
}

/// What another CPU runs at VMPL0: flushes translations, for which all others must leave their guests.
extern "C" fn meddler() -> ! {
    loop {
        RUNS.fetch_add(1, Ordering::SeqCst);
        let _ = insn::try_invlpgb();
    }
}

/// What makes a CPU leave its guest is an NMI, and none that the guest sees, whatever else comes in at that time.
pub(in super::super) fn bells() -> Result {
    RUNS.store(0, Ordering::SeqCst);
    start_on(1, 0, 1, meddler)?;
    for _ in 0..20 {
        let seen = RUNS.load(Ordering::SeqCst);
        super::super::wait("the other CPU", || RUNS.load(Ordering::SeqCst) != seen)?;
        // Sleep until the timer's interrupt: spurious-interrupt register, divisor, vector and count of the APIC, then its end.
        for (register, value) in [(0x80f, 0x1ff), (0x83e, 0xb), (0x832, 0x71), (0x838, 1000)] {
            let _ = event(0x7c, 1, 0, &[(ghcb::RCX, register), (RAX, value), (RDX, 0)]);
        }
        insn::sleep();
        let _ = event(0x7c, 1, 0, &[(ghcb::RCX, 0x80b), (RAX, 0), (RDX, 0)]);
    }
    check("NMIs", u64::from(NMIS.load(Ordering::SeqCst)), 0)
}

/// What another CPU runs at VMPL0.
extern "C" fn another() -> ! {
    RUNS.fetch_add(1, Ordering::SeqCst);
    loop {
        insn::cli_hlt();
    }
}

/// Makes a save area from this CPU's own, for `vmpl`, that begins with `entry`.
fn area(at: u64, vmpl: u64, stack: u64, entry: extern "C" fn() -> !) -> Result {
    area_with(at, vmpl, stack, 1, entry)
}

/// Asks for a virtual CPU of VMPL0 on another CPU: what the host says in `SW_EXITINFO1`.
pub(super) fn start_raw(id: u64) -> u64 {
    let at = AREA + id * 0x1000;
    if let Err(failed) = area(at, 0, STACK + id * 0x8000, another) {
        return failed.got;
    }
    event(0x8000_0013, id << 32 | 1, at, &[(RAX, 1)]).info1
}

/// A host that says that it started a virtual CPU, and did not.
pub(super) fn idle() -> Result {
    RUNS.store(0, Ordering::SeqCst);
    check("creation", start_raw(1), 0)?;
    for _ in 0..50 {
        let _ = event(0x8000_fffd, 0, 0, &[]);
    }
    check("whether it runs", RUNS.load(Ordering::SeqCst), 0)?;
    check("creation", start_raw(2), 0)?;
    super::super::wait("an honest start", || RUNS.load(Ordering::SeqCst) == 1)
}

/// A host that comes back at once instead of running another level.
pub(super) fn elsewhere() -> Result {
    RUNS.store(0, Ordering::SeqCst);
    ready()?;
    check("how often it ran", RUNS.load(Ordering::SeqCst), 0)?;
    check("the answer", run(1), 0x17)?;
    check("how often it ran", RUNS.load(Ordering::SeqCst), 1)
}

/// Starts something on another CPU, at a level and with features.
pub(super) fn start_on(id: u64, vmpl: u64, features: u64, entry: extern "C" fn() -> !) -> Result {
    let (at, stack) = (AREA + id * 0x1000, STACK + id * 0x8000);
    area_with(at, vmpl, stack, features, entry)?;
    let info1 = id << 32 | vmpl << 16 | 1;
    check(
        "creation",
        event(0x8000_0013, info1, at, &[(RAX, features)]).info1,
        0,
    )
}

fn area_with(at: u64, vmpl: u64, stack: u64, features: u64, entry: extern "C" fn() -> !) -> Result {
    let _ = pvalidate(at, 0, 1);
    for page in 0..4 {
        let _ = pvalidate(stack - (page + 1) * 0x1000, 0, 1);
    }
    for offset in (0..4096).step_by(8) {
        write(at + offset, 0_u64);
    }
    let selectors: [(u64, u64, u64); 4] = [
        (0x00, 16, 0xc93),
        (0x10, 8, 0xa9b),
        (0x20, 16, 0xc93),
        (0x30, 16, 0xc93),
    ];
    for (offset, selector, attributes) in selectors {
        write(at + offset, selector | attributes << 16 | 0xffff_ffff << 32);
    }
    let (gdt, idt) = insn::tables();
    for (offset, (base, limit)) in [(0x60, gdt), (0x80, idt)] {
        write(at + offset, u64::from(limit) << 32);
        write(at + offset + 8, base);
    }
    write(at + 0xc8, vmpl << 16);
    let (cr0, cr3, cr4) = insn::control_registers();
    for (offset, value) in [
        (EFER, rdmsr(0xc000_0080) | SVME),
        (0x148, cr4),
        (0x150, cr3),
        (0x158, cr0),
        (0x160, 0x400),
        (0x168, 0xffff_0ff0),
        (RFLAGS, 2),
        (RIP, entry as *const () as u64),
        (RSP, stack - 8),
        (0x268, 0x0007_0406_0007_0406),
        (FEATURES, features),
        (0x3e8, 1),
        (0x408, 0x1f80),
        (0x410, 0x37f),
    ] {
        write(at + offset, value);
    }
    check("RMPADJUST", rmpadjust(at, 0, 1 | 1 << 16), 0)
}

/// Gives VMPL1 the program, its tables and its stack.
fn grant() -> Result {
    for page in (0x20_0000..0x40_0000)
        .step_by(0x1000)
        .chain((STACK - 0x4000..STACK).step_by(0x1000))
    {
        // Its GHCB page is shared. Memory of the 2 MiB that it does not fill is not valid, and needs no rights.
        if page != ghcb::page() && insn::try_read(page).is_none() {
            check("RMPADJUST", rmpadjust(page, 0, 1 | ALL), 0)?;
        }
    }
    Ok(())
}

/// What VMPL1 runs to show its time-stamp counter.
extern "C" fn clock() -> ! {
    loop {
        SEEN.store(insn::rdtsc(), Ordering::SeqCst);
        RUNS.store(rdmsr(insn::TSC_FREQUENCY), Ordering::SeqCst);
        let _ = request(0x16);
    }
}

/// What VMPL1 runs to show its debug registers.
extern "C" fn debugger() -> ! {
    loop {
        SEEN.store(insn::dr0(), Ordering::SeqCst);
        insn::set_dr0(0x7777_0000);
        let _ = request(0x16);
    }
}

/// What VMPL1 runs to take interrupts.
extern "C" fn interrupted() -> ! {
    loop {
        SEEN.store(
            u64::from(INTERRUPTS.load(Ordering::SeqCst)),
            Ordering::SeqCst,
        );
        let _ = insn::try_window();
        RUNS.store(
            u64::from(INTERRUPTS.load(Ordering::SeqCst)),
            Ordering::SeqCst,
        );
        let _ = request(0x16);
    }
}

/// Makes VMPL1 ready with features and something to run, and fields of its save area set.
fn with_features(features: u64, entry: extern "C" fn() -> !, fields: &[(u64, u64)]) -> Result {
    area_with(AREA, 1, STACK, features, entry)?;
    for (offset, value) in fields {
        write(AREA + offset, *value);
    }
    grant()?;
    check("creation", create(AREA, features), 0)
}

/// Makes VMPL1 ready to take interrupts as they come.
pub(super) fn taker() -> Result {
    with_features(1, interrupted, &[])
}

/// Lets it run for a moment: how many it took.
pub(super) fn take() -> core::result::Result<u64, Failed> {
    check("the answer", run(1), 0x17)?;
    Ok(RUNS.load(Ordering::SeqCst) - SEEN.load(Ordering::SeqCst))
}

const DR0: u64 = 0x180;
const TSC_SCALE: u64 = 0x2f0;
const TSC_OFFSET: u64 = 0x2f8;
const NONCE: u64 = 0x300;
const VINTR: u64 = 0x3b8;
const EVENT: u64 = 0x3e0;
const ALTERNATE: u64 = 1 | 1 << 4;
const DEBUG_SWAP: u64 = 1 | 1 << 5;
const SECURE_TSC: u64 = 1 | 1 << 9;
const REG_PROT: u64 = 1 | 1 << 14;

/// Features of one level that another does not have (24593, "SEV_FEATURES").
pub(super) const FEATURE_CLAUSES: &[Clause] = &[
    ("a secure counter has an offset of its own", || {
        let fields = [(TSC_SCALE, 1 << 32), (TSC_OFFSET, 1 << 50)];
        with_features(SECURE_TSC, clock, &fields)?;
        check("the answer", run(1), 0x17)?;
        let seen = SEEN.load(Ordering::SeqCst);
        check("beyond the offset", u64::from(seen > 1 << 50), 1)?;
        check("VMPL0's own", u64::from(insn::rdtsc() < 1 << 50), 1)
    }),
    ("a secure counter says how fast it is", || {
        check("the frequency in MHz", RUNS.load(Ordering::SeqCst), 1000)
    }),
    ("without it that MSR is an exit", || {
        super::exits("RDMSR", insn::try_rdmsr(insn::TSC_FREQUENCY.into()), 0x7c)
    }),
    ("a counter of another pace does not run", || {
        with_features(SECURE_TSC, clock, &[(TSC_SCALE, 3 << 31)])?;
        check("running", run(1) >> 32, 1)
    }),
    (
        "debug registers are swapped where they are asked for",
        || {
            with_features(DEBUG_SWAP, debugger, &[(DR0, 0x1234_5000)])?;
            check("the answer", run(1), 0x17)?;
            check("DR0 of VMPL1", SEEN.load(Ordering::SeqCst), 0x1234_5000)?;
            check("DR0 at rest", read(AREA + DR0), 0x7777_0000)
        },
    ),
    (
        "registers at rest are blinded where that is asked for",
        || {
            RUNS.store(0, Ordering::SeqCst);
            with_features(REG_PROT, lower, &[])?;
            check("the answer", run(1), 0x17)?;
            let (rip, nonce): (u64, u64) = (read(AREA + RIP), read(AREA + NONCE));
            let program = |rip: u64| u64::from((0x20_0000..0x40_0000).contains(&rip));
            check("in the clear", program(rip), 0)?;
            check("behind the nonce", program(rip ^ nonce), 1)
        },
    ),
    ("each exit has a nonce of its own", || {
        let before: u64 = read(AREA + NONCE);
        check("the answer", run(1), 0x17)?;
        check(
            "the same",
            u64::from(read::<u64>(AREA + NONCE) == before),
            0,
        )?;
        check("how often it ran", RUNS.load(Ordering::SeqCst), 2)
    }),
    ("an interrupt in a save area comes when it is taken", || {
        let interrupt = 0x51 << 32 | 1 << 20 | 1 << 8;
        with_features(ALTERNATE, interrupted, &[(VINTR, interrupt)])?;
        check("the answer", run(1), 0x17)?;
        let (before, after) = (SEEN.load(Ordering::SeqCst), RUNS.load(Ordering::SeqCst));
        check("interrupts", after - before, 1)
    }),
    ("and is gone from the save area", || {
        check("V_IRQ", read::<u64>(AREA + VINTR) & 1 << 8, 0)
    }),
    ("an event in a save area comes once", || {
        let before = u64::from(INTERRUPTS.load(Ordering::SeqCst));
        with_features(ALTERNATE, interrupted, &[(EVENT, 1 << 31 | 0x52)])?;
        check("the answer", run(1), 0x17)?;
        check("interrupts", RUNS.load(Ordering::SeqCst), before + 1)?;
        check("the event at rest", read::<u64>(AREA + EVENT), 0)
    }),
    ("a low priority waits behind the task's", || {
        // Priority 3, task priority 5.
        let interrupt = 0x31 << 32 | 3 << 16 | 1 << 8 | 5;
        with_features(ALTERNATE, interrupted, &[(VINTR, interrupt)])?;
        check("the answer", run(1), 0x17)?;
        let (before, after) = (SEEN.load(Ordering::SeqCst), RUNS.load(Ordering::SeqCst));
        check("interrupts", after - before, 0)?;
        check("V_IRQ", read::<u64>(AREA + VINTR) >> 8 & 1, 1)
    }),
    ("SEV_STATUS says what the level has", || {
        with_features(REG_PROT, lower, &[])?;
        check("the answer", run(1), 0x17)?;
        check("SEV_STATUS", SEEN.load(Ordering::SeqCst), REG_PROT << 2 | 3)
    }),
    ("features that the machine lacks do not run", || {
        with_features(1 | 1 << 16, lower, &[])?;
        check("running", run(1) >> 32, 1)
    }),
];

/// A host that demands the same features of all virtual CPUs.
pub(in super::super) fn equal_features() -> Result {
    area_with(AREA, 1, STACK, SECURE_TSC, lower)?;
    write(AREA + TSC_SCALE, 1_u64 << 32);
    check("creation", create(AREA, SECURE_TSC), 2)?;
    ready()
}

/// Makes VMPL1 ready to run and come back.
pub(in super::super) fn ready() -> Result {
    area(AREA, 1, STACK, lower)?;
    grant()?;
    check("creation", create(AREA, 1), 0)?;
    check("the answer", run(1), 0x17)
}

/// Asks for a virtual CPU of level 1 on this CPU.
fn create(at: u64, features: u64) -> u64 {
    event(0x8000_0013, 1 << 16 | 1, at, &[(RAX, features)]).info1
}

fn run(level: u64) -> u64 {
    request(level << 32 | 0x16)
}

pub(super) const CLAUSES: &[Clause] = &[
    ("a save area whose features differ is refused", || {
        area(AREA, 1, STACK, lower)?;
        check("creation", create(AREA, 3), 2)
    }),
    ("a save area at a multiple of 2 MiB is refused", || {
        let at = AREA & !0x1f_ffff;
        area(at, 1, STACK, lower)?;
        check("creation", create(at, 1), 2)
    }),
    ("a page that is no save area does not run", || {
        area(AREA, 1, STACK, lower)?;
        check("RMPADJUST", rmpadjust(AREA, 0, 1), 0)?;
        check("creation", create(AREA, 1), 0)?;
        check("running", run(1) >> 32, 1)
    }),
    ("a save area of another level does not run", || {
        area(AREA, 2, STACK, lower)?;
        check("creation", create(AREA, 1), 0)?;
        check("running", run(1) >> 32, 1)
    }),
    ("a save area without SVME does not run", || {
        area(AREA, 1, STACK, lower)?;
        write(AREA + EFER, read::<u64>(AREA + EFER) & !SVME);
        check("creation", create(AREA, 1), 0)?;
        check("running", run(1) >> 32, 1)
    }),
    ("another level runs and comes back", || {
        RUNS.store(0, Ordering::SeqCst);
        ready()?;
        check("how often it ran", RUNS.load(Ordering::SeqCst), 1)?;
        check("the answer", run(1), 0x17)?;
        check("how often it ran", RUNS.load(Ordering::SeqCst), 2)
    }),
    ("registers of another level are in its save area", || {
        let rip: u64 = read(AREA + RIP);
        check(
            "RIP is in the program",
            u64::from((0x20_0000..0x40_0000).contains(&rip)),
            1,
        )?;
        check(
            "RCX is the register's number",
            read(AREA + RCX),
            0xc001_0130,
        )?;
        check("SVME", read::<u64>(AREA + EFER) & SVME, SVME)
    }),
    ("what is written into a save area is what runs", || {
        let before = RUNS.load(Ordering::SeqCst);
        write(AREA + RIP, lower as *const () as u64);
        write(AREA + RSP, STACK - 8);
        check("the answer", run(1), 0x17)?;
        check("how often it ran", RUNS.load(Ordering::SeqCst), before + 1)
    }),
    ("each level has its own SSE registers", || {
        write(AREA + XMM3, 0x1111_2222_3333_4444_u64);
        let seen = insn::with_xmm3(0xdead_beef, || {
            let _ = run(1);
        });
        check("XMM3 of VMPL0", seen, 0xdead_beef)?;
        check("XMM3 of VMPL1", read(AREA + XMM3), 0x1111_2222_3333_4444)
    }),
    ("each level has its own GHCB register", || {
        let answer = run(1);
        check("VMPL0's", answer, 0x17)?;
        check("VMPL1's status", SEEN.load(Ordering::SeqCst), 7)
    }),
    ("a destroyed virtual CPU does not run", || {
        check(
            "destruction",
            event(0x8000_0013, 1 << 16 | 2, 0, &[]).info1,
            0,
        )?;
        check("running", run(1) >> 32, 1)
    }),
    ("one that is created anew finds its GHCB register", || {
        area(AREA, 1, STACK, finder)?;
        grant()?;
        check("creation", create(AREA, 1), 0)?;
        let _ = run(1);
        // The answer to its last request.
        check("the register", SEEN.load(Ordering::SeqCst), 0x17)?;
        let gone = event(0x8000_0013, 1 << 16 | 2, 0, &[]);
        check("destruction", gone.info1, 0)
    }),
    (
        "a virtual CPU on a CPU that is not there is refused",
        || {
            let answer = event(0x8000_0013, 77 << 32 | 1 << 16 | 1, AREA, &[(RAX, 1)]);
            check("creation", answer.info1, 2)
        },
    ),
    ("this CPU's own save area is marked", || {
        // It is not in these page tables: only its address is known.
        check("the address", VMSA & 0xfff, 0)
    }),
];

/// Ends in a violation: VMPL1 writes where it has no rights.
pub(in super::super) fn lower_level_writes() -> Result {
    own(super::FREE + (29 << 20))?;
    area(AREA, 1, STACK, intruder)?;
    grant()?;
    check("creation", create(AREA, 1), 0)?;
    let _ = run(1);
    Err(Failed {
        what: "it came back",
        got: 0,
    })
}

/// Virtual CPUs of VMPL0 on all other CPUs.
pub(in super::super) fn other_cpus() -> Result {
    RUNS.store(0, Ordering::SeqCst);
    let count: u32 = read(crate::layout::FACTS);
    for id in 1..u64::from(count) {
        start_on(id, 0, 1, another)?;
        super::super::wait("the CPU to run", || RUNS.load(Ordering::SeqCst) == id)?;
    }
    // One that has halted for good is destroyed: another begins in the same save area, and not where the first one was.
    let gone = event(0x8000_0013, 1 << 32 | 2, 0, &[]);
    check("destruction", gone.info1, 0)?;
    RUNS.store(0, Ordering::SeqCst);
    start_on(1, 0, 1, restless)?;
    super::super::wait("the CPU to run", || RUNS.load(Ordering::SeqCst) == 1)
}
