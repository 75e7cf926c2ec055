#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![doc = include_str!("../README.md")]
//! ## Feature flags
#![cfg_attr(feature = "document-features", doc = document_features::document_features!())]

mod area; // the bytes through which a guest processor calls
mod call; // a call as it arrives in registers
mod dispatch; // from a call to its service
mod result; // what a call answers

pub use area::{CallPending, CallingArea};
pub use call::{Arguments, CallId, CoreCall, ProtocolId, Registers};
pub use dispatch::{Dispatcher, DuplicateProtocol, Outcome, Protocol, Versions};
pub use result::ResultCode;
