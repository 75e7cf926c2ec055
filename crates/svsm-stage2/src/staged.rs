//! Payload that arrives where the host can see it.
//!
//! Every page that passes the launch of a protected machine costs time at every start. What is
//! large and not needed by the first instructions arrives in memory of the host instead. The host
//! can change it at any time, so nobody looks at it there: it is copied first, and the copy is
//! checked, against a digest in the hand-off, which is measured.

use core::fmt;

use svsm_platform::Blame;
use svsm_platform::addr::{Gpa, GpaRange, PageSize};

use crate::handoff::Handoff;

const PAGE: usize = 4096;
const _: () = assert!(PAGE as u64 == PageSize::Size4K.bytes());

/// The contents of a page.
pub type Contents = [u8; PAGE];

/// The memory on both sides of the copy.
pub trait Memory {
    /// Why a page cannot be reached.
    type Error;

    /// Reads a page that the host can see, and each of its bytes once: the host may change them
    /// meanwhile, which makes no difference to the copy.
    ///
    /// # Errors
    ///
    /// The page cannot be mapped.
    fn fetch(&mut self, shared: Gpa, into: &mut Contents) -> Result<(), Self::Error>;

    /// Takes a private page into use.
    ///
    /// # Errors
    ///
    /// The host does not give it.
    fn accept(&mut self, private: Gpa) -> Result<(), Self::Error>;

    /// Fills a private page that was accepted.
    ///
    /// # Errors
    ///
    /// The page cannot be mapped.
    fn write(&mut self, private: Gpa, contents: &Contents) -> Result<(), Self::Error>;

    /// Reads a private page back.
    ///
    /// # Errors
    ///
    /// The page cannot be mapped.
    fn read(&mut self, private: Gpa, into: &mut Contents) -> Result<(), Self::Error>;
}

/// SHA-384 under way.
pub trait Sha384 {
    /// Adds bytes.
    fn update(&mut self, bytes: &[u8]);

    /// The digest of all of them.
    fn finish(self) -> [u8; 48];
}

/// Why there is no payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Refused<E> {
    /// A page was out of reach.
    Page {
        /// Which.
        page: Gpa,
        /// Why.
        cause: E,
    },
    /// It is not what the image says. The pages for it hold zeros, as far as they could be cleared.
    Digest,
}

impl<E> Refused<E> {
    /// Who is to blame, as far as this module can tell; what a page's `cause` says is another's.
    #[must_use]
    pub const fn blame(&self) -> Option<Blame> {
        match self {
            Self::Page { .. } => None,
            Self::Digest => Some(Blame::Host),
        }
    }
}

impl<E: fmt::Display> fmt::Display for Refused<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Page { page, cause } => {
                write!(f, "page {page:#x} of the staged archive: {cause}")
            }
            Self::Digest => f.write_str("the staged archive is not what the image says"),
        }
    }
}

impl<E: core::error::Error> core::error::Error for Refused<E> {}

/// Puts a staged archive where it belongs, and says how many pages that took; zero if the image
/// loads its archive, or has none.
///
/// Once per start, before anything looks at the archive: pages are accepted once. Bytes behind the
/// archive in its last page become zero, whatever the host has there.
///
/// # Errors
///
/// [`Refused`]. Nothing of the archive may be used then.
pub fn receive<M: Memory>(
    handoff: &Handoff,
    memory: &mut M,
    hash: impl Sha384,
) -> Result<u64, Refused<M::Error>> {
    let (Some(staged), Some(archive)) = (handoff.staged, handoff.archive) else {
        return Ok(0);
    };
    let target = archive.gpa_range();
    let mut contents = [0; PAGE];
    let mut pages = 0;
    for ((shared, private), len) in pages_of(staged.source)
        .zip(pages_of(target))
        .zip(lengths(archive.len_bytes()))
    {
        let failed = |page| move |cause| Refused::Page { page, cause };
        memory
            .fetch(shared, &mut contents)
            .map_err(failed(shared))?;
        if let Some(rest) = contents.get_mut(len..) {
            rest.fill(0);
        }
        memory.accept(private).map_err(failed(private))?;
        memory.write(private, &contents).map_err(failed(private))?;
        pages += 1;
    }
    if digest(target, archive.len_bytes(), memory, hash)? == staged.digest {
        return Ok(pages);
    }
    contents.fill(0);
    for private in pages_of(target) {
        // What cannot be cleared is not used either.
        let _ = memory.write(private, &contents);
    }
    Err(Refused::Digest)
}

/// The digest of the copy: of what is there, not of what was written.
fn digest<M: Memory>(
    target: GpaRange,
    len_bytes: u64,
    memory: &mut M,
    mut hash: impl Sha384,
) -> Result<[u8; 48], Refused<M::Error>> {
    let mut contents = [0; PAGE];
    for (page, len) in pages_of(target).zip(lengths(len_bytes)) {
        memory
            .read(page, &mut contents)
            .map_err(|cause| Refused::Page { page, cause })?;
        hash.update(contents.get(..len).unwrap_or(&contents));
    }
    Ok(hash.finish())
}

/// The pages of a range.
fn pages_of(range: GpaRange) -> impl Iterator<Item = Gpa> {
    range.pages(PageSize::Size4K).into_iter().flatten()
}

/// How many bytes of each page belong to something of that length.
fn lengths(len_bytes: u64) -> impl Iterator<Item = usize> {
    let page = PageSize::Size4K.bytes();
    let full = len_bytes / page;
    let rest = usize::try_from(len_bytes % page).unwrap_or(0);
    (0..full).map(|_| PAGE).chain((rest != 0).then_some(rest))
}

#[cfg(test)]
mod tests;
