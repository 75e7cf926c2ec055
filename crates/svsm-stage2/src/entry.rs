//! The first instructions of every CPU, in 16, 32 and 64 bits, and the last ones before the SVSM.
//!
//! | Function | Section | Starts in |
//! |---|---|---|
//! | [`start64`] | `.stage2.entry64` | 64-bit mode, registers as `plan::Start` and [`layout`](crate::layout) say |
//! | [`start32`] | `.stage2.entry32` | 32-bit protected mode, flat segments, paging off; SEV-SNP starts so |
//! | [`trampoline`] | `.stage2.trampoline` | real mode, at the start of a page below 1 MiB |
//! | [`enter`] | `.stage2.trampoline.enter` | 64-bit mode; leaves for the SVSM |
//!
//! Nothing here has a fixed symbol. A stage2 program implements [`Stage2`], keeps [`Entries`] in a
//! static, and places the sections in its linker script: the trampoline's two in one page of their
//! own, the 32-bit entry at the first byte of stage2's region, and the ELF entry point at the 64-bit
//! one.
//!
//! # Changing address spaces
//!
//! The instruction after `mov cr3` is fetched through the new tables. Stage2 runs at low
//! addresses, which the SVSM does not map: its lower half is user mode's. So both address spaces
//! map the trampoline's page at [`SWITCH`] too, and [`enter`] goes there first.

#![expect(unsafe_code, reason = "no compiler emits what a CPU needs first")]

use core::arch::naked_asm;
use core::mem::offset_of;

use svsm_platform::cpu::cr::{Cr0, Efer};
use svsm_platform::cpu::msr::Msr;

use crate::exec::Jump;
use crate::handoff::{WireHandoff, WirePlatform};
use crate::layout::{ENTRY_CR0, ENTRY_CR4, ENTRY_EFER, SWITCH};
use crate::mailbox::offsets;

/// A stage2 program. Implemented once, for a type of the program's own.
pub trait Stage2 {
    /// What runs when the CPU is in 64-bit mode and has a stack. `handoff` is the number that was
    /// in RDI or EDI at the start: the hand-off's address; `tsc` is the time-stamp counter.
    ///
    /// Stage2's page tables map its own segments, its stack, the hand-off and the mailbox at their
    /// physical addresses, and the window. There is no descriptor table for interrupts.
    extern "C" fn main(handoff: u64, tsc: u64) -> !;
}

/// The entry points of a program, so that the linker finds them.
///
/// ```no_run
/// use svsm_stage2::entry::{Entries, Stage2};
///
/// enum Firmware {}
///
/// impl Stage2 for Firmware {
///     extern "C" fn main(_handoff: u64, _tsc: u64) -> ! {
///         loop {} // svsm_stage2::exec::run, then svsm_stage2::entry::enter
///     }
/// }
///
/// #[used] // and `#[unsafe(link_section = "…")]` with a section that the linker script keeps
/// static ENTRIES: Entries = Entries::of::<Firmware>();
/// ```
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Entries([unsafe extern "C" fn() -> !; 3]);

impl Entries {
    /// Those of `S`.
    #[must_use]
    pub const fn of<S: Stage2>() -> Self {
        Self([start64::<S>, start32::<S>, trampoline])
    }
}

const EFER: u32 = Msr::EFER.as_u32();

/// LMA is the processor's to set.
const EFER_BITS: u64 = ENTRY_EFER.difference(Efer::LMA).bits();

/// A reset leaves the caches off.
const CACHES_OFF: u64 = Cr0::CD.union(Cr0::NW).bits();

/// What of CR0 can be set while paging is still off.
const UNPAGED_CR0: u64 = Cr0::PE.bits();

/// SEV, SEV-ES and SEV-SNP in SEV_STATUS.
const SEV_SNP_IS_ON: u32 = 0b111;

/// The CPUID page of SEV-SNP (56860, "CPUID Reporting").
mod cpuid_page {
    pub(super) const MAX_ENTRIES: u32 = 64;
    pub(super) const HEADER_BYTES: u32 = 16;
    pub(super) const ENTRY_BYTES: u32 = 48;
    /// Where an entry has the answer's EBX.
    pub(super) const EBX: u32 = 28;
    pub(super) const ENCRYPTION_LEAF: u32 = 0x8000_001f;
}

/// The termination request of the GHCB MSR protocol: `Reason::BadImage` as `svsm_platform::snp` numbers it.
const BAD_IMAGE: u32 = 0x100 | 4 << 12 | 2 << 16;

// The descriptors below: flat, accessed already (they are not writable), ring 0.
const CODE64: u64 = 0x00af_9b00_0000_ffff;
const DATA: u64 = 0x00cf_9300_0000_ffff;
const CODE32: u64 = 0x00cf_9b00_0000_ffff;
const CODE64_SELECTOR: u16 = 8;
const DATA_SELECTOR: u16 = 16;
const CODE32_SELECTOR: u16 = 24;

/// Where the first CPU starts in 64-bit mode.
///
/// # Safety
///
/// Not to be called: a machine starts here as the plan says. RDI is the hand-off's address and RSP
/// the top of stage2's stack.
#[unsafe(naked)]
#[cfg_attr(target_os = "none", unsafe(link_section = ".stage2.entry64"))]
pub unsafe extern "C" fn start64<S: Stage2>() -> ! {
    naked_asm!(
        "cli",
        "cld",
        "rdtsc",
        "shl rdx, 32",
        "or rax, rdx",
        "mov rsi, rax",
        "xor ebp, ebp",
        "call {main}",
        "ud2",
        main = sym S::main,
    )
}

/// Where the first CPU starts in 32-bit protected mode with paging off.
///
/// Stage2's prebuilt tables, which the hand-off names, are loaded as they are, unless the image is for SEV-SNP: then all memory
/// is private while paging is off. SEV_STATUS must say that SEV-SNP is on; the CPUID page, which the hand-off names as well,
/// says where the C-bit is, and each entry gets it. Where that fails, the machine is ended by the GHCB MSR protocol, set 4,
/// code 2 (a bad image).
///
/// # Safety
///
/// Not to be called: a machine starts here as the plan says. EDI is the hand-off's address and ESP
/// the top of stage2's stack.
#[unsafe(naked)]
#[cfg_attr(target_os = "none", unsafe(link_section = ".stage2.entry32"))]
pub unsafe extern "C" fn start32<S: Stage2>() -> ! {
    naked_asm!(
        ".code32",
        "cli",
        "cld",
        "lgdt 5f",
        "cmpl ${snp}, {platform}(%edi)",
        "jne 10f",
        "mov ${sev_status}, %ecx",
        "rdmsr",
        "not %eax",
        "test ${sev_snp}, %eax",
        "jnz 9f",
        // The entry of the CPUID page for the leaf that describes encryption.
        "mov {cpuid}(%edi), %esi",
        "test %esi, %esi",
        "jz 9f",
        "mov (%esi), %ecx",
        "cmp ${cpuid_entries}, %ecx",
        "ja 9f",
        "add ${cpuid_header}, %esi",
        "6:",
        "sub $1, %ecx",
        "jb 9f",
        "cmpl ${encryption_leaf}, (%esi)",
        "lea {cpuid_entry}(%esi), %esi",
        "jne 6b",
        // The position of the C-bit, which must lie in the upper half of an entry.
        "mov {c_bit} - {cpuid_entry}(%esi), %ecx",
        "and $0x3f, %ecx",
        "sub $32, %ecx",
        "jb 9f",
        "cmp $(51 - 32), %ecx",
        "ja 9f",
        "mov $1, %eax",
        "shl %cl, %eax",
        // Every present entry of every table.
        "mov {tables}(%edi), %esi",
        "mov {tables} + 8(%edi), %ecx",
        "shr $3, %ecx",
        "7:",
        "testb $1, (%esi)",
        "jz 8f",
        "or %eax, 4(%esi)",
        "8:",
        "add $8, %esi",
        "sub $1, %ecx",
        "jnz 7b",
        "10:",
        "mov {tables}(%edi), %eax",
        "mov %eax, %cr3",
        "mov ${cr4}, %eax",
        "mov %eax, %cr4",
        "mov ${efer}, %ecx",
        "rdmsr",
        "or ${efer_bits}, %eax",
        "wrmsr",
        "mov %cr0, %eax",
        "and ${caches_on}, %eax",
        "or ${cr0}, %eax",
        "mov %eax, %cr0",
        "ljmp ${code64}, $3f",
        // No SVSM can start: all that is left is to say so.
        "9:",
        "mov ${ghcb}, %ecx",
        "mov ${terminate}, %eax",
        "xor %edx, %edx",
        "wrmsr",
        "rep vmmcall",
        "hlt",
        "jmp 9b",
        ".code64",
        "3:",
        "mov ${data}, %eax",
        "mov %eax, %ds",
        "mov %eax, %es",
        "mov %eax, %ss",
        // The upper halves are undefined after the change of mode.
        "mov %edi, %edi",
        "mov %esp, %esp",
        "jmp {start64}",
        ".balign 8",
        "4:",
        ".quad 0, {code64_descriptor}, {data_descriptor}",
        "5:",
        ".word 5b - 4b - 1",
        ".long 4b",
        platform = const offset_of!(WireHandoff, platform),
        snp = const WirePlatform::SEV_SNP.0.get(),
        sev_status = const Msr::SEV_STATUS.as_u32(),
        sev_snp = const SEV_SNP_IS_ON,
        cpuid = const offset_of!(WireHandoff, cpuid),
        cpuid_entries = const cpuid_page::MAX_ENTRIES,
        cpuid_header = const cpuid_page::HEADER_BYTES,
        cpuid_entry = const cpuid_page::ENTRY_BYTES,
        encryption_leaf = const cpuid_page::ENCRYPTION_LEAF,
        c_bit = const cpuid_page::EBX,
        ghcb = const Msr::GHCB.as_u32(),
        terminate = const BAD_IMAGE,
        tables = const offset_of!(WireHandoff, stage2_tables),
        cr4 = const ENTRY_CR4.bits(),
        efer = const EFER,
        efer_bits = const EFER_BITS,
        caches_on = const !CACHES_OFF & 0xffff_ffff,
        cr0 = const ENTRY_CR0.bits(),
        code64 = const CODE64_SELECTOR,
        data = const DATA_SELECTOR,
        start64 = sym start64::<S>,
        code64_descriptor = const CODE64,
        data_descriptor = const DATA,
        options(att_syntax),
    )
}

/// Where the other CPUs start, in real mode, at the first byte of a page.
///
/// The CPU goes up to 64-bit mode with stage2's tables, asks CPUID for its APIC id, and takes the
/// order that the [mailbox](crate::mailbox), in the next page, has for that id. Without one it stops
/// for good: it was started by somebody else, or too late.
///
/// # Safety
///
/// Not to be called: a CPU starts here when it gets a SIPI.
#[unsafe(naked)]
#[cfg_attr(target_os = "none", unsafe(link_section = ".stage2.trampoline"))]
pub unsafe extern "C" fn trampoline() -> ! {
    naked_asm!(
        ".code16",
        "2:",
        "cli",
        "cld",
        // CS:0 is the start of this page.
        "mov %cs, %ax",
        "mov %ax, %ds",
        "lgdtl 8f - 2b",
        "mov %cr0, %eax",
        "and ${caches_on}, %eax",
        "or ${protected}, %eax",
        "mov %eax, %cr0",
        "ljmpl ${code32}, $3f",
        ".code32",
        "3:",
        "mov ${data}, %eax",
        "mov %eax, %ds",
        "mov %eax, %es",
        "mov %eax, %ss",
        "mov 2b + 4096 + {low_root}, %eax",
        "mov %eax, %cr3",
        "mov ${cr4}, %eax",
        "mov %eax, %cr4",
        "mov ${efer}, %ecx",
        "rdmsr",
        "or ${efer_bits}, %eax",
        "wrmsr",
        "mov %cr0, %eax",
        "or ${cr0}, %eax",
        "mov %eax, %cr0",
        "ljmp ${code64}, $4f",
        ".code64",
        "4:",
        // The APIC id: 32 bits from leaf 0xb where there is one, else 8 bits from leaf 1.
        "xor %eax, %eax",
        "cpuid",
        "cmp $0xb, %eax",
        "jb 5f",
        "mov $0xb, %eax",
        "xor %ecx, %ecx",
        "cpuid",
        "test %ebx, %ebx",
        "jnz 6f",
        "5:",
        "mov $1, %eax",
        "cpuid",
        "shr $24, %ebx",
        "mov %ebx, %edx",
        "6:",
        // `Mailbox::take`: from "ready for this id" to "claimed by this id".
        "shl $32, %rdx",
        "lea {ready}(%rdx), %rax",
        "add ${claimed}, %rdx",
        "lea 2b + 4096(%rip), %rbx",
        "lock cmpxchg %rdx, {word}(%rbx)",
        "jne 9f",
        "mov {cr3}(%rbx), %rdi",
        "mov {stack_top}(%rbx), %rsi",
        "mov {argument}(%rbx), %rcx",
        "mov {entry}(%rbx), %rax",
        // From "claimed" to "taken"; loads are not reordered with later stores.
        "add ${claimed_to_taken}, %rdx",
        "mov %rdx, {word}(%rbx)",
        "mov %rax, %rdx",
        "jmp {enter}",
        "9:",
        "cli",
        "hlt",
        "jmp 9b",
        ".balign 8",
        "7:",
        ".quad 0, {code64_descriptor}, {data_descriptor}, {code32_descriptor}",
        "8:",
        ".word 8b - 7b - 1",
        ".long 7b",
        caches_on = const !CACHES_OFF & 0xffff_ffff,
        protected = const UNPAGED_CR0,
        code32 = const CODE32_SELECTOR,
        data = const DATA_SELECTOR,
        low_root = const offsets::LOW_ROOT,
        cr4 = const ENTRY_CR4.bits(),
        efer = const EFER,
        efer_bits = const EFER_BITS,
        cr0 = const ENTRY_CR0.bits(),
        code64 = const CODE64_SELECTOR,
        ready = const offsets::READY,
        claimed = const offsets::CLAIMED,
        claimed_to_taken = const offsets::TAKEN - offsets::CLAIMED,
        word = const offsets::WORD,
        cr3 = const offsets::CR3,
        stack_top = const offsets::STACK_TOP,
        entry = const offsets::ENTRY,
        argument = const offsets::ARGUMENT,
        enter = sym enter_at,
        code64_descriptor = const CODE64,
        data_descriptor = const DATA,
        code32_descriptor = const CODE32,
        options(att_syntax),
    )
}

/// Leaves for the SVSM: loads its page tables and stack, and jumps to its first instruction.
///
/// # Safety
///
/// - `jump` is what [`exec::run`](crate::exec::run) answered, and stage2's page tables are loaded.
/// - Nothing of stage2 is needed any more on this CPU.
pub unsafe fn enter(jump: Jump) -> ! {
    let Jump {
        cr3,
        stack_top,
        entry,
        argument,
    } = jump;
    // SAFETY: the caller's promise; by the plan the page of `enter_at` is mapped, executable, at
    // `SWITCH` in both address spaces.
    unsafe { enter_at(cr3, stack_top.as_u64(), entry.as_u64(), argument.as_u64()) }
}

/// [`enter`] as the trampoline calls it, by registers: RDI, RSI, RDX, RCX.
#[unsafe(naked)]
#[cfg_attr(target_os = "none", unsafe(link_section = ".stage2.trampoline.enter"))]
unsafe extern "C" fn enter_at(cr3: u64, stack_top: u64, entry: u64, argument: u64) -> ! {
    naked_asm!(
        // The same instructions in the same page, where the SVSM maps it as well.
        "lea rax, [rip + 2f]",
        "and eax, 0xfff",
        "mov r8, {switch}",
        "or rax, r8",
        "jmp rax",
        "2:",
        "mov cr3, rdi",
        "mov rsp, rsi",
        "mov rdi, rcx",
        "xor ebp, ebp",
        // A return address of zero: the entry is a function nobody called.
        "push rbp",
        "jmp rdx",
        switch = const SWITCH.as_u64(),
    )
}
