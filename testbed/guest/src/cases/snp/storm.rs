//! #VC and #HV at every instruction of a code path: what comes back is what would have come without them.

use super::{Clause, Result, check, try_all};
use crate::bare::ghcb::request;
use crate::bare::insn;
use crate::bare::trap;

/// The machine's own request for a storm.
const STORM: u64 = 0xfd0;
const STARTED: u64 = 0xfd1;
const VC: u64 = 1 << 12;
const HV: u64 = 2 << 12;

/// Runs the path in a storm: it must compute what it computes without, and be interrupted at each of its instructions.
fn in_a_storm(kind: u64) -> Result {
    let calm = insn::path(0x1234);
    trap::begin_storm();
    let started = request(STORM | kind | 0x72 << 32);
    let stormy = insn::path(0x1234);
    let ended = request(STORM);
    let hits = trap::end_storm();
    check("the machine knows storms", started, STARTED)?;
    check("and ends them", ended, STARTED)?;
    check("the result", stormy, calm)?;
    let (start, end) = insn::path_bounds();
    let mut within = 0;
    let mut last = 0;
    for rip in hits {
        if (start..end).contains(&rip) && rip != last {
            within += 1;
        }
        last = rip;
    }
    check(
        "instructions that were interrupted",
        within,
        insn::PATH_STEPS,
    )
}

const CLAUSES: &[Clause] = &[
    ("a path survives #VC at each of its instructions", || {
        in_a_storm(VC)
    }),
    ("a path survives #HV at each of its instructions", || {
        in_a_storm(HV)
    }),
    ("nothing comes after a storm", || {
        trap::begin_storm();
        let _ = insn::path(7);
        check("exceptions", trap::end_storm().count() as u64, 0)
    }),
];

pub(in super::super) fn storm() -> Result {
    try_all(&[CLAUSES])
}
