#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![doc = include_str!("../README.md")]
//! ## Feature flags
#![cfg_attr(feature = "document-features", doc = document_features::document_features!())]

mod area; // the bytes through which a guest processor calls
pub mod attest; // evidence of what runs
mod buffer; // bytes that a guest names
mod call; // a call as it arrives in registers
mod core_protocol; // memory, virtual CPUs, calling areas
mod dispatch; // from a call to its service
mod registry; // which virtual CPUs there are
mod result; // what a call answers
pub mod seam; // what services need of the machine
pub mod vtpm; // commands to a TPM

pub use area::{CallPending, CallingArea};
pub use buffer::GuestBuffers;
pub use call::{Arguments, CallId, CoreCall, ProtocolId, Registers};
pub use core_protocol::Core;
pub use dispatch::{Dispatcher, DuplicateProtocol, Outcome, Protocol, Versions};
pub use registry::{Full, Registry, Vcpu};
pub use result::ResultCode;
