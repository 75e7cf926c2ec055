#![cfg_attr(docsrs, feature(doc_cfg))]
#![doc = include_str!("../README.md")]
//! ## Feature flags
#![cfg_attr(feature = "document-features", doc = document_features::document_features!())]

pub mod archive; // the cpio of user-mode programs
pub mod build; // from a manifest to an image
pub mod diff; // what differs between two files
pub mod digest; // what a launch measures
mod error;
pub mod executable; // ELF files, distrusted
pub mod file; // IGVM files, distrusted
pub mod hex; // bytes as people write them
#[cfg(feature = "attest")]
pub mod identity; // who an image is, signed
pub mod inspect; // what is in a file
pub mod linux; // images that start a Linux kernel directly
pub mod loader; // what each loader takes
pub mod manifest; // what goes into an image
pub mod reference; // what a report of its guest must say
pub mod report; // what an image is made of, and its budgets
pub mod symbols; // which ELF files went into an image
#[cfg(feature = "attest")]
pub mod verify; // what runs, or what is wrong

pub use build::{Image, Options, build, build_with};
pub use diff::diff;
pub use digest::{LaunchDigest, launch_digest};
pub use error::{Error, Result};
#[cfg(feature = "attest")]
pub use identity::{Keys, sign};
pub use inspect::inspect;
pub use linux::{Linux, linux};
pub use loader::Loader;
pub use manifest::Manifest;
pub use reference::Reference;
#[cfg(feature = "attest")]
pub use svsm_sim; // reports and their reasons are in this crate's interface
#[cfg(feature = "attest")]
pub use verify::verify;

/// The size of a page, where it counts memory.
pub const PAGE_BYTES: u64 = 4096;

/// The size of a page, where it counts bytes of this process.
const PAGE_SIZE: usize = 4096;

/// The contents of a page.
pub type PageContents = [u8; PAGE_SIZE];
