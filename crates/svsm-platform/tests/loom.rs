//! All interleavings of locks, cells and per-CPU values, as far as loom can follow them.
//!
//! Run by `RUSTFLAGS="--cfg loom" cargo test --release -p svsm-platform --test loom`.
#![cfg(loom)]

use loom::{sync::Arc, thread};
use svsm_platform::{
    irq::NoIrq,
    lock::{RwLock, SpinLock},
    once::OnceCell,
    percpu::{CpuIndex, CpuSlot, CpuSource, PerCpu},
};

#[test]
fn spin_lock_excludes() {
    // Two threads that come back, not three: loom lets two that wait wake each other for ever.
    loom::model(|| {
        let lock = Arc::new(SpinLock::new(0, NoIrq));
        let other = lock.clone();
        let thread = thread::spawn(move || (0..2).for_each(|_| *other.lock() += 1));
        (0..2).for_each(|_| *lock.lock() += 1);
        thread.join().unwrap();
        assert_eq!(*lock.try_lock().unwrap(), 4);
    });
}

#[test]
fn spin_lock_excludes_those_who_only_try() {
    loom::model(|| {
        let lock = Arc::new(SpinLock::new(0, NoIrq));
        let other = lock.clone();
        let thread = thread::spawn(move || *other.lock() += 1);
        let tried = lock.try_lock().map(|mut value| *value += 1).is_some();
        thread.join().unwrap();
        assert_eq!(*lock.lock(), 1 + i32::from(tried));
    });
}

#[test]
fn writers_exclude_each_other() {
    loom::model(|| {
        let lock = Arc::new(RwLock::new(0, NoIrq));
        let other = lock.clone();
        let thread = thread::spawn(move || *other.write() += 1);
        *lock.write() += 1;
        thread.join().unwrap();
        assert_eq!(*lock.read(), 2);
    });
}

#[test]
fn readers_see_all_of_a_write_or_nothing() {
    loom::model(|| {
        let lock = Arc::new(RwLock::new((0, 0), NoIrq));
        let other = lock.clone();
        let thread = thread::spawn(move || {
            let mut pair = other.write();
            pair.0 += 1;
            pair.1 += 1;
        });
        let pair = lock.read();
        assert_eq!(pair.0, pair.1);
        drop(pair);
        thread.join().unwrap();
    });
}

#[test]
fn once_cell_has_one_winner_whose_value_all_see() {
    loom::model(|| {
        let cell = Arc::new(OnceCell::new());
        let other = cell.clone();
        let thread = thread::spawn(move || other.set(Box::new(1)).is_ok());
        let won = cell.set(Box::new(2)).is_ok();
        if let Some(value) = cell.value() {
            assert!(**value == 1 || **value == 2);
        }
        assert_ne!(won, thread.join().unwrap());
        assert_eq!(**cell.value().unwrap(), if won { 2 } else { 1 });
    });
}

#[test]
fn cpus_with_one_index_do_not_share_its_value() {
    struct Liar;
    impl CpuSource for Liar {
        fn current(&self) -> CpuIndex {
            CpuIndex::BOOT
        }
    }
    fn work(slots: &[CpuSlot<u32>; 1]) {
        if let Ok(mut value) = PerCpu::new(slots, Liar, NoIrq).borrow() {
            *value += 1;
        }
    }
    loom::model(|| {
        let slots = Arc::new([CpuSlot::new(0)]);
        let other = slots.clone();
        let thread = thread::spawn(move || work(&other));
        work(&slots);
        thread.join().unwrap();
    });
}
