//! From a manifest to an image.
//!
//! The plan of [`svsm_stage2`] says where everything goes; the modules below
//! read what the manifest names, make the final page tables, fill the pages
//! and write the directives. Same input, same bytes.

use std::io;
use std::path::Path;

use svsm_platform::level::Vmpl;
use svsm_stage2::plan::Plan;

use crate::error::{Error, Result};
use crate::inspect::inspect;
use crate::loader::Loader;
use crate::manifest::Manifest;
use crate::reference::Reference;
use crate::report::Report;
use crate::symbols::Symbols;

use target::Target;

mod directives;
mod native;
mod pages;
pub(crate) mod programs;
mod request;
mod snp;
mod tables;
mod target;

/// What a build depends on beside the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// Who will load the image.
    pub loader: Loader,
}

impl Options {
    /// An image for this loader.
    #[must_use]
    pub const fn new(loader: Loader) -> Self {
        Self { loader }
    }
}

/// An image.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Image {
    /// The IGVM file.
    pub bytes: Vec<u8>,
    /// What it is made of.
    pub report: Report,
    /// Which ELF files went into it.
    pub symbols: Symbols,
}

impl Image {
    /// Signs who the image is, as its manifest says; see [`sign`](crate::sign()).
    ///
    /// # Errors
    /// [`Error::NoSnp`] if the image has no part for SEV-SNP; [`Error::Budget`] if the signature makes the file too large.
    #[cfg(feature = "attest")]
    pub fn sign(self, manifest: &Manifest, keys: &crate::Keys) -> Result<Self> {
        let bytes = crate::sign(&self.bytes, &manifest.snp.identity, keys)?;
        let mut report = self.report;
        report.resize(bytes.len() as u64);
        report.snp = Reference::of(&bytes)?;
        if report.exceeds() {
            return Err(Error::Budget(Box::new(report)));
        }
        Ok(Self {
            bytes,
            report,
            ..self
        })
    }
}

/// Builds the image that a manifest describes.
///
/// # Errors
/// What is wrong with the manifest or a file that it names, what the loader
/// does not take, or which budget is exceeded.
pub fn build(manifest: &Manifest, options: &Options) -> Result<Image> {
    build_with(manifest, options, |path| std::fs::read(path))
}

/// Builds an image of files that `read` provides, which is asked for the paths
/// that the manifest names.
///
/// # Errors
/// As [`build`].
pub fn build_with(
    manifest: &Manifest,
    options: &Options,
    read: impl FnMut(&Path) -> io::Result<Vec<u8>>,
) -> Result<Image> {
    manifest.check()?;
    let parameter_bytes = request::parameter_bytes(manifest, options.loader)?;

    let files = programs::Files::read(manifest, read)?;
    let programs = programs::Programs::check(&files)?;
    let archive = programs.archive(manifest, &files)?;

    let (svsm, stage2) = (
        request::segments(&programs.svsm),
        request::segments(&programs.stage2),
    );
    let mut request = request::request(
        manifest,
        request::facts(&programs.stage2, &stage2),
        request::facts(&programs.svsm, &svsm),
    )?;
    request.parameter_bytes = parameter_bytes;
    request.archive_bytes = archive.len() as u64;
    request.staged = request::arrival(manifest, &archive)?;
    request.staged_svsm = request::svsm_arrival(manifest, request.staged, request.archive_bytes)?;
    request.guest_level = manifest
        .guest
        .as_ref()
        .and_then(|guest| Vmpl::new(guest.vmpl));
    let targets = Target::all(manifest)?;
    if targets.contains(&Target::Snp) {
        (request.cpuid, request.secrets) = (true, true);
    }
    let mut plan = Plan::new(&request).map_err(Error::Plan)?;

    let counts = pages::count(&plan)?;
    if counts.values().sum::<u64>() > directives::MAX_PAGES {
        return Err(Error::TooLarge);
    }
    let pages = pages::pages(&mut plan, &targets, &programs, &archive)?;
    let guest = files.guest_memory(manifest)?;
    let bytes = directives::write(manifest, options.loader, &targets, &plan, &pages, guest)?;

    // Figures come from the file itself, read as a stranger would.
    let launch_pages = launch_pages(&bytes)?;
    let mut report = Report::new(&counts, launch_pages, bytes.len() as u64, &manifest.budgets);
    report.snp = Reference::of(&bytes)?;
    if report.exceeds() {
        return Err(Error::Budget(Box::new(report)));
    }
    Ok(Image {
        bytes,
        report,
        symbols: Symbols::of(manifest, &files, &programs),
    })
}

/// How many pages pass through the launch update.
fn launch_pages(bytes: &[u8]) -> Result<u64> {
    let inspection = inspect(bytes)?;
    if !inspection.remarks.is_empty() {
        return Err(Error::Bug);
    }
    Ok(inspection
        .platforms
        .iter()
        .map(|platform| platform.launch_pages)
        .max()
        .unwrap_or(0))
}
