#![expect(
    unsafe_code,
    reason = "copies from and to addresses that programs name"
)]

use core::arch::asm;

use svsm_platform::fault_entry;

use super::{UserMemory, UserSlice};

/// The program whose address space is in force on this CPU.
///
/// A byte that can't be reached ends a copy through the exception table
/// ([`svsm_platform::fault`]): the firmware's #PF and #GP handlers look it up.
#[derive(Clone, Copy, Debug)]
pub struct CurrentProcess {
    smap: bool,
}

impl CurrentProcess {
    /// Reaches the lower half of the address space in force; `smap` says whether `CR4.SMAP` is set.
    ///
    /// # Safety
    /// Until the address space changes:
    /// - its lower half maps nothing but memory of programs, to which there are no Rust references;
    /// - #PF and #GP at an entry of the exception table go on at its landing.
    #[must_use]
    pub const unsafe fn new(smap: bool) -> Self {
        Self { smap }
    }

    /// Copies and answers with how many bytes were copied.
    ///
    /// # Safety
    /// One side lies in the user half of the address space in force, the other is valid for `bytes`
    /// and nobody else uses it.
    unsafe fn copy(self, to: u64, from: u64, bytes: usize) -> usize {
        let left: usize;
        if self.smap {
            // SAFETY: one side is exclusively the caller's. The other is memory of programs (see
            // `new`), for which no access is undefined behaviour; a fault lands at 3 with RCX
            // saying how much is left. AC is clear again on both ways out.
            unsafe {
                asm!(
                    "stac",
                    "2: rep movsb",
                    "3: clac",
                    fault_entry!("2b", "3b"),
                    inout("rcx") bytes => left,
                    inout("rdi") to => _,
                    inout("rsi") from => _,
                    options(nostack),
                );
            }
        } else {
            // SAFETY: as above.
            unsafe {
                asm!(
                    "2: rep movsb",
                    "3:",
                    fault_entry!("2b", "3b"),
                    inout("rcx") bytes => left,
                    inout("rdi") to => _,
                    inout("rsi") from => _,
                    options(nostack, preserves_flags),
                );
            }
        }
        bytes - left
    }
}

impl UserMemory for CurrentProcess {
    fn read(&self, from: UserSlice, to: &mut [u8]) -> usize {
        let bytes = from.len_bytes().min(to.len());
        // SAFETY: a `UserSlice` is in the user half; `to` is borrowed mutably and has that many
        // bytes.
        unsafe {
            self.copy(
                to.as_mut_ptr().expose_provenance() as u64,
                from.start(),
                bytes,
            )
        }
    }

    fn write(&self, to: UserSlice, from: &[u8]) -> usize {
        let bytes = to.len_bytes().min(from.len());
        // SAFETY: a `UserSlice` is in the user half; `from` is borrowed and only read.
        unsafe { self.copy(to.start(), from.as_ptr().expose_provenance() as u64, bytes) }
    }
}

#[cfg(test)]
mod tests {
    use core::cell::UnsafeCell;

    use super::{CurrentProcess, UserMemory, UserSlice};

    #[test]
    fn bytes_are_copied_both_ways() {
        // Our own process stands in for the program; to its memory there is no reference meanwhile.
        let program = UnsafeCell::new([0_u8; 64]);
        let slice = UserSlice::new(program.get().expose_provenance() as u64, 40).unwrap();
        // SAFETY: nothing of this test faults, and only `program` is named.
        let memory = unsafe { CurrentProcess::new(false) };
        assert_eq!(memory.write(slice, &[7; 64]), 40);
        let mut read = [1; 50];
        assert_eq!(memory.read(slice, &mut read), 40);
        assert_eq!((read[39], read[40]), (7, 1));
        assert_eq!(program.into_inner()[40], 0);
    }
}
