//! #VC and #HV at every instruction of a code path: what comes back is what would have come without them.

use super::{Clause, Failed, Result, check, try_all};
use crate::bare::ghcb::request;
use crate::bare::insn;
use crate::bare::ring3::{self, INTERRUPT_STEPS, RETURN_STEPS, Ran, SYSCALL_STEPS};
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

/// Runs the program of ring 3 in a storm, or without one: it must find what it would find without, and be interrupted at
/// each instruction of the ways in and out.
fn ring3_in(kind: u64, has_kernel_base: bool) -> Result {
    let ran = ring3::run(kind, has_kernel_base).ok_or(Failed {
        what: "there is no CPU to run it on",
        got: 0,
    })?;
    let Ran { obeyed, ended, .. } = ran;
    check("the machine knows storms", u64::from(obeyed), 1)?;
    check("what the program saw", ended, 0)?;
    check("GS bases", ran.wrong_bases, 0)?;
    let steps = if kind == 0 {
        [0; 3]
    } else {
        [SYSCALL_STEPS, INTERRUPT_STEPS, RETURN_STEPS]
    };
    let [syscall, interrupt, back] = steps;
    check("instructions around SYSCALL", ran.in_syscall, syscall)?;
    check("instructions around int 0x80", ran.in_interrupt, interrupt)?;
    check("instructions into ring 3", ran.in_return, back)
}

const RING3_CLAUSES: &[Clause] = &[
    ("a program of ring 3 keeps what is its own", || {
        ring3_in(0, false)
    }),
    (
        "its ways in and out survive #VC at each instruction",
        || ring3_in(VC | 0x72 << 32, false),
    ),
    ("they survive #HV", || ring3_in(HV, false)),
    ("they survive #VC if it has the kernel's GS base", || {
        ring3_in(VC | 0x72 << 32, true)
    }),
    ("and #HV", || ring3_in(HV, true)),
];

pub(in super::super) fn storm_in_ring3() -> Result {
    try_all(&[RING3_CLAUSES])
}
