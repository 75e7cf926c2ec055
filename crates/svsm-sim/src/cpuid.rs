//! The CPUID page: what the host proposes to tell a guest of its processor, as far as the security processor agrees
//! (56860, "CPUID Page" and "CPUID Reporting").

mod policy;

pub use policy::{Host, Registers, Rejected};

use core::mem::offset_of;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// One answer of CPUID.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct CpuidEntry {
    /// The leaf: EAX of the question.
    pub eax_in: U32,
    /// The subleaf: ECX of the question.
    pub ecx_in: U32,
    /// XCR0 when it was asked; matters to leaf Dh only.
    pub xcr0_in: U64,
    /// `IA32_XSS` when it was asked; matters to leaf Dh only.
    pub xss_in: U64,
    /// The answer.
    pub eax: U32,
    /// The answer.
    pub ebx: U32,
    /// The answer.
    pub ecx: U32,
    /// The answer.
    pub edx: U32,
    /// Zero.
    pub reserved: U64,
}
const _: () = assert!(size_of::<CpuidEntry>() == 48);

impl CpuidEntry {
    /// The answer `out` to `leaf` and `subleaf`.
    #[must_use]
    pub const fn new(leaf: u32, subleaf: u32, out: Registers) -> Self {
        Self {
            eax_in: U32::new(leaf),
            ecx_in: U32::new(subleaf),
            xcr0_in: U64::new(0),
            xss_in: U64::new(0),
            eax: U32::new(out.eax),
            ebx: U32::new(out.ebx),
            ecx: U32::new(out.ecx),
            edx: U32::new(out.edx),
            reserved: U64::new(0),
        }
    }

    /// The same answer, for a processor with these components enabled.
    #[must_use]
    pub const fn with_components(self, xcr0: u64, xss: u64) -> Self {
        Self {
            xcr0_in: U64::new(xcr0),
            xss_in: U64::new(xss),
            ..self
        }
    }

    /// The answer.
    #[must_use]
    pub const fn out(&self) -> Registers {
        Registers {
            eax: self.eax.get(),
            ebx: self.ebx.get(),
            ecx: self.ecx.get(),
            edx: self.edx.get(),
        }
    }

    pub(crate) fn set_out(&mut self, out: Registers) {
        self.eax = U32::new(out.eax);
        self.ebx = U32::new(out.ebx);
        self.ecx = U32::new(out.ecx);
        self.edx = U32::new(out.edx);
    }
}

/// The page as host, security processor and guest see it.
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct CpuidPage {
    /// How many entries there are.
    pub count: U32,
    /// Zero.
    pub reserved_004: U32,
    /// Zero.
    pub reserved_008: U64,
    /// The entries, of which the first `count` mean something.
    pub entries: [CpuidEntry; Self::MAX_ENTRIES],
    /// Not looked at.
    pub reserved_c10: [u8; 1008],
}
const _: () = {
    assert!(size_of::<CpuidPage>() == 4096);
    assert!(offset_of!(CpuidPage, entries) == 0x10);
    assert!(offset_of!(CpuidPage, reserved_c10) == 0xc10);
};

impl CpuidPage {
    /// As many entries as a page may have.
    pub const MAX_ENTRIES: usize = 64;

    /// A page with these entries; `None` where they are too many.
    #[must_use]
    pub fn new(entries: &[CpuidEntry]) -> Option<Self> {
        let mut page: Self = FromZeros::new_zeroed();
        page.count = U32::new(u32::try_from(entries.len()).ok()?);
        page.entries
            .get_mut(..entries.len())?
            .copy_from_slice(entries);
        Some(page)
    }

    /// The entries that there are; none where the count is a lie.
    #[must_use]
    pub fn entries(&self) -> &[CpuidEntry] {
        usize::try_from(self.count.get())
            .ok()
            .and_then(|count| self.entries.get(..count))
            .unwrap_or_default()
    }

    /// The answer to a leaf and, where the leaf has some, a subleaf, as the page holds it. What differs from processor to
    /// processor, or follows from registers, is for the guest to fill in. `None` means four zeros.
    #[must_use]
    pub fn lookup(&self, leaf: u32, subleaf: u32) -> Option<Registers> {
        self.entries()
            .iter()
            .filter(|entry| entry.eax_in.get() == leaf)
            .filter(|entry| !is_indexed(leaf) || entry.ecx_in.get() == subleaf)
            // The sizes of leaf Dh hold for one set of components; the smallest set is what a guest starts from.
            .find(|entry| {
                !(leaf == 0xd && subleaf < 2)
                    || (matches!(entry.xcr0_in.get(), 0 | 1 | 3) && entry.xss_in.get() == 0)
            })
            .map(CpuidEntry::out)
    }
}

/// Whether ECX of the question matters.
#[must_use]
pub const fn is_indexed(leaf: u32) -> bool {
    matches!(
        leaf,
        0x4 | 0x7
            | 0xb
            | 0xd
            | 0xf
            | 0x10
            | 0x12
            | 0x14
            | 0x17
            | 0x18
            | 0x1d
            | 0x1e
            | 0x1f
            | 0x8000_001d
            | 0x8000_0020
            | 0x8000_0024
            | 0x8000_0026
    )
}

#[cfg(test)]
mod tests;
