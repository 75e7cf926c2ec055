//! Gives the CPU back as soon as it gets it.

use svsm_user::{entry, process};

entry!(main);

/// More often than anybody measures.
const TURNS: u32 = 1000;

fn main() -> u16 {
    for _ in 0..TURNS {
        process::yield_now();
    }
    0
}
