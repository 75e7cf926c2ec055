//! Carries messages through a GHCB, by pages that the host can read and write at any time: they are made of atomics, copied once,
//! and never borrowed.
#![expect(unsafe_code, reason = "has the host write to shared pages")]

use core::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{
    Error, Ghcb,
    ghcb::GuestRequestStatus,
    insn::Insn,
    message::{GuestRequest, ResponsePage},
};
use crate::addr::{Gpa, GpaRange, PageSize};

const WORDS: usize = 512;

/// The memory of a page that is shared with the host.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct SharedPage([AtomicU64; WORDS]);
const _: () = assert!(size_of::<SharedPage>() == 4096);

impl SharedPage {
    /// A cleared page.
    #[must_use]
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; WORDS])
    }

    /// Shows the host `bytes`, at most a page of them, and zeros behind.
    fn show(&self, bytes: &[u8]) {
        let mut chunks = bytes.chunks(8);
        for word in &self.0 {
            let mut value = [0; 8];
            for (to, from) in value.iter_mut().zip(chunks.next().unwrap_or_default()) {
                *to = *from;
            }
            word.store(u64::from_le_bytes(value), Ordering::Release);
        }
    }

    /// Copies what is there now.
    fn copy_to(&self, bytes: &mut [u8]) {
        for (chunk, word) in bytes.chunks_mut(8).zip(&self.0) {
            let value = word.load(Ordering::Acquire).to_le_bytes();
            for (to, from) in chunk.iter_mut().zip(value) {
                *to = from;
            }
        }
    }
}

impl Default for SharedPage {
    fn default() -> Self {
        Self::new()
    }
}

/// Carries messages to the security processor through a GHCB and shared pages.
pub struct GhcbMessenger<'p, I> {
    ghcb: Ghcb<'p, I>,
    request: (&'p SharedPage, Gpa),
    response: (&'p SharedPage, Gpa),
    certificates: &'p [SharedPage],
    certificates_at: Gpa,
}

impl<'p, I: Insn> GhcbMessenger<'p, I> {
    /// Carries messages by the page `request` and answers by the page `response`, and no certificates.
    ///
    /// # Safety
    /// Both are different pages, mapped as shared, and the host has them as shared pages at the addresses given.
    #[must_use]
    pub const unsafe fn new(
        ghcb: Ghcb<'p, I>,
        request: (&'p SharedPage, Gpa),
        response: (&'p SharedPage, Gpa),
    ) -> Self {
        Self {
            ghcb,
            request,
            response,
            certificates: &[],
            certificates_at: Gpa::ZERO,
        }
    }

    /// The same, with pages for certificates.
    ///
    /// # Safety
    /// The pages are others than those, mapped as shared, and the host has them as shared pages from the address given on.
    #[must_use]
    pub unsafe fn with_certificates(self, pages: &'p [SharedPage], at: Gpa) -> Self {
        Self {
            certificates: pages,
            certificates_at: at,
            ..self
        }
    }
}

impl<I: Insn> GuestRequest for GhcbMessenger<'_, I> {
    type Error = Error;

    fn pass(
        &mut self,
        message: &[u8],
        response: &mut ResponsePage,
        certificates: Option<&mut [u8]>,
    ) -> Result<GuestRequestStatus, Error> {
        let size = PageSize::Size4K;
        self.request.0.show(message);
        // Nothing of an older answer may look like a new one.
        self.response.0.show(&[]);
        // Only as many pages are offered as will be copied.
        let room = certificates.as_ref().map_or(0, |buffer| buffer.len());
        let wanted = room / 4096;
        let pages = self.certificates.get(..wanted).unwrap_or(self.certificates);
        for page in pages {
            page.show(&[]);
        }
        let offer = match &certificates {
            None => None,
            Some(_) => {
                let count = u64::try_from(pages.len()).map_err(|_| Error::Request)?;
                let len = count.checked_mul(size.bytes()).ok_or(Error::Request)?;
                GpaRange::new(self.certificates_at, len).ok_or(Error::Request)?;
                Some((self.certificates_at, count))
            }
        };
        // SAFETY: whoever made this vouched for all pages; of those for certificates no more are named than there are.
        let status = unsafe {
            self.ghcb
                .guest_request(self.request.1, self.response.1, offer)
        }?;
        self.response.0.copy_to(response);
        if let Some(buffer) = certificates {
            let mut chunks = buffer.chunks_mut(4096);
            for (page, chunk) in pages.iter().zip(chunks.by_ref()) {
                page.copy_to(chunk);
            }
            chunks.for_each(|chunk| chunk.fill(0));
        }
        Ok(status)
    }
}

impl<I> fmt::Debug for GhcbMessenger<'_, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GhcbMessenger")
            .field("request", &self.request.1)
            .field("response", &self.response.1)
            .field("certificates", &self.certificates.len())
            .finish_non_exhaustive()
    }
}
