//! Shows what this processor can do, and which protections an SVSM would switch on here.
//!
//! ```text
//! cargo run -p svsm-platform --example features
//! ```

use svsm_platform::cpu::{
    cpuid::{self, Features, Processor},
    protection::Protection,
};

fn main() {
    let features = Features::of(&Processor);
    println!(
        "features: {}",
        features
            .iter_names()
            .map(|(name, _)| name)
            .collect::<Vec<_>>()
            .join(" ")
    );
    println!(
        "physical address bits: {}",
        cpuid::physical_bits(&Processor)
    );
    match cpuid::tsc_rate(&Processor) {
        Some(rate) => println!("TSC: {} Hz", rate.as_u64()),
        None => println!("TSC: rate not told, must be measured"),
    }
    let wanted = Protection::plan(features).bits();
    println!(
        "to switch on: {:?} {:?} {:?}",
        wanted.cr0, wanted.cr4, wanted.efer
    );
}
