//! From a program into the kernel by `SYSCALL`, and into a program.
//!
//! A program that uses `int 0x80` comes through the ordinary trap entry (of `svsm-irq`, or the
//! firmware's own). Both ways leave the same [`TrapFrame`], which [`crate::frame::SyscallFrame`]
//! reads.
//!
//! The entry code is generic over the firmware's [`SyscallHandler`]; it has no fixed symbol. It is
//! what the processor jumps to with the program's stack and GS base still in place, so whatever can
//! interrupt its first instructions must not look at either: NMI, #MC, #DB, #VC and #HV run on
//! stacks of their own and judge GS base by its value. A guest of the software machine has #VC and #HV raised at each of these
//! instructions. Ordinary vectors cannot be kept from them in that way: where a host may inject those although interrupts are
//! masked (SEV-SNP without restricted injection), the frame would go to wherever the program's stack pointer leads, so that
//! programs there had better enter by `int 0x80` alone.

#![expect(
    unsafe_code,
    reason = "entry and return are made of instructions that no compiler emits"
)]

use core::{
    arch::naked_asm,
    mem::{offset_of, size_of},
};

use svsm_platform::{
    cpu::{descriptor::GdtTable, insn, msr::Msr},
    frame::TrapFrame,
};

/// What a firmware does with a system call that came by `SYSCALL`, and where its CPUs keep their
/// stacks.
///
/// ```
/// use svsm_platform::frame::TrapFrame;
/// use svsm_syscall::entry::SyscallHandler;
///
/// /// GS base points at it in the kernel; each CPU has one.
/// #[repr(C)]
/// struct PerCpu {
///     kernel_stack: u64,
///     user_stack: u64,
/// }
///
/// enum Firmware {}
///
/// impl SyscallHandler for Firmware {
///     const KERNEL_STACK: usize = core::mem::offset_of!(PerCpu, kernel_stack);
///     const SCRATCH: usize = core::mem::offset_of!(PerCpu, user_stack);
///
///     fn handle(frame: &mut TrapFrame) {
///         // the same function that the handler of vector 0x80 calls
/// #       let _ = frame;
///     }
/// }
/// ```
pub trait SyscallHandler {
    /// Distance from GS base to the address where the current task's kernel stack begins (its upper
    /// end, a multiple of 16).
    ///
    /// It may be `RSP0` of the task-state segment itself, if that lies in the CPU's area:
    /// [`Tss::RSP0_OFFSET`](svsm_platform::cpu::descriptor::Tss::RSP0_OFFSET).
    const KERNEL_STACK: usize;

    /// Distance from GS base to 8 bytes that only this entry code uses.
    const SCRATCH: usize;

    /// Handles a call. Interrupts are masked, GS base is the kernel's, and the stack is the current
    /// task's.
    ///
    /// The frame is what the program goes on with. Interrupts may be unmasked, tasks switched.
    fn handle(frame: &mut TrapFrame);
}

/// Where `SYSCALL` goes. Its address is for [`SyscallMsrs`].
///
/// # Safety
/// Not to be called: it is where the processor goes.
#[unsafe(naked)]
pub unsafe extern "sysv64" fn entry<H: SyscallHandler>() {
    naked_asm!(
        // RCX = RIP, R11 = RFLAGS, interrupts are masked; stack and GS base are the program's.
        "swapgs",
        "mov gs:[{scratch}], rsp",
        "mov rsp, gs:[{kernel_stack}]",
        "push {user_data}",
        "push qword ptr gs:[{scratch}]",
        "push r11",
        "push {user_code}",
        "push rcx",
        "push 0",
        "push {vector}",
        ".irp r, rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15",
        "push \\r",
        ".endr",
        "mov rdi, rsp",
        // A stack trace ends here.
        "xor ebp, ebp",
        "push rcx",
        "push rbp",
        "mov rbp, rsp",
        "call {dispatch}",
        "cli",
        "add rsp, 16",
        // The instruction pointer is canonical (`dispatch` saw to it), so that SYSRET does not
        // fault in ring 0 on the program's stack.
        ".irp r, r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax",
        "pop \\r",
        ".endr",
        "mov rcx, [rsp + {rip} - {vector_at}]",
        "mov r11, [rsp + {rflags} - {vector_at}]",
        "mov rsp, [rsp + {rsp} - {vector_at}]",
        "swapgs",
        "sysretq",
        scratch = const H::SCRATCH,
        kernel_stack = const H::KERNEL_STACK,
        user_data = const GdtTable::USER_DATA.bits(),
        user_code = const GdtTable::USER_CODE.bits(),
        vector = const TrapFrame::SYSCALL_INSTRUCTION,
        vector_at = const offset_of!(TrapFrame, vector),
        rip = const offset_of!(TrapFrame, rip),
        rflags = const offset_of!(TrapFrame, rflags),
        rsp = const offset_of!(TrapFrame, rsp),
        dispatch = sym dispatch::<H>,
    )
}

/// Called by the entry code with the frame on its own stack.
extern "sysv64" fn dispatch<H: SyscallHandler>(frame: &mut TrapFrame) {
    H::handle(frame);
    frame.sanitize_user();
}

/// The registers that make `SYSCALL` and `SYSRET` work, for segments as in [`GdtTable`].
///
/// `EFER.SCE` must be set, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyscallMsrs {
    star: u64,
    lstar: u64,
    sfmask: u64,
}

impl SyscallMsrs {
    // TF, IF, DF, IOPL, NT, RF and AC: the kernel starts without any of them, whatever the program
    // set.
    const MASKED: u64 = 1 << 8 | 1 << 9 | 1 << 10 | 0b11 << 12 | 1 << 14 | 1 << 16 | 1 << 18;

    /// Lets `SYSCALL` enter [`entry`] for that handler.
    #[must_use]
    pub fn plan<H: SyscallHandler>() -> Self {
        Self {
            star: GdtTable::STAR,
            lstar: (entry::<H> as *const ()).addr() as u64,
            sfmask: Self::MASKED,
        }
    }

    /// The registers and what they hold.
    #[must_use]
    pub const fn values(&self) -> [(Msr, u64); 3] {
        [
            (Msr::STAR, self.star),
            (Msr::LSTAR, self.lstar),
            (Msr::SFMASK, self.sfmask),
        ]
    }

    /// Writes the registers of this CPU.
    ///
    /// # Safety
    /// Ring 0. This CPU's GDT is a [`GdtTable`], and whenever user mode runs on it, the GS base
    /// that `swapgs` brings back is an area as the handler's constants describe.
    pub unsafe fn install(&self) {
        for (msr, value) in self.values() {
            // SAFETY: the values are valid for these registers; from here on `SYSCALL` enters code
            // that relies on what the caller promises.
            unsafe { insn::wrmsr(msr, value) };
        }
    }
}

/// The registers with which a program starts, as though its first function had been called.
#[derive(Clone, Copy, Debug)]
pub struct UserStart {
    /// Where it starts.
    pub entry: u64,
    /// The upper end of its stack, a multiple of 16. The 8 bytes below, where a return address
    /// would be, should be zero.
    pub stack: u64,
    /// What its first argument is.
    pub argument: u64,
    /// Whether interrupts arrive while it runs.
    pub interrupts: bool,
}

impl UserStart {
    /// The frame that returns to the program's first instruction.
    #[must_use]
    pub fn frame(&self) -> TrapFrame {
        let mut frame = TrapFrame {
            rdi: self.argument,
            rip: self.entry,
            cs: GdtTable::USER_CODE.bits().into(),
            rflags: u64::from(self.interrupts) << 9,
            rsp: self.stack.wrapping_sub(8),
            ss: GdtTable::USER_DATA.bits().into(),
            ..TrapFrame::default()
        };
        frame.sanitize_user();
        frame
    }
}

/// Leaves the kernel: goes on with the program of that frame.
///
/// # Safety
/// - The frame returns to user mode, and [`TrapFrame::sanitize_user`] has seen it.
/// - GS base is the kernel's, and the address space in force is the program's.
/// - Nothing on the current stack is needed any more: the next entry starts at its upper end again.
#[unsafe(naked)]
pub unsafe extern "sysv64" fn enter_user(frame: &TrapFrame) -> ! {
    naked_asm!(
        "cli",
        "mov rsp, rdi",
        ".irp r, r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax",
        "pop \\r",
        ".endr",
        "add rsp, {to_rip}",
        "swapgs",
        "iretq",
        to_rip = const offset_of!(TrapFrame, rip) - offset_of!(TrapFrame, vector),
    )
}

// The stack is a multiple of 16 when `call` runs: 7 words and 15 registers, then 2 for the trace.
const _: () = assert!((size_of::<TrapFrame>() + 16).is_multiple_of(16));

#[cfg(test)]
mod tests {
    use super::*;

    enum Nobody {}

    impl SyscallHandler for Nobody {
        const KERNEL_STACK: usize = 8;
        const SCRATCH: usize = 16;

        fn handle(_: &mut TrapFrame) {}
    }

    #[test]
    fn the_kernel_starts_with_harmless_flags() {
        let [star, lstar, (msr, mask)] = SyscallMsrs::plan::<Nobody>().values();
        assert_eq!(
            (star.0, star.1 >> 48, star.1 >> 32 & 0xffff),
            (Msr::STAR, 0x13, 0x08)
        );
        assert_eq!(lstar, (Msr::LSTAR, entry::<Nobody> as *const () as u64));
        assert_eq!((msr, mask), (Msr::SFMASK, 0x5_7700));
    }

    #[test]
    fn programs_start_in_user_mode_with_a_called_functions_stack() {
        let start = UserStart {
            entry: 0x40_0000,
            stack: 0x7000_0000,
            argument: 7,
            interrupts: true,
        };
        let frame = start.frame();
        assert!(frame.from_user());
        assert_eq!(
            (frame.rip, frame.rsp % 16, frame.rdi, frame.rflags),
            (0x40_0000, 8, 7, 0x202)
        );
        let astray = UserStart {
            entry: u64::MAX,
            ..start
        }
        .frame();
        assert!(astray.rip < TrapFrame::USER_END);
    }
}
