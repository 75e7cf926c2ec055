//! What `VMRUN` looks for in a save area before it runs it.

use super::{Injected, Segment, SevFeatures, VintrCtrl, Vmsa};
use core::fmt;

/// What a processor can do, as far as `VMRUN` must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processor {
    /// The features that it has.
    pub features: SevFeatures,
    /// Of those, the ones that the host allows (`ALLOWED_SEV_FEATURES`), where it uses that field.
    pub allowed: Option<SevFeatures>,
    /// The bits of CR4 that it knows.
    pub cr4: u64,
    /// The bits of EFER that it knows.
    pub efer: u64,
    /// The width of its physical addresses in bits, that of the C-bit included.
    pub physical_bits: u8,
}

/// Why `VMRUN` refuses a save area.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// `VMEXIT_INVALID`: its contents are not consistent.
    Invalid(Invalid),
    /// `VMEXIT_BUSY`: a processor runs it.
    Busy,
}

impl Refusal {
    /// The exit code that the host reads.
    #[must_use]
    pub const fn exit_code(self) -> u64 {
        match self {
            Self::Invalid(_) => u64::MAX,
            Self::Busy => u64::MAX - 1,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(reason) => write!(f, "inconsistent save area: {reason}"),
            Self::Busy => f.write_str("a processor runs this save area"),
        }
    }
}

impl core::error::Error for Refusal {}

/// What is wrong with a save area; hardware does not tell, so this is for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Invalid {
    /// Its page is not a save area of this guest.
    Page,
    /// EFER.SVME is clear: also the way in which a guest stops its own processor for good.
    NoSvme,
    /// EFER has bits that the processor does not know.
    Efer,
    /// CR0.NW without CR0.CD, or upper bits.
    Cr0,
    /// CR3 reaches beyond the physical address space.
    Cr3,
    /// CR4 has bits that the processor does not know.
    Cr4,
    /// DR6 has upper bits.
    Dr6,
    /// DR7 has upper bits.
    Dr7,
    /// Long mode with paging but without PAE.
    LongWithoutPae,
    /// Long mode with paging but without protection.
    LongWithoutProtection,
    /// A code segment that is of 64 and of 32 bits at once.
    CodeSize,
    /// The save area is not one of SEV-SNP.
    NotSnp,
    /// Features that the processor does not have, or the host does not allow.
    Features(SevFeatures),
    /// Alternate injection together with Secure AVIC.
    TwoInterruptControllers,
    /// The boundary of private memory is not a multiple of 2 MiB.
    VirtualTom,
    /// A privilege level that does not exist.
    Vmpl,
    /// An event that cannot be injected.
    Event,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Page => "the page is not a save area of the guest",
            Self::NoSvme => "EFER.SVME is clear",
            Self::Efer => "EFER has unknown bits",
            Self::Cr0 => "CR0 is illegal",
            Self::Cr3 => "CR3 is out of range",
            Self::Cr4 => "CR4 has unknown bits",
            Self::Dr6 => "DR6 has upper bits",
            Self::Dr7 => "DR7 has upper bits",
            Self::LongWithoutPae => "long mode needs PAE",
            Self::LongWithoutProtection => "long mode needs protected mode",
            Self::CodeSize => "the code segment has two sizes",
            Self::NotSnp => "SNPActive is clear",
            Self::Features(extra) => {
                return write!(f, "SEV_FEATURES {:#x} are not available", extra.bits());
            }
            Self::TwoInterruptControllers => "alternate injection excludes Secure AVIC",
            Self::VirtualTom => "VIRTUAL_TOM is not a multiple of 2 MiB",
            Self::Vmpl => "the privilege level does not exist",
            Self::Event => "EVENTINJ is illegal",
        };
        f.write_str(text)
    }
}

const CR0_PE: u64 = 1 << 0;
const CR0_NW: u64 = 1 << 29;
const CR0_CD: u64 = 1 << 30;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const UPPER_HALF: u64 = 0xffff_ffff << 32;

impl Vmsa {
    /// Checks what `VMRUN` checks of a save area of SEV-SNP (24593, "Canonicalization and Consistency Checks"). Whether its
    /// page may be one is the business of [`Rmp::vmrun`](crate::rmp::Rmp::vmrun). The registers must be in the clear: undo
    /// [register protection](super::TweakBitmap) first.
    ///
    /// # Errors
    /// Why it does not run.
    pub fn check(&self, processor: &Processor) -> Result<(), Refusal> {
        if self.vintr().contains(VintrCtrl::BUSY) {
            return Err(Refusal::Busy);
        }
        self.consistent(processor).map_err(Refusal::Invalid)
    }

    fn consistent(&self, processor: &Processor) -> Result<(), Invalid> {
        let (efer, cr0, cr4) = (self.efer.get(), self.cr0.get(), self.cr4.get());
        let refuse = |wrong: bool, reason| if wrong { Err(reason) } else { Ok(()) };
        refuse(efer & Self::EFER_SVME == 0, Invalid::NoSvme)?;
        refuse(efer & !processor.efer != 0, Invalid::Efer)?;
        let write_through = cr0 & (CR0_CD | CR0_NW) == CR0_NW;
        refuse(write_through || cr0 & UPPER_HALF != 0, Invalid::Cr0)?;
        let beyond = u64::MAX
            .checked_shl(u32::from(processor.physical_bits))
            .unwrap_or(0);
        refuse(self.cr3.get() & beyond != 0, Invalid::Cr3)?;
        refuse(cr4 & !processor.cr4 != 0, Invalid::Cr4)?;
        refuse(self.dr6.get() & UPPER_HALF != 0, Invalid::Dr6)?;
        refuse(self.dr7.get() & UPPER_HALF != 0, Invalid::Dr7)?;
        if efer & EFER_LME != 0 && cr0 & CR0_PG != 0 {
            refuse(cr4 & CR4_PAE == 0, Invalid::LongWithoutPae)?;
            refuse(cr0 & CR0_PE == 0, Invalid::LongWithoutProtection)?;
            let both = Segment::LONG | Segment::DEFAULT_BIG;
            refuse(self.cs.attributes.get() & both == both, Invalid::CodeSize)?;
        }
        self.features_fit(processor)?;
        refuse(self.vmpl > 3, Invalid::Vmpl)?;
        refuse(!Injected(self.event_inj.get()).is_legal(), Invalid::Event)
    }

    fn features_fit(&self, processor: &Processor) -> Result<(), Invalid> {
        let features = self.features();
        if !features.contains(SevFeatures::SNP_ACTIVE) {
            return Err(Invalid::NotSnp);
        }
        let usable = match processor.allowed {
            Some(allowed) => processor.features.intersection(allowed),
            None => processor.features,
        };
        let extra = features.difference(usable);
        if !extra.is_empty() {
            return Err(Invalid::Features(extra));
        }
        if features.contains(SevFeatures::ALTERNATE_INJECTION | SevFeatures::SECURE_AVIC) {
            return Err(Invalid::TwoInterruptControllers);
        }
        if features.contains(SevFeatures::VTOM) && self.virtual_tom.get() & 0x1f_ffff != 0 {
            return Err(Invalid::VirtualTom);
        }
        Ok(())
    }
}
