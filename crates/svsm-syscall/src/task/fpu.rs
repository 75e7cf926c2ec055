//! The registers that a soft-float kernel does not touch: saved when a program loses its CPU,
//! restored when it gets one.
//!
//! The kernel has no use for them, so a system call or an interrupt leaves them alone; only a
//! switch to another program saves and restores. They are switched eagerly: what a lazy switch
//! would leave in them can be read by speculation.

#![expect(unsafe_code, reason = "saves and restores registers")]

use core::{arch::asm, fmt};

use svsm_platform::cpu::{cpuid::Cpuid, cr::Xcr0};

/// How registers are saved on this machine. The same value serves all of its CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fpu {
    /// Which are saved by XSAVE; none: FXSAVE saves x87 and XMM.
    xsave: Option<Xcr0>,
    bytes: usize,
}

/// What FXSAVE writes.
const LEGACY: usize = 512;
/// What follows it in the area of XSAVE.
const HEADER: usize = 64;

impl Fpu {
    /// Saves x87 and XMM registers, which every 64-bit processor has.
    ///
    /// `CR4.OSFXSR` is set on every CPU; programs that use AVX must be kept from it.
    pub const FXSAVE: Self = Self {
        xsave: None,
        bytes: LEGACY,
    };

    /// Saves the registers that `xcr0` switches on, which every CPU has in force.
    #[must_use]
    pub fn xsave(xcr0: Xcr0, cpuid: &impl Cpuid) -> Self {
        let component = |number: u32| {
            let leaf = cpuid.leaf(0xd, number);
            let size = u64::from(leaf.eax) + u64::from(leaf.ebx);
            usize::try_from(size).unwrap_or(usize::MAX)
        };
        // The standard format has fixed places, so the area ends with the one that lies last.
        let extended = (2..63)
            .filter(|number| xcr0.bits() >> number & 1 != 0)
            .map(component);
        Self {
            xsave: Some(xcr0),
            bytes: extended.fold(LEGACY + HEADER, usize::max),
        }
    }

    /// How many bytes an [`FpuArea`] needs.
    #[must_use]
    pub const fn len_bytes(&self) -> usize {
        self.bytes
    }

    /// Saves the registers of this CPU. `false` if the area is too small.
    ///
    /// # Safety
    /// This value fits the machine: see [`Fpu::FXSAVE`] and [`Fpu::xsave`].
    #[must_use]
    pub unsafe fn save<const N: usize>(&self, area: &mut FpuArea<N>) -> bool {
        if self.bytes > N {
            return false;
        }
        let to = area.0.as_mut_ptr();
        match self.xsave {
            // SAFETY: the area is aligned and has the bytes that these components take.
            Some(what) => unsafe {
                let (low, high) = halves(what);
                asm!(
                    "xsave64 [{}]",
                    in(reg) to,
                    in("eax") low,
                    in("edx") high,
                    options(nostack, preserves_flags),
                );
            },
            // SAFETY: the area is aligned and has more than 512 bytes.
            None => unsafe {
                asm!("fxsave64 [{}]", in(reg) to, options(nostack, preserves_flags));
            },
        }
        true
    }

    /// Restores the registers of this CPU. `false` if the area is too small.
    ///
    /// # Safety
    /// As for [`save`](Self::save), and the registers hold nothing that code on this CPU still
    /// needs: the kernel is compiled without them.
    #[must_use]
    pub unsafe fn restore<const N: usize>(&self, area: &FpuArea<N>) -> bool {
        if self.bytes > N {
            return false;
        }
        let from = area.0.as_ptr();
        match self.xsave {
            // SAFETY: the area was written by XSAVE or by `FpuArea::new`, so nothing in it is
            // reserved; the caller vouches for the registers.
            Some(what) => unsafe {
                let (low, high) = halves(what);
                asm!(
                    "xrstor64 [{}]",
                    in(reg) from,
                    in("eax") low,
                    in("edx") high,
                    options(nostack, preserves_flags, readonly),
                );
            },
            // SAFETY: as above.
            None => unsafe {
                asm!("fxrstor64 [{}]", in(reg) from, options(nostack, preserves_flags, readonly));
            },
        }
        true
    }
}

#[expect(clippy::cast_possible_truncation, reason = "halves are meant")]
const fn halves(mask: Xcr0) -> (u32, u32) {
    (mask.bits() as u32, (mask.bits() >> 32) as u32)
}

/// The registers of one program that does not run. `N` is at least [`Fpu::len_bytes`]; 2,696 bytes
/// hold all up to AVX-512.
#[derive(Clone)]
#[repr(C, align(64))]
pub struct FpuArea<const N: usize>([u8; N]);

impl<const N: usize> FpuArea<N> {
    /// What a program starts with: all registers clear, all exceptions masked.
    #[must_use]
    pub const fn new() -> Self {
        const { assert!(N >= LEGACY, "too small for any processor") };
        let mut area = [0; N];
        // FCW = 0x037f; MXCSR = 0x1f80. The header of XSAVE stays zero: everything is as after a
        // reset.
        area[0] = 0x7f;
        area[1] = 0x03;
        area[24] = 0x80;
        area[25] = 0x1f;
        Self(area)
    }
}

impl<const N: usize> Default for FpuArea<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> fmt::Debug for FpuArea<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A program's registers may hold its keys.
        f.debug_struct("FpuArea").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use svsm_platform::cpu::cpuid::{CpuidTable, Registers};

    use super::*;

    const TABLE: CpuidTable<'_> = CpuidTable(&[
        (
            0,
            0,
            Registers {
                eax: 0x10,
                ebx: 0,
                ecx: 0,
                edx: 0,
            },
        ),
        (
            0xd,
            2,
            Registers {
                eax: 256,
                ebx: 576,
                ecx: 0,
                edx: 0,
            },
        ),
        (
            0xd,
            7,
            Registers {
                eax: 1024,
                ebx: 1664,
                ecx: 0,
                edx: 0,
            },
        ),
    ]);

    #[test]
    fn areas_end_with_their_last_component() {
        let bytes = |xcr0| Fpu::xsave(xcr0, &TABLE).len_bytes();
        assert_eq!(bytes(Xcr0::X87 | Xcr0::SSE), 576);
        assert_eq!(bytes(Xcr0::X87 | Xcr0::SSE | Xcr0::AVX), 832);
        assert_eq!(bytes(Xcr0::X87 | Xcr0::HIGH16_ZMM | Xcr0::AVX), 2688);
        assert_eq!(Fpu::FXSAVE.len_bytes(), 512);
    }

    #[test]
    fn areas_that_are_too_small_are_not_used() {
        let fpu = Fpu::xsave(Xcr0::X87 | Xcr0::SSE | Xcr0::AVX, &TABLE);
        let mut area = FpuArea::<576>::new();
        // SAFETY: nothing is saved or restored.
        assert!(!unsafe { fpu.save(&mut area) });
        // SAFETY: as above.
        assert!(!unsafe { fpu.restore(&area) });
    }

    #[test]
    fn registers_are_saved_as_the_processor_has_them() {
        let mut area = FpuArea::<512>::new();
        // SAFETY: every 64-bit processor has FXSAVE, and every system allows it.
        assert!(unsafe { Fpu::FXSAVE.save(&mut area) });
        assert_eq!(area.0[25] & 0x1f, 0x1f); // MXCSR masks all exceptions in Rust programs
        // SAFETY: they are the same that are there, but for what the compiler cannot rely on here.
        assert!(unsafe { Fpu::FXSAVE.restore(&area) });
    }
}
