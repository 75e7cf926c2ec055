//! From the first instruction to `main`.

use crate::process;

/// Defines the entry point of a program: `entry!(main)`, where `main` is a `fn() -> u16` whose answer is the exit code.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        const _: () = {
            // SAFETY: the linker script names this symbol as the entry, and a program has one.
            #[unsafe(no_mangle)]
            #[unsafe(link_section = ".text.entry")]
            #[unsafe(naked)]
            unsafe extern "sysv64" fn _start() -> ! {
                ::core::arch::naked_asm!(
                    "xor ebp, ebp", // a stack trace ends here
                    "and rsp, -16",
                    "call {begin}",
                    "ud2",
                    begin = sym begin,
                )
            }

            extern "sysv64" fn begin() -> ! {
                $crate::start($main)
            }
        };
    };
}

/// Runs a program.
#[doc(hidden)]
pub fn start(main: fn() -> u16) -> ! {
    process::exit(main())
}
