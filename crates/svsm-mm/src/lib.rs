#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(feature = "alloc", doc = include_str!("../README.md"))] // its example needs a host
#![cfg_attr(
    not(feature = "alloc"),
    doc = "Memory management of a paravisor: see README.md.\n"
)]
//! ## Feature flags
#![cfg_attr(feature = "document-features", doc = document_features::document_features!())]

#[cfg(any(test, feature = "alloc"))]
extern crate alloc;

#[cfg(test)]
extern crate std;

#[cfg(feature = "dev")]
pub mod dev; // the laws of the seams, as functions for tests
mod error;
pub mod frame; // who owns physical memory: bump, buddy, per-CPU cache
pub mod guest; // copies from and to memory of the guest
#[cfg(feature = "heap")]
pub mod heap; // memory for Rust objects
#[cfg(any(test, feature = "alloc"))]
pub mod space; // address spaces: a page table, and what is where in it
pub mod table; // page tables, and the tokens of flushes they ask for
pub mod validation; // what the SVSM has accepted, so that nothing is accepted twice
pub mod window; // how software reaches a physical page

pub use error::{Blame, Error, Result};
pub use {svsm_platform, zerocopy}; // their types are in this crate's interface
