//! A system call in the registers of a program: its number, its arguments, its result.

use svsm_platform::frame::TrapFrame;

use crate::abi::{Number, Status, SysError};

/// A trap frame read as a system call, whichever way it came.
#[derive(Debug)]
pub struct SyscallFrame<'a>(&'a mut TrapFrame);

impl<'a> SyscallFrame<'a> {
    /// The vector of `int 0x80`.
    const VECTOR: u64 = 0x80;

    /// The call in the frame; `None` if a program did not make one.
    #[must_use]
    pub fn new(frame: &'a mut TrapFrame) -> Option<Self> {
        let by_call = matches!(frame.vector, Self::VECTOR | TrapFrame::SYSCALL_INSTRUCTION);
        (by_call && frame.from_user()).then_some(Self(frame))
    }

    /// Which call it is.
    #[must_use]
    pub const fn number(&self) -> Number {
        Number::from_u64(self.0.rax)
    }

    /// Its arguments.
    #[must_use]
    pub const fn arguments(&self) -> [u64; 5] {
        [self.0.rdi, self.0.rsi, self.0.r8, self.0.r9, self.0.r10]
    }

    /// Gives the program its result.
    pub const fn finish(self, result: Result<u64, SysError>) {
        self.0.rax = Status::new(result).as_u64();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(vector: u64) -> TrapFrame {
        TrapFrame {
            vector,
            cs: 0x23,
            rax: 0x1_0000_0002,
            rdi: 1,
            rsi: 2,
            rdx: 99,
            r8: 3,
            r9: 4,
            r10: 5,
            ..TrapFrame::default()
        }
    }

    #[test]
    fn both_ways_in_mean_the_same() {
        for vector in [0x80, 0x100] {
            let mut frame = frame(vector);
            let call = SyscallFrame::new(&mut frame).unwrap();
            assert_eq!(call.number(), Number::WRITE);
            assert_eq!(call.arguments(), [1, 2, 3, 4, 5]);
            call.finish(Err(SysError::FAULT));
            assert_eq!(frame.rax.cast_signed(), -5);
        }
    }

    // A host may inject vector 0x80 while the kernel runs.
    #[test]
    fn only_programs_make_system_calls() {
        let mut kernel = TrapFrame {
            cs: 0x08,
            ..frame(0x80)
        };
        assert!(SyscallFrame::new(&mut kernel).is_none());
        assert!(SyscallFrame::new(&mut frame(0x81)).is_none());
    }
}
