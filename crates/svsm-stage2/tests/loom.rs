//! All interleavings of the mailbox's two sides.
//!
//! Run by `RUSTFLAGS="--cfg loom" cargo test --release -p svsm-stage2 --test loom`.
#![cfg(loom)]

use loom::sync::Arc;
use loom::thread;
use svsm_platform::addr::{Gpa, Gva};
use svsm_stage2::mailbox::{Mailbox, Order};

/// An order all of whose fields say for whom it is.
fn order(apic_id: u32) -> Order {
    let number = u64::from(apic_id) * 0x1000;
    let gva = Gva::new(number).unwrap();
    Order {
        cr3: number,
        stack_top: gva,
        entry: gva,
        argument: number,
    }
}

fn low_root() -> Gpa {
    Gpa::new(0x1000).unwrap()
}

#[test]
fn an_order_is_whole_and_taken_once() {
    loom::model(|| {
        let mailbox = Arc::new(Mailbox::new());
        // The CPU was started twice by a malicious host, and before the order was there.
        let cpus: Vec<_> = (0..2)
            .map(|_| {
                let mailbox = mailbox.clone();
                thread::spawn(move || mailbox.take(1))
            })
            .collect();
        let posted = mailbox.post(1, low_root(), &order(1)).unwrap();
        let withdrawn = posted.withdraw().is_ok();
        let taken: Vec<_> = cpus
            .into_iter()
            .filter_map(|cpu| cpu.join().unwrap())
            .collect();
        assert!(taken.iter().all(|taken| *taken == order(1)));
        assert_eq!(taken.len(), usize::from(!withdrawn));
    });
}

#[test]
fn a_late_cpu_never_takes_anothers_order() {
    loom::model(|| {
        let mailbox = Arc::new(Mailbox::new());
        let cpu = |apic_id| {
            let mailbox = mailbox.clone();
            thread::spawn(move || mailbox.take(apic_id))
        };
        let (late, next) = (cpu(1), cpu(2));
        let first = mailbox.post(1, low_root(), &order(1)).unwrap();
        let first_withdrawn = first.withdraw().is_ok();
        let second = mailbox
            .post(2, low_root(), &order(2))
            .ok()
            .map(|posted| posted.withdraw());
        let late = late.join().unwrap();
        let next = next.join().unwrap();
        assert_eq!(late, (!first_withdrawn).then_some(order(1)));
        // If the first order was not withdrawn, the mailbox was busy, and there was no second.
        assert_eq!(next, second.filter(Result::is_err).map(|_| order(2)));
    });
}

#[test]
fn a_reused_mailbox_never_mixes_orders() {
    loom::model(|| {
        let mailbox = Arc::new(Mailbox::new());
        let first = mailbox.post(1, low_root(), &order(1)).unwrap();
        let cpu = {
            let mailbox = mailbox.clone();
            thread::spawn(move || mailbox.take(1))
        };
        let reused = first.finish().is_ok();
        if reused {
            let _ = mailbox.post(2, low_root(), &order(2)).unwrap();
        }
        assert_eq!(cpu.join().unwrap(), Some(order(1)));
        assert!(!reused || mailbox.take(2) == Some(order(2)));
    });
}
