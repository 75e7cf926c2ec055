#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![doc = include_str!("../README.md")]
//! ## Feature flags
#![cfg_attr(feature = "document-features", doc = document_features::document_features!())]

#[cfg(test)]
extern crate std;

pub mod apic; // the local APIC: what takes interrupts in, and sends them
pub mod calibrate; // how fast the timers run
pub mod dispatch; // from a vector to its handler
pub mod doorbell; // what a host says that may inject nothing but #HV
pub mod entry; // from a vector to Rust, and back
mod error;
pub mod fault; // faults that were expected
pub mod idt; // which vector enters where
pub mod ipi; // messages between CPUs
pub mod ist; // stacks for vectors that can come at any instruction
pub mod policy; // which interrupts may reach us at all
mod sync;
mod vector;

pub use error::{Error, Result};
pub use vector::{Cause, Exception, ExceptionKind, GuestVector, Vector};
