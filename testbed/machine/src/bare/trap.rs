//! L0's own exceptions and interrupts.
//!
//! L0 runs with the global interrupt flag clear; it lets something in only where it
//! sleeps or swallows an NMI. Every exception is the end: a report, and a verdict.
#![expect(unsafe_code, reason = "the interrupt descriptor table")]

use super::cpu::Local;
use super::{fatal, insn};
use crate::addr::HpaRange;
use core::arch::{asm, global_asm};
use core::fmt;

const DEBUG: u64 = 1;
const NMI: u64 = 2;
const INTERRUPTS: u64 = 32;
const IF: u64 = 1 << 9;
const RF: u64 = 1 << 16;

// 256 entries of 16 bytes each. Vectors with an error code push it themselves.
global_asm!(
    r#"
    .text
    .balign 16
    .global trap_stubs
trap_stubs:
    .set vector, 0
    .rept 256
    .balign 16
    .if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30
    .else
    push 0
    .endif
    push vector
    jmp trap_common
    .set vector, vector + 1
    .endr

trap_common:
    push rax
    push rcx
    push rdx
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    cld
    mov rdi, rsp
    call {trap}
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rdx
    pop rcx
    pop rax
    add rsp, 16
    iretq
    "#,
    trap = sym trap,
);

// Sleeps until an NMI. One that comes before HLT makes the trap code step over it.
global_asm!(
    r#"
    .text
    .global sleep_for_nmi
    .global sleep_for_nmi_hlt
    .global sleep_for_nmi_end
sleep_for_nmi:
    stgi
sleep_for_nmi_hlt:
    hlt
sleep_for_nmi_end:
    clgi
    ret
    .global let_one_in
let_one_in:
    sti
    stgi
    nop
    clgi
    cli
    ret
    .global sleep_for_any
    .global sleep_for_any_hlt
    .global sleep_for_any_end
sleep_for_any:
    sti
    stgi
sleep_for_any_hlt:
    hlt
sleep_for_any_end:
    clgi
    cli
    ret
    "#
);

unsafe extern "C" {
    static trap_stubs: u8;
    static sleep_for_nmi_hlt: u8;
    static sleep_for_nmi_end: u8;
    static sleep_for_any_hlt: u8;
    static sleep_for_any_end: u8;
    fn sleep_for_nmi();
    fn sleep_for_any();
    fn let_one_in();
}

/// What the stubs leave on the stack.
#[repr(C)]
struct Frame {
    saved: [u64; 9],
    vector: u64,
    code: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

/// An exception of L0.
struct Fault {
    cpu: Option<usize>,
    vector: u64,
    code: u64,
    rip: u64,
    rsp: u64,
    cr2: u64,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cpu,
            vector,
            code,
            rip,
            rsp,
            cr2,
        } = self;
        write!(
            f,
            "exception {vector} (code {code:#x}) at {rip:#x}, stack {rsp:#x}, cr2 {cr2:#x}"
        )?;
        cpu.map_or(Ok(()), |cpu| write!(f, ", on CPU {cpu}"))
    }
}

extern "C" fn trap(frame: &mut Frame) {
    if frame.vector == DEBUG
        && Local::current().is_some_and(|local| local.site().debugger.is_some())
    {
        // A breakpoint of the guest's debugger, at an address that is also L0's, on the way into the guest or out of it.
        frame.rflags |= RF;
        return;
    }
    if frame.vector != NMI && frame.vector < INTERRUPTS {
        fatal::end(&Fault {
            cpu: Local::current().map(Local::index),
            vector: frame.vector,
            code: frame.code,
            rip: frame.rip,
            rsp: frame.rsp,
            cr2: insn::cr2(),
        });
    }
    // Whoever sleeps is awake now, and takes no more than this one.
    for (hlt, end) in [
        (
            symbol(&raw const sleep_for_nmi_hlt),
            symbol(&raw const sleep_for_nmi_end),
        ),
        (
            symbol(&raw const sleep_for_any_hlt),
            symbol(&raw const sleep_for_any_end),
        ),
    ] {
        if frame.rip == hlt {
            frame.rip = end;
        }
    }
    frame.rflags &= !IF;
    match (Local::current(), u8::try_from(frame.vector)) {
        (Some(local), Ok(vector)) if frame.vector != NMI => local.record(vector),
        (Some(local), _) => local.record_nmi(),
        (None, _) => {}
    }
}

fn symbol(at: *const u8) -> u64 {
    at.addr() as u64
}

/// Sleeps until an NMI comes.
pub(super) fn wait_for_nmi() {
    // SAFETY: L0's IDT and stacks are in place; interrupts stay off.
    unsafe { sleep_for_nmi() };
}

/// Sleeps until an NMI or an interrupt comes, and takes one of them.
pub(super) fn wait_for_any() {
    // SAFETY: L0's IDT and stacks are in place, and every vector has a gate.
    unsafe { sleep_for_any() };
}

/// Takes the interrupt that is pending, and an NMI if one is.
pub(super) fn take_interrupt() {
    // SAFETY: as above. The trap code takes the interrupt flag away, so that no second one follows.
    unsafe { let_one_in() };
}

/// A gate of the interrupt descriptor table.
type Gate = [u64; 2];

/// Fills a page with the table.
///
/// # Safety
/// `table` is a page of L0's own that nothing else uses.
pub(super) unsafe fn fill_idt(table: *mut Gate, code_selector: u16) {
    const INTERRUPT_GATE: u64 = 0x8e00;
    let stubs = symbol(&raw const trap_stubs);
    for vector in 0..256_usize {
        let stub = stubs + vector as u64 * 16;
        let stack: u64 = match vector {
            // NMI, double fault, machine check: each has a stack of its own.
            2 => 1,
            8 => 2,
            18 => 3,
            _ => 0,
        };
        let low = stub & 0xffff
            | u64::from(code_selector) << 16
            | stack << 32
            | INTERRUPT_GATE << 32
            | (stub >> 16 & 0xffff) << 48;
        // SAFETY: 256 gates of 16 bytes fill the page that the caller gave.
        let gate = unsafe { table.add(vector) };
        // SAFETY: as above.
        unsafe { gate.write([low, stub >> 32]) };
    }
}

/// LIDT.
///
/// # Safety
/// The page holds a table made by [`fill_idt`], mapped at `at` for as long as L0 runs.
pub(super) unsafe fn load_idt(at: u64, _home: HpaRange) {
    let [a0, a1, a2, a3, a4, a5, a6, a7] = at.to_le_bytes();
    let [l0, l1] = 4095_u16.to_le_bytes();
    let pointer = [l0, l1, a0, a1, a2, a3, a4, a5, a6, a7];
    // SAFETY: the caller's promise.
    unsafe {
        asm!("lidt [{}]", in(reg) pointer.as_ptr(), options(readonly, nostack, preserves_flags))
    };
}
