//! The reverse map table under hosts and guests that do anything at all.
#![expect(clippy::unwrap_used, reason = "what fails here is the test")]

use proptest::prelude::*;
use std::collections::BTreeMap;
use svsm_sim::rmp::{
    Access, Adjust, Caller, Entry, Fault, GuestFailure, HostFailure, HostFault, Mapping, NewState,
    PageSize, Permissions, Rmp, State, Vmpl,
};
use svsm_sim::vmsa::{Invalid, Refusal};

const SVSM: Caller = Caller {
    asid: 1,
    vmpl: Vmpl::VMPL0,
};
const SMALL: PageSize = PageSize::Size4K;
const LARGE: PageSize = PageSize::Size2M;
const LARGE_BYTES: u64 = 1 << 21;

fn small(page: u64) -> Mapping {
    Mapping {
        spa: page * 4096,
        gpa: page * 4096,
        size: SMALL,
    }
}

/// A page of guest 1 at its own address, validated.
fn own(rmp: &mut Rmp<'_>, page: u64) -> Mapping {
    let at = small(page);
    rmp.rmpupdate(at.spa, NewState::guest(1, at.gpa, SMALL))
        .unwrap();
    assert!(
        rmp.pvalidate(SVSM, at, SMALL, true)
            .unwrap()
            .unwrap()
            .changed
    );
    at
}

fn save_area(rmp: &mut Rmp<'_>, page: u64) -> Mapping {
    let at = own(rmp, page);
    rmp.rmpadjust(SVSM, at, SMALL, Vmpl::VMPL1, Permissions::READ, true)
        .unwrap()
        .unwrap();
    at
}

#[test]
fn states_that_make_no_sense_are_refused() {
    let mut entries = vec![Entry::HYPERVISOR; 1024];
    let mut rmp = Rmp::new(&mut entries);
    let mut update = |spa, new| rmp.rmpupdate(spa, new);
    let input = Err(HostFailure::Input);
    assert_eq!(
        update(
            0,
            NewState {
                asid: 1,
                ..NewState::HYPERVISOR
            }
        ),
        input
    );
    assert_eq!(
        update(
            0,
            NewState {
                immutable: true,
                ..NewState::HYPERVISOR
            }
        ),
        input
    );
    assert_eq!(update(1, NewState::HYPERVISOR), input);
    assert_eq!(update(0x1000, NewState::guest(1, 0, LARGE)), input);
    assert_eq!(update(0, NewState::guest(1, 0x1000, LARGE)), input);
    assert_eq!(update(1024 * 4096, NewState::HYPERVISOR), input);
    assert_eq!(update(!0xfff, NewState::HYPERVISOR), input);
}

#[test]
fn a_large_page_is_taken_back_as_one_or_split_first() {
    let mut entries = vec![Entry::HYPERVISOR; 1024];
    let mut rmp = Rmp::new(&mut entries);
    rmp.rmpupdate(0, NewState::guest(1, 0, LARGE)).unwrap();
    assert_eq!(
        rmp.rmpupdate(0, NewState::HYPERVISOR),
        Err(HostFailure::Overlap)
    );
    assert_eq!(
        rmp.rmpupdate(0x5000, NewState::HYPERVISOR),
        Err(HostFailure::Overlap)
    );
    rmp.rmpupdate(0, NewState::hypervisor(LARGE)).unwrap();
    assert_eq!(rmp.entry(0x5000).unwrap().state(), State::Hypervisor);
}

#[test]
fn the_host_reads_ownership_and_nothing_that_the_guest_did() {
    let mut entries = vec![Entry::HYPERVISOR; 1024];
    let mut rmp = Rmp::new(&mut entries);
    rmp.rmpupdate(0, NewState::guest(3, 0x40_0000, LARGE))
        .unwrap();
    let before = rmp.rmpread(0).unwrap();
    assert!(
        (
            before.assigned,
            before.asid,
            before.gpa,
            before.size,
            before.in_whole
        ) == (true, 3, 0x40_0000, LARGE, true)
    );
    let at = Mapping {
        spa: 0,
        gpa: 0x40_0000,
        size: LARGE,
    };
    let _ = rmp
        .pvalidate(Caller { asid: 3, ..SVSM }, at, LARGE, true)
        .unwrap()
        .unwrap();
    assert_eq!(rmp.rmpread(0).unwrap(), before);
    let inner = rmp.rmpread(0x1000).unwrap();
    assert!(!inner.assigned && inner.in_whole);
    assert_eq!(rmp.rmpread(0x1001), Err(HostFailure::Input));
    assert_eq!(rmp.rmpread(1024 * 4096), Err(HostFailure::Input));
}

#[test]
fn only_a_save_area_of_the_guest_runs() {
    let mut entries = vec![Entry::HYPERVISOR; 1024];
    let mut rmp = Rmp::new(&mut entries);
    let refused = Err(Refusal::Invalid(Invalid::Page));
    let page = own(&mut rmp, 3);
    assert_eq!(rmp.vmrun(page.spa, 1), refused);
    let area = save_area(&mut rmp, 4);
    assert_eq!(rmp.vmrun(area.spa, 2), refused);
    assert_eq!(rmp.vmrun(area.spa + 8, 1), refused);
    assert_eq!(rmp.vmrun(1 << 40, 1), refused);
    assert_eq!(rmp.vmrun(area.spa, 1), Ok(()));
    assert_eq!(rmp.vmrun(area.spa, 1), Err(Refusal::Busy));
    rmp.vmexit(area.spa);
    assert_eq!(rmp.vmrun(area.spa, 1), Ok(()));
    // Taken away and given back, it is a page like any other.
    rmp.vmexit(area.spa);
    rmp.rmpupdate(area.spa, NewState::guest(1, area.gpa, SMALL))
        .unwrap();
    assert_eq!(rmp.vmrun(area.spa, 1), refused);
}

#[test]
fn lower_levels_make_no_save_areas() {
    let mut entries = vec![Entry::HYPERVISOR; 16];
    let mut rmp = Rmp::new(&mut entries);
    let at = own(&mut rmp, 1);
    let all = Permissions::all();
    rmp.rmpadjust(SVSM, at, SMALL, Vmpl::VMPL1, all, false)
        .unwrap()
        .unwrap();
    let guest = Caller {
        vmpl: Vmpl::VMPL1,
        ..SVSM
    };
    rmp.rmpadjust(guest, at, SMALL, Vmpl::VMPL2, all, true)
        .unwrap()
        .unwrap();
    assert!(!rmp.entry(at.spa).unwrap().is_vmsa());
}

#[test]
fn a_save_area_in_use_is_nobody_s_to_change() {
    let mut entries = vec![Entry::HYPERVISOR; 1024];
    let mut rmp = Rmp::new(&mut entries);
    let area = save_area(&mut rmp, 5);
    rmp.vmrun(area.spa, 1).unwrap();
    let before = *rmp.entry(area.spa).unwrap();
    assert!(before.is_in_use());
    assert_eq!(
        rmp.rmpupdate(area.spa, NewState::HYPERVISOR),
        Err(HostFailure::InUse)
    );
    assert_eq!(
        rmp.rmpupdate(0, NewState::hypervisor(LARGE)),
        Err(HostFailure::InUse)
    );
    let none = Permissions::empty();
    assert_eq!(
        rmp.rmpadjust(SVSM, area, SMALL, Vmpl::VMPL1, none, false),
        Ok(Err(GuestFailure::InUse))
    );
    assert_eq!(rmp.host_write(area.spa, SMALL), Err(HostFault::InUse));
    assert_eq!(*rmp.entry(area.spa).unwrap(), before);
    rmp.vmexit(area.spa);
    rmp.rmpadjust(SVSM, area, SMALL, Vmpl::VMPL1, none, false)
        .unwrap()
        .unwrap();
}

#[test]
fn a_save_area_at_a_large_page_takes_its_neighbours_with_it() {
    let mut entries = vec![Entry::HYPERVISOR; 1536];
    let mut rmp = Rmp::new(&mut entries);
    let area = save_area(&mut rmp, 512);
    let neighbour = area.spa + 0x7000;
    assert_eq!(rmp.host_write(neighbour, SMALL), Ok(()));
    rmp.vmrun(area.spa, 1).unwrap();
    assert_eq!(rmp.host_write(neighbour, SMALL), Err(HostFault::InUse));
    assert_eq!(rmp.host_write(area.spa - 8, SMALL), Ok(()));
    rmp.vmexit(area.spa);
    assert_eq!(rmp.host_write(neighbour, SMALL), Ok(()));
    // One that lies elsewhere keeps to itself.
    let other = save_area(&mut rmp, 1025);
    rmp.vmrun(other.spa, 1).unwrap();
    assert_eq!(rmp.host_write(other.spa + 0x1000, SMALL), Ok(()));
}

#[test]
fn a_host_writes_its_own_pages_only() {
    let mut entries = vec![Entry::HYPERVISOR; 1024];
    let mut rmp = Rmp::new(&mut entries);
    rmp.rmpupdate(LARGE_BYTES, NewState::guest(1, 0, LARGE))
        .unwrap();
    own(&mut rmp, 9);
    assert_eq!(rmp.host_write(8 * 4096, SMALL), Ok(()));
    assert_eq!(
        rmp.host_write(9 * 4096 + 17, SMALL),
        Err(HostFault::Assigned)
    );
    // Through a large mapping it would reach the guest's page too.
    assert_eq!(rmp.host_write(8 * 4096, LARGE), Err(HostFault::Assigned));
    assert_eq!(
        rmp.host_write(LARGE_BYTES + 0x3000, SMALL),
        Err(HostFault::Assigned)
    );
    assert_eq!(rmp.host_write(1024 * 4096, SMALL), Err(HostFault::NoMemory));
}

#[test]
fn words_of_rmpadjust_have_no_bits_to_spare() {
    let typical = Adjust::from_rdx(0x1_0101, false).unwrap();
    assert_eq!(
        (typical.target, typical.permissions, typical.vmsa),
        (Vmpl::VMPL1, Permissions::READ, true)
    );
    assert_eq!(typical.to_rdx(), 0x1_0101);
    assert_eq!(
        Adjust::from_rdx(0x0f01, false).unwrap().permissions.bits(),
        0xf
    );
    for word in [0x1f01, 0x2001, 0x0104, 0x2_0101, 1 << 63 | 1] {
        assert_eq!(
            Adjust::from_rdx(word, false),
            Err(GuestFailure::Input),
            "{word:#x}"
        );
    }
    let stack = Adjust::from_rdx(0x1101, true).unwrap();
    assert!(stack.permissions.contains(Permissions::SHADOW_STACK));
}

/// Pages of the table, among them both sides of a border between large pages.
const PAGES: u64 = 1024;

#[derive(Clone, Copy, Debug)]
enum Action {
    Update(u64, NewState),
    Smash(u64),
    Run(u64),
    Exit(u64),
}

fn page() -> impl Strategy<Value = u64> {
    prop_oneof![0..4_u64, 510..516_u64]
}

fn host_action() -> impl Strategy<Value = Action> {
    let state = (page(), 0..3_u32, any::<bool>()).prop_map(|(gpa, asid, large)| {
        let size = if large { LARGE } else { SMALL };
        match asid {
            0 => NewState::hypervisor(size),
            _ => NewState::guest(asid, gpa * 4096, size),
        }
    });
    prop_oneof![
        6 => (page(), state).prop_map(|(spa, state)| Action::Update(spa * 4096, state)),
        1 => page().prop_map(|spa| Action::Smash(spa * 4096)),
        1 => page().prop_map(|spa| Action::Run(spa * 4096)),
        1 => page().prop_map(|spa| Action::Exit(spa * 4096)),
    ]
}

fn act(rmp: &mut Rmp<'_>, action: Action) {
    // What hardware refuses changes nothing, which is what the properties are about.
    match action {
        Action::Update(spa, state) => drop(rmp.rmpupdate(spa, state)),
        Action::Smash(spa) => drop(rmp.psmash(spa)),
        Action::Run(spa) => drop(rmp.vmrun(spa, 1)),
        Action::Exit(spa) => rmp.vmexit(spa),
    }
}

/// Where the host could map `gpa` for the guest.
fn mappings(gpa: u64) -> impl Iterator<Item = Mapping> {
    let pages = (0..4).chain(510..516);
    pages.flat_map(move |page| {
        [SMALL, LARGE].map(|size| Mapping {
            spa: page * 4096,
            gpa: gpa * 4096,
            size,
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// A guest that validates a page twice sees it, and a page that it cannot use yet it can validate.
    #[test]
    fn pvalidate_tells_whether_the_page_was_valid(
        actions in prop::collection::vec((host_action(), page(), any::<bool>()), 0..32),
    ) {
        let mut entries = vec![Entry::HYPERVISOR; usize::try_from(PAGES).unwrap()];
        let mut rmp = Rmp::new(&mut entries);
        for (action, gpa, validate) in actions {
            act(&mut rmp, action);
            for at in mappings(gpa) {
                let before = rmp.access(SVSM, at, Access::READ);
                let done = rmp.pvalidate(SVSM, at, at.size, validate);
                let after = rmp.access(SVSM, at, Access::READ);
                match done {
                    Ok(Ok(done)) => {
                        prop_assert_eq!(done.changed, before.is_ok() != validate);
                        prop_assert_eq!(after.is_ok(), validate);
                    }
                    _ => prop_assert_eq!(after, before),
                }
            }
        }
    }

    /// Whatever the host does after the SVSM has granted some pages, a lower level reads granted addresses only, and at
    /// those the memory that was granted.
    #[test]
    fn no_host_shows_a_lower_level_what_was_not_granted(
        before in prop::collection::vec(host_action(), 0..12),
        granted in prop::collection::btree_set(page(), 0..4),
        after in prop::collection::vec(host_action(), 0..32),
    ) {
        let mut entries = vec![Entry::HYPERVISOR; usize::try_from(PAGES).unwrap()];
        let mut rmp = Rmp::new(&mut entries);
        before.into_iter().for_each(|action| act(&mut rmp, action));
        // The SVSM validates each address once, wherever it is, and grants some.
        let mut homes = BTreeMap::new();
        for gpa in (0..4).chain(510..516) {
            let valid = |rmp: &mut Rmp<'_>, at: &Mapping| matches!(rmp.pvalidate(SVSM, *at, at.size, true), Ok(Ok(done)) if done.changed);
            let Some(at) = mappings(gpa).find(|at| valid(&mut rmp, at)) else { continue };
            if granted.contains(&gpa)
                && matches!(rmp.rmpadjust(SVSM, at, at.size, Vmpl::VMPL1, Permissions::READ, false), Ok(Ok(())))
            {
                for offset in 0..at.size.bytes() / 4096 {
                    homes.insert(gpa + offset, at.spa + offset * 4096);
                }
            }
        }
        let guest = Caller { vmpl: Vmpl::VMPL1, ..SVSM };
        for action in after {
            act(&mut rmp, action);
            for gpa in (0..4).chain(510..516) {
                for at in mappings(gpa).filter(|at| rmp.access(guest, *at, Access::READ).is_ok()) {
                    prop_assert_eq!(homes.get(&gpa), Some(&at.spa), "{:x?}", at);
                }
            }
            // VMPL2 never got anything.
            let lowest = Caller { vmpl: Vmpl::VMPL2, ..SVSM };
            for gpa in (0..4).chain(510..516) {
                for at in mappings(gpa) {
                    prop_assert_ne!(rmp.access(lowest, at, Access::READ), Ok(()));
                }
            }
        }
    }

    /// A host never writes what a guest can use as private memory.
    #[test]
    fn no_host_writes_private_memory(actions in prop::collection::vec(host_action(), 0..32)) {
        let mut entries = vec![Entry::HYPERVISOR; usize::try_from(PAGES).unwrap()];
        let mut rmp = Rmp::new(&mut entries);
        for action in actions {
            act(&mut rmp, action);
            for gpa in (0..4).chain(510..516) {
                for at in mappings(gpa) {
                    let _ = rmp.pvalidate(SVSM, at, at.size, true);
                    if rmp.access(SVSM, at, Access::WRITE).is_ok() {
                        prop_assert!(rmp.host_write(at.spa, SMALL).is_err());
                        prop_assert!(rmp.host_write(at.spa, LARGE).is_err());
                    }
                }
            }
        }
    }
}

#[test]
fn sizes_that_the_nested_tables_get_wrong_fault() {
    let mut entries = vec![Entry::HYPERVISOR; 1024];
    let mut rmp = Rmp::new(&mut entries);
    rmp.rmpupdate(0, NewState::guest(1, 0, LARGE)).unwrap();
    let whole = Mapping {
        spa: 0,
        gpa: 0,
        size: LARGE,
    };
    let _ = rmp.pvalidate(SVSM, whole, LARGE, true).unwrap().unwrap();
    assert_eq!(
        rmp.access(SVSM, small(1), Access::READ),
        Err(Fault::SizeMismatch)
    );
    assert_eq!(rmp.access(SVSM, whole, Access::READ), Ok(()));
    rmp.psmash(0).unwrap();
    assert_eq!(
        rmp.access(SVSM, whole, Access::READ),
        Err(Fault::SizeMismatch)
    );
    assert_eq!(rmp.access(SVSM, small(1), Access::READ), Ok(()));
}
