#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![doc = include_str!("../README.md")]
//! ## Feature flags
#![cfg_attr(feature = "document-features", doc = document_features::document_features!())]

mod error;
pub mod handoff; // what builder, stage2 and SVSM agree on
pub mod layout; // where things lie unless an image says otherwise
mod region;

pub use error::{ApFault, Error, Fault, Flaw, Result, TableFault};
pub use region::{Area, Parameter, Region, Rights};
