#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![doc = include_str!("../README.md")]
//! ## Feature flags
#![cfg_attr(feature = "document-features", doc = document_features::document_features!())]

mod alg; // algorithm identifiers, and which are implemented
mod bytes; // byte strings of bounded length
#[cfg(feature = "callbacks")]
pub mod callbacks; // the calls of OpenHCL's engine
mod command; // the commands
pub mod crypto;
pub mod endorsement; // endorsement keys, and where their certificates are
mod engine; // submit, step, response
mod handle; // handles
mod object; // the rules of objects
#[cfg(feature = "protocol")]
pub mod protocol; // the calls of an SVSM's guest
mod rc; // response codes
mod seam; // entropy, time, store, components
pub mod slots; // a store that survives power cuts
mod state; // what a TPM remembers
mod structures; // structures of the wire
mod table; // the command table
#[cfg(test)]
mod tests;
mod wire; // reading and writing

#[cfg(test)]
extern crate std;

pub use alg::Alg;
pub use bytes::Bytes;
pub use crypto::{Curve, HashAlg};
pub use engine::{
    EndorsementMark, Error, Identity, Progress, Refusal, Resume, Seams, Storage, Timers, Tpm,
};
pub use handle::Handle;
pub use rc::Rc;
pub use seam::{AttachedComponent, Clock, Ephemeral, NvStore, Random, SeamError, SentObject};
pub use state::{object::ObjectSlot, session::SessionSlot};
pub use table::{command_handles, command_name};
