//! A guest that handles its doorbell as specified misses no event, whatever the order in which both sides move.
#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "helpers of tests fail like tests"
)]

use core::convert::Infallible;
use proptest::prelude::*;
use std::collections::BTreeSet;
use svsm_sim::doorbell::{Bell, Doorbell, Event, Flags, Ring, Vector, offset};

/// The page.
#[derive(Default)]
struct Page([u8; 4]);

impl Bell for Page {
    type Error = Infallible;

    fn load(&mut self, offset: usize) -> Result<u8, Infallible> {
        Ok(self.0[offset])
    }

    fn swap(&mut self, offset: usize, value: u8) -> Result<u8, Infallible> {
        Ok(core::mem::replace(&mut self.0[offset], value))
    }

    fn set(&mut self, offset: usize, bits: u8) -> Result<u8, Infallible> {
        let before = self.0[offset];
        self.0[offset] |= bits;
        Ok(before)
    }
}

/// The guest's half, one step at a time.
#[derive(Default)]
struct Guest {
    rung: bool,
    in_service: Option<u8>,
    taken: Vec<u8>,
    nmis: u32,
    writes_eoi: u32,
}

impl Guest {
    /// The #HV handler: hears, and takes a vector if none is in service.
    fn handle(&mut self, page: &mut Page) {
        if !core::mem::take(&mut self.rung) && self.in_service.is_some() {
            return;
        }
        let flags = Flags::from_bits_retain(page.swap(offset::FLAGS, 0).unwrap());
        self.nmis += u32::from(flags.contains(Flags::NMI));
        if self.in_service.is_none() {
            let vector = page.swap(offset::VECTOR, 0).unwrap();
            if vector != 0 {
                self.in_service = Some(vector);
                self.taken.push(vector);
            }
        }
    }

    /// Is done with what it took.
    fn finish(&mut self, page: &mut Page, doorbell: &mut Doorbell) {
        if self.in_service.take().is_none() {
            return;
        }
        if page.swap(offset::NO_EOI, 0).unwrap() & 1 == 0 {
            self.writes_eoi += 1;
            doorbell.end_of_interrupt();
        }
    }
}

fn interrupt(vector: u8) -> Event {
    Event::Interrupt(Vector::new(vector).unwrap())
}

fn present(doorbell: &mut Doorbell, page: &mut Page) -> bool {
    doorbell.present(page).unwrap() == Ring::Now
}

#[test]
fn one_ring_is_enough_until_the_guest_has_heard() {
    let (mut doorbell, mut page) = (Doorbell::new(), Page::default());
    doorbell.post(interrupt(40));
    assert!(present(&mut doorbell, &mut page));
    assert_eq!(page.0, [40, 0x80, 1, 0]);
    doorbell.post(Event::Nmi);
    assert!(!present(&mut doorbell, &mut page));
    assert_eq!(page.0[1], 0x81);
    page.0[1] = 0;
    // Heard, and left for later: nothing is new.
    assert!(!present(&mut doorbell, &mut page));
    doorbell.post(Event::MachineCheck);
    assert!(present(&mut doorbell, &mut page));
    assert_eq!(page.0[1], 0x82);
}

#[test]
fn the_highest_vector_comes_first_and_the_next_when_it_is_done() {
    let (mut doorbell, mut page, mut guest) = (Doorbell::new(), Page::default(), Guest::default());
    for vector in [40, 255, 31] {
        doorbell.post(interrupt(vector));
    }
    let mut left = Vec::new();
    while doorbell.has_waiting() || page.0[offset::VECTOR] != 0 {
        guest.rung |= present(&mut doorbell, &mut page);
        left.push(page.0[offset::NO_EOI]);
        guest.handle(&mut page);
        assert!(!present(&mut doorbell, &mut page), "one at a time");
        guest.finish(&mut page, &mut doorbell);
    }
    assert_eq!(guest.taken, [255, 40, 31]);
    // Only of the last one the host need not hear.
    assert_eq!((left, guest.writes_eoi), (vec![0, 0, 1], 2));
}

#[test]
fn a_guest_that_was_spared_the_end_is_asked_for_it_when_another_waits() {
    let (mut doorbell, mut page, mut guest) = (Doorbell::new(), Page::default(), Guest::default());
    doorbell.post(interrupt(50));
    guest.rung = present(&mut doorbell, &mut page);
    guest.handle(&mut page);
    doorbell.post(interrupt(60));
    assert!(!present(&mut doorbell, &mut page));
    assert_eq!(page.0[offset::NO_EOI], 0);
    guest.finish(&mut page, &mut doorbell);
    assert_eq!(guest.writes_eoi, 1);
    assert!(present(&mut doorbell, &mut page));
    assert_eq!(page.0[offset::VECTOR], 60);
}

#[test]
fn vectors_of_exceptions_cannot_be_posted() {
    assert_eq!(Vector::new(30), None);
    assert!(Vector::new(31).is_some());
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Post(u8),
    Nmi,
    Enter,
    Handle,
    Finish,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (31..=255_u8).prop_map(Step::Post),
        Just(Step::Nmi),
        Just(Step::Enter),
        Just(Step::Handle),
        Just(Step::Finish),
    ]
}

proptest! {
    #[test]
    fn every_event_arrives(steps in prop::collection::vec(step(), 0..200)) {
        let (mut doorbell, mut page, mut guest) = (Doorbell::new(), Page::default(), Guest::default());
        let mut posted = BTreeSet::new();
        let (mut nmi_posted, mut heard) = (false, true);
        for step in steps {
            match step {
                Step::Post(vector) => {
                    doorbell.post(interrupt(vector));
                    posted.insert(vector);
                }
                Step::Nmi => {
                    doorbell.post(Event::Nmi);
                    nmi_posted = true;
                }
                Step::Enter => {
                    if present(&mut doorbell, &mut page) {
                        prop_assert!(heard, "rung twice");
                        (guest.rung, heard) = (true, false);
                    }
                }
                Step::Handle => {
                    guest.handle(&mut page);
                    heard = heard || page.0[offset::FLAGS] & 0x80 == 0;
                }
                Step::Finish => guest.finish(&mut page, &mut doorbell),
            }
        }
        // Left alone, both sides come to rest.
        for _ in 0..600 {
            guest.rung |= present(&mut doorbell, &mut page);
            guest.handle(&mut page);
            guest.finish(&mut page, &mut doorbell);
        }
        prop_assert!(!doorbell.has_waiting());
        prop_assert_eq!(page.0[offset::VECTOR], 0);
        let taken: BTreeSet<u8> = guest.taken.iter().copied().collect();
        prop_assert_eq!(taken, posted);
        prop_assert_eq!(guest.nmis > 0, nmi_posted);
    }

    /// Whatever a guest writes to its page.
    #[test]
    fn nonsense_on_the_page_disturbs_nobody_else(
        moves in prop::collection::vec((0..4_usize, any::<u8>(), 31..=255_u8), 0..100),
    ) {
        let (mut doorbell, mut page) = (Doorbell::new(), Page::default());
        for (at, value, vector) in moves {
            page.0[at] = value;
            doorbell.post(interrupt(vector));
            let before = page.0[offset::FLAGS];
            let rung = present(&mut doorbell, &mut page);
            prop_assert!(!rung || before & 0x80 == 0);
        }
    }
}
