//! The end when L0 itself fails: it must come out like every other end.

use super::console::{Console, exit};
use super::cpu::Local;
use super::insn;
use crate::ending::{Ending, Internal};
use crate::report::{self, Verdict};
use core::fmt;
use core::panic::PanicInfo;

/// What the panic handler does.
pub fn panicked(info: &PanicInfo<'_>) -> ! {
    end(info)
}

/// Reports why L0 failed, and ends the run.
pub(super) fn end(reason: &dyn fmt::Display) -> ! {
    end_with(Ending::Internal(Internal::Fault), reason)
}

/// Reports why the run cannot begin or go on, and ends it.
pub(super) fn end_with(ending: Ending, reason: &dyn fmt::Display) -> ! {
    let local = Local::current();
    if local.is_some_and(|local| !local.site().board.claim_end()) {
        // Another CPU is ending the run already.
        insn::stop();
    }
    let mut out = Console::new();
    // A console that fails cannot be told anywhere.
    let _ = report::l0_error(&mut out, reason);
    verdict(&mut out, ending, local);
    exit(ending)
}

/// The last two lines of a run that ends without a guest's state.
pub(super) fn verdict(out: &mut Console, ending: Ending, local: Option<&'static Local>) {
    let cpu = local.map_or(0, Local::index);
    let board = local.map(|local| &local.site().board);
    let verdict = Verdict {
        ending,
        cpu,
        tsc: insn::rdtsc(),
        slot: board.and_then(|board| board.slot(cpu)),
        guest: None,
    };
    let _ = report::verdict(out, &verdict);
    if let Some(board) = board {
        let _ = report::counters(out, board, None);
    }
}
