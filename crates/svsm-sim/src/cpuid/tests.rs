//! What passes, what does not, and what comes back instead.

use super::*;
use proptest::prelude::*;

/// A small processor: leaves 0 to Dh, AVX, 48 bits of physical addresses, the C-bit at 51.
fn machine(leaf: u32, subleaf: u32) -> Registers {
    let (eax, ebx, ecx, edx) = match (leaf, subleaf) {
        (0, _) => (0x10, 0x6874_7541, 0x444d_4163, 0x6974_6e65),
        (1, _) => (0x00a0_0f11, 0x0000_0800, 0x7ef8_320b, 0x178b_fbff),
        (7, 0) => (0, 0x219c_91a9, 0x40_0684, 0x10),
        (0xd, 0) => (0b111, 0x340, 0x340, 0),
        (0xd, 1) => (0b1, 0x340, 0, 0),
        (0xd, 2) => (0x100, 0x240, 0, 0),
        (0x8000_0008, _) => (0x3030, 0x1000, 0x7f, 0x1_0007),
        (0x8000_001f, _) => (0x1a, 0x4173, 0x1fd, 1),
        _ => (0, 0, 0, 0),
    };
    Registers { eax, ebx, ecx, edx }
}

fn page(entries: &[CpuidEntry]) -> CpuidPage {
    CpuidPage::new(entries).unwrap()
}

fn entry(leaf: u32, subleaf: u32) -> CpuidEntry {
    CpuidEntry::new(leaf, subleaf, machine(leaf, subleaf))
}

#[test]
fn the_truth_passes() {
    let avx = entry(0xd, 0).with_components(7, 0);
    let mut truth = page(&[
        entry(0, 0),
        entry(1, 0),
        entry(7, 0),
        avx,
        entry(0x8000_001f, 0),
    ]);
    let before = truth.clone();
    assert_eq!(truth.sanitize(&machine), Ok(()));
    assert_eq!(truth, before);
}

#[test]
fn a_feature_that_is_not_there_is_taken_out() {
    let mut claim = machine(7, 0);
    // AVX512F.
    claim.ebx |= 1 << 16;
    let mut lie = page(&[entry(1, 0), CpuidEntry::new(7, 0, claim)]);
    assert_eq!(
        lie.sanitize(&machine),
        Err(Rejected::Corrected { entries: 1 })
    );
    assert_eq!(lie.lookup(7, 0), Some(machine(7, 0)));
    // What came back passes.
    assert_eq!(lie.sanitize(&machine), Ok(()));
}

#[test]
fn features_may_be_hidden_and_the_hypervisor_bit_set() {
    let mut claim = machine(1, 0);
    claim.ecx = claim.ecx & !1 | 1 << 31 | 1 << 27;
    let mut less = page(&[CpuidEntry::new(1, 0, claim)]);
    assert_eq!(less.sanitize(&machine), Ok(()));
    assert_eq!(less.lookup(1, 0), Some(claim));
}

#[test]
fn a_wrong_c_bit_is_put_right() {
    let mut claim = machine(0x8000_001f, 0);
    claim.ebx = claim.ebx & !0x3f | 47;
    let mut lie = page(&[CpuidEntry::new(0x8000_001f, 0, claim)]);
    assert!(lie.sanitize(&machine).is_err());
    assert_eq!(lie.lookup(0x8000_001f, 0).unwrap().ebx & 0x3f, 51);
}

#[test]
fn a_newer_processor_is_refused_and_an_older_one_is_not() {
    for (signature, fine) in [
        (0x00a0_0f12, false),
        (0x00a0_0f10, true),
        (0x0080_0f12, true),
    ] {
        let claim = Registers {
            eax: signature,
            ..machine(1, 0)
        };
        let mut claimed = page(&[CpuidEntry::new(1, 0, claim)]);
        assert_eq!(claimed.sanitize(&machine).is_ok(), fine, "{signature:#x}");
    }
}

#[test]
fn the_size_of_the_extended_state_follows_the_components() {
    let claim = Registers {
        ebx: 0x240,
        ..machine(0xd, 0)
    };
    let legacy = CpuidEntry::new(0xd, 0, claim);
    assert_eq!(
        page(&[legacy.with_components(3, 0)]).sanitize(&machine),
        Ok(())
    );
    let mut small = page(&[legacy.with_components(7, 0)]);
    assert_eq!(
        small.sanitize(&machine),
        Err(Rejected::Corrected { entries: 1 })
    );
    assert_eq!(small.entries()[0].ebx.get(), 0x340);
}

#[test]
fn leaves_without_a_rule_must_be_zero_and_those_of_hypervisors_may_be_anything() {
    let noise = Registers {
        eax: 1,
        ebx: 2,
        ecx: 3,
        edx: 4,
    };
    let mut unknown = page(&[CpuidEntry::new(0x33, 0, noise)]);
    assert!(unknown.sanitize(&machine).is_err());
    assert_eq!(unknown.lookup(0x33, 0), Some(Registers::default()));
    assert_eq!(
        page(&[CpuidEntry::new(0x4000_0000, 0, noise)]).sanitize(&machine),
        Ok(())
    );
}

#[test]
fn a_malformed_page_comes_back_as_it_was() {
    let mut many = page(&[]);
    many.count = U32::new(65);
    assert_eq!(many.sanitize(&machine), Err(Rejected::Malformed));
    let mut reserved = page(&[entry(0, 0)]);
    reserved.reserved_008 = U64::new(1);
    let before = reserved.clone();
    assert_eq!(reserved.sanitize(&machine), Err(Rejected::Malformed));
    assert_eq!(reserved, before);
}

#[test]
fn only_indexed_leaves_ask_for_the_subleaf() {
    let table = page(&[entry(1, 0), entry(7, 0)]);
    assert_eq!(table.lookup(1, 9), Some(machine(1, 0)));
    assert_eq!(table.lookup(7, 9), None);
}

proptest! {
    /// Whatever a host proposes, what the security processor gives back it also accepts, and never more than there is.
    #[test]
    fn corrections_are_accepted(leaf in prop_oneof![0..0x10_u32, 0x8000_0000..0x8000_0030_u32], subleaf in 0..4_u32,
                                out in any::<[u32; 4]>(), xcr0 in any::<u64>(), xss in any::<u64>()) {
        let [eax, ebx, ecx, edx] = out;
        let claim = CpuidEntry::new(leaf, subleaf, Registers { eax, ebx, ecx, edx });
        let mut proposal = page(&[claim.with_components(xcr0, xss)]);
        let first = proposal.sanitize(&machine);
        prop_assert!(!matches!(first, Err(Rejected::Malformed)));
        prop_assert_eq!(proposal.sanitize(&machine), Ok(()));
    }
}
