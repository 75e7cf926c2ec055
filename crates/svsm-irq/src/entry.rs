//! Entry code: from a vector the processor took to a Rust function, and back.
//!
//! All of it is one generic function, [`entries`], that a firmware instantiates by implementing
//! [`TrapHandler`] for a type of its own; nothing here has a fixed symbol. It holds 256 stubs of
//! [`STUB_BYTES`] bytes, which [`crate::idt::fill`] points its gates at, and two ways into Rust:
//!
//! - **Ordinary vectors** run on the stack of the interrupted kernel code, or on the task's kernel
//!   stack (`RSP0` of the task-state segment). User and kernel GS base are exchanged if the frame
//!   says that user mode was interrupted.
//! - **Vectors that can come at any instruction** ([`Exception::AT_ANY_INSTRUCTION`]) run on a
//!   stack from the interrupt stack table. They may find user mode's stack and GS base in ring 0,
//!   in the first instructions of `SYSCALL` or the last before a return, so they compare GS base
//!   with the value that belongs to this CPU. They may also find each other, at any instruction. A
//!   second event on the same entry of the table would start at the same address as the first and
//!   overwrite its frame, so the entry code moves the table's entry to the next slot of
//!   [`crate::ist`] before it calls anybody, and back when it is done. That leaves two gaps:
//!   - An event before the move. If it starts on another slot, it completes the move for the
//!     one it interrupted. If it starts on the same one, its predecessor's frame is gone; an honest
//!     machine never does that (NMIs are blocked until a return, #HV waits for its doorbell to
//!     be cleared, no instruction there raises #VC), so [`TrapHandler::lost`] ends the machine.
//!   - An event after the move back. By then all that the return needs lies out of reach of any
//!     frame, and the new event returns in its predecessor's stead.
//!
//!   More nested events than there are slots end in [`TrapHandler::lost`], too.
//!
//! An ordinary vector that interrupts this very code is also [`TrapHandler::lost`]: interrupts are
//! masked here and nothing faults, so only a host that ignores the mask sends one.
//!
//! Every entry clears the direction flag, and the AC flag if the interrupted program had it set,
//! since the hardware leaves it and it switches SMAP off. (`clac` would do the same, but does not
//! exist without SMAP.) Ahead of the Rust function the entry code pushes what a function call would
//! have pushed, so that a stack trace by frame pointers runs through an exception into the
//! interrupted kernel code; user mode ends the trace.

#![expect(
    unsafe_code,
    reason = "entry and return are made of instructions that no compiler emits"
)]

use core::{arch::naked_asm, mem::offset_of};

pub use svsm_platform::frame::TrapFrame;

use crate::{Exception, ist::Header};

/// How the entry code reads this CPU's GS base, to learn whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GsBase {
    /// By RDMSR, which every processor has. A host can intercept it; that costs it a nested #VC
    /// each time, which ends with the slots.
    Msr,
    /// By RDGSBASE, which no host can intercept. `CR4.FSGSBASE` is set on every CPU before the
    /// first IST vector can be taken. User mode then writes its own GS base, which does no harm: it
    /// is compared with one exact value, and whoever has that value has the right one.
    Instruction,
}

/// What a firmware does with a vector. Implemented once, for a type of the firmware's own.
///
/// ```
/// use svsm_irq::{Cause, Exception, entry::{GsBase, TrapFrame, TrapHandler}};
///
/// enum Firmware {}
///
/// impl TrapHandler for Firmware {
///     const GS_BASE: GsBase = GsBase::Instruction;
///
///     fn handle(frame: &mut TrapFrame) {
///         match Cause::of(frame.vector) {
///             Some(Cause::Exception(Exception::BP)) => { /* skip it: RIP is past the int3 */ }
///             Some(Cause::Interrupt(_vector)) => { /* the dispatch table, then EOI */ }
///             _ => loop {}, // a firmware reports this, and ends the task or the machine
///         }
///     }
///
///     fn lost(_frame: &TrapFrame) -> ! {
///         loop {} // terminate; nothing here may rely on GS
///     }
/// }
///
/// let stub_of_vector_0 = svsm_irq::entry::entries::<Firmware> as *const ();
/// # let _ = stub_of_vector_0;
/// ```
pub trait TrapHandler {
    /// How to read GS base.
    const GS_BASE: GsBase;

    /// Handles a vector. Interrupts are masked, and GS base is the kernel's.
    ///
    /// The frame is what the interrupted program goes on with. For ordinary vectors the handler may
    /// unmask interrupts, switch tasks and not come back; for the vectors of
    /// [`Exception::AT_ANY_INSTRUCTION`] it must do none of these, since its stack is this CPU's
    /// alone.
    fn handle(frame: &mut TrapFrame);

    /// Ends the machine: an event came where none may come, and the state it interrupted is lost.
    ///
    /// `frame` is what can still be said of it. GS base may be anyone's.
    fn lost(frame: &TrapFrame) -> !;
}

/// How far apart the stubs of two vectors are.
pub const STUB_BYTES: usize = 16;

/// Pushes the general registers in the order of [`TrapFrame`].
macro_rules! push_registers {
    () => {
        ".irp r, rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15
            push \\r
        .endr"
    };
}

/// Pops all of them but RAX.
macro_rules! pop_registers {
    () => {
        ".irp r, r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx
            pop \\r
        .endr"
    };
}

/// Clears DF, and AC if it is set. The frame is complete, so all registers are free.
macro_rules! clear_flags {
    () => {
        "cld
        test dword ptr [rsp + {rflags}], 0x40000
        jz 32f
        pushfq
        and dword ptr [rsp], 0xfffbffff
        popfq
    32:"
    };
}

/// RDI = the frame; on top of it what a call from the interrupted code would have pushed, or the
/// end of the trace.
macro_rules! fake_call {
    () => {
        "mov rdi, rsp
        test byte ptr [rsp + {cs}], 3
        jz 33f
        xor ebp, ebp
    33:
        push qword ptr [rdi + {rip}]
        push rbp
        mov rbp, rsp"
    };
}

/// The code of all 256 vectors: [`STUB_BYTES`] bytes each, vector 0 at the first address, then what
/// they share.
///
/// # Safety
/// Not to be called: it is where the processor goes. An interrupt gate's target is its address plus
/// [`STUB_BYTES`] times the vector, and [`crate::idt::fill`] makes such gates.
#[unsafe(naked)]
pub unsafe extern "sysv64" fn entries<H: TrapHandler>() {
    naked_asm!(
        // Every stub leaves an error code and its vector. 50: takes ordinary vectors,
        // 40: those on IST stacks.
        ".balign {stub}, 0xcc",
        "2:",
        ".set .Lsvsm_irq_vector, 0",
        ".rept 32",
        "    .balign {stub}, 0xcc",
        "    .if (({with_error_code} >> .Lsvsm_irq_vector) & 1) == 0",
        "    push 0",
        "    .endif",
        "    push .Lsvsm_irq_vector",
        "    .if (({on_ist} >> .Lsvsm_irq_vector) & 1) == 0",
        "    jmp 50f",
        "    .else",
        "    jmp 40f",
        "    .endif",
        "    .set .Lsvsm_irq_vector, .Lsvsm_irq_vector + 1",
        ".endr",
        ".rept 224",
        "    .balign {stub}, 0xcc",
        "    push 0",
        "    push .Lsvsm_irq_vector",
        "    jmp 50f",
        "    .set .Lsvsm_irq_vector, .Lsvsm_irq_vector + 1",
        ".endr",

        // ---- Vectors on IST stacks. The slot's header follows the frame. ----
        "40:",
        push_registers!(),
        clear_flags!(),
        "    test byte ptr [rsp + {cs}], 3",
        "    jnz 44f",
        // Was somebody about to return? Then return in their stead, before anybody else of their
        // slot overwrites what they return to. Their RSP is in the first 16 bytes of a header.
        "    mov rcx, [rsp + {rip}]",
        "    lea rax, [rip + 47f]",
        "    cmp rcx, rax",
        "    jb 43f",
        "    lea rax, [rip + 48f]",
        "    cmp rcx, rax",
        "    jae 43f",
        "    mov rcx, [rsp + {rsp}]",
        "    and rcx, -16",
        ".irp at, 0, 8, 16, 24, 32",
        "    mov rax, [rcx + {ret} + \\at]",
        "    mov [rsp + {rip} + \\at], rax",
        ".endr",
        "    mov rax, [rcx + {saved_rax}]",
        "    mov [rsp + {rax}], rax",
        "    jmp 44f",
        // Was somebody about to move on to their next slot? Then move on for them, before we raise
        // what starts on the slot that they are on. If that is our own slot, their frame is gone.
        "43:",
        "    lea rax, [rip + 2b]",
        "    cmp rcx, rax",
        "    jb 44f",
        "    lea rax, [rip + 45f]",
        "    cmp rcx, rax",
        "    jae 44f",
        "    mov rcx, [rsp + {rsp}]",
        "    mov rdx, [rsp + {frame} + {table}]",
        "    mov esi, 7",
        "41:",
        "    mov rax, [rdx]",
        "    mov rdi, rax",
        "    sub rdi, rcx",
        "    cmp rdi, {frame} + 8", // flags are on the stack for a moment
        "    jbe 42f",
        "    add rdx, 8",
        "    dec esi",
        "    jnz 41b",
        "    jmp 44f", // an ordinary vector, whose stack is the kernel's
        "42:",
        "    lea rdi, [rsp + {frame}]",
        "    cmp rax, rdi",
        "    je 49f",
        "    mov rax, [rax + {next}]",
        "    test rax, rax",
        "    jz 49f",
        "    mov [rdx], rax",
        // Move on: a nested event finds the next slot.
        "44:",
        "    mov rax, [rsp + {frame} + {next}]",
        "    test rax, rax",
        "    jz 49f", // this is the last one: too many nested events
        "    mov rcx, [rsp + {frame} + {tss}]",
        "    mov [rcx], rax",
        "45:",
        ".if {by_instruction}",
        "    rdgsbase rax",
        ".else",
        "    mov ecx, 0xc0000101",
        "    rdmsr",
        "    shl rdx, 32",
        "    or rax, rdx",
        ".endif",
        "    xor ebx, ebx",
        "    cmp rax, [rsp + {frame} + {gs_base}]",
        "    je 46f",
        "    swapgs",
        "    inc ebx",
        "46:",
        "    lfence",
        fake_call!(),
        "    call {dispatch}",
        "    cli",
        "    add rsp, 16",
        "    test ebx, ebx",
        "    jz 46f",
        "    swapgs",
        "46:",
        // Copy what the return needs to where no event pushes anything.
        ".irp at, 0, 8, 16, 24, 32",
        "    mov rax, [rsp + {rip} + \\at]",
        "    mov [rsp + {frame} + {ret} + \\at], rax",
        ".endr",
        "    mov rax, [rsp + {rax}]",
        "    mov [rsp + {frame} + {saved_rax}], rax",
        pop_registers!(),
        "    lea rsp, [rsp + {frame} - {rax}]",
        "    mov rax, [rsp + {tss}]",
        "    mov [rax], rsp",
        "47:", // From here on an event of this vector finds this slot, and any event takes over.
        "    mov rax, [rsp + {saved_rax}]",
        "    lea rsp, [rsp + {ret}]",
        "    iretq",
        "48:",

        // ---- No way back. ----
        "49:",
        "    mov rdi, rsp",
        "    xor ebp, ebp",
        "    call {lost}",
        "    ud2",

        // ---- Ordinary vectors. ----
        "50:",
        push_registers!(),
        "    test byte ptr [rsp + {cs}], 3",
        "    jz 51f",
        "    swapgs",
        "    jmp 52f",
        // All of this code runs with interrupts masked and faults nowhere, so only a host that
        // injects what it must not can have interrupted it; GS base and stack are anyone's.
        "51:",
        "    mov rcx, [rsp + {rip}]",
        "    lea rax, [rip + 2b]",
        "    cmp rcx, rax",
        "    jb 52f",
        "    lea rax, [rip + 55f]",
        "    cmp rcx, rax",
        "    jb 49b",
        // Neither side may run ahead with the other one's GS base (CVE-2019-1125).
        "52:",
        "    lfence",
        clear_flags!(),
        fake_call!(),
        "    call {dispatch}",
        "    cli",
        "    add rsp, 16",
        pop_registers!(),
        "    pop rax",
        "    test byte ptr [rsp + 24], 3", // CS, above vector, error code and RIP
        "    jz 54f",
        "    swapgs",
        "54:",
        "    add rsp, 16",
        "    iretq",
        "55:",
        stub = const STUB_BYTES,
        with_error_code = const Exception::WITH_ERROR_CODE,
        on_ist = const Exception::AT_ANY_INSTRUCTION,
        by_instruction = const matches!(H::GS_BASE, GsBase::Instruction) as u8,
        frame = const size_of::<TrapFrame>(),
        rax = const offset_of!(TrapFrame, rax),
        rip = const offset_of!(TrapFrame, rip),
        cs = const offset_of!(TrapFrame, cs),
        rflags = const offset_of!(TrapFrame, rflags),
        rsp = const offset_of!(TrapFrame, rsp),
        next = const offset_of!(Header, next),
        tss = const offset_of!(Header, tss_entry),
        table = const offset_of!(Header, tss_table),
        gs_base = const offset_of!(Header, gs_base),
        saved_rax = const offset_of!(Header, rax),
        ret = const offset_of!(Header, ret),
        dispatch = sym dispatch::<H>,
        lost = sym lost::<H>,
    )
}

/// Called by the entry code with the frame on its own stack.
extern "sysv64" fn dispatch<H: TrapHandler>(frame: &mut TrapFrame) {
    H::handle(frame);
    frame.sanitize_user();
}

/// Called by the entry code when there is nothing to return to.
extern "sysv64" fn lost<H: TrapHandler>(frame: &TrapFrame) -> ! {
    H::lost(frame)
}
