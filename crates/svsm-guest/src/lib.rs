#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![doc = include_str!("../README.md")]
//! ## Feature flags
#![cfg_attr(feature = "document-features", doc = document_features::document_features!())]

#[cfg(test)]
extern crate std;

pub mod acpi; // tables of the machine
mod dsdt; // what of them is a program
mod error;
pub mod files; // what they are called in an image
pub mod firmware; // or firmware, which starts by itself
pub mod fw_cfg; // files that the host has
pub mod kernel; // a Linux kernel
pub mod layout; // where everything goes
pub mod params; // what the kernel is told
pub mod stub; // validates memory before the kernel
pub mod table_loader; // or tables that the host has made
pub mod tables; // page tables for its start

pub use error::{Error, Result, TableFault};
