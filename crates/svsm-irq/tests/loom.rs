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
