//! Tests of the whole TPM, by its commands.
#![cfg(feature = "rustcrypto")]

mod behaviour; // what commands do together
pub(crate) mod bench; // a TPM with memory, and commands in short
#[cfg(feature = "callbacks")]
mod callbacks; // as OpenHCL drives its engine
mod components; // attached components
mod endorsement; // endorsement keys and their certificates
mod frozen; // keys that must never change
mod later; // commands of version 1.83
#[cfg(feature = "pqc")]
mod pqc; // post-quantum keys
mod read_only; // read-only mode
mod rules; // single rules of Part 3
mod selftest; // known answers, and providers that miss them
mod store; // the permanent state over power cycles
mod timers; // countdown timers
mod volatile; // suspended and resumed
mod wycheproof; // vectors of known mistakes
mod x509; // certificates
