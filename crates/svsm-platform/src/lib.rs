#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![doc = include_str!("../README.md")]
//! ## Feature flags
#![cfg_attr(feature = "document-features", doc = document_features::document_features!())]

pub mod addr; // addresses, page sizes and ranges, none of which mix
pub mod claim; // values others told us, and how they become facts
#[cfg(feature = "dev")]
pub mod conformance; // what every implementation of a seam must pass
pub mod console; // a serial port
pub mod cpu; // registers as types, and the instructions that reach them
pub mod encryption; // how an entry's address says private or shared: a value
mod error;
pub mod fault; // instructions that may fault, and where execution goes on
#[cfg(feature = "defmt")]
mod format;
pub mod frame; // the registers of an interrupted program
pub mod irq; // interrupt masking, which locks take
pub mod level; // VMPLs and rings
pub mod lock; // spin and reader-writer locks
#[cfg(feature = "native")]
pub mod native; // the back end for an unprotected PC
pub mod once; // a cell that is written once
pub mod page; // pages whose visibility is part of their type
pub mod percpu; // what each CPU has of its own
pub mod seam; // one trait per capability: what a platform's back end implements
#[cfg(feature = "snp")]
pub mod snp; // the back end for SEV-SNP
mod sync;

pub use error::{Blame, Error, Result};
