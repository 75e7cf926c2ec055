//! Dying on purpose, to test that a death is told: only an image for debugging does so, when its command line asks.
//!
//! `selftest=panic`, `selftest=fault` and `selftest=hang` on the command line each end the boot in their own way.

use svsm_platform::claim::Claim;
use svsm_stage2::handoff::Handoff;
use svsm_stage2::params::CommandLine;
use svsm_stage2::region::Parameter;

use crate::{areas, cpu};

/// Does what the command line asks for, if this image may.
pub(crate) fn run(handoff: &Handoff) {
    let Some(area) = handoff
        .parameter(Parameter::CommandLine)
        .filter(|_| handoff.debug)
    else {
        return;
    };
    // SAFETY: the area is one of the checked hand-off, and the builder maps parameters read-only.
    #[expect(unsafe_code, reason = "reads an area of the image")]
    let bytes = unsafe { areas::bytes(area) };
    let Ok(line) = CommandLine::parse(Claim::new(bytes)) else {
        return;
    };
    match line.value("selftest") {
        Some("panic") => die_by_panic(),
        Some("fault") => die_by_fault(),
        Some("hang") => cpu::halt(),
        _ => {}
    }
}

#[inline(never)]
#[expect(clippy::panic, reason = "that is what was asked for")]
fn die_by_panic() {
    panic!("the command line asked for it");
}

/// Reads the first page of the address space, which is never mapped.
#[inline(never)]
fn die_by_fault() {
    // SAFETY: the instruction writes nothing that is used, and whatever it reads is not there: it faults, and the handler ends
    // the machine.
    #[expect(unsafe_code, reason = "faults on purpose")]
    unsafe {
        core::arch::asm!("mov {}, [8]", out(reg) _, options(nostack, readonly));
    }
}
