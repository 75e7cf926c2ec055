//! When a save area runs, and what hides its registers.

use super::*;
use proptest::prelude::*;
use zerocopy::FromZeros;

const MACHINE: Processor = Processor {
    features: SevFeatures::SNP_ACTIVE
        .union(SevFeatures::VTOM)
        .union(SevFeatures::VMSA_REG_PROT)
        .union(SevFeatures::ALTERNATE_INJECTION)
        .union(SevFeatures::SECURE_AVIC)
        .union(SevFeatures::RESTRICTED_INJECTION),
    allowed: None,
    cr4: 0x7f_ffff,
    efer: 0xffff,
    physical_bits: 52,
};

fn reset() -> Vmsa {
    Vmsa::reset(0xffff_fff0, 0x00a0_0f11, SevFeatures::SNP_ACTIVE)
}

fn refusal(change: impl FnOnce(&mut Vmsa)) -> Option<Invalid> {
    let mut vmsa = reset();
    change(&mut vmsa);
    match vmsa.check(&MACHINE) {
        Ok(()) => None,
        Err(Refusal::Invalid(reason)) => Some(reason),
        Err(Refusal::Busy) => panic!("busy"),
    }
}

#[test]
fn a_processor_after_reset_runs_at_the_top_of_the_address_space() {
    let vmsa = reset();
    assert_eq!(vmsa.check(&MACHINE), Ok(()));
    assert_eq!(vmsa.cs.base.get() + vmsa.rip.get(), 0xffff_fff0);
    assert_eq!(vmsa.sev_status(), 0b111);
}

#[test]
fn a_guest_stops_its_processor_by_clearing_svme() {
    assert_eq!(
        refusal(|vmsa| vmsa.efer = U64::new(0)),
        Some(Invalid::NoSvme)
    );
    assert_eq!(Refusal::Invalid(Invalid::NoSvme).exit_code(), u64::MAX);
}

#[test]
fn a_busy_save_area_is_not_run_twice() {
    let mut vmsa = reset();
    vmsa.vintr_ctrl = U64::new(VintrCtrl::BUSY.bits());
    assert_eq!(vmsa.check(&MACHINE), Err(Refusal::Busy));
    assert_eq!(Refusal::Busy.exit_code(), u64::MAX - 1);
}

#[test]
fn features_must_be_there_and_allowed() {
    let set = |features: SevFeatures| {
        move |vmsa: &mut Vmsa| vmsa.sev_features = U64::new(features.bits())
    };
    let snp = SevFeatures::SNP_ACTIVE;
    assert_eq!(refusal(set(SevFeatures::empty())), Some(Invalid::NotSnp));
    let unknown = SevFeatures::from_bits_retain(1 << 40);
    assert_eq!(
        refusal(set(snp | unknown)),
        Some(Invalid::Features(unknown))
    );
    let both = SevFeatures::ALTERNATE_INJECTION | SevFeatures::SECURE_AVIC;
    assert_eq!(
        refusal(set(snp | both)),
        Some(Invalid::TwoInterruptControllers)
    );
    let mut vmsa = reset();
    vmsa.sev_features = U64::new((snp | SevFeatures::VTOM).bits());
    let strict = Processor {
        allowed: Some(snp),
        ..MACHINE
    };
    let forbidden = Err(Refusal::Invalid(Invalid::Features(SevFeatures::VTOM)));
    assert_eq!(vmsa.check(&strict), forbidden);
}

#[test]
fn inconsistent_registers_do_not_run() {
    assert_eq!(
        refusal(|vmsa| vmsa.cr0 = U64::new(1 << 29)),
        Some(Invalid::Cr0)
    );
    assert_eq!(
        refusal(|vmsa| vmsa.cr0 = U64::new(1 << 32)),
        Some(Invalid::Cr0)
    );
    assert_eq!(
        refusal(|vmsa| vmsa.cr3 = U64::new(1 << 52)),
        Some(Invalid::Cr3)
    );
    assert_eq!(refusal(|vmsa| vmsa.cr3 = U64::new(1 << 51)), None);
    assert_eq!(
        refusal(|vmsa| vmsa.cr4 = U64::new(1 << 63)),
        Some(Invalid::Cr4)
    );
    assert_eq!(
        refusal(|vmsa| vmsa.efer = U64::new(1 << 63 | 1 << 12)),
        Some(Invalid::Efer)
    );
    assert_eq!(
        refusal(|vmsa| vmsa.dr6 = U64::new(1 << 32)),
        Some(Invalid::Dr6)
    );
    assert_eq!(
        refusal(|vmsa| vmsa.dr7 = U64::new(1 << 32)),
        Some(Invalid::Dr7)
    );
    assert_eq!(refusal(|vmsa| vmsa.vmpl = 4), Some(Invalid::Vmpl));
    assert_eq!(
        refusal(|vmsa| vmsa.event_inj = U64::new(1 << 31 | 1 << 8)),
        Some(Invalid::Event)
    );
    assert_eq!(
        refusal(|vmsa| vmsa.event_inj = U64::new(1 << 31 | 3 << 8 | 2)),
        Some(Invalid::Event)
    );
    assert_eq!(
        refusal(|vmsa| vmsa.event_inj = U64::new(1 << 31 | 3 << 8 | 13)),
        None
    );
}

#[test]
fn long_mode_needs_all_its_parts() {
    let long = |vmsa: &mut Vmsa| {
        vmsa.efer = U64::new(1 << 12 | 1 << 8);
        vmsa.cr0 = U64::new(1 << 31 | 1);
        vmsa.cr4 = U64::new(1 << 5);
        vmsa.cs.attributes = U16::new(0x29b);
    };
    assert_eq!(refusal(long), None);
    let broken = |change: fn(&mut Vmsa)| {
        refusal(|vmsa| {
            long(vmsa);
            change(vmsa)
        })
    };
    assert_eq!(
        broken(|vmsa| vmsa.cr4 = U64::new(0)),
        Some(Invalid::LongWithoutPae)
    );
    assert_eq!(
        broken(|vmsa| vmsa.cr0 = U64::new(1 << 31)),
        Some(Invalid::LongWithoutProtection)
    );
    assert_eq!(
        broken(|vmsa| vmsa.cs.attributes = U16::new(0x69b)),
        Some(Invalid::CodeSize)
    );
}

#[test]
fn the_boundary_of_private_memory_is_a_large_page() {
    let set = |at: u64| {
        move |vmsa: &mut Vmsa| {
            vmsa.sev_features = U64::new((SevFeatures::SNP_ACTIVE | SevFeatures::VTOM).bits());
            vmsa.virtual_tom = U64::new(at);
        }
    };
    assert_eq!(refusal(set(1 << 46)), None);
    assert_eq!(refusal(set(1 << 46 | 1 << 20)), Some(Invalid::VirtualTom));
}

#[test]
fn the_tweak_hides_registers_and_leaves_what_the_host_needs() {
    for hidden in [
        0x178, 0x1d8, 0x1f8, 0x308, 0x338, 0x340, 0x378, 0x420, 0x668, 0xfb8,
    ] {
        assert!(TweakBitmap::REGISTERS.covers(hidden), "{hidden:#x}");
    }
    for plain in [
        0x0d0, 0x300, 0x320, 0x390, 0x3b0, 0x3b8, 0x3c0, 0x670, 0xfc0,
    ] {
        assert!(!TweakBitmap::REGISTERS.covers(plain), "{plain:#x}");
    }
}

#[test]
fn unprotected_save_areas_are_stored_as_they_are() {
    let mut vmsa = reset();
    vmsa.protect(&TweakBitmap::REGISTERS, 0x1234_5678_9abc_def0);
    assert_eq!(vmsa, reset());
}

proptest! {
    /// Blinded and revealed, registers are what they were; blinded, RAX is the value XOR the nonce.
    #[test]
    fn the_tweak_undoes_itself(rax in any::<u64>(), nonce in any::<u64>(), bitmap in any::<[u8; 32]>()) {
        let mut vmsa = reset();
        vmsa.sev_features = U64::new((SevFeatures::SNP_ACTIVE | SevFeatures::VMSA_REG_PROT).bits());
        vmsa.rax = U64::new(rax);
        let mut map = TweakBitmap::new_zeroed();
        map.0[..32].copy_from_slice(&bitmap);
        // The nonce itself stays readable, or nobody could undo this.
        map.0[0x300 / 64] &= !1;
        map.0[0x1f8 / 64] |= 1 << 7;
        // So do the features.
        map.0[0x3b0 / 64] &= !(1 << 6);
        let clear = { let mut copy = vmsa.clone(); copy.reg_prot_nonce = U64::new(nonce); copy };
        vmsa.protect(&map, nonce);
        prop_assert_eq!(vmsa.rax.get(), rax ^ nonce);
        vmsa.tweak(&map);
        prop_assert_eq!(vmsa, clear);
    }
}
