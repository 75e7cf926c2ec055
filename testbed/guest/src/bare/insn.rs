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

/// OUT of a word of 32 bits.
pub fn out32(port: u16, value: u32) {
    // SAFETY: as above.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack)) };
}

/// IN of a word of 32 bits.
#[must_use]
pub fn in32(port: u16) -> u32 {
    let value;
    // SAFETY: as above.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nostack)) };
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

/// Base and limit of the global and of the interrupt descriptor table.
#[must_use]
pub fn tables() -> ((u64, u16), (u64, u16)) {
    let (mut gdt, mut idt) = ([0_u8; 10], [0_u8; 10]);
    // SAFETY: ten bytes are stored into each.
    unsafe { asm!("sgdt [{}]", "sidt [{}]", in(reg) &mut gdt, in(reg) &mut idt, options(nostack)) };
    let parts = |table: [u8; 10]| {
        let [l0, l1, b0, b1, b2, b3, b4, b5, b6, b7] = table;
        let base = u64::from_le_bytes([b0, b1, b2, b3, b4, b5, b6, b7]);
        (base, u16::from_le_bytes([l0, l1]))
    };
    (parts(gdt), parts(idt))
}

/// CR0, CR3 and CR4.
#[must_use]
pub fn control_registers() -> (u64, u64, u64) {
    let (cr0, cr3, cr4);
    // SAFETY: reading changes nothing.
    unsafe {
        asm!("mov {}, cr0", "mov {}, cr3", "mov {}, cr4", out(reg) cr0, out(reg) cr3,
            out(reg) cr4, options(nomem, nostack));
    }
    (cr0, cr3, cr4)
}

/// Runs something with other page tables.
///
/// # Safety
/// They map the program where it is.
pub unsafe fn with_cr3<R>(value: u64, action: impl FnOnce() -> R) -> R {
    let (_, own, _) = control_registers();
    // SAFETY: the program is mapped where it is, as the caller says.
    unsafe { asm!("mov cr3, {}", in(reg) value, options(nostack)) };
    let result = action();
    // SAFETY: these were the tables before.
    unsafe { asm!("mov cr3, {}", in(reg) own, options(nostack)) };
    result
}

/// Calls a function that returns at once, by an address that is so much higher than its own.
///
/// # Safety
/// It leads to the same memory.
pub unsafe fn call_through(alias: u64) {
    // SAFETY: the address leads to one instruction, which returns.
    unsafe {
        asm!("lea {at}, [rip + 2f]", "add {at}, {alias}", "call {at}", "jmp 3f", "2:", "ret", "3:",
            at = out(reg) _, alias = in(reg) alias);
    }
}

/// Runs something with a value in XMM3, and says what is there afterwards.
pub fn with_xmm3(value: u64, action: impl FnOnce()) -> u64 {
    let seen;
    // SAFETY: the guests are built without SSE, so that nobody else uses the register; CR4 says
    // that it may be used.
    unsafe {
        asm!("mov {scratch}, cr4", "or {scratch}, 0x200", "mov cr4, {scratch}", "movq xmm3, {value}",
            scratch = out(reg) _, value = in(reg) value, options(nostack));
    }
    action();
    // SAFETY: as above.
    unsafe { asm!("movq {}, xmm3", out(reg) seen, options(nomem, nostack)) };
    seen
}

/// RFLAGS.
#[must_use]
pub fn flags() -> u64 {
    let flags;
    // SAFETY: reading changes nothing.
    unsafe { asm!("pushfq", "pop {}", out(reg) flags) };
    flags
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

/// STI.
pub fn sti() {
    // SAFETY: every vector has a gate.
    unsafe { asm!("sti", options(nostack)) };
}

/// CLI.
pub fn cli() {
    // SAFETY: it only keeps interrupts away.
    unsafe { asm!("cli", options(nostack)) };
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

/// How many instructions of [`path`] are executed, from the first to the last.
pub const PATH_STEPS: u64 = 16;

/// A code path to be tried: arithmetic, the stack, flags, a call and a branch.
#[must_use]
pub fn path(value: u64) -> u64 {
    // SAFETY: it changes only registers that a call may change, and leaves the stack as it was.
    unsafe { code_path(value) }
}

/// Where the path begins and ends.
#[must_use]
pub fn path_bounds() -> (u64, u64) {
    let start = code_path as *const () as u64;
    let mut end = start;
    // The byte behind the last instruction: INT3, which is nowhere before it.
    while super::read::<u8>(end) != 0xcc {
        end += 1;
    }
    (start, end)
}

#[unsafe(naked)]
unsafe extern "C" fn code_path(value: u64) -> u64 {
    naked_asm!(
        "mov rax, rdi",
        "add rax, 7",
        "push rax",
        "imul rax, rax, 3",
        "pushfq",
        "xor rax, [rsp + 8]",
        "popfq",
        "call 3f",
        "cmp rax, 0",
        "je 2f",
        "not rax",
        "2:",
        "pop rcx",
        "add rax, rcx",
        "ret",
        "3:",
        "rol rax, 5",
        "ret",
        "int3",
    )
}

/// RDTSC's MSR of its pace, where the counter is the guest's own.
pub const TSC_FREQUENCY: u32 = 0xc001_0134;

/// DR0.
#[must_use]
pub fn dr0() -> u64 {
    let value;
    // SAFETY: reading changes nothing.
    unsafe { asm!("mov {}, dr0", out(reg) value, options(nomem, nostack)) };
    value
}

/// Sets DR0.
pub fn set_dr0(value: u64) {
    // SAFETY: no breakpoint is enabled.
    unsafe { asm!("mov dr0, {}", in(reg) value, options(nomem, nostack)) };
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
                    "cli",
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
    /// VMGEXIT, with what is in the register.
    try_vmgexit(): ".byte 0xf3, 0x0f, 0x01, 0xd9"
}
probe! {
    /// Takes interrupts for a moment.
    try_window(): "sti", "nop", "nop"
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
probe! {
    /// CPUID, leaf 0.
    try_cpuid(): "mov r8, rbx", "xor eax, eax", "cpuid", "mov rbx, r8"
}
probe! {
    /// IN of a byte from the first serial port.
    try_in(): "mov dx, 0x3f8", "in al, dx"
}
probe! {
    /// WBINVD.
    try_wbinvd(): "wbinvd"
}
probe! {
    /// INVD.
    try_invd(): "invd"
}
probe! {
    /// MONITOR.
    try_monitor(): "mov rax, rsp", "xor ecx, ecx", "xor edx, edx", "monitor"
}
probe! {
    /// MWAIT.
    try_mwait(): "xor eax, eax", "xor ecx, ecx", "mwait"
}
probe! {
    /// RDPMC.
    try_rdpmc(): "xor ecx, ecx", "rdpmc"
}
probe! {
    /// A read of memory.
    try_read(at: u64): "mov al, [rdi]"
}
probe! {
    /// A write of a zero byte.
    try_write(at: u64): "mov byte ptr [rdi], 0"
}
probe! {
    /// `PVALIDATE` of a page of 4 KiB.
    try_pvalidate(at: u64): "mov rax, rdi", "xor ecx, ecx", "mov edx, 1", ".byte 0xf2, 0x0f, 0x01, 0xff"
}
probe! {
    /// `RMPADJUST` of a page of 4 KiB, for VMPL1 and no rights.
    try_rmpadjust(at: u64): "mov rax, rdi", "xor ecx, ecx", "mov edx, 1", ".byte 0xf3, 0x0f, 0x01, 0xfe"
}
probe! {
    /// `RMPUPDATE`, which is for hosts.
    try_rmpupdate(at: u64): "mov rax, rdi", "mov rcx, rdi", ".byte 0xf2, 0x0f, 0x01, 0xfe"
}
probe! {
    /// `INVLPGB` of everything.
    try_invlpgb(): "xor eax, eax", "xor ecx, ecx", "xor edx, edx", ".byte 0x0f, 0x01, 0xfe"
}
