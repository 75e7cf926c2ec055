#![doc = include_str!("../README.md")]

mod machine; // the TPM with its memory, power and store
pub mod mssim; // the TCG simulator's protocol
mod store; // the permanent state in a file
pub mod swtpm; // swtpm's data and control channel
mod trace; // commands and responses for people

pub use machine::{Machine, Settings};
