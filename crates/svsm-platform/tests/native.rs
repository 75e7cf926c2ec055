//! The native back end passes what every implementation must.

use svsm_platform::{
    conformance,
    cpu::cpuid::{Features, Processor},
    native::{CounterClock, ProcessorEntropy, RandomInsn, Tsc},
    seam::Hertz,
};

#[test]
fn tsc_is_a_clock() {
    conformance::clock(&CounterClock::new(Tsc, Hertz::new(1_000_000_000).unwrap()));
}

#[test]
fn processor_is_an_entropy_source() {
    let words = RandomInsn::new(Features::of(&Processor));
    conformance::entropy(&mut ProcessorEntropy::new(words));
}
