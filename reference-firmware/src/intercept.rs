//! #VC: the host intercepts an instruction of a machine whose registers it cannot see.

use svsm_irq::entry::TrapFrame;
use svsm_platform::cpu::cpuid::Cpuid;
use svsm_platform::seam::{Reason, Terminate};

use crate::{machine, user};

/// The exit code of CPUID (AMD64 Architecture Programmer's Manual Volume 2, "SVM Intercept Codes").
const CPUID: u64 = 0x72;
/// The host has taken a page away, or shows another one.
const PAGE_NOT_VALIDATED: u64 = 0x404;

/// CPUID, the only intercepted instruction that anyone may use here.
const CPUID_BYTES: [u8; 2] = [0x0f, 0xa2];

/// Does what an intercepted instruction would have done, if that can be done without the host. The code that the host gave must
/// be that of the instruction.
pub(crate) fn emulate(frame: &mut TrapFrame) -> bool {
    if frame.error_code != CPUID || instruction(frame) != Some(CPUID_BYTES) {
        return false;
    }
    let [leaf, subleaf] = [frame.rax, frame.rcx].map(low_half);
    let answer = machine::Source.raw(leaf, subleaf);
    frame.rax = answer.eax.into();
    frame.rbx = answer.ebx.into();
    frame.rcx = answer.ecx.into();
    frame.rdx = answer.edx.into();
    frame.rip = frame.rip.wrapping_add(CPUID_BYTES.len() as u64);
    true
}

/// An intercept in the kernel that nobody expected: it executes nothing that a host may intercept, so the host has raised it, or
/// has intercepted what it must not.
pub(crate) fn fatal(frame: &TrapFrame) -> ! {
    if frame.error_code == PAGE_NOT_VALIDATED {
        error!(
            public,
            "a page that the SVSM uses is no longer its own, at {=u64:#x}", frame.rip
        );
    } else {
        error!(
            public,
            "the host intercepts with code {=u64:#x} what it must not, at {=u64:#x}",
            frame.error_code,
            frame.rip
        );
    }
    machine::terminator().fatal(Reason::HostViolation)
}

/// The first two bytes of the interrupted instruction.
fn instruction(frame: &TrapFrame) -> Option<[u8; 2]> {
    if frame.from_user() {
        return user::instruction(frame);
    }
    let at = core::ptr::with_exposed_provenance::<[u8; 2]>(frame.rip as usize);
    // SAFETY: the kernel was about to execute the bytes, so they are mapped. CPUID has two, and whatever else was intercepted
    // has at least that many.
    #[expect(unsafe_code, reason = "reads an instruction of the kernel")]
    Some(unsafe { at.read_unaligned() })
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the low half of a register"
)]
const fn low_half(register: u64) -> u32 {
    register as u32
}
