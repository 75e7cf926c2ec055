//! Reports and certificates: whatever they are, the reader ends with a verdict, and takes nothing but what our test keys
//! signed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use svsm_sim::endorsement::root_certificate;
use svsm_sim::verify::{Chain, Expected, verify};

/// The length of a report.
const REPORT: usize = 0x4a0;

fuzz_target!(|bytes: &[u8]| {
    let (report, table) = bytes.split_at(bytes.len().min(REPORT));
    if let Ok(chain) = Chain::from_table(table) {
        let root = root_certificate();
        let expected = Expected {
            debug: true,
            ..Expected::ANY
        };
        if let Ok(found) = verify(report, &chain, root.der(), &expected) {
            // The only report that the seeds hold a signature for.
            assert_eq!(found.report_data, [0xdd; 64]);
            assert_eq!(found.chip_id, [0xc1; 64]);
        }
        // A chain may bring a root of its own; nobody trusts it, and reading it is no harm either.
        let _ = verify(report, &chain, chain.ask, &expected);
    }
});
