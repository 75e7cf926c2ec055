//! A program in ring 3, above the entry code that the reference firmware has too: `SYSCALL` of `svsm-syscall`, interrupts
//! and exceptions of `svsm-irq`.
//!
//! The program makes a call by `SYSCALL` and one by `int 0x80`, with a stack pointer that leads nowhere and values of its
//! own in all registers, and looks at them afterwards. #VC and #HV are counted by where they came.
#![expect(
    unsafe_code,
    reason = "descriptor tables, stacks, and entry into ring 3"
)]

use super::ghcb::request;
use super::{insn, power_off, say};
use crate::layout::USER;
use core::arch::naked_asm;
use core::cell::UnsafeCell;
use core::mem::offset_of;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use svsm_irq::entry::{GsBase, TrapFrame, TrapHandler};
use svsm_irq::{idt, ist};
use svsm_platform::addr::Gva;
use svsm_platform::cpu::cr::Cr4;
use svsm_platform::cpu::descriptor::{GdtTable, IdtTable, Tss, TssLength};
use svsm_platform::cpu::insn as processor;
use svsm_syscall::entry::{SyscallHandler, SyscallMsrs, UserStart, enter_user, entry};
use svsm_syscall::task::context::{self, Context};

/// The machine's own request for exceptions at every instruction, and its answer.
const STORM: u64 = 0xfd0;
const STARTED: u64 = 0xfd1;

/// What the program's calls are, in RAX.
const SUM: u64 = 1;
const EXIT: u64 = 2;
/// What the program has as its GS base, unless it has the kernel's.
const OWN_BASE: u64 = 0x1234_5000;

const EFER: u32 = 0xc000_0080;
const GS_BASE: u32 = 0xc000_0101;
const KERNEL_GS_BASE: u32 = 0xc000_0102;
const TRAP: u64 = 1 << 8;

/// What GS points to in the kernel.
#[repr(C)]
struct Head {
    kernel_stack: u64,
    scratch: u64,
}

#[repr(C, align(4096))]
struct Page([u8; 4096]);

/// What the CPU has.
struct Cpu {
    head: Head,
    gdt: GdtTable,
    tss: Tss,
    idt: IdtTable,
    stacks: [Page; ist::STACKS.len() + 1],
    kernel_stack: [Page; 8],
    main: Context,
    task: Context,
    ended: Context,
}

struct Cell(UnsafeCell<Cpu>);
// SAFETY: one CPU uses it.
unsafe impl Sync for Cell {}

static CPU: Cell = Cell(UnsafeCell::new(Cpu {
    head: Head {
        kernel_stack: 0,
        scratch: 0,
    },
    gdt: GdtTable::new(),
    tss: Tss::new(),
    idt: IdtTable::new(),
    stacks: [const { Page([0; 4096]) }; ist::STACKS.len() + 1],
    kernel_stack: [const { Page([0; 4096]) }; 8],
    main: Context::current(),
    task: Context::current(),
    ended: Context::current(),
}));

/// The exception that comes at every instruction, as the machine is asked for it; zero for none.
static KIND: AtomicU64 = AtomicU64::new(0);
/// The machine did not begin the storm, or did not end it.
static REFUSED: AtomicBool = AtomicBool::new(false);
/// Exceptions and calls that found another GS base than the kernel's, or lost the program's.
static WRONG_BASES: AtomicU64 = AtomicU64::new(0);
/// What the program ended with.
static ENDED: AtomicU64 = AtomicU64::new(0);
/// The program's own GS base.
static BASE: AtomicU64 = AtomicU64::new(0);

/// How far a path can be from its first instruction to its last.
const PATH_BYTES: usize = 8192;

/// The instructions of some code at which an exception came.
struct Hits([AtomicBool; PATH_BYTES]);

impl Hits {
    const fn new() -> Self {
        Self([const { AtomicBool::new(false) }; PATH_BYTES])
    }

    fn clear(&self) {
        for hit in &self.0 {
            hit.store(false, Ordering::SeqCst);
        }
    }

    fn note(&self, start: u64, rip: u64) {
        let offset = rip
            .checked_sub(start)
            .and_then(|at| usize::try_from(at).ok());
        if let Some(hit) = offset.and_then(|offset| self.0.get(offset)) {
            hit.store(true, Ordering::SeqCst);
        }
    }

    /// How many, in the first `bytes`.
    fn count(&self, bytes: usize) -> u64 {
        let hits = self.0.iter().take(bytes);
        hits.filter(|hit| hit.load(Ordering::SeqCst)).count() as u64
    }
}

static IN_SYSCALL: Hits = Hits::new();
static IN_INTERRUPT: Hits = Hits::new();
static IN_RETURN: Hits = Hits::new();

/// What a run of the program brought.
#[derive(Debug)]
pub struct Ran {
    /// The machine did what it was asked for.
    pub obeyed: bool,
    /// Zero if the program found all its registers as they were, and the sum that it asked for.
    pub ended: u64,
    /// How often GS base was wrong.
    pub wrong_bases: u64,
    /// Instructions between `SYSCALL` and `SYSRET` that were interrupted, those two included and the handler left out.
    pub in_syscall: u64,
    /// The same between `int 0x80` and `IRET`.
    pub in_interrupt: u64,
    /// The same of the function that enters ring 3, its `IRET` included.
    pub in_return: u64,
}

/// Instructions of the entry code of `SYSCALL`, up to the handler and behind it.
pub const SYSCALL_STEPS: u64 = 53;
/// Instructions of the entry code of `int 0x80`, its stub included, for a program that has the AC flag set.
pub const INTERRUPT_STEPS: u64 = 59;
/// Instructions of the way into a program.
pub const RETURN_STEPS: u64 = 20;

enum Kernel {}

impl SyscallHandler for Kernel {
    const KERNEL_STACK: usize = offset_of!(Head, kernel_stack);
    const SCRATCH: usize = offset_of!(Head, scratch);

    fn handle(frame: &mut TrapFrame) {
        serve(frame);
    }
}

impl TrapHandler for Kernel {
    const GS_BASE: GsBase = GsBase::Instruction;

    fn handle(frame: &mut TrapFrame) {
        match frame.vector {
            28 | 29 => {
                if insn::rdmsr(GS_BASE) != kernel_base() {
                    WRONG_BASES.fetch_add(1, Ordering::SeqCst);
                }
                IN_SYSCALL.note(start(entry::<Kernel> as *const ()), frame.rip);
                IN_INTERRUPT.note(
                    start(svsm_irq::entry::entries::<Kernel> as *const ()),
                    frame.rip,
                );
                IN_RETURN.note(start(enter_user as *const ()), frame.rip);
            }
            0x80 => serve(frame),
            vector => dead("exception", vector, frame),
        }
    }

    fn lost(frame: &TrapFrame) -> ! {
        dead("lost at exception", frame.vector, frame)
    }
}

fn start(function: *const ()) -> u64 {
    function.addr() as u64
}

fn dead(what: &str, vector: u64, frame: &TrapFrame) -> ! {
    end_storm();
    say(format_args!(
        "failed: {what} {vector} with {:#x} at {:#x}",
        frame.error_code, frame.rip
    ));
    power_off()
}

fn cpu() -> *mut Cpu {
    CPU.0.get()
}

fn kernel_base() -> u64 {
    cpu().addr() as u64 + offset_of!(Cpu, head) as u64
}

fn begin_storm() {
    let kind = KIND.load(Ordering::SeqCst);
    if kind != 0 && request(STORM | kind) != STARTED {
        REFUSED.store(true, Ordering::SeqCst);
    }
}

fn end_storm() {
    if KIND.load(Ordering::SeqCst) != 0 && request(STORM) != STARTED {
        REFUSED.store(true, Ordering::SeqCst);
    }
}

/// A call of the program.
fn serve(frame: &mut TrapFrame) {
    let bases = (insn::rdmsr(GS_BASE), insn::rdmsr(KERNEL_GS_BASE));
    if bases != (kernel_base(), BASE.load(Ordering::SeqCst)) {
        WRONG_BASES.fetch_add(1, Ordering::SeqCst);
    }
    match frame.rax {
        SUM => frame.rax = frame.rdi.wrapping_add(frame.rsi),
        _ => {
            end_storm();
            let ended = if frame.rax == EXIT {
                frame.rdi
            } else {
                u64::MAX
            };
            ENDED.store(ended, Ordering::SeqCst);
            // SAFETY: `run` waits there, and filled it in when it came here. Nobody goes on with this stack.
            unsafe { context::switch(&raw mut (*cpu()).ended, &raw const (*cpu()).main) };
        }
    }
}

/// The first function of the program's task, still in the kernel.
extern "sysv64" fn begin(_: u64) -> ! {
    let program = (program as *const ()).addr() as u64;
    let mut frame = UserStart {
        entry: USER + program,
        stack: 0x1000,
        argument: 0,
        interrupts: false,
    }
    .frame();
    // Whoever steps the program steps on in it.
    if KIND.load(Ordering::SeqCst) != 0 {
        frame.rflags |= TRAP;
    }
    begin_storm();
    // SAFETY: the frame is for ring 3, and was seen to; GS base is the kernel's; the one address space has the program.
    unsafe { enter_user(&frame) }
}

/// Gives the CPU its tables. Interrupts are masked and stay so.
fn set_up() -> Option<()> {
    let cpu = cpu();
    // SAFETY: this CPU alone uses it, and no reference into it is live.
    let (tss, stacks) = unsafe { (&raw mut (*cpu).tss, &raw mut (*cpu).stacks) };
    let slot = |number: usize| {
        let at = NonNull::new(stacks.cast::<u8>().wrapping_add(number * size_of::<Page>()))?;
        let memory = NonNull::slice_from_raw_parts(at, size_of::<Page>());
        // SAFETY: each page is given once in a run, and runs are one after the other.
        unsafe { ist::Slot::new(memory) }.ok()
    };
    let last = slot(ist::STACKS.len())?;
    for (number, (_, stack)) in ist::STACKS.into_iter().enumerate() {
        // SAFETY: the segment is a static, the chain is new, and GS base is set below, before anything can come.
        unsafe {
            ist::link(
                &[slot(number)?],
                &last,
                NonNull::new(tss)?,
                stack,
                kernel_base(),
            )
        }
        .ok()?;
    }
    let at = |pointer: *const ()| Gva::new(pointer.addr() as u64);
    // SAFETY: as above.
    let top = unsafe { (&raw const (*cpu).kernel_stack).wrapping_add(1) };
    // SAFETY: as above.
    unsafe { (*cpu).head.kernel_stack = top.addr() as u64 };
    // SAFETY: as above.
    unsafe { (*tss).set_kernel_stack(at(top.cast())?) };
    let table = GdtTable::new().with_tss(at(tss.cast())?, TssLength::PLAIN);
    // SAFETY: as above; where the table is loaded already, it is the same but for the busy mark of its task.
    unsafe { (*cpu).gdt = table };
    // SAFETY: as above; where the table is loaded already, it is the same.
    idt::fill::<Kernel>(unsafe { &mut (*cpu).idt });
    insn::wrmsr(GS_BASE, kernel_base());
    insn::wrmsr(KERNEL_GS_BASE, BASE.load(Ordering::SeqCst));
    insn::wrmsr(EFER, insn::rdmsr(EFER) | 1);
    // SAFETY: as above.
    let (gdt, idt) = unsafe { (&raw const (*cpu).gdt, &raw const (*cpu).idt) };
    // SAFETY: the kernel does not use what the bit switches on, but for reading GS base.
    unsafe { processor::write_cr4(processor::read_cr4() | Cr4::FSGSBASE) };
    // SAFETY: the table is a complete static with the flat segments in use at the same selectors.
    unsafe { processor::lgdt(&GdtTable::pointer(at(gdt.cast())?)) };
    // SAFETY: the table is a complete static whose gates lead to the entry code, with stacks in the task-state segment.
    unsafe { processor::lidt(&IdtTable::pointer(at(idt.cast())?)) };
    // SAFETY: the selector names that segment, which was made not busy.
    unsafe { processor::ltr(GdtTable::TSS) };
    // SAFETY: the table just loaded is a `GdtTable`, and GS base is a `Head` in the kernel.
    unsafe { SyscallMsrs::plan::<Kernel>().install() };
    Some(())
}

/// Runs the program, with an exception at every instruction: `kind` is what the machine is asked for, zero for none. The
/// program's GS base may be the kernel's, which it can guess.
#[must_use]
pub fn run(kind: u64, has_kernel_base: bool) -> Option<Ran> {
    let base = if has_kernel_base {
        kernel_base()
    } else {
        OWN_BASE
    };
    BASE.store(base, Ordering::SeqCst);
    KIND.store(kind, Ordering::SeqCst);
    REFUSED.store(false, Ordering::SeqCst);
    WRONG_BASES.store(0, Ordering::SeqCst);
    ENDED.store(u64::MAX, Ordering::SeqCst);
    let hits = [&IN_SYSCALL, &IN_INTERRUPT, &IN_RETURN];
    hits.iter().for_each(|hits| hits.clear());
    set_up()?;
    let cpu = cpu();
    // SAFETY: this CPU alone uses it, and no task runs.
    let stack = NonNull::new(unsafe { &raw mut (*cpu).kernel_stack })?;
    let stack = NonNull::slice_from_raw_parts(stack.cast::<u8>(), 8 * size_of::<Page>());
    // SAFETY: the stack is the task's until the program has ended.
    unsafe { (*cpu).task = Context::new(stack, begin, 0)? };
    // SAFETY: interrupts are masked, and the task is new.
    unsafe { context::switch(&raw mut (*cpu).main, &raw const (*cpu).task) };
    Some(Ran {
        obeyed: !REFUSED.load(Ordering::SeqCst),
        ended: ENDED.load(Ordering::SeqCst),
        wrong_bases: WRONG_BASES.load(Ordering::SeqCst),
        in_syscall: IN_SYSCALL.count(bytes_to(
            start(entry::<Kernel> as *const ()),
            [0x48, 0x0f, 0x07],
        )),
        in_interrupt: IN_INTERRUPT.count(PATH_BYTES),
        in_return: IN_RETURN.count(bytes_to(start(enter_user as *const ()), [0x48, 0xcf, 0])),
    })
}

/// How many bytes a function has up to an instruction and its first byte; a zero at the end stands for anything.
fn bytes_to(start: u64, instruction: [u8; 3]) -> usize {
    let [a, b, c] = instruction;
    let is_there = |at: u64| {
        let found = [0, 1, 2].map(|byte| super::read::<u8>(start + at + byte));
        let [x, y, z] = found;
        (x, y) == (a, b) && (c == 0 || z == c)
    };
    let at = (0..512).find(|at| is_there(*at)).unwrap_or(0);
    usize::try_from(at).unwrap_or(0) + 1
}

/// The program. It runs at another address than it is linked to, and has no memory.
#[unsafe(naked)]
unsafe extern "sysv64" fn program() {
    naked_asm!(
        ".macro set_registers",
        "mov rsp, 0x77777",
        "mov rbx, 0x11",
        "mov rdx, 0x22",
        "mov rbp, 0x33",
        "mov rsi, 0x44",
        "mov rdi, 0x55",
        "mov r8, 0x66",
        "mov r9, 0x88",
        "mov r10, 0x99",
        "mov r12, 0xaa",
        "mov r13, 0xbb",
        "mov r14, 0xcc",
        "mov r15, 0xdd",
        "mov rcx, 0xee",
        "mov r11, 0xff",
        "mov rax, {sum}",
        ".endm",
        ".macro must_be register, value",
        "cmp \\register, \\value",
        "jne 9f",
        ".endm",
        ".macro look",
        "must_be rax, 0x99",
        "must_be rsp, 0x77777",
        "must_be rbx, 0x11",
        "must_be rdx, 0x22",
        "must_be rbp, 0x33",
        "must_be rsi, 0x44",
        "must_be rdi, 0x55",
        "must_be r8, 0x66",
        "must_be r9, 0x88",
        "must_be r10, 0x99",
        "must_be r12, 0xaa",
        "must_be r13, 0xbb",
        "must_be r14, 0xcc",
        "must_be r15, 0xdd",
        ".endm",
        "set_registers",
        "syscall",
        "look",
        // Alignment checks, which the kernel must not keep: the entry code of `int` sees to the flag. For the stack that POPF
        // needs there are some bytes behind the program.
        "lea rsp, [rip + 8f]",
        "pushfq",
        "or dword ptr [rsp], 0x40000",
        "popfq",
        "set_registers",
        "int 0x80",
        "look",
        "must_be rcx, 0xee",
        "must_be r11, 0xff",
        "xor edi, edi",
        "mov eax, {exit}",
        "syscall",
        "9:",
        "mov edi, 1",
        "mov eax, {exit}",
        "syscall",
        "ud2",
        ".balign 16",
        ".skip 64",
        "8:",
        sum = const SUM,
        exit = const EXIT,
    )
}
