//! Authenticated countdown timers.

use std::vec::Vec;

use super::bench::{Bench, OWNER, Shelf};
use crate::Rc;

const FIRST: u32 = 0x4000_0110;
const PLATFORM: u32 = 0x4000_000C;
const SIGNALED: u32 = 1;
const PRESERVED: u32 = 2;

/// A TPM with two timers, without a startup.
fn off(shelf: &Shelf) -> Bench {
    Bench::prepared(shelf, |tpm| tpm.set_timers(2))
}

fn started() -> (Bench, Shelf) {
    let shelf = Shelf::default();
    let mut bench = off(&shelf);
    bench.ok(0x144, &[], &[0, 0]);
    (bench, shelf)
}

fn set(bench: &mut Bench, timer: u32, seconds: u32) -> Rc {
    bench.run(0x198, &[timer], &[b""], &seconds.to_be_bytes()).0
}

fn wait(bench: &Bench, milliseconds: u64) {
    *bench.clock.0.lock().unwrap() += milliseconds;
}

/// What the TPM says of the first timer: seconds and attributes.
fn read(bench: &mut Bench) -> (u32, u32) {
    let answer = bench.ok(0x17A, &[], b"\0\0\0\x0A\x40\0\x01\x10\0\0\0\x01");
    assert_eq!(answer[1..13], *b"\0\0\0\x0A\0\0\0\x01\x40\0\x01\x10");
    let word = |at: usize| u32::from_be_bytes(answer[at..at + 4].try_into().unwrap());
    (word(13), word(17))
}

#[test]
fn a_timer_counts_down_and_signals() {
    let (mut bench, _) = started();
    assert_eq!(read(&mut bench), (0, 0));
    assert_eq!(bench.tpm.timers().next_ms, None);
    assert_eq!(set(&mut bench, FIRST, 3), Rc::SUCCESS);
    assert_eq!(read(&mut bench), (3, 0));
    wait(&bench, 1001);
    assert_eq!(read(&mut bench), (2, 0));
    let seen = bench.tpm.timers();
    assert_eq!((seen.signaled, seen.next_ms), (0, Some(1999)));
    wait(&bench, 1998);
    assert_eq!(read(&mut bench), (1, 0));
    wait(&bench, 1);
    // Whoever looks from outside sees it without a command.
    let seen = bench.tpm.timers();
    assert_eq!((seen.signaled, seen.next_ms), (1, None));
    assert_eq!(read(&mut bench), (0, SIGNALED));
    // Set anew, it is silent.
    assert_eq!(set(&mut bench, FIRST, 1), Rc::SUCCESS);
    assert_eq!(read(&mut bench), (1, 0));
}

#[test]
fn a_timer_is_made_to_signal_and_stopped() {
    let (mut bench, _) = started();
    // Nothing runs, so nothing expires.
    assert_eq!(set(&mut bench, FIRST, 0), Rc::SUCCESS);
    assert_eq!(read(&mut bench), (0, 0));
    set(&mut bench, FIRST, 60);
    assert_eq!(set(&mut bench, FIRST, u32::MAX), Rc::VALUE.param(1));
    set(&mut bench, FIRST, 0);
    assert_eq!(read(&mut bench), (0, SIGNALED));
    assert_eq!(set(&mut bench, FIRST, u32::MAX), Rc::SUCCESS);
    wait(&bench, 1 << 50);
    assert_eq!(read(&mut bench), (u32::MAX, 0));
    assert_eq!(bench.tpm.timers().signaled, 0);
    // The longest time that is one.
    set(&mut bench, FIRST, u32::MAX - 1);
    assert_eq!(read(&mut bench), (u32::MAX - 1, 0));
}

#[test]
fn who_may_set_a_timer_is_the_platform_or_whom_a_policy_names() {
    let (mut bench, _) = started();
    bench.ok_auth(0x129, &[PLATFORM], b"\0\x01p");
    assert_eq!(set(&mut bench, FIRST, 1), Rc::BAD_AUTH.session(1));
    let seconds = &7u32.to_be_bytes();
    assert_eq!(bench.run(0x198, &[FIRST], &[b"p"], seconds).0, Rc::SUCCESS);
    // A policy that asks for nothing but the command.
    let nonce = [&[0, 16][..], &[1; 16], b"\0\0\x01\0\x10\0\x0B"].concat();
    bench.ok(0x176, &[0x4000_0007, 0x4000_0007], &nonce);
    bench.ok(0x16C, &[0x0300_0000], &[0, 0, 1, 0x98]);
    let digest = bench.ok(0x189, &[0x0300_0000], &[]);
    let policy = [&digest[..], &[0, 0x0B]].concat();
    assert_eq!(bench.run(0x12E, &[FIRST], &[b"p"], &policy).0, Rc::SUCCESS);
    let mut command =
        b"\x80\x02\0\0\0\x1F\0\0\x01\x98\x40\0\x01\x10\0\0\0\x09\x03\0\0\0\0\0\x01\0\0".to_vec();
    command.extend(9u32.to_be_bytes());
    assert_eq!(bench.raw(0, &command).0, Rc::SUCCESS);
    assert_eq!(read(&mut bench).0, 9);
    let policies = bench.ok(0x17A, &[], b"\0\0\0\x09\x40\0\x01\x10\0\0\0\x01");
    assert_eq!(
        policies[..15],
        *b"\x01\0\0\0\x09\0\0\0\x01\x40\0\x01\x10\0\x0B"
    );
    assert_eq!(policies[15..], digest[2..]);
    // The others have none.
    let second: Vec<u8> = command
        .iter()
        .enumerate()
        .map(|(n, b)| if n == 13 { 0x11 } else { *b })
        .collect();
    assert_eq!(bench.raw(0, &second).0, Rc::AUTH_UNAVAILABLE.session(1));
    // Without the platform's hierarchy there is no value to know.
    bench
        .tpm
        .execute(
            0,
            b"\x80\x02\0\0\0\x21\0\0\x01\x21\x40\0\0\x0C\0\0\0\x0A\x40\0\0\x09\0\0\x01\0\x01p\x40\0\0\x0C\0",
        )
        .unwrap();
    assert_eq!(
        bench.run(0x198, &[FIRST], &[b"p"], seconds).0,
        Rc::AUTH_UNAVAILABLE.session(1)
    );
}

#[test]
fn a_resume_restores_half_of_a_time_that_nobody_set_anew() {
    let (mut bench, shelf) = started();
    set(&mut bench, FIRST, 100);
    for left in [100, 50, 25] {
        bench.ok(0x145, &[], &[0, 1]);
        // Time without power does not count.
        bench = off(&shelf);
        wait(&bench, 500_000);
        bench.ok(0x144, &[], &[0, 1]);
        assert_eq!(read(&mut bench), (left, 0));
    }
    bench.ok(0x145, &[], &[0, 1]);
    bench = off(&shelf);
    bench.ok(0x144, &[], &[0, 0]);
    assert_eq!(read(&mut bench), (0, 0));
}

#[test]
fn a_resume_goes_on_signaling_and_preserves_it_only_with_power() {
    for (power, expected) in [(false, SIGNALED), (true, SIGNALED | PRESERVED)] {
        let (mut bench, shelf) = started();
        set(&mut bench, FIRST, 1);
        wait(&bench, 1000);
        bench.ok(0x145, &[], &[0, 1]);
        if power {
            bench.tpm.reset().unwrap();
        } else {
            bench = off(&shelf);
        }
        bench.ok(0x144, &[], &[0, 1]);
        assert_eq!(read(&mut bench), (0, expected));
        // What was noticed is forgotten once the timer is set.
        set(&mut bench, FIRST, 5);
        assert_eq!(read(&mut bench), (5, 0));
    }
}

#[test]
fn what_was_preserved_does_not_outlive_a_loss_of_power() {
    let (mut bench, shelf) = started();
    set(&mut bench, FIRST, 1);
    wait(&bench, 1000);
    bench.tpm.reset().unwrap();
    bench.ok(0x144, &[], &[0, 0]);
    assert_eq!(read(&mut bench), (0, PRESERVED));
    bench.ok(0x145, &[], &[0, 1]);
    bench = off(&shelf);
    bench.ok(0x144, &[], &[0, 1]);
    assert_eq!(read(&mut bench), (0, 0));
}

#[test]
fn how_many_there_are_is_said_before_the_power_comes() {
    let (mut bench, _) = started();
    bench.tpm.set_timers(8);
    assert_eq!(set(&mut bench, FIRST + 2, 1), Rc::VALUE.handle(1));
    bench.tpm.set_timers(0);
    assert_eq!(set(&mut bench, FIRST + 1, 1), Rc::SUCCESS);
}

#[test]
fn a_reset_with_power_tells_which_timer_signaled_and_a_loss_of_power_does_not() {
    let (mut bench, _) = started();
    for (warm, expected) in [(true, PRESERVED), (false, 0)] {
        set(&mut bench, FIRST, 1);
        wait(&bench, 1000);
        assert_eq!(bench.tpm.timers().signaled, 1);
        if warm {
            bench.tpm.reset().unwrap();
        } else {
            bench.tpm.power_on().unwrap();
        }
        // Whoever resets the platform for it does not do so again.
        assert_eq!(bench.tpm.timers().signaled, 0);
        bench.ok(0x144, &[], &[0, 0]);
        assert_eq!(read(&mut bench), (0, expected));
        assert_eq!(bench.tpm.timers().signaled, 0);
    }
}

#[test]
fn a_suspended_tpm_goes_on_counting_where_it_stopped() {
    let (mut bench, shelf) = started();
    set(&mut bench, FIRST, 10);
    wait(&bench, 4000);
    let mut blob = std::vec![0; bench.tpm.volatile_max()];
    let len = bench.tpm.save_volatile(&[1; 32], &mut blob).unwrap();
    let blob = &mut blob[..len];
    // One without timers is another TPM.
    let resume = |bench: &mut Bench, blob: &mut [u8]| {
        bench
            .tpm
            .restore_volatile(&[1; 32], blob, crate::Resume::Exactly)
    };
    let refused = resume(&mut Bench::powered(&shelf), blob);
    assert_eq!(
        refused,
        Err(crate::Error::Refused(crate::Refusal::Capacity))
    );
    let mut other = off(&shelf);
    resume(&mut other, blob).unwrap();
    assert_eq!(read(&mut other), (6, 0));
    wait(&other, 6000);
    assert_eq!(other.tpm.timers().signaled, 1);
}

#[test]
fn a_tpm_without_timers_has_no_command_for_them() {
    let mut bench = Bench::started();
    assert_eq!(set(&mut bench, FIRST, 1), Rc::COMMAND_CODE);
    let total = |bench: &mut Bench| bench.ok(0x17A, &[], b"\0\0\0\x06\0\0\x01\x29\0\0\0\x01")[16];
    let listed = |bench: &mut Bench| bench.ok(0x17A, &[], b"\0\0\0\x02\0\0\x01\x98\0\0\0\x01")[12];
    let (mut with, _) = started();
    assert_eq!(total(&mut with), total(&mut bench) + 1);
    assert_eq!((listed(&mut with), listed(&mut bench)), (0x98, 0x99));
    assert_eq!(set(&mut with, FIRST + 2, 1), Rc::VALUE.handle(1));
    assert_eq!(set(&mut with, OWNER, 1), Rc::VALUE.handle(1));
    // Handles of timers are permanent.
    let handles = with.ok(0x17A, &[], b"\0\0\0\x01\x40\0\x01\0\0\0\0\x09");
    assert_eq!(handles[5..], *b"\0\0\0\x02\x40\0\x01\x10\x40\0\x01\x11");
    let none = bench.ok(0x17A, &[], b"\0\0\0\x0A\x40\0\x01\x10\0\0\0\x09");
    assert_eq!(none, b"\0\0\0\0\x0A\0\0\0\0");
    let (rc, _) = with.run(0x17A, &[], &[], b"\0\0\0\x0A\x40\0\x01\x20\0\0\0\x01");
    assert_eq!(rc, Rc::VALUE.param(2));
}
