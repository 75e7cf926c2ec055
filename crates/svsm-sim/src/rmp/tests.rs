//! The rules, as examples and as properties over any sequence of actions.

use super::*;
use proptest::prelude::*;
extern crate std;
use std::vec;
use std::vec::Vec;

const SVSM: Caller = Caller {
    asid: 1,
    vmpl: Vmpl::VMPL0,
};
const SMALL: PageSize = PageSize::Size4K;
const LARGE: PageSize = PageSize::Size2M;

fn table(pages: usize) -> Vec<Entry> {
    vec![Entry::HYPERVISOR; pages]
}

fn small(spa: u64, gpa: u64) -> Mapping {
    Mapping {
        spa,
        gpa,
        size: SMALL,
    }
}

#[test]
fn a_host_that_moves_a_page_makes_it_invalid() {
    let mut entries = table(4);
    let mut rmp = Rmp::new(&mut entries);
    rmp.rmpupdate(0x1000, NewState::guest(1, 0x5000, SMALL))
        .unwrap();
    assert!(
        rmp.pvalidate(SVSM, small(0x1000, 0x5000), SMALL, true)
            .unwrap()
            .unwrap()
            .changed
    );
    rmp.rmpupdate(0x2000, NewState::guest(1, 0x5000, SMALL))
        .unwrap();
    let swapped = small(0x2000, 0x5000);
    assert_eq!(
        rmp.access(SVSM, swapped, Access::READ),
        Err(Fault::NotValidated)
    );
    // Validating it again would succeed: that is why the guest must keep a record of its own.
    assert!(
        rmp.pvalidate(SVSM, swapped, SMALL, true)
            .unwrap()
            .unwrap()
            .changed
    );
}

#[test]
fn a_page_is_usable_at_its_own_address_only() {
    let mut entries = table(4);
    let mut rmp = Rmp::new(&mut entries);
    rmp.rmpupdate(0x1000, NewState::guest(1, 0x5000, SMALL))
        .unwrap();
    assert_eq!(
        rmp.pvalidate(SVSM, small(0x1000, 0x6000), SMALL, true),
        Err(Fault::NotOwned)
    );
    let other = Caller { asid: 2, ..SVSM };
    assert_eq!(
        rmp.pvalidate(other, small(0x1000, 0x5000), SMALL, true),
        Err(Fault::NotOwned)
    );
}

#[test]
fn only_the_highest_level_validates() {
    let mut entries = table(2);
    let mut rmp = Rmp::new(&mut entries);
    rmp.rmpupdate(0, NewState::guest(1, 0, SMALL)).unwrap();
    let guest = Caller {
        vmpl: Vmpl::VMPL1,
        ..SVSM
    };
    assert_eq!(
        rmp.pvalidate(guest, small(0, 0), SMALL, true),
        Err(Fault::GeneralProtection)
    );
}

#[test]
fn sizes_that_do_not_fit_are_told_apart() {
    let mut entries = table(2 * PAGES_IN_2M);
    let mut rmp = Rmp::new(&mut entries);
    rmp.rmpupdate(0, NewState::guest(1, 0, LARGE)).unwrap();
    rmp.rmpupdate(0x20_0000, NewState::guest(1, 0x20_0000, SMALL))
        .unwrap();
    let large = Mapping {
        spa: 0,
        gpa: 0,
        size: LARGE,
    };
    // Smaller than the page: the host must split it.
    assert_eq!(
        rmp.pvalidate(SVSM, large, SMALL, true),
        Err(Fault::SizeMismatch)
    );
    // Larger than the page: the guest must ask for less.
    let at = small(0x20_0000, 0x20_0000);
    assert_eq!(
        rmp.pvalidate(SVSM, at, LARGE, true),
        Ok(Err(GuestFailure::SizeMismatch))
    );
    let misaligned = small(0x20_1000, 0x20_1000);
    assert_eq!(
        rmp.pvalidate(SVSM, misaligned, LARGE, true),
        Ok(Err(GuestFailure::Input))
    );
}

#[test]
fn a_split_page_keeps_state_and_rights() {
    let mut entries = table(PAGES_IN_2M);
    let mut rmp = Rmp::new(&mut entries);
    rmp.rmpupdate(0, NewState::guest(1, 0x40_0000, LARGE))
        .unwrap();
    let whole = Mapping {
        spa: 0,
        gpa: 0x40_0000,
        size: LARGE,
    };
    assert!(
        rmp.pvalidate(SVSM, whole, LARGE, true)
            .unwrap()
            .unwrap()
            .changed
    );
    rmp.rmpadjust(SVSM, whole, LARGE, Vmpl::VMPL2, Permissions::READ, false)
        .unwrap()
        .unwrap();
    rmp.psmash(0).unwrap();
    let part = small(0x3000, 0x40_3000);
    let guest = Caller {
        vmpl: Vmpl::VMPL2,
        ..SVSM
    };
    assert_eq!(rmp.access(guest, part, Access::READ), Ok(()));
    assert_eq!(
        rmp.access(guest, part, Access::WRITE),
        Err(Fault::Permission)
    );
    assert_eq!(rmp.psmash(0), Err(HostFailure::Input));
}

#[test]
fn pages_of_a_launch_belong_to_the_security_processor() {
    let mut entries = table(2);
    let mut rmp = Rmp::new(&mut entries);
    rmp.rmpupdate(0, NewState::pre_guest(1, 0x7000, SMALL))
        .unwrap();
    assert_eq!(
        rmp.rmpupdate(0, NewState::HYPERVISOR),
        Err(HostFailure::Permission)
    );
    assert_eq!(rmp.launch_update(0, 2, false), Err(HostFailure::Permission));
    rmp.launch_update(0, 1, true).unwrap();
    let entry = rmp.entry(0).unwrap();
    assert_eq!((entry.state(), entry.is_vmsa()), (State::GuestValid, true));
}

#[test]
fn a_page_inside_a_larger_one_is_refused_until_that_is_split() {
    let mut entries = table(PAGES_IN_2M);
    let mut rmp = Rmp::new(&mut entries);
    rmp.rmpupdate(0, NewState::guest(1, 0, LARGE)).unwrap();
    assert_eq!(
        rmp.rmpupdate(0x1000, NewState::HYPERVISOR),
        Err(HostFailure::Overlap)
    );
    rmp.psmash(0).unwrap();
    rmp.rmpupdate(0x1000, NewState::HYPERVISOR).unwrap();
    assert_eq!(
        rmp.rmpupdate(0, NewState::guest(1, 0, LARGE)),
        Err(HostFailure::Overlap)
    );
}

/// Anything that a host may do.
#[derive(Clone, Copy, Debug)]
enum HostAction {
    Update(u64, NewState),
    Smash(u64),
}

const PAGES: u64 = 2 * 512;

fn host_action() -> impl Strategy<Value = HostAction> {
    let page = prop_oneof![0..4_u64, 510..516_u64, 0..PAGES].prop_map(|number| number * 0x1000);
    let state = (page.clone(), any::<bool>(), any::<bool>(), 1..3_u32).prop_map(
        |(gpa, assigned, large, asid)| NewState {
            assigned,
            // What is nobody's has no number; otherwise nothing would happen at all.
            asid: if assigned { asid } else { 0 },
            gpa,
            size: if large { LARGE } else { SMALL },
            immutable: false,
        },
    );
    prop_oneof![
        4 => (page.clone(), state).prop_map(|(spa, state)| HostAction::Update(spa, state)),
        1 => page.prop_map(HostAction::Smash),
    ]
}

fn act(rmp: &mut Rmp<'_>, action: HostAction) {
    // What the host may not do changes nothing, and that is the point.
    let _ = match action {
        HostAction::Update(spa, state) => rmp.rmpupdate(spa, state),
        HostAction::Smash(spa) => rmp.psmash(spa),
    };
}

/// Every way in which the host could map `gpa` for the guest.
fn mappings(gpa: u64) -> impl Iterator<Item = Mapping> {
    (0..PAGES).flat_map(move |page| {
        [SMALL, LARGE].map(|size| Mapping {
            spa: page * 0x1000,
            gpa,
            size,
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Validated once, a guest address means the same memory for ever, or faults.
    #[test]
    fn no_host_swaps_a_validated_page(before in prop::collection::vec(host_action(), 0..8),
                                      after in prop::collection::vec(host_action(), 0..24), gpa in 0..4_u64) {
        let mut entries = table(2 * PAGES_IN_2M);
        let mut rmp = Rmp::new(&mut entries);
        before.into_iter().for_each(|action| act(&mut rmp, action));
        let gpa = gpa * 0x1000;
        // The guest validates once, wherever the host maps it at that moment.
        let Some(first) = mappings(gpa).find(|at| matches!(rmp.pvalidate(SVSM, *at, at.size, true), Ok(Ok(_)))) else {
            return Ok(());
        };
        for action in after {
            act(&mut rmp, action);
            for at in mappings(gpa).filter(|at| at.spa != first.spa) {
                prop_assert!(rmp.access(SVSM, at, Access::READ).is_err(), "moved from {first:x?} to {at:x?}");
            }
        }
    }

    /// Whatever the host does, a lower level can use only what the SVSM granted.
    #[test]
    fn no_host_lets_a_lower_level_in(actions in prop::collection::vec(host_action(), 0..24)) {
        let mut entries = table(2 * PAGES_IN_2M);
        let mut rmp = Rmp::new(&mut entries);
        for action in actions {
            act(&mut rmp, action);
            for gpa in 0..4_u64 {
                for at in mappings(gpa * 0x1000) {
                    // The SVSM takes all it can get, and grants nothing.
                    let _ = rmp.pvalidate(SVSM, at, at.size, true);
                    for vmpl in [Vmpl::VMPL1, Vmpl::VMPL2, Vmpl::VMPL3] {
                        let entered = rmp.access(Caller { vmpl, ..SVSM }, at, Access::READ);
                        prop_assert!(entered.is_err(), "{vmpl} reads {at:x?}");
                    }
                }
            }
        }
    }

    /// No level gives away more than it has, or touches one that is not below it.
    #[test]
    fn rights_only_shrink_downwards(grants in prop::collection::vec((0..4_u8, 0..4_u8, 0..32_u8), 0..32)) {
        let mut entries = table(1);
        let mut rmp = Rmp::new(&mut entries);
        rmp.rmpupdate(0, NewState::guest(1, 0, SMALL)).unwrap();
        let at = small(0, 0);
        assert!(rmp.pvalidate(SVSM, at, SMALL, true).unwrap().unwrap().changed);
        for (from, to, rights) in grants {
            let (from, to) = (Vmpl::new(from).unwrap(), Vmpl::new(to).unwrap());
            let rights = Permissions::from_bits_truncate(rights);
            let before = *rmp.entry(0).unwrap();
            let caller = Caller { asid: 1, vmpl: from };
            let outcome = rmp.rmpadjust(caller, at, SMALL, to, rights, true).unwrap();
            let after = *rmp.entry(0).unwrap();
            if to <= from || !before.permissions(from).contains(rights) {
                prop_assert_eq!(outcome, Err(GuestFailure::Permission));
                prop_assert_eq!(after, before);
            } else {
                prop_assert_eq!(after.permissions(to), rights);
                // The mark of a VMSA is the highest level's alone.
                prop_assert!(from == Vmpl::VMPL0 || after.is_vmsa() == before.is_vmsa());
            }
        }
    }
}
