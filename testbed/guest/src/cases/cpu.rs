//! What a CPU shows of SVM, EFER and the APIC's mode.

use super::{Failed, Result, check};
use crate::bare::insn::{self, cpuid, rdmsr, try_rdmsr, try_vmmcall, try_vmrun, try_wrmsr, wrmsr};

const APIC_BASE: u32 = 0x1b;
const EFER: u32 = 0xc000_0080;
const SVME: u64 = 1 << 12;
const UD: Option<u8> = Some(6);
const GP: Option<u8> = Some(13);

fn raises(what: &'static str, got: Option<u8>, expected: Option<u8>) -> Result {
    if got == expected {
        return Ok(());
    }
    Err(Failed {
        what,
        got: got.map_or(u64::MAX, u64::from),
    })
}

pub(super) fn svm_hidden() -> Result {
    let [_, _, features, _] = cpuid(0x8000_0001);
    check("CPUID has SVM", u64::from(features & 1 << 2), 0)?;
    let [revision, ..] = cpuid(0x8000_000a);
    check("CPUID describes SVM", u64::from(revision), 0)?;
    raises("VMMCALL", try_vmmcall(), UD)?;
    raises("VMRUN", try_vmrun(), UD)?;
    raises("RDMSR of VM_CR", try_rdmsr(0xc001_0114), GP)?;
    raises("WRMSR of VM_HSAVE_PA", try_wrmsr(0xc001_0117, 0), GP)?;
    raises(
        "RDMSR of an MSR that no CPU has",
        try_rdmsr(0x4000_0000),
        GP,
    )
}

pub(super) fn efer() -> Result {
    let before = rdmsr(EFER);
    check("EFER at start", before, 0xd00)?;
    raises("setting SVME", try_wrmsr(EFER.into(), before | SVME), GP)?;
    raises("leaving long mode at once", try_wrmsr(EFER.into(), 0), GP)?;
    wrmsr(EFER, before | 1);
    check("EFER after a write", rdmsr(EFER), before | 1)?;
    // SVME is still set below: else the next exit would be the last.
    raises("VMMCALL", try_vmmcall(), UD)
}

pub(super) fn x2apic() -> Result {
    let base = rdmsr(APIC_BASE);
    check("APIC base", base, 0xfee0_0d00)?;
    raises(
        "the same mode again",
        try_wrmsr(APIC_BASE.into(), base),
        None,
    )?;
    raises(
        "leaving x2APIC mode",
        try_wrmsr(APIC_BASE.into(), base & !(1 << 10)),
        GP,
    )?;
    raises(
        "switching the APIC off",
        try_wrmsr(APIC_BASE.into(), base & !(3 << 10)),
        GP,
    )?;
    raises("moving it", try_wrmsr(APIC_BASE.into(), base + 0x1000), GP)
}

/// Many exits, for figures.
pub(super) fn count() -> Result {
    for _ in 0..1000 {
        core::hint::black_box(insn::cpuid(0));
    }
    Ok(())
}
