//! All interleavings of CPUs that send each other messages, as far as loom can follow them.
//!
//! Run by `RUSTFLAGS="--cfg loom" cargo test --release -p svsm-irq --test loom`.
#![cfg(loom)]

use loom::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};
use svsm_irq::doorbell::{DoorbellPage, Ended};
use svsm_irq::ipi::Mailbox;
use svsm_platform::irq::NoIrq;

type Small = Mailbox<u32, 2, NoIrq>;

#[test]
fn whoever_sees_a_message_served_sees_what_its_handler_did() {
    loom::model(|| {
        let mailbox = Arc::new(Small::new(NoIrq));
        let done = Arc::new(AtomicU32::new(0));
        let ticket = mailbox.post(7).unwrap();
        let (theirs, their_done) = (mailbox.clone(), done.clone());
        let cpu = thread::spawn(move || {
            theirs.serve(|message| their_done.store(message, Ordering::Relaxed))
        });
        if mailbox.is_served(ticket) {
            assert_eq!(done.load(Ordering::Relaxed), 7);
        }
        cpu.join().unwrap();
        assert!(mailbox.is_served(ticket));
    });
}

#[test]
fn messages_of_two_senders_are_served_once_each() {
    loom::model(|| {
        let mailbox = Arc::new(Small::new(NoIrq));
        let theirs = mailbox.clone();
        let sender = thread::spawn(move || theirs.post(1).unwrap());
        let mine = mailbox.post(2).unwrap();
        // The interrupt of either may arrive at any time.
        let mut sum = 0;
        let early = mailbox.serve(|message| sum += message);
        let other = sender.join().unwrap();
        let late = mailbox.serve(|message| sum += message);
        assert_eq!((early + late, sum), (2, 3));
        assert!(mailbox.is_served(mine) && mailbox.is_served(other));
    });
}

/// One look at the page: what it took.
fn look(page: &DoorbellPage) -> Option<u8> {
    let _ = page.answer();
    let taken = page.take()?;
    let vector = taken.vector().map(|vector| vector.as_u8());
    assert_eq!(page.end(taken), Ended::WithEoi);
    vector
}

#[test]
fn an_interrupt_is_taken_or_rung_for() {
    loom::model(|| {
        let page = Arc::new(DoorbellPage::new());
        let theirs = page.clone();
        let host = thread::spawn(move || {
            assert!(theirs.post(0x41));
            theirs.ring()
        });
        let early = look(&page);
        let raised = host.join().unwrap();
        // Nobody had rung before, so #HV came. Its look finds what the first one did not, and nothing twice.
        assert!(raised);
        let late = look(&page);
        assert_eq!(
            [early, late].into_iter().flatten().collect::<Vec<_>>(),
            [0x41]
        );
    });
}

#[test]
fn a_second_interrupt_behind_an_answer_is_rung_for() {
    loom::model(|| {
        let page = Arc::new(DoorbellPage::new());
        assert!(page.post(0x41) && page.ring());
        let theirs = page.clone();
        let host = thread::spawn(move || {
            // The place may still be taken: then the host keeps the vector for later.
            theirs.post(0x42).then(|| theirs.ring())
        });
        let first = look(&page);
        let second = host.join().unwrap();
        assert_eq!(first, Some(0x41));
        let rest = look(&page);
        match second {
            // Rung for once more, or the first bell is not answered yet: that cannot be, since the place was free behind the answer.
            Some(raised) => assert!(raised && rest == Some(0x42)),
            None => assert_eq!(rest, None),
        }
    });
}
