#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![doc = include_str!("../README.md")]
//! ## Feature flags
#![cfg_attr(feature = "document-features", doc = document_features::document_features!())]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod abi; // what kernel and programs agree on
pub mod archive; // the programs that came with the image
pub mod entry; // from a program into the kernel, and back
pub mod frame; // a system call in a program's registers
pub mod handle; // what a process has open
pub mod memory; // a program's memory: claims, and copies that can fault
pub mod program; // which memory a program's file asks for
pub mod quota; // how much a process may have
pub mod request; // what a program asks for, decoded
pub mod task; // who runs on which CPU, and the switch
#[cfg(feature = "user")]
pub mod user; // system calls as a program makes them
