//! Flushing one CPU.

use svsm_platform::addr::{Gva, PageSize};
#[cfg(target_arch = "x86_64")]
use svsm_platform::cpu::cr::Cr4;
#[cfg(target_arch = "x86_64")]
use svsm_platform::cpu::insn;

use super::flush::{Flushed, Shootdown, StaleTlb};

/// Makes the executing CPU forget translations.
///
/// # Safety
/// When a method returns, the executing CPU no longer holds what it names.
#[expect(unsafe_code, reason = "frames are reused on this word")]
pub unsafe trait LocalTlb {
    /// Forgets one page, in the current address space and if it is global.
    fn forget_page(&self, page: Gva);

    /// Forgets the current address space; and all that is global, if that is asked for.
    fn forget_all(&self, global: bool);
}

/// The processor's own instructions, in ring 0.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub struct Processor;

// SAFETY: INVLPG, a write of CR3 and a change of CR4.PGE do that (AMD64 Architecture Programmer's
// Manual Volume 2, "Translation-Lookaside Buffer"), and they forget tables on the way as well.
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "frames are reused on this word")]
unsafe impl LocalTlb for Processor {
    fn forget_page(&self, page: Gva) {
        insn::invlpg(page);
    }

    fn forget_all(&self, global: bool) {
        let cr4 = insn::read_cr4();
        if global && cr4.contains(Cr4::PGE) {
            // SAFETY: global pages change how long translations are held, not what they are.
            unsafe { insn::write_cr4(cr4 - Cr4::PGE) };
            // SAFETY: as before.
            unsafe { insn::write_cr4(cr4) };
        } else {
            // SAFETY: the address space stays what it is.
            unsafe { insn::write_cr3(insn::read_cr3()) };
        }
    }
}

/// A [`Shootdown`] for tables that one CPU uses: before others are up, or of a process that only
/// ever ran on this one.
#[derive(Debug)]
pub struct OneCpu<T> {
    tlb: T,
}

impl<T: LocalTlb> OneCpu<T> {
    /// Above this many pages, forgetting everything is cheaper than forgetting each.
    pub const SINGLY: u64 = 32;

    /// The shootdown of the executing CPU.
    ///
    /// # Safety
    /// No other CPU holds translations of the page tables whose tokens it will be given, and
    /// whenever it is given one, the executing CPU has that page table loaded, or holds nothing
    /// of it but what is global.
    #[expect(unsafe_code, reason = "the caller vouches for other processors")]
    pub const unsafe fn new(tlb: T) -> Self {
        Self { tlb }
    }
}

impl<T: LocalTlb> Shootdown for OneCpu<T> {
    type Error = core::convert::Infallible;

    fn flush(&mut self, stale: StaleTlb) -> core::result::Result<Flushed, (StaleTlb, Self::Error)> {
        let range = stale.range();
        match range.pages(PageSize::Size4K) {
            Some(pages) if range.len_bytes() <= Self::SINGLY * PageSize::Size4K.bytes() => {
                pages.for_each(|page| self.tlb.forget_page(page));
            }
            _ => self.tlb.forget_all(stale.has_global()),
        }
        // SAFETY: this CPU has just forgotten all of the range, and no other holds any of it by
        // the promise of `new`.
        #[expect(unsafe_code, reason = "all processors that matter have forgotten")]
        let flushed = unsafe { stale.assume_flushed() };
        Ok(flushed)
    }
}
