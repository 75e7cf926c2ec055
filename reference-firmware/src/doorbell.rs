//! Interrupts under restricted injection of SEV-SNP: the host may raise nothing but #HV, and says in a page why.
//!
//! #HV comes at any instruction, also where interrupts are masked, and on a stack that no task may leave. So its handler leaves
//! the page alone, and sees to it that somebody looks at it before long:
//!
//! - a program goes on where nothing is mapped; the fault of that is an ordinary exception on the stack of its task,
//! - the idle loop, which is about to sleep, does not,
//! - the kernel looks by itself before it returns to a program.
//!
//! Behind that look there are instructions still in the kernel, and before the next one there are some already in it. There the
//! handler takes what waits, and notes that it did; the timer's next ring has it done.
#![expect(
    unsafe_code,
    reason = "sleeps between two addresses that the handler knows"
)]

use core::arch::naked_asm;
use svsm_irq::doorbell::{DoorbellPage, Ended, Heard};
use svsm_irq::entry::TrapFrame;

use crate::machine::snp;
use crate::{cpu, interrupt, panic, user};

/// An honest host has fewer events at once; another one cannot keep a CPU here.
const ROUNDS: usize = 16;

/// The host has rung. False if there is no bell.
pub(crate) fn rung(frame: &mut TrapFrame) -> bool {
    let Some(page) = snp::doorbell() else {
        return false;
    };
    if panic::is_ending() && page.waiting().contains(Heard::NMI) {
        // Another CPU stops this one.
        cpu::halt()
    }
    let window = window();
    if frame.from_user() {
        user::detour(frame);
    } else if (window.start..window.end).contains(&frame.rip) {
        frame.rip = window.end;
    } else if cpu::leaves() {
        postpone(page);
    }
    true
}

/// Takes what is on the page where nothing can be done about it. Until the last thing that this does, the host does not ring again.
fn postpone(page: &DoorbellPage) {
    for _ in 0..ROUNDS {
        if let Some(taken) = page.take() {
            if page.end(taken) == Ended::WithEoi {
                interrupt::end();
            }
            cpu::set_postponed(true);
            continue;
        }
        hear(page.answer());
        // What came before the answer is not rung for.
        if !page.has_events() {
            break;
        }
    }
}

/// Looks before a return to a program, on a stack that may be left for other tasks.
pub(crate) fn look(frame: &TrapFrame) {
    for _ in 0..ROUNDS {
        // The task may have come to another CPU meanwhile.
        let Some(page) = snp::doorbell() else { return };
        // Before the look: what rings behind it finds that this CPU leaves.
        cpu::set_leaves(true);
        if !page.has_events() && !cpu::postponed() {
            return;
        }
        cpu::set_leaves(false);
        if cpu::postponed() {
            cpu::set_postponed(false);
            user::tick(frame);
        } else {
            take(page, frame);
        }
    }
    cpu::set_leaves(true);
}

/// Sleeps until the host rings, with interrupts masked before and after.
pub(crate) fn sleep() {
    let Some(page) = snp::doorbell() else { return };
    let nobody = TrapFrame::default();
    let mut has_taken = false;
    for _ in 0..ROUNDS {
        if !page.has_events() {
            break;
        }
        take(page, &nobody);
        has_taken = true;
    }
    if has_taken {
        // What came may have given this CPU something to do.
        return;
    }
    // SAFETY: the page is mapped for good; the handler of #HV knows the window.
    let _ = unsafe { wait(page, true) };
}

/// Takes what is on the page and lets it go: for a CPU with a guest, whose interrupts all others are. While something waits there,
/// a host may keep the CPU from the guest.
pub(crate) fn drain() {
    let Some(page) = snp::doorbell() else { return };
    for _ in 0..ROUNDS {
        hear(page.answer());
        let Some(taken) = page.take() else { break };
        if page.end(taken) == Ended::WithEoi {
            interrupt::end();
        }
        interrupt::count_unasked();
    }
}

/// Takes what is on the page.
fn take(page: &DoorbellPage, frame: &TrapFrame) {
    hear(page.answer());
    let Some(taken) = page.take() else { return };
    let vector = taken.vector();
    if page.end(taken) == Ended::WithEoi {
        interrupt::end();
    }
    match vector {
        Some(vector) => interrupt::take(vector, frame),
        None => interrupt::count_unasked(),
    }
}

/// Hears of what is no interrupt.
fn hear(heard: Heard) {
    if heard.contains(Heard::NMI) && panic::is_ending() {
        cpu::halt()
    }
    if heard.intersects(Heard::NMI | Heard::MACHINE_CHECK) {
        // Nobody here has asked for one.
        interrupt::count_unasked();
    }
}

/// Instructions between which a CPU that is rung for goes on behind them.
#[repr(C)]
struct Window {
    start: u64,
    end: u64,
}

fn window() -> Window {
    // SAFETY: it only says where it is.
    unsafe { wait(core::ptr::null(), false) }
}

/// Sleeps if nothing is on the page, or says where it would do so.
///
/// # Safety
/// If it is to sleep, the page is there. The handler of #HV makes whoever is between `2` and `3` go on at `3`: otherwise a bell
/// that rings after the look would not be heard.
#[unsafe(naked)]
unsafe extern "sysv64" fn wait(page: *const DoorbellPage, sleeps: bool) -> Window {
    naked_asm!(
        "test sil, sil",
        "jz 4f",
        "2:",
        "cmp word ptr [rdi], 0", // the vector and the flags
        "jne 3f",
        "sti",
        "hlt",
        "3:",
        "cli",
        "4:",
        "lea rax, [rip + 2b]",
        "lea rdx, [rip + 3b]",
        "ret",
    )
}
