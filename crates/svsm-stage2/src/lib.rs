#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(feature = "plan", doc = include_str!("../README.md"))] // its example is a plan
#![cfg_attr(
    not(feature = "plan"),
    doc = "From reset to the paravisor: see README.md.\n"
)]
//! ## Feature flags
#![cfg_attr(feature = "document-features", doc = document_features::document_features!())]

#[cfg(feature = "plan")]
extern crate alloc;

pub mod ap; // how the SVSM starts the other CPUs
#[cfg(target_arch = "x86_64")]
pub mod entry; // the first instructions of every CPU
mod error;
pub mod exec; // what stage2 does when it runs
pub mod handoff; // what builder, stage2 and SVSM agree on
pub mod layout; // where things lie unless an image says otherwise
pub mod mailbox; // how it tells them what to become
pub mod params; // what the loader deposited: claims, made well-formed
#[cfg(feature = "plan")]
pub mod plan; // where everything goes: pure data
pub mod region; // the parts of an image, their rights and places
pub mod staged; // payload that the host can see while it arrives

pub use error::{ApFault, Error, Fault, Flaw, Result, TableFault};
pub use {svsm_mm, svsm_platform, zerocopy}; // their types are in this crate's interface
