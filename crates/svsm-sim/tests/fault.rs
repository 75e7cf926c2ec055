//! A host lies when it was told to, and every time in the same way.

use proptest::prelude::*;
use std::collections::BTreeMap;
use svsm_sim::fault::{
    Class, Expected, Fault, Faults, Fired, Occasions, ParseError, Platforms, Schedule,
};

fn any_occasions() -> impl Strategy<Value = Occasions> {
    any::<u32>().prop_map(Occasions::from_bits_truncate)
}

fn play(schedule: &mut Schedule, events: &[Occasions]) -> Vec<Fired> {
    (0..)
        .zip(events)
        .filter_map(|(event, occasions)| schedule.next(event, *occasions))
        .collect()
}

#[test]
fn names_are_unique_and_fit_on_a_command_line() {
    let mut seen = BTreeMap::new();
    let classes = Class::ALL.iter().map(|class| class.name());
    for name in Fault::ALL.iter().map(|fault| fault.name()).chain(classes) {
        assert_eq!(seen.insert(name, ()), None, "{name}");
        assert_ne!(name, "all");
        let plain = |c: char| c.is_ascii_lowercase() || c == '-';
        assert!(name.chars().all(plain) && !name.starts_with('-'), "{name}");
    }
}

#[test]
fn every_fault_can_come_somewhere() {
    for fault in Fault::ALL {
        assert!(!fault.platforms().is_empty(), "{fault}");
        assert!(!fault.occasions().is_empty(), "{fault}");
        assert!(!fault.about().ends_with('.'), "{fault}");
        assert_eq!(Fault::named(fault.name()), Some(*fault));
    }
    assert!(Faults::ALL.iter().any(|f| f.expected() == Expected::Denied));
}

#[test]
fn choices_are_read_and_written() {
    let read = |text: &str| text.parse::<Faults>();
    assert_eq!(read("all"), Ok(Faults::ALL));
    assert_eq!(read(" reset , remap,").unwrap().to_string(), "remap,reset");
    let time = read("time").unwrap();
    assert_eq!(time.to_string(), "delayed-exit,reordered-exits,reset");
    assert_eq!(read("time,-reset").unwrap().len(), 2);
    assert!(!read("all,-time").unwrap().contains(Fault::Reset));
    assert_eq!(read("remap,rest"), Err(ParseError::Unknown { at: 6 }));
    assert_eq!(read(""), Err(ParseError::Nothing));
    assert_eq!(read("reset,-time"), Err(ParseError::Nothing));
    let native = Faults::ALL.on(Platforms::NATIVE);
    assert!(native.contains(Fault::StrayNmi) && !native.contains(Fault::Remap));
}

#[test]
fn wrong_scripts_are_explained() {
    let wrong = |text: &str| Schedule::script(text).unwrap_err();
    assert_eq!(wrong("reset"), ParseError::NoEvent { at: 0 });
    assert_eq!(wrong("reset@1, rest@2"), ParseError::Unknown { at: 9 });
    for number in [
        "",
        "x",
        "+1",
        "-1",
        "0x",
        "0x+1",
        "1=",
        "18446744073709551616",
    ] {
        let text = format!("reset@{number}");
        assert_eq!(wrong(&text), ParseError::Number { at: 0 }, "{text}");
    }
    assert_eq!(wrong(" ,"), ParseError::Nothing);
    let long = vec!["reset@1"; Schedule::STEPS + 1].join(",");
    assert_eq!(
        wrong(&long),
        ParseError::TooLong {
            at: 8 * Schedule::STEPS
        }
    );
    assert_eq!(
        wrong("reset@1, rest@2").to_string(),
        "no fault has the name at column 10"
    );
}

#[test]
fn a_script_waits_for_the_opportunity_and_is_done_once() {
    let mut schedule = Schedule::script("tampered-request@3,reset@0x2").unwrap();
    let events = [
        Occasions::GUEST_REQUEST,
        Occasions::empty(),
        Occasions::empty(),
        Occasions::CPUID,
        Occasions::GUEST_REQUEST,
        Occasions::GUEST_REQUEST,
    ];
    let fired = play(&mut schedule, &events);
    let seen: Vec<_> = fired.iter().map(|f| (f.event, f.fault)).collect();
    assert_eq!(seen, [(2, Fault::Reset), (4, Fault::TamperedRequest)]);
}

/// If this changes, seeds in other people's notes mean something else from then on.
#[test]
fn the_schedule_of_a_seed_is_fixed() {
    let faults = "page-state,stray-nmi".parse().unwrap();
    let mut schedule = Schedule::seeded(faults, 42);
    let fired = play(&mut schedule, &[Occasions::PAGE_STATE_LIST; 40]);
    let seen: Vec<_> = fired.iter().take(4).map(Fired::to_string).collect();
    let known = [
        "psc-wrong-size@0=0x96341e17dcdba178",
        "stray-nmi@1=0x96294e1bf6a89ca2",
        "psc-backwards@2=0x30391bb7bdc25415",
        "stray-nmi@13=0x8055a6666778b24",
    ];
    assert_eq!(seen, known);
}

#[test]
fn a_seed_reaches_events_that_come_once() {
    for fault in Fault::ALL {
        let hits = (0..200)
            .filter(|seed| {
                let mut schedule = Schedule::seeded(Faults::NONE.with(*fault), *seed);
                schedule.next(0, fault.occasions()).is_some()
            })
            .count();
        // More than one seed in twelve, and not all of them.
        assert!((17..100).contains(&hits), "{fault}: {hits}");
    }
}

proptest! {
    #[test]
    fn the_same_seed_is_the_same_schedule(
        seed: u64,
        chosen: u64,
        events in prop::collection::vec(any_occasions(), 0..200),
    ) {
        let faults: Faults = (0..).zip(Fault::ALL).filter(|(n, _)| chosen >> n & 1 != 0).map(|(_, f)| *f).collect();
        let fired = play(&mut Schedule::seeded(faults, seed), &events);
        prop_assert_eq!(&fired, &play(&mut Schedule::seeded(faults, seed), &events));
        for fired in &fired {
            prop_assert!(faults.contains(fired.fault));
            let occasions = events[usize::try_from(fired.event).unwrap()] | Occasions::ENTRY;
            prop_assert!(fired.fault.occasions().intersects(occasions));
        }
    }

    #[test]
    fn what_was_printed_repeats_it(
        seed: u64,
        events in prop::collection::vec(any_occasions(), 0..Schedule::STEPS),
    ) {
        let fired = play(&mut Schedule::seeded(Faults::ALL, seed), &events);
        prop_assume!(!fired.is_empty());
        let words: Vec<_> = fired.iter().map(Fired::to_string).collect();
        let mut again = Schedule::script(&words.join(",")).unwrap();
        prop_assert_eq!(play(&mut again, &events), fired);
    }

    #[test]
    fn one_faults_schedule_does_not_depend_on_others_that_find_no_opportunity(seed: u64) {
        let events = [Occasions::GUEST_REQUEST; 100];
        let mut alone = Schedule::seeded(Faults::NONE.with(Fault::TamperedRequest), seed);
        let with = Faults::NONE.with(Fault::TamperedRequest).with(Fault::ApIdle);
        prop_assert_eq!(play(&mut alone, &events), play(&mut Schedule::seeded(with, seed), &events));
    }

    #[test]
    fn any_text_is_read_without_a_panic(text: String) {
        let _ = text.parse::<Faults>();
        let _ = Schedule::script(&text);
    }
}
