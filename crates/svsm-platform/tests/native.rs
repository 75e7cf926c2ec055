//! The native back end passes what every implementation must.

use svsm_platform::{
    conformance,
    cpu::cpuid::{Features, Processor as Cpu},
    native::{CounterClock, Processor, ProcessorEntropy, Tsc},
    seam::Hertz,
};

#[test]
fn tsc_is_a_clock() {
    conformance::clock(&CounterClock::new(Tsc, Hertz::new(1_000_000_000).unwrap()));
}

#[test]
fn processor_is_an_entropy_source() {
    conformance::entropy(&mut ProcessorEntropy::new(Processor::new(Features::of(
        &Cpu,
    ))));
}
