//! What of SEV is on.

use crate::{
    addr::Gpa,
    encryption::{BitPosition, Encryption},
    seam::Reason,
};

bitflags::bitflags! {
    /// SEV_FEATURES of a save area: what a level runs with (AMD64 Architecture Programmer's Manual Volume 2, "SEV-SNP Features").
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct SevFeatures: u64 {
        /// SEV-SNP itself.
        const SNP_ACTIVE = 1 << 0;
        /// Addresses below a boundary are private; there is no C-bit.
        const VTOM = 1 << 1;
        /// What would be #VC at a lower level becomes an exit to the upper one.
        const REFLECT_VC = 1 << 2;
        /// The host can inject nothing but #HV.
        const RESTRICTED_INJECTION = 1 << 3;
        /// Injection is controlled by the save area.
        const ALTERNATE_INJECTION = 1 << 4;
        /// Debug registers are the guest's own.
        const DEBUG_SWAP = 1 << 5;
        /// The host cannot sample instructions.
        const PREVENT_HOST_IBS = 1 << 6;
        /// Branch targets are kept from others.
        const BTB_ISOLATION = 1 << 7;
        /// Rights tell supervisor shadow stacks apart.
        const VMPL_SSS = 1 << 8;
        /// The host does not control the time-stamp counter.
        const SECURE_TSC = 1 << 9;
        /// VMGEXIT has a parameter.
        const VMGEXIT_PARAMETER = 1 << 10;
        /// Performance counters are the guest's own.
        const PMC_VIRTUALIZATION = 1 << 11;
        /// Instruction sampling is the guest's own.
        const IBS_VIRTUALIZATION = 1 << 12;
        /// A guest chooses what is intercepted of lower levels.
        const GUEST_INTERCEPT_CONTROL = 1 << 13;
        /// Registers in save areas are scrambled.
        const VMSA_REG_PROT = 1 << 14;
        /// The sibling thread must be idle in the host.
        const SMT_PROTECTION = 1 << 15;
        /// The local APIC is the guest's own.
        const SECURE_AVIC = 1 << 16;
        /// Branch prediction is flushed on entry.
        const IBPB_ON_ENTRY = 1 << 21;
    }
}

impl SevFeatures {
    /// Features that work without the guest's help.
    ///
    /// A Secure TSC is none of them: whoever makes save areas has to put its scale and offset into each.
    pub const TRANSPARENT: Self = Self::SNP_ACTIVE
        .union(Self::DEBUG_SWAP)
        .union(Self::PREVENT_HOST_IBS)
        .union(Self::BTB_ISOLATION)
        .union(Self::PMC_VIRTUALIZATION)
        .union(Self::IBS_VIRTUALIZATION)
        .union(Self::SMT_PROTECTION)
        .union(Self::IBPB_ON_ENTRY);

    /// What is on and not in `supported`, unknown bits included: to say why [`check`](Self::check) did not pass.
    #[must_use]
    pub const fn unsupported(self, supported: Self) -> Self {
        self.difference(supported)
    }

    /// Passes if nothing is on but what `supported` names. Bits that nobody knows yet do not pass.
    ///
    /// # Errors
    /// [`Reason::MissingFeature`]: a feature needs a guest that knows it, or SEV-SNP is off.
    pub const fn check(self, supported: Self) -> Result<(), Reason> {
        if self.contains(Self::SNP_ACTIVE) && self.unsupported(supported).is_empty() {
            Ok(())
        } else {
            Err(Reason::MissingFeature)
        }
    }
}

/// The register SEV_STATUS, which no host can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SevStatus(u64);

impl SevStatus {
    /// As [`Msr::SEV_STATUS`](crate::cpu::msr::Msr::SEV_STATUS) holds it.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Whether memory is encrypted, registers are kept from the host, and pages have owners.
    #[must_use]
    pub const fn is_snp(self) -> bool {
        self.0 & 0b111 == 0b111
    }

    /// What this level runs with, unknown bits included.
    #[must_use]
    pub const fn features(self) -> SevFeatures {
        SevFeatures::from_bits_retain(self.0 >> 2)
    }

    /// How addresses say private or shared here: by the C-bit at the position that the
    /// [CPUID page](super::CpuidPage::c_bit) tells, or by the boundary in VIRTUAL_TOM (MSR C001_0135h). `None` if what counts is
    /// not given, so that no default ever takes its place.
    #[must_use]
    pub const fn encryption(
        self,
        c_bit: Option<BitPosition>,
        virtual_tom: Option<Gpa>,
    ) -> Option<Encryption> {
        if self.0 & 1 == 0 {
            return Some(Encryption::None);
        }
        if self.is_snp() && self.features().contains(SevFeatures::VTOM) {
            return match virtual_tom {
                Some(top) => Some(Encryption::Vtom(top)),
                None => None,
            };
        }
        match c_bit {
            Some(bit) => Some(Encryption::CBit(bit)),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_features_are_refused() {
        let status = SevStatus::from_bits(0b111);
        assert!(status.is_snp());
        assert_eq!(status.features(), SevFeatures::SNP_ACTIVE);
        for (bits, passes) in [
            (0b111, true),
            (0b111 | 1 << 7, true),
            (0b111 | 1 << 5, false),
            (0b111 | 1 << 40, false),
            (0b011, false),
        ] {
            let checked = SevStatus::from_bits(bits)
                .features()
                .check(SevFeatures::TRANSPARENT);
            assert_eq!(checked.is_ok(), passes, "{bits:#x}");
        }
    }
    #[test]
    fn refusals_can_be_explained() {
        let features = SevStatus::from_bits(0b111 | 1 << 5 | 1 << 11 | 1 << 40).features();
        let known = SevFeatures::TRANSPARENT | SevFeatures::SECURE_TSC;
        let extra = SevFeatures::RESTRICTED_INJECTION | SevFeatures::from_bits_retain(1 << 38);
        assert_eq!(features.unsupported(known), extra);
        assert_eq!(features.check(known), Err(Reason::MissingFeature));
        assert_eq!(features.check(known | extra), Ok(()));
    }

    #[test]
    fn what_decides_between_private_and_shared_has_no_default() {
        let bit = BitPosition::new(51);
        let top = Gpa::new(1 << 46);
        let of = |bits| SevStatus::from_bits(bits).encryption(bit, top);
        assert_eq!(of(0), Some(Encryption::None));
        assert_eq!(of(0b1011), bit.map(Encryption::CBit));
        assert_eq!(of(0b0111), bit.map(Encryption::CBit));
        assert_eq!(of(0b1111), top.map(Encryption::Vtom));
        assert_eq!(SevStatus::from_bits(0b0111).encryption(None, top), None);
        assert_eq!(SevStatus::from_bits(0b1111).encryption(bit, None), None);
    }
}
