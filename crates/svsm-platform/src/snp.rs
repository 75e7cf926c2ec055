//! The back end for SEV-SNP: the instructions ([`insn`]), and everything above them as logic that runs on any host.
//!
//! What the host says is checked before it counts: fields are read once, answers must be answers to what was asked, a host that
//! does nothing is asked a bounded number of times, and range operations say how far they came.

mod cpuid;
mod error;
pub mod ghcb; // the shared page and the exits made with it
pub mod insn; // the instruction leaf
pub mod message; // the encrypted channel to the security processor
mod messenger;
pub mod msr; // requests that fit into a register
mod pages;
pub mod report; // reports and keys
pub mod secrets; // keys of the channel to the security processor
mod status;
mod terminate;
pub mod vmsa; // registers of a virtual CPU

pub use cpuid::{CpuState, CpuidEntry, CpuidOfCpu, CpuidPage};
pub use error::{Error, Failure, Instruction, Refusal};
pub use ghcb::{Ghcb, GhcbPage, VcpuOrder};
pub use messenger::{GhcbMessenger, SharedPage};
pub use msr::{MsrProtocol, SevInfo, Termination};
pub use pages::{Counts, MAX_ENTRIES, Pages, Reach};
pub use status::{SevFeatures, SevStatus};
pub use terminate::{REASON_SET, Terminator};

bitflags::bitflags! {
    /// What a host can do (56421, "Hypervisor Feature Support").
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct HvFeatures: u64 {
        /// SEV-SNP.
        const SNP = 1 << 0;
        /// Creation of virtual CPUs from save areas.
        const AP_CREATION = 1 << 1;
        /// Restricted injection and the #HV doorbell.
        const RESTRICTED_INJECTION = 1 << 2;
        /// Its timer.
        const RESTRICTED_INJECTION_TIMER = 1 << 3;
        /// The list of APIC ids.
        const APIC_ID_LIST = 1 << 4;
        /// More than one level. Some hosts have it and do not say so.
        const MULTI_VMPL = 1 << 5;
        /// Page-state changes for guests without SEV-SNP.
        const PAGE_STATE_FOR_ES = 1 << 6;
    }
}
