//! The seams on this model keep their contracts, whatever the host does.
#![expect(clippy::unwrap_used, reason = "what fails here is the test")]

use proptest::prelude::*;
use svsm_platform::addr::{Gpa, GpaRange};
use svsm_platform::conformance;
use svsm_platform::encryption::Visibility;
use svsm_platform::level;
use svsm_platform::seam::{GuestAccess, PageState, Rights, Stopped};
use svsm_sim::platform::{Error, Honest, Host, Memory};
use svsm_sim::rmp::{Entry, Mapping, NewState, PageSize, Rmp, State};

const BASE: u64 = 2 << 21;
const LEN: u64 = 2 << 21;

fn range(start: u64, len: u64) -> GpaRange {
    GpaRange::new(Gpa::new(start).unwrap(), len).unwrap()
}

fn table() -> Vec<Entry> {
    vec![Entry::HYPERVISOR; usize::try_from((BASE + LEN) / 4096).unwrap()]
}

/// Runs with memory of which the host has given all, in large pages.
fn with_memory<H: Host>(host: H, test: impl FnOnce(&mut Memory<'_, '_, H>)) {
    let mut entries = table();
    let mut rmp = Rmp::new(&mut entries);
    for offset in (0..LEN).step_by(1 << 21) {
        rmp.rmpupdate(BASE + offset, NewState::guest(1, offset, PageSize::Size2M))
            .unwrap();
    }
    let mut memory = Memory {
        rmp: &mut rmp,
        host,
        asid: 1,
        base: BASE,
    };
    memory.accept(range(0, LEN)).unwrap();
    test(&mut memory);
}

fn look<H>(memory: &Memory<'_, '_, H>, page: Gpa) -> Option<Visibility> {
    match memory.rmp.entry(BASE + page.as_u64()).unwrap().state() {
        State::GuestValid => Some(Visibility::Private),
        State::Hypervisor => Some(Visibility::Shared),
        _ => None,
    }
}

#[test]
fn page_states_keep_the_contract_under_an_honest_host() {
    for (start, len) in [
        (0, LEN),
        (0, 0x2000),
        (0x1f_f000, 0x2000),
        (0x1000, LEN - 0x1000),
    ] {
        with_memory(Honest { asid: 1 }, |memory| {
            conformance::page_state(memory, range(start, len), look);
        });
    }
}

#[test]
fn rights_keep_the_contract() {
    with_memory(Honest { asid: 1 }, |memory| {
        conformance::guest_access(memory, range(0, LEN), level::Vmpl::Vmpl2);
        conformance::guest_access(memory, range(0x1f_f000, 0x2000), level::Vmpl::Vmpl1);
        let own = memory.grant(range(0, 0x1000), level::Vmpl::Vmpl0, Rights::READ);
        assert!(own.is_err());
    });
}

#[test]
fn accepting_a_page_twice_is_noticed() {
    with_memory(Honest { asid: 1 }, |memory| {
        let again = memory.accept(range(0, 0x1000)).unwrap_err();
        assert_eq!(again, Stopped::at_start(Error::Unchanged));
    });
}

#[test]
fn a_host_that_stops_in_the_middle_is_told_apart_from_one_that_is_done() {
    let mut left = 3;
    let lazy = |rmp: &mut Rmp<'_>, page: Mapping, private: bool| {
        if left == 0 {
            return false;
        }
        left -= 1;
        Honest { asid: 1 }.change(rmp, page, private)
    };
    with_memory(lazy, |memory| {
        let stopped = memory.make_shared(range(0x1000, 0x8000)).unwrap_err();
        assert_eq!(
            stopped,
            Stopped {
                done_bytes: 0x3000,
                doubtful_bytes: 0x1000,
                cause: Error::Host
            }
        );
    });
}

#[test]
fn a_host_that_claims_what_it_did_not_do_is_found_out() {
    let liar = |_: &mut Rmp<'_>, _: Mapping, _: bool| true;
    with_memory(liar, |memory| {
        // Nobody can tell that a page is not shared, but giving it back shows it.
        memory.make_shared(range(0, 0x1000)).unwrap();
        memory.make_private(range(0, 0x1000)).unwrap();
        memory.release(range(0, 0x1000)).unwrap();
        let again = memory.release(range(0, 0x1000)).unwrap_err();
        assert_eq!(again.cause, Error::Unchanged);
    });
    let thief = |rmp: &mut Rmp<'_>, page: Mapping, _: bool| {
        rmp.rmpupdate(page.spa, NewState::guest(2, page.gpa, page.size))
            .is_ok()
    };
    with_memory(thief, |memory| {
        memory.release(range(0, 1 << 21)).unwrap();
        let stolen = memory.make_private(range(0, 1 << 21)).unwrap_err();
        assert_eq!(stolen.doubtful_bytes, 1 << 21);
        assert!(matches!(stolen.cause, Error::Fault(_)));
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Progress is told as it is, whenever the host refuses.
    #[test]
    fn progress_is_true_under_a_host_that_refuses(refusals in prop::collection::vec(any::<bool>(), 1..40), start in 0..1024_u64, len in 2..1024_u64) {
        let len = len.min(1024 - start);
        prop_assume!(len >= 2);
        let mut turn = refusals.iter().cycle();
        let moody = |rmp: &mut Rmp<'_>, page: Mapping, private: bool| {
            !*turn.next().unwrap() && Honest { asid: 1 }.change(rmp, page, private)
        };
        with_memory(moody, |memory| conformance::page_state(memory, range(start * 4096, len * 4096), look));
    }
}
