use std::vec;

use super::bench::{Bench, ECC_STORAGE, OWNER, Shelf};
use crate::Rc;

#[test]
fn seeds_and_indices_outlive_the_power() {
    let shelf = Shelf::default();
    let mut bench = Bench::powered(&shelf);
    bench.ok(0x144, &[], &[0, 0]);
    let (_, key) = bench.create_primary(OWNER, ECC_STORAGE);
    let mut params = vec![0, 0, 0, 14];
    params.extend(b"\x01\x80\0\0\0\x0B\x02\x04\0\x04\0\0\0\x08");
    bench.ok_auth(0x12A, &[OWNER], &params);
    bench.ok_auth(0x137, &[0x0180_0000, 0x0180_0000], &[0, 3, 1, 2, 3, 0, 2]);

    // Another process: nothing is left but what the store has.
    let mut bench = Bench::powered(&shelf);
    bench.ok(0x144, &[], &[0, 0]);
    let (_, again) = bench.create_primary(OWNER, ECC_STORAGE);
    assert_eq!(key, again);
    let data = bench.ok_auth(0x14E, &[0x0180_0000, 0x0180_0000], &[0, 8, 0, 0]);
    assert_eq!(data[4..14], [0, 8, 0, 0, 1, 2, 3, 0, 0, 0]);
}

#[test]
fn pcrs_survive_a_resume_and_no_reset() {
    let shelf = Shelf::default();
    let mut bench = Bench::powered(&shelf);
    bench.ok(0x144, &[], &[0, 0]);
    let mut extend = vec![0, 0, 0, 1, 0, 0x0B];
    extend.extend([9; 32]);
    bench.ok_auth(0x182, &[4], &extend);
    let read = [0, 0, 0, 1, 0, 0x0B, 3, 0x10, 0, 0];
    let value = bench.ok(0x17E, &[], &read);
    bench.ok(0x145, &[], &[0, 1]);

    let mut bench = Bench::powered(&shelf);
    bench.ok(0x144, &[], &[0, 1]);
    assert_eq!(bench.ok(0x17E, &[], &read)[4..], value[4..]);

    // Now the power goes without a word.
    let mut bench = Bench::powered(&shelf);
    assert_eq!(bench.run(0x144, &[], &[], &[0, 1]).0, Rc::VALUE.param(1));
    bench.ok(0x144, &[], &[0, 0]);
    assert_ne!(bench.ok(0x17E, &[], &read)[4..], value[4..]);
}

#[test]
fn foreign_image_is_refused_and_left_alone() {
    let shelf = Shelf::default();
    let foreign = vec![0xAB; 6000];
    *shelf.0.lock().unwrap() = Some(foreign.clone());
    let result = std::panic::catch_unwind(|| Bench::powered(&shelf));
    assert!(result.is_err());
    assert_eq!(*shelf.0.lock().unwrap(), Some(foreign));
}
