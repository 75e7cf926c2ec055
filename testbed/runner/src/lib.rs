#![doc = include_str!("../README.md")]

pub mod campaign; // many runs against a host that lies
mod child; // the QEMU process, which never outlives a run
mod error;
pub mod faults; // a host that lies
pub mod images; // ELF files by build id: defmt tables, names and lines
pub mod log; // a byte stream of the firmware, into lines
pub mod machine; // what the software machine reports
mod outcome;
pub mod qemu; // which QEMU, and its command line
mod run;
mod session; // one run, from spawn to verdict
pub mod show; // lines for people, for programs, or as they came
pub mod summary; // what a run came to
pub mod timeline; // exits over time, and pages as a map
pub mod trace; // exit by exit
pub mod verdict; // how a run ended

pub use error::{Error, Result};
pub use faults::{FaultEvent, FaultPlan};
pub use images::Images;
pub use log::LogLine;
pub use machine::Event as MachineEvent;
pub use outcome::Outcome;
pub use run::{Cancel, Machine, Platform, Progress, Run};
pub use timeline::Timeline;
pub use trace::Trace;
pub use verdict::Verdict;
