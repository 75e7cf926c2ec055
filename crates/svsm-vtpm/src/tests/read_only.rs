//! Read-only mode: nothing changes that outlives the next reset.

use super::bench::{Bench, ECC_SIGNING, OWNER, Shelf};
use crate::Rc;

const PLATFORM: u32 = 0x4000_000C;
const STARTUP_CLEAR: &[u8] = b"\0\0\0\x06\0\0\x02\x01\0\0\0\x01";

fn set(bench: &mut Bench, on: bool) {
    bench.ok_auth(0x1A0, &[PLATFORM], &[u8::from(on)]);
}

/// The bit of `TPMA_STARTUP_CLEAR`.
fn is_on(bench: &mut Bench) -> bool {
    let answer = bench.ok(0x17A, &[], STARTUP_CLEAR);
    assert_eq!(answer[1..13], *b"\0\0\0\x06\0\0\0\x01\0\0\x02\x01");
    answer[16] & 0x10 != 0
}

/// Defines an index of eight bytes that its own empty value reads and writes.
fn define(bench: &mut Bench, index: u32, attributes: u32) {
    let public = [
        &index.to_be_bytes()[..],
        &[0, 0x0B],
        &attributes.to_be_bytes(),
        &[0, 0, 0, 8],
    ]
    .concat();
    bench.ok_auth(0x12A, &[OWNER], &[&[0, 0, 0, 14], &public[..]].concat());
}

#[test]
fn what_changes_something_is_refused_before_anybody_is_authorized() {
    let mut bench = Bench::started();
    assert!(!is_on(&mut bench));
    set(&mut bench, true);
    assert!(is_on(&mut bench));
    // No session, no parameters: that nobody asks for.
    for code in [0x129, 0x12A, 0x131, 0x153, 0x191, 0x126, 0x19D] {
        let (rc, _) = bench.run(code, &[], &[], &[]);
        assert_eq!(rc, Rc::READ_ONLY, "{code:#x}");
    }
    // What is not in the way of using keys, measuring and locking out goes on.
    bench.ok(0x17B, &[], &[0, 8]);
    let extend = [&b"\0\0\0\x01\0\x0B"[..], &[7; 32]].concat();
    bench.ok_auth(0x182, &[4], &extend);
    bench.ok_auth(0x139, &[0x4000_000A], &[]);
    set(&mut bench, false);
    assert!(!is_on(&mut bench));
    bench.create_primary(OWNER, ECC_SIGNING);
}

#[test]
fn only_the_platform_says_so() {
    let mut bench = Bench::started();
    let (rc, _) = bench.run(0x1A0, &[OWNER], &[b""], &[1]);
    assert_eq!(rc, Rc::VALUE.handle(1));
    let (rc, _) = bench.run(0x1A0, &[PLATFORM], &[b"x"], &[1]);
    assert_eq!(rc, Rc::BAD_AUTH.session(1));
    let (rc, _) = bench.run(0x1A0, &[PLATFORM], &[b""], &[2]);
    assert_eq!(rc, Rc::VALUE.param(1));
    assert!(!is_on(&mut bench));
}

#[test]
fn indices_are_written_and_locked_only_if_that_does_not_last() {
    const LASTING: u32 = 0x0150_0000;
    const PASSING: u32 = 0x0150_0001;
    // AUTHWRITE, AUTHREAD, WRITE_STCLEAR, READ_STCLEAR; and ORDERLY, CLEAR_STCLEAR.
    const ATTRIBUTES: u32 = 1 << 2 | 1 << 18 | 1 << 14 | 1 << 31;
    let mut bench = Bench::started();
    define(&mut bench, LASTING, ATTRIBUTES);
    define(&mut bench, PASSING, ATTRIBUTES | 1 << 26 | 1 << 27);
    let write = [&[0, 8][..], &[5; 8], &[0, 0]].concat();
    bench.ok_auth(0x137, &[LASTING, LASTING], &write);
    set(&mut bench, true);
    for (index, code) in [(LASTING, Rc::READ_ONLY), (PASSING, Rc::SUCCESS)] {
        for (command, params) in [(0x137, &write[..]), (0x138, &[]), (0x14F, &[])] {
            let (rc, _) = bench.run(command, &[index, index], &[b""], params);
            assert_eq!(rc, code, "{index:#x} {command:#x}");
        }
    }
    bench.ok_auth(0x14E, &[LASTING, LASTING], &[0, 8, 0, 0]);
}

#[test]
fn a_pin_is_not_counted() {
    const PIN_FAIL: u32 = 0x0150_0000;
    const PIN_PASS: u32 = 0x0150_0001;
    const SESSION: u32 = 0x0300_0000;
    let mut bench = Bench::started();
    // Indices for PINs, not protected against dictionary attacks, which the owner writes and reads.
    let attributes = 1 << 1 | 1 << 17 | 1 << 18 | 1 << 25;
    let nonce = [&[0, 16][..], &[1; 16], b"\0\0\x01\0\x10\0\x0B"].concat();
    bench.ok(0x176, &[0x4000_0007, 0x4000_0007], &nonce);
    let write = [&[0, 8][..], &[0, 0, 0, 1, 0, 0, 0, 9], &[0, 0]].concat();
    for (pin, kind) in [(PIN_FAIL, 8 << 4), (PIN_PASS, 9 << 4)] {
        define(&mut bench, pin, kind | attributes);
        bench.ok_auth(0x137, &[OWNER, pin], &write);
    }
    // PolicySecret, and reading with the index's own value.
    let uses: [(u16, u32, &[u8]); 2] = [(0x151, SESSION, &[0; 10]), (0x14E, 0, &[0, 8, 0, 0])];
    let count = |bench: &mut Bench, pin: u32| {
        let value = bench.ok_auth(0x14E, &[OWNER, pin], &[0, 8, 0, 0]);
        u32::from_be_bytes(value[6..10].try_into().unwrap())
    };
    set(&mut bench, true);
    for pin in [PIN_FAIL, PIN_PASS] {
        for (code, other, params) in uses {
            let other = if other == 0 { pin } else { other };
            for value in [b"", &b"wrong"[..]] {
                let (rc, _) = bench.run(code, &[pin, other], &[value], params);
                assert_eq!(rc, Rc::READ_ONLY, "{pin:#x} {code:#x}");
                assert_eq!(count(&mut bench, pin), 1, "{pin:#x} {code:#x}");
            }
        }
    }
    set(&mut bench, false);
    for (pin, after) in [(PIN_FAIL, 0), (PIN_PASS, 2)] {
        bench.ok_auth(0x151, &[pin, SESSION], &[0; 10]);
        assert_eq!(count(&mut bench, pin), after);
    }
}

#[test]
fn it_outlives_a_resume_and_no_other_start() {
    let shelf = Shelf::default();
    let mut bench = Bench::powered(&shelf);
    bench.ok(0x144, &[], &[0, 0]);
    for (start, stays) in [(1, true), (0, false)] {
        set(&mut bench, true);
        bench.ok(0x145, &[], &[0, 1]);
        bench = Bench::powered(&shelf);
        bench.ok(0x144, &[], &[0, start]);
        assert_eq!(is_on(&mut bench), stays);
    }
    // The power goes without a word.
    set(&mut bench, true);
    bench.tpm.power_on().unwrap();
    bench.ok(0x144, &[], &[0, 0]);
    assert!(!is_on(&mut bench));
}

#[test]
fn turning_it_on_ends_an_orderly_state_and_leaving_it_off_does_not() {
    let mut bench = Bench::started();
    let is_orderly = |bench: &mut Bench| bench.ok(0x17A, &[], STARTUP_CLEAR)[13] & 0x80 != 0;
    bench.ok(0x145, &[], &[0, 1]);
    assert!(is_orderly(&mut bench));
    set(&mut bench, false);
    assert!(is_orderly(&mut bench));
    set(&mut bench, true);
    assert!(!is_orderly(&mut bench));
}
