//! The other CPUs: started once, before the guest, and then run like the first.
#![expect(unsafe_code, reason = "memory handed from one CPU to another")]

use super::boot;
use super::cpu::Cpu;
use super::direct::DirectMap;
use super::machine::{BootError, Site};
use super::{insn, trap};
use crate::addr::{Hpa, HpaRange};
use crate::icr;

/// What a CPU is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Role {
    /// It runs the guest.
    Guest,
    /// It serves a debugger.
    Watch,
}

/// What a CPU gets from the first one.
#[derive(Debug)]
pub(super) struct Handover {
    pub(super) role: Role,
    pub(super) index: usize,
    pub(super) cpu: Cpu,
    pub(super) site: &'static Site,
    pub(super) idt: (u64, HpaRange),
}

/// Much longer than any CPU takes, even one that shares a host's with many others.
const PATIENCE_TICKS: u64 = 30_000_000_000;

/// Starts the CPU with an APIC id and waits until it is up.
///
/// # Safety
/// - `stack` is the top of a stack mapped in the tables at `cr3`, used by nobody else.
/// - The boot part is still where QEMU loaded it, and the trampoline is in its page.
pub(super) unsafe fn start(
    handover: &'static Handover,
    id: u32,
    is_up: impl Fn() -> bool,
    cr3: Hpa,
    stack: u64,
    memory: &mut DirectMap,
) -> Result<(), BootError> {
    let argument = core::ptr::from_ref(handover).expose_provenance() as u64;
    boot::fill_mailbox(cr3, stack, argument, memory).ok_or(BootError::Memory)?;
    insn::send(icr::init_to(id));
    pause(10_000_000);
    let page = (boot::TRAMPOLINE >> 12 & 0xff) as u8;
    let start = insn::rdtsc();
    insn::send(icr::start_up_to(id, page));
    while !is_up() {
        if insn::rdtsc().wrapping_sub(start) > PATIENCE_TICKS {
            return Err(BootError::CpuSilent(id));
        }
        core::hint::spin_loop();
    }
    Ok(())
}

fn pause(ticks: u64) {
    let start = insn::rdtsc();
    while insn::rdtsc().wrapping_sub(start) < ticks {
        core::hint::spin_loop();
    }
}

/// The first Rust code on another CPU.
pub(super) extern "C" fn ap_main(handover: &'static Handover) -> ! {
    // SAFETY: this CPU's first and only call, on its final stack and tables.
    unsafe { handover.cpu.activate() };
    // SAFETY: the first CPU filled the table and mapped it for ever.
    unsafe { trap::load_idt(handover.idt.0, handover.idt.1) };
    insn::x2apic_on();
    insn::floats_on();
    insn::apic_reset();
    insn::fninit();
    match handover.role {
        Role::Guest => super::run::run(handover.site, handover.index, handover.cpu, None),
        Role::Watch => super::watch::watch(handover.site),
    }
}
