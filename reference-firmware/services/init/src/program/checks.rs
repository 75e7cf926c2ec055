//! What the kernel promises a program, tried from inside one.

use alloc::collections::BTreeMap;
use core::time::Duration;

use svsm_user::abi::{Number, SysError};
use svsm_user::calls::{Calls, Gate, gate};
use svsm_user::{error, process, time};

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
    ("a process that breaks the rules ends alone", rogues),
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
    raw(Number::new(0x1234, 5), [0; 3]) == Err(SysError::NO_CALL)
}

fn kernel_memory() -> bool {
    const KERNEL: u64 = 0xffff_ffff_8000_0000;
    raw(Number::LOG_RECORD, [0, KERNEL, 16]) == Err(SysError::FAULT)
}

fn missing_memory() -> bool {
    raw(Number::LOG_RECORD, [0, 0x1000, 16]) == Err(SysError::FAULT)
}

fn wrapping_buffer() -> bool {
    raw(Number::LOG_RECORD, [0, u64::MAX - 8, 64]) == Err(SysError::FAULT)
}

fn missing_program() -> bool {
    process::spawn("no-such-program").err() == Some(SysError::NOT_FOUND)
}

fn missing_handle() -> bool {
    raw(Number::WAIT, [4242, 0, 0]) == Err(SysError::NOT_FOUND)
}

fn writable_code() -> bool {
    raw(Number::MAP, [4096, 3, 0]) == Err(SysError::INVALID)
}

/// More than once, since each must leave the CPU as it was.
fn rogues() -> bool {
    const ENDED_BY_DEBUG_EXCEPTION: u16 = 0x101;
    (0..3).all(|_| {
        let ended = process::spawn("rogue").and_then(process::Child::wait);
        ended == Ok(ENDED_BY_DEBUG_EXCEPTION)
    })
}

fn both_ways() -> bool {
    let id = process::id();
    Calls::new(gate::Interrupt).identity() == Ok(id) && id != 0
}

/// A call with any arguments, which the typed ones do not let through.
fn raw(number: Number, [a, b, c]: [u64; 3]) -> Result<u64, SysError> {
    // SAFETY: the kernel refuses each of these calls before it writes anything.
    #[expect(unsafe_code, reason = "makes calls that must be refused")]
    let status = unsafe { gate::Instruction.call(number, [a, b, c, 0, 0]) };
    status.result()
}
