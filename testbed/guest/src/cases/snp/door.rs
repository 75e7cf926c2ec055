//! Restricted injection: the host posts what it has in a page, and rings (24593, "Restricted injection"; 56421, "#HV
//! doorbell page").

use super::super::wait;
use super::{Clause, FREE, Result, check, levels, try_all};
use crate::bare::ghcb::{self, RAX, RCX, RDX, event, pvalidate};
use crate::bare::insn;
use crate::bare::trap::{NMIS, RINGS};
use crate::bare::{read, write};
use crate::layout::SHARED;
use core::sync::atomic::{AtomicU32, Ordering};

const DOOR: u64 = FREE + (28 << 20);
const VECTOR: u64 = SHARED + DOOR;
const FLAGS: u64 = VECTOR + 1;
const NO_EOI: u64 = VECTOR + 2;
const NO_FURTHER_SIGNAL: u8 = 1 << 7;
/// An interrupt command to oneself.
const TO_SELF: u64 = 1 << 18 | 1 << 14;
const ICR: u64 = 0x830;
const PERIODIC: u64 = 1 << 17;

/// Sends an interrupt command by the event that there is for it.
fn ipi(command: u64) {
    let _ = event(0x8000_0015, command, 0, &[]);
}

/// Has the timer run to its end once, or again and again.
fn timer(vector: u64, count: u64) {
    for (register, value) in [(0x832, vector), (0x838, count)] {
        let _ = event(0x7c, 1, 0, &[(RCX, register), (RAX, value), (RDX, 0)]);
    }
}

/// Answers the door: says so, and takes the vector.
fn answer() -> u8 {
    let flags: u8 = read(FLAGS);
    write(FLAGS, flags & !NO_FURTHER_SIGNAL & !1);
    let vector: u8 = read(VECTOR);
    write(VECTOR, 0_u8);
    vector
}

/// Ends an interrupt as a guest must: silently if it may.
fn end() {
    let silent: u8 = read(NO_EOI);
    write(NO_EOI, 0_u8);
    if silent & 1 == 0 {
        let _ = event(0x7c, 1, 0, &[(RCX, 0x80b), (RAX, 0), (RDX, 0)]);
    }
}

fn rings() -> u64 {
    u64::from(RINGS.load(Ordering::SeqCst))
}

/// Makes the page and tells the host.
fn set_up() -> Result {
    let _ = pvalidate(DOOR, 0, 0);
    check("sharing", ghcb::change(DOOR, ghcb::SHARE), 0)?;
    for offset in (0..0x40).step_by(8) {
        write(VECTOR + offset, 0_u64);
    }
    check("the page", event(0x8000_0014, 1, DOOR, &[]).info2, DOOR)
}

pub(in super::super) fn door() -> Result {
    try_all(&[CLAUSES])
}

const CLAUSES: &[Clause] = &[
    ("restricted injection shows in SEV_STATUS", || {
        check("SEV_STATUS", insn::rdmsr(0xc001_0131), 0b10_0111)
    }),
    ("the host has no wish where the doorbell is", || {
        check("the page", event(0x8000_0014, 0, 0, &[]).info2, u64::MAX)
    }),
    ("a doorbell begins at a page", || {
        check(
            "SW_EXITINFO1",
            event(0x8000_0014, 1, DOOR + 8, &[]).info1,
            2,
        )
    }),
    ("a doorbell is set and can be asked for", || {
        set_up()?;
        check("the page", event(0x8000_0014, 2, 0, &[]).info2, DOOR)
    }),
    ("an interrupt to oneself rings once", || {
        let before = rings();
        ipi(TO_SELF | 0x41);
        check("rings", rings(), before + 1)?;
        check(
            "the flag",
            u64::from(read::<u8>(FLAGS)),
            u64::from(NO_FURTHER_SIGNAL),
        )?;
        check("the vector", u64::from(answer()), 0x41)?;
        end();
        Ok(())
    }),
    (
        "the host does not ring again before the door was answered",
        || {
            let before = rings();
            ipi(TO_SELF | 0x41);
            ipi(TO_SELF | 0x42);
            check("rings", rings(), before + 1)?;
            check("the vector", u64::from(answer()), 0x41)?;
            end();
            let _ = event(0x8000_fffd, 0, 0, &[]);
            check("rings", rings(), before + 2)?;
            check("the vector", u64::from(answer()), 0x42)?;
            end();
            Ok(())
        },
    ),
    ("of several the highest is first", || {
        ipi(TO_SELF | 0x41);
        let _ = answer();
        ipi(TO_SELF | 0x51);
        ipi(TO_SELF | 0x61);
        end();
        let _ = event(0x8000_fffd, 0, 0, &[]);
        check("the first", u64::from(answer()), 0x61)?;
        end();
        let _ = event(0x8000_fffd, 0, 0, &[]);
        check("the second", u64::from(answer()), 0x51)?;
        end();
        Ok(())
    }),
    ("the interrupt flag does not keep #HV away", || {
        // The guests run with it clear, and were rung for all the same.
        check("IF", insn::flags() & 1 << 9, 0)
    }),
    ("an MSR write sends interrupts too", || {
        let before = rings();
        let _ = event(0x7c, 1, 0, &[(RCX, ICR), (RAX, TO_SELF | 0x45), (RDX, 0)]);
        check("rings", rings(), before + 1)?;
        check("the vector", u64::from(answer()), 0x45)?;
        end();
        Ok(())
    }),
    ("an NMI is a bit beside the vector", || {
        let before = (rings(), NMIS.load(Ordering::SeqCst));
        ipi(1 << 18 | 1 << 14 | 4 << 8);
        wait("the ring", || {
            let _ = event(0x8000_fffd, 0, 0, &[]);
            rings() > before.0
        })?;
        check("the bit", u64::from(read::<u8>(FLAGS) & 1), 1)?;
        check("no vector", u64::from(answer()), 0)?;
        check("NMIs", u64::from(NMIS.load(Ordering::SeqCst) - before.1), 0)
    }),
    ("the timer's interrupts come through the door", || {
        let before = rings();
        for (register, value) in [
            (0x80f, 0x1ff),
            (0x83e, 0xb),
            (0x832, 0x71),
            (0x838, 100_000),
        ] {
            let _ = event(0x7c, 1, 0, &[(RCX, register), (RAX, value), (RDX, 0)]);
        }
        wait("the timer", || rings() > before)?;
        check("the vector", u64::from(answer()), 0x71)?;
        end();
        Ok(())
    }),
    (
        "HLT ends with a ring, whatever the interrupt flag says",
        || {
            // Again and again, since the first ring may come before HLT: then only the next one ends it.
            let before = rings();
            timer(0x71 | PERIODIC, 1_000_000);
            insn::cli_hlt();
            timer(0x71, 0);
            check("a ring", u64::from(rings() > before), 1)?;
            check("the vector", u64::from(answer()), 0x71)?;
            end();
            // One more may have come meanwhile.
            let _ = event(0x8000_fffd, 0, 0, &[]);
            if answer() != 0 {
                end();
            }
            Ok(())
        },
    ),
    (
        "what comes while VMPL0 runs waits for a lower level that takes interrupts",
        || {
            levels::taker()?;
            let before = rings();
            for vector in [0x71, 0x91] {
                timer(vector, 100_000);
                wait("the lower level", || matches!(levels::take(), Ok(1)))?;
            }
            check("rings", rings(), before)
        },
    ),
    ("without a doorbell nothing rings", || {
        check("cleared", event(0x8000_0014, 3, 0, &[]).info1, 0)?;
        let before = rings();
        ipi(TO_SELF | 0x41);
        let _ = event(0x8000_fffd, 0, 0, &[]);
        check("rings", rings(), before)?;
        check("the page", event(0x8000_0014, 1, DOOR, &[]).info2, DOOR)?;
        let _ = event(0x8000_fffd, 0, 0, &[]);
        check("rings", rings(), before + 1)?;
        check("the vector", u64::from(answer()), 0x41)?;
        end();
        Ok(())
    }),
];

/// A ring for nothing, or for junk.
pub(super) fn stray_ring(junk: bool) -> Result {
    set_up()?;
    let before = rings();
    let _ = event(0x8000_fffd, 0, 0, &[]);
    check("rings", rings(), before + 1)?;
    let (vector, flags): (u8, u8) = (read(VECTOR), read(FLAGS));
    check(
        "something there",
        u64::from(vector != 0 || flags != 0),
        u64::from(junk),
    )?;
    let _ = answer();
    // The door works on.
    ipi(TO_SELF | 0x41);
    check("rings", rings(), before + 2)?;
    check("the vector", u64::from(answer()), 0x41)?;
    end();
    Ok(())
}

/// How far the other CPU is.
static STEP: AtomicU32 = AtomicU32::new(0);

/// The other CPU: rings at the first one's door. It needs no page of its own: the register will do.
extern "C" fn caller() -> ! {
    STEP.store(1, Ordering::SeqCst);
    loop {
        core::hint::spin_loop();
    }
}

/// An interrupt to a CPU that runs its guest, and one to a CPU that sleeps.
pub(in super::super) fn door_of_others() -> Result {
    set_up()?;
    levels::start_on(1, 0, RESTRICTED, caller)?;
    wait("the other CPU", || STEP.load(Ordering::SeqCst) == 1)?;
    // It has no doorbell: what is sent to it waits for ever, and does no harm.
    ipi(1 << 32 | 1 << 14 | 0x41);
    let before = rings();
    ipi(TO_SELF | 0x55);
    check("rings", rings(), before + 1)?;
    check("the vector", u64::from(answer()), 0x55)?;
    end();
    Ok(())
}

/// `SNPActive` and restricted injection.
const RESTRICTED: u64 = 1 | 1 << 3;
