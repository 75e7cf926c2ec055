//! What the first process does.

mod checks;
mod figures;

use alloc::vec::Vec;

use svsm_user::abi::SysError;
use svsm_user::{entry, error, info, process, time};

entry!(main);

/// How many processes run beside this one.
const WORKERS: usize = 3;

fn main() -> u16 {
    info!(public, "measure: user mode at tick: {=u64}", time::ticks());
    info!(
        public,
        "user mode is up after {} us, on CPU {}",
        time::now().as_micros(),
        process::cpu()
    );
    svsm_user::log::text("this line has no level and stays inside\n");
    let failed = checks::all() + workers();
    services();
    figures::measure();
    match failed {
        0 => info!(public, "all checks passed"),
        _ => error!(public, "{} checks failed", failed),
    }
    if let Err(error) = process::verdict(failed) {
        error!(public, "the verdict was not taken: {}", error);
    }
    u16::from(failed > 0)
}

/// Starts the programs that serve the guest, as far as the image has them. They live on when this one has ended.
fn services() {
    match process::spawn("vtpm") {
        Ok(_) => {}
        Err(SysError::NOT_FOUND) => info!(public, "the image has no TPM for the guest"),
        Err(error) => error!(public, "the TPM does not start: {}", error),
    }
}

/// Starts processes beside this one and waits for them. Answers how many did not do as they should.
fn workers() -> u32 {
    let children: Vec<_> = (0..WORKERS).map(|_| process::spawn("worker")).collect();
    let mut failed = 0;
    for child in children {
        match child.and_then(process::Child::wait) {
            Ok(0) => {}
            Ok(code) => {
                failed += 1;
                error!(public, "a worker ended with code {}", code);
            }
            Err(error) => {
                failed += 1;
                error!(public, "a worker was lost: {}", error);
            }
        }
    }
    info!(public, "{} processes ran beside init", WORKERS);
    failed
}
