//! What a worker does: some work on whichever CPU it gets, in pieces, so that workers take turns.

use alloc::collections::BTreeSet;

use svsm_user::{entry, info, process};

entry!(main);

/// Below this all primes are counted.
const LIMIT: u32 = 20_000;
/// And so many there are.
const PRIMES: usize = 2262;

fn main() -> u16 {
    let mut cpus = BTreeSet::new();
    let mut primes = 0;
    for number in 2..LIMIT {
        primes += usize::from(
            (2..)
                .take_while(|factor| factor * factor <= number)
                .all(|factor| number % factor != 0),
        );
        if number % 1000 == 0 {
            cpus.insert(process::cpu());
            process::yield_now();
        }
    }
    info!(
        public,
        "process {} counted {} primes on {} CPUs",
        process::id(),
        primes,
        cpus.len()
    );
    u16::from(primes != PRIMES)
}
