//! The local APIC in x2APIC mode.

use super::insn::{rdmsr, rdtsc, wrmsr};
use crate::layout::REAL_MODE;

const ID: u32 = 0x802;
const END: u32 = 0x80b;
const SPURIOUS: u32 = 0x80f;
const COMMAND: u32 = 0x830;
const TIMER: u32 = 0x832;
const COUNT: u32 = 0x838;
const CURRENT: u32 = 0x839;
const DIVIDE: u32 = 0x83e;

/// The vector that the guests use.
pub const VECTOR: u8 = 0x40;

/// Switches the APIC on.
pub fn enable() {
    wrmsr(SPURIOUS, 0x1ff);
}

/// This CPU's id.
#[must_use]
pub fn id() -> u32 {
    (rdmsr(ID) & 0xffff_ffff) as u32
}

/// EOI.
pub fn end_of_interrupt() {
    wrmsr(END, 0);
}

/// One interrupt in `ticks`.
pub fn one_shot(ticks: u32) {
    wrmsr(DIVIDE, 0b1011);
    wrmsr(TIMER, u64::from(VECTOR));
    wrmsr(COUNT, u64::from(ticks));
}

/// What is left of the timer's count.
#[must_use]
pub fn count() -> u64 {
    rdmsr(CURRENT)
}

/// An interrupt to a CPU.
pub fn interrupt(id: u32) {
    wrmsr(COMMAND, u64::from(id) << 32 | 0x4000 | u64::from(VECTOR));
}

/// An NMI to a CPU.
pub fn nmi(id: u32) {
    wrmsr(COMMAND, u64::from(id) << 32 | 0x4400);
}

/// INIT, to one CPU or to all others.
pub fn init(id: Option<u32>) {
    send(id, 0x4500);
}

/// A start-up message to the page of 16-bit code, to one CPU or to all others.
pub fn start_up(id: Option<u32>) {
    send(id, 0x4600 | REAL_MODE >> 12);
}

/// INIT, and the start-up message twice, as every operating system does it.
pub fn start(id: Option<u32>) {
    init(id);
    pause(1_000_000);
    start_up(id);
    pause(200_000);
    start_up(id);
}

/// Waits.
pub fn pause(ticks: u64) {
    let start = rdtsc();
    while rdtsc().wrapping_sub(start) < ticks {
        core::hint::spin_loop();
    }
}

fn send(id: Option<u32>, low: u64) {
    wrmsr(COMMAND, id.map_or(0xc_0000, |id| u64::from(id) << 32) | low);
}
