//! The instructions that enter the kernel.

#![expect(unsafe_code, reason = "enters the kernel")]

use core::arch::asm;

use crate::abi::{Number, Status};

/// A way into the kernel.
pub trait Gate {
    /// Makes a call.
    ///
    /// # Safety
    /// The kernel reads and writes the memory that the arguments name, as the call says: it is the
    /// caller's, for as long as the call takes.
    unsafe fn call(&self, number: Number, arguments: [u64; 5]) -> Status;
}

impl<G: Gate + ?Sized> Gate for &G {
    unsafe fn call(&self, number: Number, arguments: [u64; 5]) -> Status {
        // SAFETY: what the caller promises.
        unsafe { G::call(self, number, arguments) }
    }
}

/// Enters by `int 0x80`, which every kernel with this ABI takes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Interrupt;

/// Enters by `syscall`, which is faster; on SEV-SNP a kernel may not offer it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Instruction;

macro_rules! enter {
    ($instruction:literal, $number:ident, $arguments:ident) => {{
        let [a, b, c, d, e] = $arguments;
        let rax: u64;
        // SAFETY: the kernel changes RAX, RCX and R11 alone, and no memory but what the arguments
        // name, for which the caller vouches.
        unsafe {
            asm!(
                $instruction,
                inlateout("rax") $number.as_u64() => rax,
                in("rdi") a,
                in("rsi") b,
                in("r8") c,
                in("r9") d,
                in("r10") e,
                lateout("rcx") _,
                lateout("r11") _,
                options(nostack),
            );
        }
        Status::from_u64(rax)
    }};
}

impl Gate for Interrupt {
    unsafe fn call(&self, number: Number, arguments: [u64; 5]) -> Status {
        enter!("int 0x80", number, arguments)
    }
}

impl Gate for Instruction {
    unsafe fn call(&self, number: Number, arguments: [u64; 5]) -> Status {
        enter!("syscall", number, arguments)
    }
}
