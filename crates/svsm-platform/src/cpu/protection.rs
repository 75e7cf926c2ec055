//! Which protections to switch on: a plan, then its execution.
#![cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "writes control registers")
)]

use super::{
    cpuid::Features,
    cr::{Cr0, Cr4, Efer},
};
#[cfg(target_arch = "x86_64")]
use super::{insn, msr::Msr};

/// The registers that hold a CPU's protections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Control {
    /// CR0.
    pub cr0: Cr0,
    /// CR4.
    pub cr4: Cr4,
    /// EFER.
    pub efer: Efer,
}

/// The bits to set on a CPU so that the kernel can neither write read-only pages, nor execute data or user code, nor touch user
/// memory by accident, and user mode cannot read where the kernel's tables are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Protection(Control);

impl Protection {
    /// All protections that the processor has. WP every processor has.
    #[must_use]
    pub fn plan(features: Features) -> Self {
        let mut efer = Efer::empty();
        efer.set(Efer::NXE, features.contains(Features::NX));
        let mut cr4 = Cr4::empty();
        cr4.set(Cr4::SMEP, features.contains(Features::SMEP));
        cr4.set(Cr4::SMAP, features.contains(Features::SMAP));
        cr4.set(Cr4::UMIP, features.contains(Features::UMIP));
        Self(Control {
            cr0: Cr0::WP,
            cr4,
            efer,
        })
    }

    /// The bits to set.
    #[must_use]
    pub const fn bits(&self) -> Control {
        self.0
    }

    /// What `now` becomes; no bit is cleared.
    #[must_use]
    pub const fn applied_to(&self, now: Control) -> Control {
        Control {
            cr0: now.cr0.union(self.0.cr0),
            cr4: now.cr4.union(self.0.cr4),
            efer: now.efer.union(self.0.efer),
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Protection {
    /// Sets the bits on this CPU.
    ///
    /// # Safety
    /// - Ring 0, long mode.
    /// - The page tables in use give the code in use no user bit and no NX bit, and let no data that is written be read-only.
    /// - With SMAP, from now on user memory is accessed between STAC and CLAC only.
    pub unsafe fn apply(&self) {
        let now = Control {
            cr0: insn::read_cr0(),
            cr4: insn::read_cr4(),
            efer: Efer::from_bits_retain(insn::rdmsr(Msr::EFER)),
        };
        let next = self.applied_to(now);
        // SAFETY: long mode stays on, since no bit is cleared; the caller vouches for NX bits.
        unsafe { insn::wrmsr(Msr::EFER, next.efer.bits()) };
        // SAFETY: the caller vouches for read-only pages.
        unsafe { insn::write_cr0(next.cr0) };
        // SAFETY: the caller vouches for user bits; the paging mode stays.
        unsafe { insn::write_cr4(next.cr4) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG_MODE: Control = Control {
        cr0: Cr0::PE.union(Cr0::ET).union(Cr0::PG),
        cr4: Cr4::PAE.union(Cr4::from_bits_retain(1 << 40)),
        efer: Efer::LME.union(Efer::LMA),
    };

    #[test]
    fn absent_protections_are_not_switched_on() {
        let after = Protection::plan(Features::empty()).applied_to(LONG_MODE);
        assert_eq!(
            after,
            Control {
                cr0: LONG_MODE.cr0 | Cr0::WP,
                ..LONG_MODE
            }
        );
    }

    #[test]
    fn all_protections_are_switched_on_and_nothing_else_changes() {
        let after = Protection::plan(Features::all()).applied_to(LONG_MODE);
        assert_eq!(after.cr0, LONG_MODE.cr0 | Cr0::WP);
        assert_eq!(after.cr4, LONG_MODE.cr4 | Cr4::SMEP | Cr4::SMAP | Cr4::UMIP);
        assert_eq!(after.efer, LONG_MODE.efer | Efer::NXE);
    }
}
