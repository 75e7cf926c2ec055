//! The first instruction: stage2 jumps here with a stack and the address of the hand-off block.
#![expect(
    unsafe_code,
    reason = "the entry point is a fixed symbol without a frame of its own"
)]

use core::arch::naked_asm;

/// Where the image begins. RDI is the address of the hand-off block, RSP the top of the boot stack.
///
/// # Safety
/// Jumped to once, by stage2, in 64-bit mode with interrupts masked.
#[unsafe(naked)]
// SAFETY: the linker script names this symbol as the entry, and nothing else in the image bears the name.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".text.entry")]
unsafe extern "sysv64" fn svsm_entry() -> ! {
    naked_asm!(
        "xor ebp, ebp", // a stack trace ends here
        "call {boot}",
        "ud2",
        boot = sym crate::boot::boot,
    )
}
