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

#[test]
fn the_largest_state_that_a_shutdown_saves_has_room() {
    const PLATFORM: u32 = 0x4000_000C;
    let shelf = Shelf::default();
    let mut bench = Bench::prepared(&shelf, |tpm| tpm.set_timers(9));
    bench.ok(0x144, &[], &[0, 0]);
    let policy = [&[0, 64][..], &[7; 64], &[0, 0x0D]].concat();
    for hierarchy in [OWNER, 0x4000_000A, 0x4000_000B, PLATFORM] {
        bench.ok_auth(0x12E, &[hierarchy], &policy);
    }
    for timer in 0x4000_0110..0x4000_0118 {
        bench.ok_auth(0x12E, &[timer], &policy);
    }
    let auth = [&[0, 64][..], &[b'x'; 64]].concat();
    bench.ok_auth(0x183, &[20], &auth);
    bench.ok_auth(0x12C, &[PLATFORM], &[&policy[..], &[0, 0, 0, 20]].concat());
    // GetRandom is audited.
    bench.ok_auth(0x140, &[OWNER], b"\0\x10\0\0\0\x01\0\0\x01\x7B\0\0\0\0");
    bench.ok(0x17B, &[], &[0, 1]);
    for hierarchy in [OWNER, 0x4000_000A, 0x4000_000B, PLATFORM] {
        bench.ok_auth(0x129, &[hierarchy], &auth);
    }
    bench.ok(0x145, &[], &[0, 1]);
    let mut bench = Bench::prepared(&shelf, |tpm| tpm.set_timers(9));
    bench.ok(0x144, &[], &[0, 1]);
    let policies = bench.ok(0x17A, &[], b"\0\0\0\x09\x40\0\x01\x17\0\0\0\x01");
    assert_eq!(policies[15..], policy[2..66]);
}

#[test]
fn a_state_without_timers_and_read_only_mode_is_read() {
    let shelf = Shelf::default();
    let mut bench = Bench::powered(&shelf);
    bench.ok(0x144, &[], &[0, 0]);
    let (_, key) = bench.create_primary(OWNER, ECC_STORAGE);
    bench.ok_auth(0x1A0, &[0x4000_000C], &[1]);
    bench.ok(0x145, &[], &[0, 1]);
    // The format before ended where the two begin now.
    shelf.0.lock().unwrap().as_mut().unwrap()[9] = 2;
    let mut bench = Bench::powered(&shelf);
    bench.ok(0x144, &[], &[0, 1]);
    assert_eq!(bench.create_primary(OWNER, ECC_STORAGE).1, key);
    assert_eq!(shelf.0.lock().unwrap().as_ref().unwrap()[8..10], [0, 3]);
}
