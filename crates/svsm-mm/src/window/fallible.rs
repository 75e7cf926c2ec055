//! Accesses that may fault: to memory that a host or a guest can take away at any moment.
//!
//! The firmware's fault handler looks the instructions up in the exception table
//! ([`svsm_platform::fault`]); without that, a fault is what it always is.

use core::ptr::NonNull;

/// Copies `to.len()` bytes from `from` on. Answers whether all could be read; if not, what `to` holds is not to be used.
///
/// # Safety
/// No Rust object that is not in an `UnsafeCell` lies in the bytes from `from` on.
#[must_use]
pub unsafe fn try_read(from: NonNull<u8>, to: &mut [u8]) -> bool {
    // SAFETY: `to` can be written; a fault on `from` lands behind the instruction.
    unsafe { copy(from.as_ptr(), to.as_mut_ptr(), to.len()) }
}

/// Copies `from` to the bytes from `to` on. Answers whether all could be written.
///
/// # Safety
/// No Rust object lies in the bytes from `to` on.
#[must_use]
pub unsafe fn try_write(to: NonNull<u8>, from: &[u8]) -> bool {
    // SAFETY: `from` can be read; a fault on `to` lands behind the instruction.
    unsafe { copy(from.as_ptr(), to.as_ptr(), from.len()) }
}

/// Overwrites `words` words from `to` on with zeros. Answers whether all could be written.
///
/// # Safety
/// No Rust object lies in the words from `to` on.
#[must_use]
pub unsafe fn try_clear(to: NonNull<u64>, words: usize) -> bool {
    let left: usize;
    cfg_if::cfg_if! {
        if #[cfg(target_arch = "x86_64")] {
            // SAFETY: writes as many words as the caller vouches for; a fault at 2: lands at 3:, with the rest in RCX.
            unsafe {
                core::arch::asm!(
                    "2: rep stosq",
                    "3:",
                    svsm_platform::fault_entry!("2b", "3b"),
                    inout("rcx") words => left,
                    inout("rdi") to.as_ptr() => _,
                    in("rax") 0_u64,
                    options(nostack, preserves_flags),
                );
            }
        } else {
            // SAFETY: the caller's promise.
            unsafe { core::ptr::write_bytes(to.as_ptr(), 0, words) };
            left = 0;
        }
    }
    left == 0
}

/// # Safety
/// No Rust object that the caller does not have lies in either range.
unsafe fn copy(from: *const u8, to: *mut u8, len: usize) -> bool {
    let left: usize;
    cfg_if::cfg_if! {
        if #[cfg(target_arch = "x86_64")] {
            // SAFETY: copies as many bytes as the caller vouches for; a fault at 2: lands at 3:, with the rest in RCX.
            unsafe {
                core::arch::asm!(
                    "2: rep movsb",
                    "3:",
                    svsm_platform::fault_entry!("2b", "3b"),
                    inout("rcx") len => left,
                    inout("rdi") to => _,
                    inout("rsi") from => _,
                    options(nostack, preserves_flags),
                );
            }
        } else {
            // SAFETY: the caller's promise.
            unsafe { core::ptr::copy(from, to, len) };
            left = 0;
        }
    }
    left == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_copied_whole() {
        let mut memory = [1_u64, 2, 3, 4];
        let at = NonNull::from(&mut memory).cast::<u8>();
        let mut bytes = [0; 9];
        // SAFETY: the memory is this function's, and accessed by nothing else meanwhile.
        assert!(unsafe { try_read(at, &mut bytes) });
        // SAFETY: as above; the third word is in it.
        let third = unsafe { at.add(16) };
        // SAFETY: as above.
        assert!(unsafe { try_write(third, &[9; 3]) });
        // SAFETY: as above.
        assert!(unsafe { try_clear(at.cast(), 1) });
        assert_eq!(bytes, [1, 0, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!(memory, [0, 2, 0x0009_0909, 4]);
    }
}
