//! The IGVM loader (Independent Guest Virtual Machine format, versions 1 and 2).
//!
//! Two passes. [`Plan::new`] checks every header and finds out what the image needs:
//! nothing of the guest is touched before the whole file is known to be sound.
//! [`Plan::apply`] then carries the directives out. An error names the header's
//! place in the file.

mod error;
mod file;
mod launch;
mod parameter;
mod plan;

pub use error::{LoadError, Reason};
pub use file::{File, Header, Headers};
pub use launch::{Launch, NoLaunch, PageKind};
pub use parameter::{Facts, MAX_PARAMETER};
pub use plan::{Backed, Context, PageCounts, Plan};

#[cfg(test)]
mod tests;
