//! What the kernel promises a program, tried from inside one.

use alloc::collections::BTreeMap;
use core::time::Duration;

use svsm_user::abi::{Number, SysError};
use svsm_user::{calls, error, process, time};

/// A promise: what it says, and whether it holds.
type Check = (&'static str, fn() -> bool);

const CHECKS: &[Check] = &[
    ("the heap gives memory and takes it back", heap),
    ("time goes on", clock),
    ("sleep lasts at least as long as asked", sleep),
    ("an unknown call is refused", unknown_call),
    ("memory of the kernel is refused", kernel_memory),
    ("memory that is not there is refused", missing_memory),
    ("a buffer that wraps around is refused", wrapping_buffer),
    (
        "a program that is not there is not started",
        missing_program,
    ),
    ("a handle that nobody has is refused", missing_handle),
    (
        "memory that is both writable and executable is refused",
        writable_code,
    ),
    ("both ways into the kernel lead to the same call", both_ways),
];

/// Tries all of them, and answers how many do not hold.
pub(super) fn all() -> u32 {
    let mut failed = 0;
    for (promise, check) in CHECKS {
        if !check() {
            failed += 1;
            error!(public, "broken promise: {=str}", *promise);
        }
    }
    failed
}

fn heap() -> bool {
    let mut squares = BTreeMap::new();
    for number in 0..2000_u64 {
        squares.insert(number, number * number);
    }
    let sum: u64 = squares.values().sum();
    drop(squares);
    let large = alloc::vec![0x5a_u8; 300 << 10];
    sum == (0..2000).map(|number| number * number).sum::<u64>()
        && large.iter().all(|byte| *byte == 0x5a)
}

fn clock() -> bool {
    let before = time::now();
    process::yield_now();
    time::now() > before
}

fn sleep() -> bool {
    const NAP: Duration = Duration::from_millis(5);
    let before = time::now();
    time::sleep(NAP);
    time::now().saturating_sub(before) >= NAP
}

fn unknown_call() -> bool {
    calls::call0(Number::new(0x1234, 5)) == Err(SysError::NO_CALL)
}

fn kernel_memory() -> bool {
    const KERNEL: u64 = 0xffff_ffff_8000_0000;
    calls::call3(Number::LOG_RECORD, 0, KERNEL, 16) == Err(SysError::FAULT)
}

fn missing_memory() -> bool {
    calls::call3(Number::LOG_RECORD, 0, 0x1000, 16) == Err(SysError::FAULT)
}

fn wrapping_buffer() -> bool {
    calls::call3(Number::LOG_RECORD, 0, u64::MAX - 8, 64) == Err(SysError::FAULT)
}

fn missing_program() -> bool {
    process::spawn("no-such-program").err() == Some(SysError::NOT_FOUND)
}

fn missing_handle() -> bool {
    calls::call1(Number::WAIT, 4242) == Err(SysError::NOT_FOUND)
}

fn writable_code() -> bool {
    calls::call2(Number::MAP, 4096, 3) == Err(SysError::INVALID)
}

fn both_ways() -> bool {
    let id = process::id();
    calls::interrupt::call0(Number::IDENTITY) == Ok(id) && id != 0
}
