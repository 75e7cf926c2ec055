//! What every guest needs: a start, a serial port, exceptions, and other CPUs.
#![expect(unsafe_code, reason = "entry code and privileged instructions")]

pub mod apic;
pub mod ghcb;
pub mod insn;
pub mod ring3;
pub mod trap;

use crate::cases;
use crate::layout::COMMAND_LINE;
use core::arch::global_asm;
use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU32, Ordering};

const COM1: u16 = 0x3f8;
const PM1A_CONTROL: u16 = 0x604;
/// Of the register that says what protects the guest. A native guest reads zero.
const SNP: u64 = 1 << 2;

fn rdmsr_sev_status() -> u64 {
    insn::rdmsr(0xc001_0131)
}

/// The function that other CPUs run, as a number.
static OTHERS: core::sync::atomic::AtomicUsize = core::sync::atomic::AtomicUsize::new(0);
/// Stacks handed out to other CPUs.
static STACKS_TAKEN: AtomicU32 = AtomicU32::new(0);

global_asm!(
    r#"
    .section .low, "awx", @progbits
    .code16
    # Other CPUs start here, at offset zero of their segment.
ap16:
    cli
    mov ax, cs
    mov ds, ax
    .byte 0x66, 0x0f, 0x01, 0x16
    .word low_gdtr - ap16
    mov eax, 0x20
    mov cr4, eax
    mov eax, offset page_tables
    mov cr3, eax
    mov ecx, 0xc0000080
    mov eax, 0x900
    xor edx, edx
    wrmsr
    mov eax, 0x80010033
    mov cr0, eax
    .byte 0x66, 0xea
    .long ap64
    .word 8
low_gdtr:
    .word 23
    .long gdt
    .global start16
start16:
    mov dx, 0x3f8
    mov al, 0x31
    out dx, al
    mov al, 0x36
    out dx, al
    mov al, 0x0a
    out dx, al
    mov dx, 0x604
    mov ax, 0x2000
    out dx, ax
    hlt

    .text
    .code32
    .global start32
start32:
    mov dx, 0x3f8
    mov al, 0x33
    out dx, al
    mov al, 0x32
    out dx, al
    mov al, 0x0a
    out dx, al
    mov dx, 0x604
    mov ax, 0x2000
    out dx, ax
    hlt

    .code64
    .global start64
start64:
    lea rsp, [rip + first_stack_top]
    xor ebp, ebp
    lgdt [rip + gdtr]
    call {main}
    ud2
ap64:
    mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov eax, 1
    lock xadd [rip + {taken}], eax
    and eax, 15
    inc eax
    shl eax, 14
    lea rsp, [rip + other_stacks]
    add rsp, rax
    xor ebp, ebp
    call {other}
    ud2

    .data
    .balign 16
gdt:
    .quad 0
    .quad 0x00af9b000000ffff
    .quad 0x00cf93000000ffff
gdtr:
    .word 23
    .quad gdt
    .balign 4096
    .global page_tables
page_tables:
    # An image for SEV-SNP has other tables here, with the C-bit.
    .quad near_pages + 3
    .quad far_pages + 3
    .fill 510, 8, 0
    .global near_pages
near_pages:
    .set gib, 0
    .rept 512
    .quad (gib << 30) | 0x83
    .set gib, gib + 1
    .endr
    .global far_pages
far_pages:
    .quad 0x8000000083
    .fill 511, 8, 0
    .global shared_pages
shared_pages:
    .fill 512, 8, 0
    .global user_pages
user_pages:
    .fill 512, 8, 0

    .bss
    .balign 16
    .skip 0x8000
first_stack_top:
other_stacks:
    .skip 0x40000
    "#,
    main = sym main,
    other = sym other,
    taken = sym STACKS_TAKEN,
);

extern "C" fn main() -> ! {
    trap::load();
    if rdmsr_sev_status() & SNP != 0 {
        ghcb::set_up();
    }
    let mut name = [0; 32];
    for (offset, byte) in (0..).zip(name.iter_mut()) {
        let value: u8 = read(COMMAND_LINE + offset);
        if value <= b' ' {
            break;
        }
        *byte = value;
    }
    let len = name
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(name.len());
    let name = name
        .get(..len)
        .and_then(|name| core::str::from_utf8(name).ok())
        .unwrap_or("?");
    match cases::run(name) {
        Ok(()) => say(format_args!("{name}: ok")),
        Err(reason) => say(format_args!("{name}: failed: {reason}")),
    }
    power_off()
}

extern "C" fn other() -> ! {
    trap::load();
    let function = OTHERS.load(Ordering::Acquire);
    // SAFETY: only `start_others` writes it, with a function of this type, before it starts
    // any CPU.
    let function = unsafe { core::mem::transmute::<usize, fn() -> !>(function) };
    function()
}

/// Says what other CPUs run when they start.
pub fn set_others(function: fn() -> !) {
    OTHERS.store(function as usize, Ordering::Release);
}

/// Reads memory at an address.
#[must_use]
pub fn read<T: Copy>(at: u64) -> T {
    let pointer = core::ptr::with_exposed_provenance::<T>(usize::try_from(at).unwrap_or(0));
    // SAFETY: everything is mapped, one to one; guests read numbers, of which any bytes are one.
    unsafe { pointer.read_volatile() }
}

/// Writes memory at an address that is no part of the program.
pub fn write<T: Copy>(at: u64, value: T) {
    let pointer = core::ptr::with_exposed_provenance_mut::<T>(usize::try_from(at).unwrap_or(0));
    // SAFETY: everything is mapped, one to one; the cases write where the program is not.
    unsafe { pointer.write_volatile(value) };
}

/// ACPI S5.
pub fn power_off() -> ! {
    if ghcb::is_up() {
        ghcb::port_out(PM1A_CONTROL, 2, 0x2000);
    }
    insn::out16(PM1A_CONTROL, 0x2000);
    loop {
        insn::cli_hlt();
    }
}

/// Writes a line to the first serial port.
pub fn say(text: fmt::Arguments<'_>) {
    // A serial port cannot fail.
    let _ = writeln!(Serial, "{text}");
}

struct Serial;

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if ghcb::is_up() {
            ghcb::print(text);
            return Ok(());
        }
        for byte in text.bytes() {
            while insn::in8(COM1 + 5) & 0x20 == 0 {}
            insn::out8(COM1, byte);
        }
        Ok(())
    }
}

/// What the panic handler does.
pub fn panicked(info: &PanicInfo<'_>) -> ! {
    say(format_args!("failed: {info}"));
    power_off()
}
