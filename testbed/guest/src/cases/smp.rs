//! Other CPUs, interrupts and sleep. The first CPU's id is zero, the second's one.

use super::{Result, check, wait};
use crate::bare::trap::{HOLD_NMI, INTERRUPTS, NMIS, STOP_BY_NMI};
use crate::bare::{self, apic, insn, read};
use crate::layout;
use core::sync::atomic::{AtomicU32, Ordering};

/// How many times another CPU has started.
static STARTED: AtomicU32 = AtomicU32::new(0);

fn started(times: u32) -> Result {
    wait("another CPU does not start", || {
        STARTED.load(Ordering::SeqCst) >= times
    })?;
    check(
        "starts",
        u64::from(STARTED.load(Ordering::SeqCst)),
        u64::from(times),
    )
}

fn spins() -> ! {
    STARTED.fetch_add(1, Ordering::SeqCst);
    loop {
        core::hint::spin_loop();
    }
}

fn halts() -> ! {
    STARTED.fetch_add(1, Ordering::SeqCst);
    loop {
        insn::cli_hlt();
    }
}

fn sleeps() -> ! {
    apic::enable();
    STARTED.fetch_add(1, Ordering::SeqCst);
    loop {
        insn::sleep();
    }
}

/// All CPUs start, and once each.
pub(super) fn start() -> Result {
    bare::set_others(halts);
    let cpus: u32 = read(layout::FACTS);
    apic::start(None);
    started(cpus - 1)
}

/// A CPU that runs, and one that halted, can be started again.
pub(super) fn restart() -> Result {
    bare::set_others(spins);
    apic::start(Some(1));
    started(1)?;
    // A CPU that runs takes no start-up message without INIT.
    apic::start_up(Some(1));
    apic::pause(10_000_000);
    started(1)?;
    bare::set_others(halts);
    apic::start(Some(1));
    started(2)?;
    apic::pause(10_000_000);
    apic::start(Some(1));
    started(3)
}

/// An NMI reaches a CPU that runs; a second one waits until the first one's handler is done,
/// and a third one merges with it.
pub(super) fn nmi() -> Result {
    bare::set_others(spins);
    apic::start(Some(1));
    started(1)?;
    HOLD_NMI.store(true, Ordering::SeqCst);
    let nmis = |count| move || NMIS.load(Ordering::SeqCst) >= count;
    apic::nmi(1);
    wait("no NMI", nmis(1))?;
    apic::nmi(1);
    apic::nmi(1);
    apic::pause(50_000_000);
    check(
        "NMIs within an NMI's handler",
        u64::from(NMIS.load(Ordering::SeqCst)),
        1,
    )?;
    HOLD_NMI.store(false, Ordering::SeqCst);
    wait("no second NMI", nmis(2))?;
    apic::pause(50_000_000);
    check("NMIs", u64::from(NMIS.load(Ordering::SeqCst)), 2)?;
    // And again, many times, to oneself too.
    for count in 3..50 {
        apic::nmi(count % 2);
        wait("an NMI is lost", nmis(count))?;
    }
    check("NMIs", u64::from(NMIS.load(Ordering::SeqCst)), 49)
}

/// An NMI wakes a CPU that halted with interrupts off.
pub(super) fn nmi_halted() -> Result {
    bare::set_others(halts);
    apic::start(Some(1));
    started(1)?;
    for count in 1..20 {
        apic::nmi(1);
        wait("no NMI", || NMIS.load(Ordering::SeqCst) >= count)?;
        check(
            "NMIs",
            u64::from(NMIS.load(Ordering::SeqCst)),
            u64::from(count),
        )?;
    }
    Ok(())
}

/// A CPU that halted in its NMI handler, as a panicking kernel stops the others, hears no
/// further NMI, but INIT.
pub(super) fn nmi_stop() -> Result {
    bare::set_others(spins);
    apic::start(Some(1));
    started(1)?;
    STOP_BY_NMI.store(true, Ordering::SeqCst);
    apic::nmi(1);
    wait("no NMI", || NMIS.load(Ordering::SeqCst) == 1)?;
    apic::pause(20_000_000);
    apic::nmi(1);
    apic::pause(20_000_000);
    check("NMIs", u64::from(NMIS.load(Ordering::SeqCst)), 1)?;
    STOP_BY_NMI.store(false, Ordering::SeqCst);
    for times in 2..6 {
        apic::start(Some(1));
        started(times)?;
        apic::nmi(1);
        wait("no NMI after a new start", || {
            NMIS.load(Ordering::SeqCst) == times
        })?;
    }
    Ok(())
}

/// Interrupts from CPU to CPU: each wakes a sleeper, and none is lost.
pub(super) fn interrupt() -> Result {
    bare::set_others(sleeps);
    apic::start(Some(1));
    started(1)?;
    for count in 1..200 {
        apic::interrupt(1);
        wait("an interrupt is lost", || {
            INTERRUPTS.load(Ordering::SeqCst) >= count
        })?;
    }
    check(
        "interrupts",
        u64::from(INTERRUPTS.load(Ordering::SeqCst)),
        199,
    )
}

/// The timer runs down, and wakes a CPU from HLT every time.
pub(super) fn sleep() -> Result {
    apic::enable();
    apic::one_shot(u32::MAX);
    let before = apic::count();
    apic::pause(100_000);
    check(
        "the timer stands still",
        u64::from(apic::count() >= before),
        0,
    )?;
    for count in 1..100 {
        apic::one_shot(100_000);
        insn::sleep();
        check(
            "interrupts",
            u64::from(INTERRUPTS.load(Ordering::SeqCst)),
            count,
        )?;
    }
    Ok(())
}
