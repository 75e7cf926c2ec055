//! One trait per capability of a platform.
//!
//! A back end (native, SEV-SNP, TDX, the simulator) implements those that it has; code that needs one asks for exactly
//! that one as `&mut impl Trait`. All of it therefore runs on a host.

mod allowed;
mod fault;
mod guest;
mod host;
mod identity;
mod page_state;

pub use allowed::{AllowList, Allowed, Denied};
pub use fault::FaultTable;
pub use guest::{GuestAccess, GuestMap, Owner, Rights, Vcpu};
pub use host::{CpuidCall, HostCall, MmioCall, MsrCall, PortCall, Width};
pub use identity::{Clock, Entropy, Hertz, Reason, Report, Terminate, Ticks};
pub use page_state::{PageState, Stopped};

pub use crate::irq::IrqCtl;
