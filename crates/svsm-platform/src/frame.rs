//! The registers of an interrupted program, as entry code lays them on the kernel stack.
//!
//! Exceptions, interrupts, `int 0x80` and `SYSCALL` all leave the same [`TrapFrame`], so that whoever handles one, prints one
//! or builds one for a new task need not ask which way it came.

use core::mem::{offset_of, size_of};

/// All general registers of an interrupted program, and why it was interrupted.
///
/// From [`TrapFrame::rip`] on this is what the processor pushes and `iretq` pops; the entry code pushes the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(C)]
#[expect(missing_docs, reason = "registers bear their own names")]
pub struct TrapFrame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rbp: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rbx: u64,
    pub rax: u64,
    /// The vector that was taken; [`TrapFrame::SYSCALL_INSTRUCTION`] for `SYSCALL`.
    pub vector: u64,
    /// What the processor pushed as error code, 0 where it pushes none.
    pub error_code: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

// The CPU aligns the stack to 16 bytes before it pushes; a frame keeps that, so that Rust may be called right on it.
const _: () = assert!(size_of::<TrapFrame>() == 176 && size_of::<TrapFrame>().is_multiple_of(16));
const _: () = assert!(offset_of!(TrapFrame, rip) == 136);

impl TrapFrame {
    /// Stands in [`TrapFrame::vector`] when no vector was taken, because the program used the `SYSCALL` instruction.
    pub const SYSCALL_INSTRUCTION: u64 = 0x100;

    /// First address that no user program may have as its next instruction: the end of the lower canonical half with four
    /// levels of page tables. (With five levels user programs still stay below it.)
    pub const USER_END: u64 = 1 << 47;

    // RFLAGS bits that a user program never gets to keep.
    const IOPL: u64 = 0b11 << 12;
    const NESTED_TASK: u64 = 1 << 14;
    const VIRTUAL_8086: u64 = 1 << 17;
    const VIRTUAL_INTERRUPT: u64 = 0b11 << 19;
    const FIXED: u64 = 1 << 1;

    /// Whether the interrupted program ran in user mode.
    #[must_use]
    pub const fn from_user(&self) -> bool {
        self.cs & 3 == 3
    }

    /// Makes a frame that returns to user mode safe to return by: whatever a handler or a user put there, neither `iretq` nor
    /// `sysretq` faults on it while the kernel's stack and the user's GS base are both in place.
    ///
    /// An instruction pointer outside the user half is cut to its lower 47 bits: the program then faults in user mode, where faults are
    /// its own affair. A `syscall` that ends on the last byte of the user half is how a program gets such a pointer. Frames that
    /// return to the kernel are left alone.
    pub const fn sanitize_user(&mut self) {
        if !self.from_user() {
            return;
        }
        self.rip &= Self::USER_END - 1;
        self.rflags &=
            !(Self::IOPL | Self::NESTED_TASK | Self::VIRTUAL_8086 | Self::VIRTUAL_INTERRUPT);
        self.rflags |= Self::FIXED;
    }
}

#[cfg(test)]
mod tests {
    use super::TrapFrame;

    #[test]
    fn user_frames_can_always_be_returned_by() {
        let mut frame = TrapFrame {
            cs: 0x33,
            rip: 1 << 47,
            rflags: u64::MAX,
            ..TrapFrame::default()
        };
        frame.sanitize_user();
        assert!(frame.rip < TrapFrame::USER_END);
        assert_eq!(frame.rflags & 0x1a_7000, 0);
    }

    #[test]
    fn kernel_frames_are_left_alone() {
        let kernel = TrapFrame {
            cs: 0x08,
            rip: u64::MAX,
            rflags: 0x7002,
            ..TrapFrame::default()
        };
        let mut frame = kernel;
        frame.sanitize_user();
        assert_eq!(frame, kernel);
    }
}
