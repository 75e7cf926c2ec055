//! The instructions, one in each function.
//!
//! An instruction that can break memory safety is an `unsafe fn`. The others are safe although most of them fault outside
//! ring 0 or where the processor lacks them: a fault is an exception, not undefined behaviour.
#![expect(unsafe_code, reason = "instructions that Rust has no words for")]

use core::arch::asm;

use super::{
    cpuid::Registers,
    cr::{Cr0, Cr3, Cr4, RFlags, Xcr0},
    descriptor::{Selector, TablePointer},
    msr::Msr,
};
use crate::addr::Gva;

/// Asks the processor what it can do.
#[must_use]
pub fn cpuid(leaf: u32, subleaf: u32) -> Registers {
    let (eax, ebx, ecx, edx): (u32, u64, u32, u32);
    // SAFETY: changes only the named registers; RBX, which the compiler keeps for itself, is put back.
    unsafe {
        asm!(
            "mov {ebx}, rbx", "cpuid", "xchg {ebx}, rbx",
            ebx = out(reg) ebx,
            inout("eax") leaf => eax, inout("ecx") subleaf => ecx, out("edx") edx,
            options(nostack, preserves_flags),
        );
    }
    Registers {
        eax,
        ebx: low_half(ebx),
        ecx,
        edx,
    }
}

/// Reads a model-specific register; #GP if it is not there.
#[must_use]
pub fn rdmsr(msr: Msr) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reading a register changes no memory.
    unsafe {
        asm!("rdmsr", in("ecx") msr.as_u32(), out("eax") low, out("edx") high, options(nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Writes a model-specific register; #GP if it is not there or cannot hold the value.
///
/// # Safety
/// With `value` in it, all memory that Rust code relies on is where it was, has the same content, and is reached in the same way.
pub unsafe fn wrmsr(msr: Msr, value: u64) {
    let (low, high) = (low_half(value), low_half(value >> 32));
    // SAFETY: the caller knows what the register does.
    unsafe {
        asm!("wrmsr", in("ecx") msr.as_u32(), in("eax") low, in("edx") high, options(nostack, preserves_flags));
    }
}

/// The low 32 bits, on purpose.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the other half is passed or ignored separately"
)]
const fn low_half(value: u64) -> u32 {
    value as u32
}

macro_rules! mov_from {
    ($($name:ident: $register:literal;)+) => {
        $(
            fn $name() -> u64 {
                let value: u64;
                // SAFETY: reading a register changes no memory.
                unsafe {
                    asm!(concat!("mov {}, ", $register), out(reg) value, options(nomem, nostack, preserves_flags));
                }
                value
            }
        )+
    };
}

mov_from! {
    mov_from_cr0: "cr0";
    mov_from_cr2: "cr2";
    mov_from_cr3: "cr3";
    mov_from_cr4: "cr4";
    mov_from_cr8: "cr8";
}

/// Reads CR0.
#[must_use]
pub fn read_cr0() -> Cr0 {
    Cr0::from_bits_retain(mov_from_cr0())
}

/// Writes CR0; #GP if the bits contradict each other.
///
/// # Safety
/// Paging and protection stay on, and all code and data in use pass the new protection.
pub unsafe fn write_cr0(value: Cr0) {
    // SAFETY: the caller knows that memory stays reachable.
    unsafe { asm!("mov cr0, {}", in(reg) value.bits(), options(nostack, preserves_flags)) }
}

/// Reads CR2: the address of the last page fault. `None` under five-level paging for addresses that no [`Gva`] has.
#[must_use]
pub fn read_cr2() -> Option<Gva> {
    Gva::new(mov_from_cr2())
}

/// Writes CR2, which nothing relies on but a page-fault handler that was interrupted by another.
pub fn write_cr2(value: Option<Gva>) {
    let value = value.map_or(0, Gva::as_u64);
    // SAFETY: the register is only a note.
    unsafe { asm!("mov cr2, {}", in(reg) value, options(nomem, nostack, preserves_flags)) }
}

/// Reads CR3.
#[must_use]
pub fn read_cr3() -> Cr3 {
    Cr3::from_bits(mov_from_cr3())
}

/// Writes CR3: another address space, and all its translations that are not global are flushed.
///
/// # Safety
/// The page tables map everything in use (code, stack, all memory that is borrowed) to the same memory with sufficient
/// rights, and live as long as they are in use.
pub unsafe fn write_cr3(value: Cr3) {
    // SAFETY: the caller vouches for the page tables.
    unsafe { asm!("mov cr3, {}", in(reg) value.bits(), options(nostack, preserves_flags)) }
}

/// Reads CR4.
#[must_use]
pub fn read_cr4() -> Cr4 {
    Cr4::from_bits_retain(mov_from_cr4())
}

/// Writes CR4; #GP if the processor lacks what a bit switches on.
///
/// # Safety
/// All code and data in use pass the new protection, and the paging mode stays.
pub unsafe fn write_cr4(value: Cr4) {
    // SAFETY: the caller knows that memory stays reachable.
    unsafe { asm!("mov cr4, {}", in(reg) value.bits(), options(nostack, preserves_flags)) }
}

/// Reads CR8, the task priority: bits 7 to 4 of the APIC's register.
#[must_use]
pub fn read_cr8() -> u8 {
    mov_from_cr8().to_le_bytes()[0]
}

/// Writes CR8: interrupts of this priority class and below wait. #GP above 15.
pub fn write_cr8(class: u8) {
    // SAFETY: which interrupts come is no matter of memory safety. (No `nomem`: code must not move across.)
    unsafe { asm!("mov cr8, {}", in(reg) u64::from(class), options(nostack, preserves_flags)) }
}

/// Reads RFLAGS.
#[must_use]
pub fn read_rflags() -> RFlags {
    let value: u64;
    // SAFETY: pushes and pops one word of its own.
    unsafe { asm!("pushfq", "pop {}", out(reg) value, options(preserves_flags)) }
    RFlags::from_bits_retain(value)
}

/// Reads XCR0; #UD without CR4.OSXSAVE.
#[must_use]
pub fn xgetbv() -> Xcr0 {
    let (low, high): (u32, u32);
    // SAFETY: reading a register changes no memory.
    unsafe {
        asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags));
    }
    Xcr0::from_bits_retain(u64::from(high) << 32 | u64::from(low))
}

/// Writes XCR0; #UD without CR4.OSXSAVE, #GP for components that the processor lacks.
///
/// # Safety
/// Every XSAVE area in use is large enough for the components.
pub unsafe fn xsetbv(value: Xcr0) {
    let (low, high) = (low_half(value.bits()), low_half(value.bits() >> 32));
    // SAFETY: the caller vouches for the save areas.
    unsafe {
        asm!("xsetbv", in("ecx") 0, in("eax") low, in("edx") high, options(nostack, preserves_flags))
    }
}

/// Reads the time-stamp counter, whenever the processor gets to it.
#[must_use]
pub fn rdtsc() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reading a register changes no memory.
    unsafe {
        asm!("rdtsc", out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags))
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Waits until all loads and, on AMD, all instructions before are done; no later one starts before.
pub fn lfence() {
    // SAFETY: a barrier changes no memory.
    unsafe { asm!("lfence", options(nostack, preserves_flags)) }
}

macro_rules! random {
    ($($(#[$doc:meta])* $name:ident)+) => {
        $(
            $(#[$doc])*
            #[must_use]
            pub fn $name() -> Option<u64> {
                let (value, ok): (u64, u8);
                // SAFETY: changes only its output and the flags.
                unsafe {
                    asm!(concat!(stringify!($name), " {}"), "setc {}", out(reg) value, out(reg_byte) ok, options(nomem, nostack));
                }
                (ok != 0).then_some(value)
            }
        )+
    };
}

random! {
    /// A word of the processor's generator; `None` if it has none right now. #UD where the processor lacks it.
    rdrand
    /// A word of the processor's entropy source; `None` if it has none right now. #UD where the processor lacks it.
    rdseed
}

/// Lets the sibling thread run: in loops that wait.
pub fn pause() {
    core::hint::spin_loop();
}

/// Stops until the next interrupt; for ever if interrupts are masked.
pub fn hlt() {
    // SAFETY: handlers of interrupts keep memory as they found it. (No `nomem`: they change data that this code reads.)
    unsafe { asm!("hlt", options(nostack, preserves_flags)) }
}

/// Masks interrupts.
pub fn cli() {
    // SAFETY: which interrupts come is no matter of memory safety. (No `nomem`: code must not move across.)
    unsafe { asm!("cli", options(nostack)) }
}

/// Accepts interrupts, after the next instruction.
pub fn sti() {
    // SAFETY: handlers of interrupts keep memory as they found it. (No `nomem`: code must not move across.)
    unsafe { asm!("sti", options(nostack)) }
}

/// Accepts interrupts and stops until the next one. One block: an interrupt between the two would be slept through.
pub fn sti_hlt() {
    // SAFETY: handlers of interrupts keep memory as they found it.
    unsafe { asm!("sti", "hlt", options(nostack)) }
}

/// Raises #UD, for ever.
pub fn ud2() -> ! {
    // SAFETY: the instruction never completes.
    unsafe { asm!("ud2", options(noreturn, nostack)) }
}

/// Forgets the translation of one page, in this address space.
pub fn invlpg(page: Gva) {
    // SAFETY: a flush changes no memory. (No `nomem`: accesses must not move across.)
    unsafe { asm!("invlpg [{}]", in(reg) page.as_u64(), options(nostack, preserves_flags)) }
}

/// What [`invpcid`] forgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invpcid {
    /// One page of one address space, unless it is global.
    Page {
        /// The address space.
        pcid: u16,
        /// The page.
        page: Gva,
    },
    /// All pages of one address space that are not global.
    Space {
        /// The address space.
        pcid: u16,
    },
    /// All pages of all address spaces, global ones too.
    All,
    /// All pages of all address spaces that are not global.
    NonGlobal,
}

/// Forgets translations; #UD where the processor lacks it, #GP for an impossible identifier.
pub fn invpcid(what: Invpcid) {
    let (kind, pcid, page): (u64, u16, u64) = match what {
        Invpcid::Page { pcid, page } => (0, pcid, page.as_u64()),
        Invpcid::Space { pcid } => (1, pcid, 0),
        Invpcid::All => (2, 0, 0),
        Invpcid::NonGlobal => (3, 0, 0),
    };
    let descriptor = [u64::from(pcid), page];
    // SAFETY: reads the 16 bytes of `descriptor`; a flush changes no memory.
    unsafe {
        asm!("invpcid {}, [{}]", in(reg) kind, in(reg) &raw const descriptor, options(nostack, preserves_flags))
    }
}

macro_rules! port {
    ($($bits:literal $value:ty, $register:tt: $read:ident, $write:ident;)+) => {
        $(
            #[doc = concat!("Reads ", $bits, " bits from a port.")]
            ///
            /// # Safety
            /// Being read, the device behind the port does not change memory that Rust code relies on.
            pub unsafe fn $read(port: u16) -> $value {
                let value: $value;
                // SAFETY: the caller knows what the device does.
                unsafe {
                    asm!(
                        concat!("in ", $register, ", dx"), in("dx") port, out($register) value,
                        options(nostack, preserves_flags),
                    );
                }
                value
            }

            #[doc = concat!("Writes ", $bits, " bits to a port.")]
            ///
            /// # Safety
            /// Told `value`, the device behind the port does not change memory that Rust code relies on.
            pub unsafe fn $write(port: u16, value: $value) {
                // SAFETY: the caller knows what the device does.
                unsafe {
                    asm!(
                        concat!("out dx, ", $register), in("dx") port, in($register) value,
                        options(nostack, preserves_flags),
                    );
                }
            }
        )+
    };
}

port! {
    "8" u8, "al": inb, outb;
    "16" u16, "ax": inw, outw;
    "32" u32, "eax": inl, outl;
}

/// Takes another GDT into use; segment registers keep what they have until they are loaded.
///
/// # Safety
/// The table lives as long as it is in use, and holds what the selectors in use mean.
pub unsafe fn lgdt(table: &TablePointer) {
    // SAFETY: reads the 10 bytes of `table`; the caller vouches for what they point to.
    unsafe { asm!("lgdt [{}]", in(reg) table, options(nostack, readonly, preserves_flags)) }
}

/// Takes another IDT into use.
///
/// # Safety
/// The table lives as long as it is in use, and each present entry leads to a handler that keeps memory as it found it.
pub unsafe fn lidt(table: &TablePointer) {
    // SAFETY: reads the 10 bytes of `table`; the caller vouches for what they point to.
    unsafe { asm!("lidt [{}]", in(reg) table, options(nostack, readonly, preserves_flags)) }
}

/// Takes a TSS into use and marks its descriptor busy; #GP if it was.
///
/// # Safety
/// The selector names a TSS in the GDT in use that lives as long as it is in use, and whose stacks are the CPU's own.
pub unsafe fn ltr(selector: Selector) {
    // SAFETY: writes the busy bit in the GDT; the caller vouches for the TSS.
    unsafe { asm!("ltr {:x}", in(reg) selector.bits(), options(nostack, preserves_flags)) }
}

/// Loads CS, by a far return to the next instruction.
///
/// # Safety
/// The selector names 64-bit code of this ring in the GDT in use.
pub unsafe fn load_cs(selector: Selector) {
    // SAFETY: goes on with the next instruction in the same mode; pushes two words and the return pops them.
    unsafe {
        asm!(
            "push {selector}", "lea {next}, [rip + 2f]", "push {next}", "retfq", "2:",
            selector = in(reg) u64::from(selector.bits()), next = lateout(reg) _,
            options(preserves_flags),
        );
    }
}

/// Loads SS, DS and ES, whose bases 64-bit code ignores.
///
/// # Safety
/// The selector names writable data of this ring in the GDT in use, or is null in ring 0.
pub unsafe fn load_data_segments(selector: Selector) {
    // SAFETY: 64-bit code addresses stack and data without the segments' bases and limits.
    unsafe {
        asm!("mov ss, {0:x}", "mov ds, {0:x}", "mov es, {0:x}", in(reg) selector.bits(), options(nostack, preserves_flags));
    }
}

/// Loads FS and GS with the null selector. On Intel processors this clears their bases, on AMD not always: set them after it.
///
/// # Safety
/// Nothing in use is addressed through FS or GS.
pub unsafe fn clear_fs_gs() {
    // SAFETY: the caller says that nobody uses the bases.
    unsafe {
        asm!("mov fs, {0:x}", "mov gs, {0:x}", in(reg) 0_u16, options(nostack, preserves_flags))
    }
}

/// Exchanges the base of GS and KERNEL_GS_BASE.
///
/// # Safety
/// Code that runs before the next exchange addresses nothing through GS, or means the new base.
pub unsafe fn swapgs() {
    // SAFETY: the caller knows which base is which.
    unsafe { asm!("swapgs", options(nostack, preserves_flags)) }
}

/// Lets the kernel access user pages; #UD where the processor lacks SMAP.
///
/// # Safety
/// Until [`clac`], only accesses by raw pointer that are meant for user memory are made.
pub unsafe fn stac() {
    // SAFETY: changes a flag. (No `nomem`: accesses must not move across.)
    unsafe { asm!("stac", options(nostack)) }
}

/// Keeps the kernel from user pages again; #UD where the processor lacks SMAP.
pub fn clac() {
    // SAFETY: changes a flag. (No `nomem`: accesses must not move across.)
    unsafe { asm!("clac", options(nostack)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    // What can run in ring 3; the rest is tested by booting.

    #[test]
    fn cpuid_keeps_rbx() {
        let vendor = cpuid(0, 0);
        assert_ne!(vendor.eax, 0);
        assert_eq!(cpuid(0, 0), vendor);
    }

    #[test]
    fn time_goes_on() {
        let before = rdtsc();
        lfence();
        assert!(rdtsc() > before);
    }

    #[test]
    fn flags_have_their_fixed_bit() {
        assert!(read_rflags().contains(RFlags::FIXED | RFlags::IF));
    }
}
