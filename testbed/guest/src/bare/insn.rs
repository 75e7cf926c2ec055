//! Single instructions.
#![expect(unsafe_code, reason = "privileged instructions")]

use super::trap;
use core::arch::{asm, naked_asm};

/// OUT of a byte.
pub fn out8(port: u16, value: u8) {
    // SAFETY: a port is no memory.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack)) };
}

/// OUT of a word.
pub fn out16(port: u16, value: u16) {
    // SAFETY: a port is no memory.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nomem, nostack)) };
}

/// IN of a byte.
#[must_use]
pub fn in8(port: u16) -> u8 {
    let value;
    // SAFETY: a port is no memory.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack)) };
    value
}

/// RDMSR of an MSR that exists.
#[must_use]
pub fn rdmsr(msr: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reading changes nothing.
    unsafe {
        asm!("rdmsr", in("ecx") msr, out("eax") low, out("edx") high, options(nomem, nostack));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// WRMSR of a value that the MSR can have, and that leaves the guest running.
pub fn wrmsr(msr: u32, value: u64) {
    let (low, high) = (value & 0xffff_ffff, value >> 32);
    // SAFETY: the cases write the APIC's registers and EFER only.
    unsafe { asm!("wrmsr", in("ecx") msr, in("rax") low, in("rdx") high, options(nostack)) };
}

/// CPUID.
#[must_use]
pub fn cpuid(leaf: u32) -> [u32; 4] {
    let result = core::arch::x86_64::__cpuid_count(leaf, 0);
    [result.eax, result.ebx, result.ecx, result.edx]
}

/// RDTSC.
#[must_use]
pub fn rdtsc() -> u64 {
    // SAFETY: at CPL 0 it always works.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// STI; HLT; CLI: sleeps until an interrupt was served.
pub fn sleep() {
    // SAFETY: every vector has a gate.
    unsafe { asm!("sti", "hlt", "cli", options(nostack)) };
}

/// CLI; HLT.
pub fn cli_hlt() {
    // SAFETY: stops the CPU, or goes on after an NMI.
    unsafe { asm!("cli", "hlt", options(nostack)) };
}

/// LIDT with a table of no entries, then an exception: a triple fault.
pub fn triple_fault() -> ! {
    let nothing = [0_u8; 10];
    // SAFETY: never returns: the CPU shuts down.
    unsafe { asm!("lidt [{}]", "ud2", in(reg) nothing.as_ptr(), options(noreturn)) };
}

/// A function that executes an instruction and says which exception that raised, if any.
macro_rules! probe {
    ($(#[$doc:meta])* $name:ident($($argument:ident: $kind:ty),*): $($text:literal),+) => {
        $(#[$doc])*
        #[must_use]
        pub fn $name($($argument: $kind),*) -> Option<u8> {
            #[unsafe(naked)]
            unsafe extern "C" fn probe($(_: $kind),*) -> u32 {
                naked_asm!(
                    "lea rax, [rip + 2f]",
                    "mov [rip + {resume}], rax",
                    "mov dword ptr [rip + {caught}], -1",
                    $($text,)+
                    "2:",
                    "mov eax, [rip + {caught}]",
                    "mov qword ptr [rip + {resume}], 0",
                    "ret",
                    resume = sym trap::RESUME,
                    caught = sym trap::CAUGHT,
                )
            }
            // SAFETY: only registers that a call may change are changed, and after an exception
            // the trap code goes on behind the instruction.
            u8::try_from(unsafe { probe($($argument),*) }).ok()
        }
    };
}

probe! {
    /// VMMCALL.
    try_vmmcall(): "vmmcall"
}
probe! {
    /// VMRUN.
    try_vmrun(): "xor eax, eax", "vmrun rax"
}
probe! {
    /// RDMSR.
    try_rdmsr(msr: u64): "mov ecx, edi", "rdmsr"
}
probe! {
    /// WRMSR.
    try_wrmsr(msr: u64, value: u64):
        "mov ecx, edi", "mov eax, esi", "mov rdx, rsi", "shr rdx, 32", "wrmsr"
}
