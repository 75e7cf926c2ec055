#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![doc = include_str!("../README.md")]
//! ## Feature flags
#![cfg_attr(feature = "document-features", doc = document_features::document_features!())]

#[cfg(feature = "plan")]
extern crate alloc;

mod error;
pub mod handoff; // what builder, stage2 and SVSM agree on
pub mod layout; // where things lie unless an image says otherwise
pub mod params; // what the loader deposited: claims, made well-formed
#[cfg(feature = "plan")]
pub mod plan; // where everything goes: pure data
mod region;

pub use error::{ApFault, Error, Fault, Flaw, Result, TableFault};
pub use region::{Area, Parameter, Region, Rights};
