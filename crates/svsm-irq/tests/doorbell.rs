//! The doorbell against a host that was written from the specification, and not from this crate.
#![expect(clippy::unwrap_used, reason = "what fails here is the test")]

use core::convert::Infallible;
use core::sync::atomic::{AtomicU8, Ordering};
use std::collections::BTreeSet;

use proptest::prelude::*;
use svsm_irq::doorbell::{DoorbellPage, Ended, Heard};
use svsm_sim::doorbell::{Bell, Doorbell, Event, Ring, Vector};

/// The host's view of the page: bytes.
struct Bytes<'a>(&'a DoorbellPage);

impl Bytes<'_> {
    fn byte(&self, offset: usize) -> &AtomicU8 {
        let bytes = core::ptr::from_ref(self.0).cast::<AtomicU8>();
        // SAFETY: the page is made of such bytes, and is borrowed for as long.
        #[expect(unsafe_code, reason = "the page as a host sees it")]
        let bytes = unsafe { core::slice::from_raw_parts(bytes, size_of::<DoorbellPage>()) };
        bytes.get(offset).unwrap()
    }
}

impl Bell for Bytes<'_> {
    type Error = Infallible;

    fn load(&mut self, offset: usize) -> Result<u8, Infallible> {
        Ok(self.byte(offset).load(Ordering::SeqCst))
    }

    fn swap(&mut self, offset: usize, value: u8) -> Result<u8, Infallible> {
        Ok(self.byte(offset).swap(value, Ordering::SeqCst))
    }

    fn set(&mut self, offset: usize, bits: u8) -> Result<u8, Infallible> {
        Ok(self.byte(offset).fetch_or(bits, Ordering::SeqCst))
    }
}

/// What the guest has to do with: it looks when it was rung for.
#[derive(Default)]
struct Guest {
    vectors: BTreeSet<u8>,
    nmis: u32,
}

impl Guest {
    fn look(&mut self, page: &DoorbellPage, host: &mut Doorbell) {
        loop {
            self.nmis += u32::from(page.answer().contains(Heard::NMI));
            let Some(taken) = page.take() else { break };
            self.vectors.extend(taken.vector().map(|v| v.as_u8()));
            if page.end(taken) == Ended::WithEoi {
                host.end_of_interrupt();
                // The write is an exit, before whose end the host looks again.
                let _ = host.present(&mut Bytes(page)).unwrap();
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Post(u8),
    Nmi,
    Enter,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (32..=255_u8).prop_map(Step::Post),
        Just(Step::Nmi),
        Just(Step::Enter),
        Just(Step::Enter),
    ];
    proptest::collection::vec(step, 0..64)
}

proptest! {
    // Nothing that was posted is lost, whenever the guest is rung for; and after that the page is empty.
    #[test]
    fn everything_that_was_posted_arrives(steps in steps()) {
        let page = DoorbellPage::new();
        let (mut host, mut guest) = (Doorbell::new(), Guest::default());
        let (mut posted, mut nmis) = (BTreeSet::new(), false);
        for step in steps.into_iter().chain([Step::Enter; 300]) {
            match step {
                Step::Post(vector) => {
                    posted.insert(vector);
                    host.post(Event::Interrupt(Vector::new(vector).unwrap()));
                }
                Step::Nmi => {
                    nmis = true;
                    host.post(Event::Nmi);
                }
                Step::Enter => {
                    if host.present(&mut Bytes(&page)).unwrap() == Ring::Now {
                        guest.look(&page, &mut host);
                    }
                }
            }
        }
        prop_assert_eq!(guest.vectors, posted);
        prop_assert_eq!(guest.nmis > 0, nmis);
        prop_assert!(!page.has_events() && !host.has_waiting());
    }
}
