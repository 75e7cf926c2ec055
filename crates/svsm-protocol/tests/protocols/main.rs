//! The protocols on the model of the hardware: what a guest asks for, and what it then has.
#![cfg(test)]

/// Large pages of the guest: the model has that many, and fewer where it has to be quick.
const LARGE_PAGES: u64 = 21;

mod attest; // evidence
mod core_protocol; // memory, virtual CPUs, calling areas
mod model; // the hardware
mod vtpm; // commands to a TPM
