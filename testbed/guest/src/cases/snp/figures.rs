//! What the machine costs: how many ticks things take, L0's share included.

use super::{FREE, Result, check, levels, own};
use crate::bare::ghcb::{self, change, pvalidate, request, rmpadjust};
use crate::bare::insn::rdtsc;
use crate::bare::say;

const ROUNDS: u64 = 200;
const PAGE: u64 = FREE + (26 << 20);

/// Says how many ticks one of many rounds takes.
fn each(what: &str, mut action: impl FnMut(u64)) {
    // The first round fills tables and translations.
    action(0);
    let start = rdtsc();
    for round in 1..=ROUNDS {
        action(round);
    }
    let ticks = rdtsc().wrapping_sub(start) / ROUNDS;
    say(format_args!("measure: {what}: {ticks}"));
}

/// The figures.
pub(in super::super) fn figures() -> Result {
    own(PAGE)?;
    each("an exit that does nothing (VMGEXIT)", |_| {
        let _ = request(0xabc);
    });
    each("CPUID through the register", |_| {
        let _ = request(4);
    });
    each("an event in the page", |_| {
        let _ = ghcb::event(0x8000_fffd, 0, 0, &[]);
    });
    each("PVALIDATE, there or back", |round| {
        let _ = pvalidate(PAGE, 0, round & 1);
    });
    check("validated", pvalidate(PAGE, 0, 1) & 0xffff_ffff, 0)?;
    each("RMPADJUST", |round| {
        let _ = rmpadjust(PAGE, 0, 1 | (round & 0xf) << 8);
    });
    each("a page shared or private again", |round| {
        let _ = change(PAGE, 1 + (round & 1));
    });
    levels::ready()?;
    each("VMPL0 to VMPL1 and back", |_| {
        let _ = request(1 << 32 | 0x16);
    });
    Ok(())
}
