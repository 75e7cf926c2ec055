//! The protocols on the model of the hardware: what a guest asks for, and what it then has.
#![cfg(test)]

mod attest; // evidence
mod core_protocol; // memory, virtual CPUs, calling areas
mod model; // the hardware
mod vtpm; // commands to a TPM
