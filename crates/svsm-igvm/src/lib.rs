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
pub mod inspect; // what is in a file
pub mod linux; // images that start a Linux kernel directly
pub mod loader; // what each loader takes
pub mod manifest; // what goes into an image
pub mod report; // what an image is made of, and its budgets
pub mod symbols; // which ELF files went into an image

pub use build::{Image, Options, build, build_with};
pub use diff::diff;
pub use digest::{LaunchDigest, launch_digest};
pub use error::{Error, Result};
pub use inspect::inspect;
pub use linux::{Linux, linux};
pub use loader::Loader;
pub use manifest::Manifest;

/// The size of a page, where it counts memory.
pub const PAGE_BYTES: u64 = 4096;

/// The size of a page, where it counts bytes of this process.
const PAGE_SIZE: usize = 4096;

/// The contents of a page.
pub type PageContents = [u8; PAGE_SIZE];
