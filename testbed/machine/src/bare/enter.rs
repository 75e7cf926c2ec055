//! VMRUN and what surrounds it.
#![expect(unsafe_code, reason = "the world switch")]

use crate::addr::Hpa;
use crate::vcpu::{Gprs, Vcpu};
use crate::vmcb::Vmcb;
use core::arch::{asm, naked_asm};

/// When the guest was entered and left.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Times {
    /// The time-stamp counter before the entry.
    pub(super) entered: u64,
    /// The time-stamp counter after the exit.
    pub(super) left: u64,
}

/// Instructions of L0 between the two readings: what instruction figures must take off.
/// The instruction that exits counts as the guest's.
pub(super) const INSIDE: u64 = 22;

/// Stores L0's own FS, GS, TR, LDTR and system-call registers, for [`enter`] to load back.
///
/// # Safety
/// The page is L0's own and holds nothing else.
pub(super) unsafe fn save_host(page: Hpa) {
    // SAFETY: the caller's promise.
    unsafe { asm!("vmsave rax", in("rax") page.as_u64(), options(nostack, preserves_flags)) };
}

/// Runs the guest until it exits.
///
/// # Safety
/// - `vmcb` is the physical address of the vCPU's control block, and `host` of a page that
///   [`save_host`] filled on this CPU.
/// - The control block's permission maps and nested tables are L0's own, and the tables give
///   the guest no page of L0.
/// - The global interrupt flag is clear.
pub(super) unsafe fn enter(vcpu: &mut Vcpu<'_>, vmcb: Hpa, host: Hpa) -> Times {
    let mut times = Times::default();
    let block: *mut Vmcb = vcpu.vmcb;
    // SAFETY: the caller's promise; the pointers are to live objects that nobody else uses.
    unsafe {
        world_switch(
            &raw mut vcpu.gprs,
            vmcb.as_u64(),
            host.as_u64(),
            &raw mut times,
            block,
        )
    };
    times
}

/// The control block's virtual address is passed only so that the compiler knows it is written.
#[unsafe(naked)]
unsafe extern "C" fn world_switch(
    gprs: *mut Gprs,
    vmcb: u64,
    host: u64,
    times: *mut Times,
    block: *mut Vmcb,
) {
    naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "push rcx",
        "push rdx",
        "push rdi",
        "push rsi",
        "mov rax, rsi",
        "vmload rax",
        // The global flag keeps interrupts out here. Where they are intercepted, this one lets them stop the guest.
        "sti",
        "rdtsc",
        "shl rdx, 32",
        "or rax, rdx",
        "mov [rcx], rax",
        // From the reading of the time up to the guest's first instruction: 19.
        "mov rax, rsi",
        "mov rcx, [rdi + 0x08]",
        "mov rdx, [rdi + 0x10]",
        "mov rbx, [rdi + 0x18]",
        "mov rbp, [rdi + 0x28]",
        "mov rsi, [rdi + 0x30]",
        "mov r8, [rdi + 0x40]",
        "mov r9, [rdi + 0x48]",
        "mov r10, [rdi + 0x50]",
        "mov r11, [rdi + 0x58]",
        "mov r12, [rdi + 0x60]",
        "mov r13, [rdi + 0x68]",
        "mov r14, [rdi + 0x70]",
        "mov r15, [rdi + 0x78]",
        "mov rdi, [rdi + 0x38]",
        "vmrun rax",
        "vmsave rax",
        "push rdx",
        "push rdi",
        // Before the next reading: 3 instructions. [rsp]: RDI, RDX, VMCB, GPRs, host, times.
        "rdtsc",
        "mov rdi, [rsp + 0x18]",
        "mov [rdi + 0x08], rcx",
        "mov rcx, [rsp + 0x28]",
        "shl rdx, 32",
        "or rax, rdx",
        "mov [rcx + 8], rax",
        "pop rax",
        "mov [rdi + 0x38], rax",
        "pop rax",
        "mov [rdi + 0x10], rax",
        "mov [rdi + 0x18], rbx",
        "mov [rdi + 0x28], rbp",
        "mov [rdi + 0x30], rsi",
        "mov [rdi + 0x40], r8",
        "mov [rdi + 0x48], r9",
        "mov [rdi + 0x50], r10",
        "mov [rdi + 0x58], r11",
        "mov [rdi + 0x60], r12",
        "mov [rdi + 0x68], r13",
        "mov [rdi + 0x70], r14",
        "mov [rdi + 0x78], r15",
        "cli",
        "mov rax, [rsp + 0x10]",
        "vmload rax",
        "add rsp, 0x20",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "cld",
        "ret",
    )
}
