#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![doc = include_str!("../README.md")]
//! ## Feature flags
#![cfg_attr(feature = "document-features", doc = document_features::document_features!())]

#[cfg(any(test, feature = "alloc"))]
extern crate alloc;

pub mod channel; // where a finished record goes: out of the guest, or into the ring
mod check; // the checksum of headers and payloads
pub mod decoder; // a byte stream, back into records
mod error;
pub mod frame; // defmt frames under construction, nested as interrupts nest
pub mod logger; // what a firmware supplies so that the macros work
#[cfg(feature = "defmt")]
mod macros; // `info!(public, "…")`
pub mod payload; // what is inside verdicts, panics, stack traces, dropped counts
pub mod record; // the record on the wire
pub mod ring; // local records, bounded
pub mod writer; // records into a sink

pub use channel::Channel;
pub use decoder::{Decoder, Item};
pub use error::{Error, Result};
pub use frame::{Frame, FrameStack};
pub use logger::Hook;
pub use payload::{Dropped, PanicLocation, StackTrace, Verdict};
pub use record::{Class, ImageId, Kind, MAX_PAYLOAD, Record, Stamp};
pub use ring::Ring;
pub use writer::{Sink, Writer};
