//! Payload that arrives where the host can see it.
//!
//! Every page that passes the launch of a protected machine costs time at every start. What is
//! large and not needed by the first instructions arrives in memory of the host instead. The host
//! can change it at any time, so nobody looks at it there: it is copied first, and the copy is
//! checked, against a digest in the hand-off, which is measured.

use core::fmt;

use svsm_mm::window::Window;
use svsm_platform::Blame;
use svsm_platform::addr::{Gpa, GpaRange, PageSize};
use svsm_platform::encryption::Visibility;

use crate::error::{Error, Fault};
use crate::handoff::{Handoff, Staged};
use crate::region::Region;

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

#[cfg(any(feature = "sha2", test))]
impl Sha384 for sha2::Sha384 {
    fn update(&mut self, bytes: &[u8]) {
        sha2::Digest::update(self, bytes);
    }

    fn finish(self) -> [u8; 48] {
        sha2::Digest::finalize(self).into()
    }
}

/// What is staged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Payload {
    /// The SVSM's segments and page tables.
    Svsm,
    /// The user-mode archive.
    Archive,
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Svsm => "SVSM",
            Self::Archive => "archive",
        })
    }
}

/// Why there is no payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Refused<E> {
    /// A page was out of reach.
    Page {
        /// Of what.
        payload: Payload,
        /// Which.
        page: Gpa,
        /// Why.
        cause: E,
    },
    /// It is not what the image says. The pages for it hold zeros, as far as they could be cleared.
    Digest(Payload),
}

impl<E> Refused<E> {
    /// Who is to blame, as far as this module can tell; what a page's `cause` says is another's.
    #[must_use]
    pub const fn blame(&self) -> Option<Blame> {
        match self {
            Self::Page { .. } => None,
            Self::Digest(_) => Some(Blame::Host),
        }
    }
}

impl<E: fmt::Display> fmt::Display for Refused<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Page {
                payload,
                page,
                cause,
            } => {
                write!(f, "page {page:#x} of the staged {payload}: {cause}")
            }
            Self::Digest(payload) => {
                write!(f, "the staged {payload} is not what the image says")
            }
        }
    }
}

impl<E: core::error::Error> core::error::Error for Refused<E> {}

/// The SVSM of a hand-off is where it belongs, so that its page tables can be looked at: what [`exec::run`](crate::exec::run) asks
/// for.
#[derive(Debug)]
#[must_use]
pub struct InPlace(Option<Staged>);

impl InPlace {
    /// For a stage2 that starts only what its image loads.
    ///
    /// # Errors
    /// [`Fault::Missing`] for an SVSM that is staged.
    pub const fn loaded(handoff: &Handoff) -> crate::Result<Self> {
        match handoff.staged_svsm {
            None => Ok(Self(None)),
            Some(_) => Err(Error::Region {
                region: Region::SvsmStaging,
                fault: Fault::Missing,
            }),
        }
    }

    /// Whether it is that hand-off's.
    pub(crate) fn is_of(&self, handoff: &Handoff) -> bool {
        self.0 == handoff.staged_svsm
    }
}

/// Puts a staged SVSM where it belongs; does nothing if the image loads its SVSM.
///
/// Once per start, before [`exec::run`](crate::exec::run): pages are accepted once.
///
/// # Errors
///
/// [`Refused`]. Nothing of the SVSM may be used then.
pub fn receive_svsm<M: Memory>(
    handoff: &Handoff,
    memory: &mut M,
    hash: impl Sha384,
) -> Result<InPlace, Refused<M::Error>> {
    if let Some(staged) = &handoff.staged_svsm {
        let len_bytes = handoff.svsm_bytes();
        let transfer = Transfer {
            payload: Payload::Svsm,
            staged,
            target: handoff.svsm_pages(),
            len_bytes,
        };
        transfer.run(memory, hash)?;
    }
    Ok(InPlace(handoff.staged_svsm))
}

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
    let (Some(staged), Some(archive)) = (&handoff.staged, handoff.archive) else {
        return Ok(0);
    };
    let transfer = Transfer {
        payload: Payload::Archive,
        staged,
        target: pages_of(archive.gpa_range()),
        len_bytes: archive.len_bytes(),
    };
    transfer.run(memory, hash)
}

/// The way of a payload.
struct Transfer<'s, P> {
    payload: Payload,
    staged: &'s Staged,
    /// The pages to which it goes.
    target: P,
    len_bytes: u64,
}

impl<P: Iterator<Item = Gpa> + Clone> Transfer<'_, P> {
    /// Copies, and then checks the copy.
    fn run<M: Memory>(&self, memory: &mut M, hash: impl Sha384) -> Result<u64, Refused<M::Error>> {
        let mut contents = [0; PAGE];
        let mut pages = 0;
        for ((shared, private), len) in pages_of(self.staged.source)
            .zip(self.target.clone())
            .zip(lengths(self.len_bytes))
        {
            memory
                .fetch(shared, &mut contents)
                .map_err(|cause| self.failed(shared, cause))?;
            if let Some(rest) = contents.get_mut(len..) {
                rest.fill(0);
            }
            let copied = memory
                .accept(private)
                .and_then(|()| memory.write(private, &contents));
            copied.map_err(|cause| self.failed(private, cause))?;
            pages += 1;
        }
        if self.digest(memory, hash, &mut contents)? == self.staged.digest {
            return Ok(pages);
        }
        contents.fill(0);
        for private in self.target.clone() {
            // What cannot be cleared is not used either.
            let _ = memory.write(private, &contents);
        }
        Err(Refused::Digest(self.payload))
    }

    /// The digest of the copy: of what is there, not of what was written.
    fn digest<M: Memory>(
        &self,
        memory: &mut M,
        mut hash: impl Sha384,
        contents: &mut Contents,
    ) -> Result<[u8; 48], Refused<M::Error>> {
        for (page, len) in self.target.clone().zip(lengths(self.len_bytes)) {
            memory
                .read(page, contents)
                .map_err(|cause| self.failed(page, cause))?;
            hash.update(contents.get(..len).unwrap_or(contents));
        }
        Ok(hash.finish())
    }

    const fn failed<E>(&self, page: Gpa, cause: E) -> Refused<E> {
        Refused::Page {
            payload: self.payload,
            page,
            cause,
        }
    }
}

/// Both sides of the copy through a window with a free slot.
#[derive(Debug)]
pub struct Windowed<W, A> {
    window: W,
    accept: A,
}

impl<W: Window, A> Windowed<W, A> {
    /// `accept` takes a private page into use, which it may show in the window; on a machine whose memory is all in use from
    /// the start it does nothing.
    ///
    /// # Safety
    /// As long as this is used, Rust code relies on nothing in the private pages that it is made to fill.
    #[expect(unsafe_code, reason = "takes pages away")]
    pub const unsafe fn new(window: W, accept: A) -> Self {
        Self { window, accept }
    }
}

#[expect(unsafe_code, reason = "shows pages")]
impl<W: Window, E: From<svsm_mm::Error>, A: FnMut(&W, Gpa) -> Result<(), E>> Memory
    for Windowed<W, A>
{
    type Error = E;

    fn fetch(&mut self, shared: Gpa, into: &mut Contents) -> Result<(), E> {
        // SAFETY: the page is shared with the host, which may change it at any time; each byte is read once.
        let page = unsafe { self.window.map(shared, Visibility::Shared) }?;
        Ok(page.read(0, into)?)
    }

    fn accept(&mut self, private: Gpa) -> Result<(), E> {
        (self.accept)(&self.window, private)
    }

    fn write(&mut self, private: Gpa, contents: &Contents) -> Result<(), E> {
        // SAFETY: who made this value says that nobody relies on the page.
        let page = unsafe { self.window.map(private, Visibility::Private) }?;
        Ok(page.write(0, contents)?)
    }

    fn read(&mut self, private: Gpa, into: &mut Contents) -> Result<(), E> {
        // SAFETY: as above; nothing is changed.
        let page = unsafe { self.window.map(private, Visibility::Private) }?;
        Ok(page.read(0, into)?)
    }
}

/// The pages of a range.
fn pages_of(range: GpaRange) -> impl Iterator<Item = Gpa> + Clone {
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
