//! How the run went, in the words of the first process.

use core::sync::atomic::{AtomicU64, Ordering};

use svsm_log::Verdict;
use svsm_platform::seam::Terminate;

use crate::{guest, interrupt, log, machine};

/// No verdict was given.
const NONE: u64 = u64::MAX;
/// What a run counts as whose first process ended without one.
const SILENT: u32 = 0xffff_0000;

static VERDICT: AtomicU64 = AtomicU64::new(NONE);

/// Remembers what the first process said.
pub(super) fn set(code: u32) {
    VERDICT.store(code.into(), Ordering::Relaxed);
}

/// The first process has ended, and so does the machine, unless it was the overture to a guest.
pub(super) fn end(exit_code: u16) {
    let verdict = match u32::try_from(VERDICT.load(Ordering::Relaxed)) {
        Ok(0) if exit_code == 0 => Verdict::Passed,
        Ok(0) => Verdict::Failed(SILENT | u32::from(exit_code)),
        Ok(code) => Verdict::Failed(code),
        Err(_) => Verdict::Failed(SILENT | u32::from(exit_code)),
    };
    match interrupt::unasked() {
        0 => {}
        count => warn!(
            public,
            "{=u64} interrupts were dropped, since nobody had asked for them", count
        ),
    }
    log::verdict(verdict);
    if verdict == Verdict::Passed && guest::request() {
        return;
    }
    machine::terminator().power_off()
}
