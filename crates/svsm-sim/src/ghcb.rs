//! The host's half of the guest-hypervisor communication block (56421, protocol version 2).
//!
//! Everything here is a value: what a guest wrote becomes a request or the reason why it is none, and an answer becomes
//! the bytes that the guest finds. What a request *does* is the host's business.

mod event;
mod msr;
mod page;
mod page_state;
mod text;

pub use event::{ApCreation, Doorbell, Event, IoAccess, Malformed};
pub use msr::{Features, MsrRequest, MsrResponse, Register, Termination, Written};
pub use page::{Reply, Snapshot};
pub use page_state::{Change, EntryError, List, ListError, Operation, SinglePage};

/// The protocol versions that this host speaks.
pub const VERSIONS: core::ops::RangeInclusive<u16> = 1..=2;
