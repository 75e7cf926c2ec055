#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![doc = include_str!("../README.md")]
//! ## Feature flags
#![cfg_attr(feature = "document-features", doc = document_features::document_features!())]

#[cfg(test)]
extern crate std;

pub mod cpuid; // SEV-SNP: what a guest is told of its processor
#[cfg(feature = "launch")]
pub mod curve; // ECDSA as the security processor writes it
#[cfg(any(feature = "processor", feature = "verify"))]
mod der;
pub mod doorbell; // SEV-SNP: how a guest is told of interrupts under restricted injection
#[cfg(feature = "processor")]
pub mod endorsement; // keys and certificates behind reports
pub mod fault; // a host that lies: in which ways, and when
pub mod ghcb; // SEV-SNP: what guests ask of their host
#[cfg(feature = "launch")]
pub mod launch; // SEV-SNP: measured pages, and who signed for them
#[cfg(feature = "platform")]
pub mod platform; // the seams of svsm-platform, on this model
#[cfg(feature = "processor")]
pub mod processor; // SEV-SNP: the security processor's answers to guests
#[cfg(any(feature = "processor", feature = "verify"))]
pub mod report; // SEV-SNP: attestation reports
pub mod rmp; // SEV-SNP: who owns a page, and who may use it
pub mod secrets; // SEV-SNP: keys of the channel to the security processor
pub mod status; // SEV-SNP: how the security processor answers
#[cfg(feature = "verify")]
pub mod verify; // SEV-SNP: whether a report is what it says
pub mod vmsa; // SEV-SNP: registers at rest
