//! `defmt::Format` where a derived one would print decimal numbers or is not possible. The texts are those of `Debug`.

use defmt::{Format, Formatter, write};

#[cfg(feature = "snp")]
use crate::snp::{
    SevFeatures,
    vmsa::{Event, ExitCode, VintrCtrl},
};
use crate::{
    addr::{AddrRange, Address, Gpa, Gva, Hpa},
    claim::Claim,
    cpu::{
        cpuid::{Features, Registers},
        cr::{Cr0, Cr3, Cr4, Efer, RFlags, Xcr0},
        descriptor::{IdtEntry, Selector},
        msr::Msr,
    },
    page::{Page, State},
    seam::Rights,
};

macro_rules! hexadecimal {
    ($($name:ident: $number:ident as $hint:literal;)+) => {
        $(
            impl Format for $name {
                fn format(&self, f: Formatter<'_>) {
                    write!(f, $hint, self.$number());
                }
            }
        )+
    };
}

hexadecimal! {
    Gpa: as_u64 as "Gpa({=u64:#x})";
    Gva: as_u64 as "Gva({=u64:#x})";
    Hpa: as_u64 as "Hpa({=u64:#x})";
    Msr: as_u32 as "Msr({=u32:#x})";
    Selector: bits as "Selector({=u16:#x})";
    Cr0: bits as "Cr0({=u64:#x})";
    Cr3: bits as "Cr3({=u64:#x})";
    Cr4: bits as "Cr4({=u64:#x})";
    Efer: bits as "Efer({=u64:#x})";
    RFlags: bits as "RFlags({=u64:#x})";
    Xcr0: bits as "Xcr0({=u64:#x})";
    Features: bits as "Features({=u32:#x})";
    Rights: bits as "Rights({=u8:#x})";
    IdtEntry: handler as "IdtEntry(to {=u64:#x})";
}

#[cfg(feature = "snp")]
hexadecimal! {
    SevFeatures: bits as "SevFeatures({=u64:#x})";
    VintrCtrl: bits as "VintrCtrl({=u64:#x})";
    Event: bits as "Event({=u64:#x})";
    ExitCode: as_u64 as "ExitCode({=u64:#x})";
}

impl<A: Address + Format> Format for AddrRange<A> {
    fn format(&self, f: Formatter<'_>) {
        write!(f, "{}..{}", self.start(), self.end());
    }
}

impl<T: Format> Format for Claim<T> {
    fn format(&self, f: Formatter<'_>) {
        write!(f, "Claim({})", self.as_told());
    }
}

impl<S: State> Format for Page<S> {
    fn format(&self, f: Formatter<'_>) {
        write!(
            f,
            "Page<{=str}>({}, {})",
            self.state(),
            self.start(),
            self.size()
        );
    }
}

impl Format for Registers {
    fn format(&self, f: Formatter<'_>) {
        let Self { eax, ebx, ecx, edx } = self;
        write!(
            f,
            "Registers({=u32:#x}, {=u32:#x}, {=u32:#x}, {=u32:#x})",
            eax, ebx, ecx, edx
        );
    }
}
