//! A CPU that can do nothing but exit to its host, which a test plays.

use svsm_platform::{
    addr::Gva,
    level::Vmpl,
    snp::insn::{Insn, Raw, RawQuery, RmpSize},
};

/// The host.
pub(crate) trait Exits {
    /// Does what is asked for by the word in the GHCB MSR; answers with another. It touches shared pages alone.
    fn exit(&self, request: u64) -> u64;
}

/// The CPU.
pub(crate) struct OnlyExits<'h, H>(pub(crate) &'h H);

impl<H> Clone for OnlyExits<'_, H> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<H> Copy for OnlyExits<'_, H> {}

// SAFETY: no instruction does anything but VMGEXIT, which reads and writes shared pages as a host may.
unsafe impl<H: Exits> Insn for OnlyExits<'_, H> {
    unsafe fn pvalidate(&self, _: Gva, _: RmpSize, _: bool) -> Raw {
        Raw::Faulted
    }

    unsafe fn rmpadjust(&self, _: Gva, _: RmpSize, _: u64) -> Raw {
        Raw::Faulted
    }

    fn rmpquery(&self, _: Gva, _: Vmpl) -> RawQuery {
        RawQuery {
            raw: Raw::Faulted,
            size: 0,
            word: 0,
        }
    }

    fn flush_all(&self) {}

    unsafe fn vmgexit(&self, request: u64) -> u64 {
        self.0.exit(request)
    }
}
