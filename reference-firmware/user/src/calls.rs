//! System calls as functions: `SYSCALL` here, `int 0x80` in [`interrupt`].
#![expect(unsafe_code, reason = "enters the kernel")]

use core::arch::asm;

use svsm_syscall::abi::{Number, Status, SysError};

macro_rules! call {
    ($instruction:literal, $number:expr, $arguments:expr) => {{
        let [a, b, c, d, e] = $arguments;
        let rax: u64;
        // SAFETY: the kernel keeps all registers but RAX, RCX and R11. It reads and writes memory of this process only where
        // the arguments of a call say so, and those come from references or from `MAP`.
        unsafe {
            asm!(
                $instruction,
                inlateout("rax") $number.as_u64() => rax,
                in("rdi") a, in("rsi") b, in("r8") c, in("r9") d, in("r10") e,
                lateout("rcx") _, lateout("r11") _,
                options(nostack),
            );
        }
        Status::from_u64(rax).result()
    }};
}

/// A call with five arguments.
///
/// # Errors
/// What the kernel says.
pub fn call5(number: Number, arguments: [u64; 5]) -> Result<u64, SysError> {
    call!("syscall", number, arguments)
}

/// A call without arguments.
///
/// # Errors
/// What the kernel says.
pub fn call0(number: Number) -> Result<u64, SysError> {
    call5(number, [0; 5])
}

/// A call with one argument.
///
/// # Errors
/// What the kernel says.
pub fn call1(number: Number, a: u64) -> Result<u64, SysError> {
    call5(number, [a, 0, 0, 0, 0])
}

/// A call with two arguments.
///
/// # Errors
/// What the kernel says.
pub fn call2(number: Number, a: u64, b: u64) -> Result<u64, SysError> {
    call5(number, [a, b, 0, 0, 0])
}

/// A call with three arguments.
///
/// # Errors
/// What the kernel says.
pub fn call3(number: Number, a: u64, b: u64, c: u64) -> Result<u64, SysError> {
    call5(number, [a, b, c, 0, 0])
}

/// The same calls by `int 0x80`, which every kernel of this family takes.
pub mod interrupt {
    use super::*;

    /// A call without arguments.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn call0(number: Number) -> Result<u64, SysError> {
        call!("int 0x80", number, [0_u64; 5])
    }
}
