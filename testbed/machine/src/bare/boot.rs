//! From QEMU's entry to the top of memory.
//!
//! QEMU enters in 32-bit mode without paging, by the PVH protocol. The assembly turns
//! long mode on (with five levels if the CPU has them: only then do nested tables
//! have five), jumps to the image's linked address, and Rust takes over on the boot
//! stack. [`relocate`] later copies the image to the top of RAM and goes on there.
//!
//! The same code starts the other CPUs, through a page below 1 MiB.
#![expect(unsafe_code, reason = "entry code and linker symbols")]

use super::direct::DirectMap;
use crate::addr::{Hpa, HpaRange};
use crate::phys::Memory;
use core::arch::{global_asm, naked_asm};

/// The page that other CPUs start in.
pub(super) const TRAMPOLINE: u64 = 0x8000;

global_asm!(
    r#"
    .section .note.pvh, "a", @note
    .balign 4
    .long 4, 8, 18                      # name length, descriptor length, PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_entry

    .section .boot, "awx", @progbits
    .code32
    .global pvh_entry
pvh_entry:
    cli
    cld
    mov edi, ebx                        # start_info
    xor ebp, ebp                        # the first CPU
    jmp enable_long

ap_entry32:
    mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov ebp, 1                          # another CPU

enable_long:
    mov eax, 7
    xor ecx, ecx
    cpuid
    mov eax, 0x20                       # PAE
    mov edx, offset boot_pml4
    bt ecx, 16                          # LA57
    jnc 1f
    or eax, 0x1000
    mov edx, offset boot_pml5
1:  mov cr4, eax
    mov cr3, edx
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x900                       # LME, NXE
    wrmsr
    mov eax, 0x80010033                 # PG, WP, NE, ET, MP, PE; caches on
    mov cr0, eax
    lgdt [boot_gdtr]
    .byte 0xea                          # far jump to 64-bit code
    .long long_entry
    .word 0x08

    .code64
long_entry:
    mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    xor eax, eax
    mov fs, ax
    mov gs, ax
    mov ecx, 0xc0000101                 # no per-CPU record yet: GS has no base
    xor edx, edx
    wrmsr
    test ebp, ebp
    jnz 2f
    mov edi, edi
    movabs rax, offset bsp_high
    jmp rax
2:  movabs rax, offset ap_mailbox
    mov rdi, [rax]                      # CR3
    mov rsi, [rax + 8]                  # stack
    mov rdx, [rax + 16]                 # argument
    movabs rax, offset ap_high
    jmp rax

    # Copied to the start page; runs in real mode at offset zero of its segment.
    .code16
    .global ap_trampoline
ap_trampoline:
    cli
    cld
    mov ax, cs
    mov ds, ax
    .byte 0x66, 0x0f, 0x01, 0x16        # lgdt, 32-bit form
    .word trampoline_gdtr - ap_trampoline
    mov eax, cr0
    or al, 1
    mov cr0, eax
    .byte 0x66, 0xea
    .long ap_entry32
    .word 0x18
trampoline_gdtr:
    .word boot_gdt_end - boot_gdt - 1
    .long boot_gdt
    .global ap_trampoline_end
ap_trampoline_end:

    .code64
    .balign 16
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff            # 64-bit code
    .quad 0x00cf93000000ffff            # data
    .quad 0x00cf9b000000ffff            # 32-bit code
boot_gdt_end:
boot_gdtr:
    .word boot_gdt_end - boot_gdt - 1
    .quad boot_gdt
    .balign 8
    .global ap_mailbox
ap_mailbox:
    .quad 0, 0, 0

    # 512 GiB at zero and at the direct map, 8 MiB of image at the top. The same table
    # serves as the top one of four levels and as the second of five.
    .balign 4096
boot_pml5:
    .quad boot_pml4 + 3
    .fill 510, 8, 0
    .quad boot_pml4 + 3
boot_pml4:
    .quad boot_pdpt + 3
    .fill 255, 8, 0
    .quad boot_pdpt + 3
    .fill 254, 8, 0
    .quad boot_pdpt_top + 3
boot_pdpt:
    .set gib, 0
    .rept 512
    .quad (gib << 30) | 0x83
    .set gib, gib + 1
    .endr
boot_pdpt_top:
    .fill 510, 8, 0
    .quad boot_pd_top + 3
    .quad 0
boot_pd_top:
    .quad __image_load + 0x000083
    .quad __image_load + 0x200083
    .quad __image_load + 0x400083
    .quad __image_load + 0x600083
    .fill 508, 8, 0

    .section .stack, "aw", @nobits
    .skip 0x80000
boot_stack_top:

    .text
bsp_high:
    lea rsp, [rip + boot_stack_top]
    xor ebp, ebp
    call {bsp}
    ud2
ap_high:
    mov cr3, rdi
    mov rsp, rsi
    mov rdi, rdx
    xor ebp, ebp
    call {ap}
    ud2
    "#,
    bsp = sym bsp_main,
    ap = sym super::smp::ap_main,
);

unsafe extern "C" {
    static __boot_start: u8;
    static __boot_end: u8;
    static __image_start: u8;
    static __text_end: u8;
    static __rodata_end: u8;
    static __guard: u8;
    static __image_end: u8;
    static __image_load: u8;
    static ap_trampoline: u8;
    static ap_trampoline_end: u8;
    static ap_mailbox: u8;
}

/// The first Rust code, on the boot stack, with the boot tables.
extern "C" fn bsp_main(start_info: u64) -> ! {
    // SAFETY: the boot tables have the direct map, and no other direct map exists yet.
    let memory = unsafe { DirectMap::new() };
    super::machine::main(start_info, memory)
}

/// A part of the image with rights of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    /// Its first address.
    pub(super) start: u64,
    /// The address behind it.
    pub(super) end: u64,
    /// Whether it is written to.
    pub(super) writable: bool,
    /// Whether it is executed.
    pub(super) executable: bool,
}

fn address(symbol: &u8) -> u64 {
    core::ptr::from_ref(symbol).addr() as u64
}

macro_rules! symbol {
    ($name:ident) => {{
        // SAFETY: a symbol of the linker script; only its address is used.
        address(unsafe { &$name })
    }};
}

/// The image's first address.
pub(super) fn image_start() -> u64 {
    symbol!(__image_start)
}

/// The image's size, guard page included.
pub(super) fn image_bytes() -> u64 {
    symbol!(__image_end) - image_start()
}

/// The image's parts; between the last two is the guard page below the boot stack.
pub(super) fn parts() -> [Part; 4] {
    let [text, rodata, guard, end] = [
        symbol!(__text_end),
        symbol!(__rodata_end),
        symbol!(__guard),
        symbol!(__image_end),
    ];
    let data = |start, end| Part {
        start,
        end,
        writable: true,
        executable: false,
    };
    [
        Part {
            start: image_start(),
            end: text,
            writable: false,
            executable: true,
        },
        Part {
            start: text,
            end: rodata,
            writable: false,
            executable: false,
        },
        data(rodata, guard),
        data(guard + 4096, end),
    ]
}

/// Where QEMU loaded what is not needed any more after the other CPUs are up.
pub(super) fn loaded() -> Option<HpaRange> {
    HpaRange::from_u64(symbol!(__boot_start), symbol!(__image_load) + image_bytes())
}

/// Copies the image to its new home and goes on there, with other tables.
///
/// # Safety
/// - `home` is the direct-map address of memory that nothing uses, as long as the image.
/// - The tables at `cr3` map the image's addresses to `home`, and have the direct map.
pub(super) unsafe fn relocate(home: *mut u8, cr3: Hpa) {
    // SAFETY: the caller's promise. The stack is part of the image: the copy is made after the
    // return address was pushed, and nothing is pushed before the tables change.
    unsafe { copy_and_switch(home, image_start(), image_bytes(), cr3.as_u64()) };
}

#[unsafe(naked)]
unsafe extern "C" fn copy_and_switch(to: *mut u8, from: u64, bytes: u64, cr3: u64) {
    naked_asm!(
        "mov r8, rcx",
        "mov rcx, rdx",
        "rep movsb",
        "mov cr3, r8",
        "ret"
    )
}

/// Puts the trampoline into its page.
pub(super) fn place_trampoline(memory: &mut DirectMap) -> Option<()> {
    let (start, end) = (symbol!(ap_trampoline), symbol!(ap_trampoline_end));
    copy_low(start, end, Hpa::new(TRAMPOLINE)?, memory)
}

/// Tells the next CPU that starts its tables, its stack, and its argument.
pub(super) fn fill_mailbox(
    cr3: Hpa,
    stack: u64,
    argument: u64,
    memory: &mut DirectMap,
) -> Option<()> {
    let at = symbol!(ap_mailbox);
    for (offset, value) in [(0, cr3.as_u64()), (8, stack), (16, argument)] {
        memory.write_u64(Hpa::new(at + offset)?, value).ok()?;
    }
    Some(())
}

/// Copies bytes of the boot part, which is linked where it is loaded.
fn copy_low(start: u64, end: u64, to: Hpa, memory: &mut DirectMap) -> Option<()> {
    for offset in 0..end - start {
        let mut byte = [0];
        memory.read(Hpa::new(start + offset)?, &mut byte).ok()?;
        memory.write(Hpa::new(to.as_u64() + offset)?, &byte).ok()?;
    }
    Some(())
}
