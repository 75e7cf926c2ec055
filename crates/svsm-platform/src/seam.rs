//! One trait per capability of a platform.
//!
//! A back end (native, SEV-SNP, TDX, the simulator) implements those that it has; code that needs one asks for exactly
//! that one as `&mut impl Trait`. All of it therefore runs on a host.

mod allowed;
mod clock;
mod fault;
mod guest;
mod host;
mod page_state;
mod report;
mod terminate;

pub use allowed::{AllowList, Allowed, Denied};
pub use clock::{Clock, Hertz, Ticks};
pub use fault::FaultTable;
pub use guest::{GuestAccess, GuestMap, Owner, Rights, Vcpu};
pub use host::{CpuidCall, HostCall, MmioCall, MmioWidth, MsrCall, PortCall, Width};
pub use page_state::{PageState, Stopped};
pub use report::{Entropy, Report};
pub use terminate::{Reason, Terminate};

pub use crate::irq::IrqCtl;
