//! Messages to the security processor, which the host carries and cannot read (56860, "Guest Messages").
//!
//! Each level has a key, and each message under a key a number that serves as nonce. Two different messages under one number would
//! give the key away, so a [`Channel`] encrypts a message once and keeps it until it is answered: a host that is busy, or that wants
//! more room for certificates, gets the same bytes again. Whatever else goes wrong closes the channel and wipes its key.
//!
//! What carries the bytes is a seam ([`GuestRequest`]), and so is the cipher ([`Aead`]); a GHCB carries them by
//! [`GhcbMessenger`](super::GhcbMessenger), and feature `aes-gcm` brings a cipher. What is asked and answered is in
//! [`report`](super::report).

mod aead;
mod header;

#[cfg(feature = "aes-gcm")]
pub use aead::AesGcm;
pub use aead::{Aead, AeadError};
pub use header::MessageType;

use core::{fmt, mem};

use header::{Header, Sealed};
use zeroize::Zeroize;

use super::{ghcb::GuestRequestStatus, secrets::Vmpck};
use crate::{error::Blame, level::Vmpl};

/// A page of an answer, in private memory.
pub type ResponsePage = [u8; 4096];

/// Carries messages to the security processor: `SNP_GUEST_REQUEST` and its extended form (56421).
pub trait GuestRequest {
    /// Why a message was not carried.
    type Error: Copy + fmt::Debug;

    /// Shows the host the message, has it carried, and copies what the host left into private memory: a page to `response`, and as
    /// much as fits of the certificates to `certificates`, which is filled with zeros behind that.
    ///
    /// Without `certificates` it is the plain request. The host may answer anything; nothing of it is checked here.
    ///
    /// # Errors
    /// Why it was not carried, or why nobody knows.
    fn pass(
        &mut self,
        message: &[u8],
        response: &mut ResponsePage,
        certificates: Option<&mut [u8]>,
    ) -> Result<GuestRequestStatus, Self::Error>;

    /// Called when the host is busy, after `tries` tries: waits and answers whether to try again now. If not, the message waits for
    /// the next use of the channel.
    fn wait(&mut self, tries: u8) -> bool {
        let _ = tries;
        false
    }
}

impl<T: GuestRequest + ?Sized> GuestRequest for &mut T {
    type Error = T::Error;

    fn pass(
        &mut self,
        message: &[u8],
        response: &mut ResponsePage,
        certificates: Option<&mut [u8]>,
    ) -> Result<GuestRequestStatus, Self::Error> {
        T::pass(self, message, response, certificates)
    }

    fn wait(&mut self, tries: u8) -> bool {
        T::wait(self, tries)
    }
}

/// How often one call shows the host one message at most.
const MAX_TRIES: u8 = 32;
/// What the host says when a buffer for certificates is too small.
const HOST_INVALID_LENGTH: u32 = 1;
/// What the host says when the message should come again.
const HOST_BUSY: u32 = 2;

/// Something to ask.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question<'q> {
    pub(super) kind: MessageType,
    pub(super) version: u8,
    pub(super) payload: &'q [u8],
}

/// The channel of one level to the security processor.
pub struct Channel<A> {
    aead: A,
    level: Vmpl,
    /// None once the channel is closed.
    key: Option<Vmpck>,
    /// The number of the last message that was answered, or of its answer.
    last: u32,
    /// A message that was shown to the host and not answered yet.
    pending: Option<Sealed>,
}

impl<A: Aead> Channel<A> {
    /// The channel of `level`, with a key that was never used.
    #[must_use]
    pub const fn new(level: Vmpl, key: Vmpck, aead: A) -> Self {
        Self::resume(level, key, 0, aead)
    }

    /// The channel of `level`, whose key others have used up to the number `last`. A number that is too small would give the key
    /// away, unless the security processor refuses it first.
    #[must_use]
    pub const fn resume(level: Vmpl, key: Vmpck, last: u32, aead: A) -> Self {
        Self {
            aead,
            level,
            key: Some(key),
            last,
            pending: None,
        }
    }

    /// The level for which this channel speaks: its own, and those below.
    #[must_use]
    pub const fn level(&self) -> Vmpl {
        self.level
    }

    /// Whether it can still be used.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.key.is_some()
    }

    /// Whether a message waits for its answer, because the host was busy.
    #[must_use]
    pub const fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// The number of the last answer: from where another holder of the key has to [resume](Self::resume), if nothing is pending.
    #[must_use]
    pub const fn last_number(&self) -> u32 {
        self.last
    }

    /// Wipes the key.
    pub fn close(&mut self) {
        self.key = None;
        self.pending = None;
    }

    /// Has a message that [waits](Self::is_pending) answered, and drops the answer.
    ///
    /// Every other use of the channel begins with this.
    ///
    /// # Errors
    /// [`Error::Busy`] if it still waits, or why the channel is closed.
    pub fn finish<T: GuestRequest>(
        &mut self,
        host: &mut T,
        page: &mut ResponsePage,
    ) -> Result<(), Error<T::Error>> {
        let Some(message) = self.pending else {
            return Ok(());
        };
        // The certificates can be asked for again.
        self.carry(&message, host, None, page)?;
        page.zeroize();
        Ok(())
    }

    /// Asks a question and answers with the payload of the answer, which lies in `page`.
    pub(super) fn ask<'r, T: GuestRequest>(
        &mut self,
        question: &Question<'_>,
        host: &mut T,
        certificates: Option<&mut [u8]>,
        page: &'r mut ResponsePage,
    ) -> Result<&'r [u8], Error<T::Error>> {
        self.finish(host, page)?;
        let message = self.seal(question)?;
        self.pending = Some(message);
        let payload = self.carry(&message, host, certificates, page)?;
        // `carry` found it inside of the page.
        Ok(page.get(payload).unwrap_or_default())
    }

    fn seal<E>(&mut self, question: &Question<'_>) -> Result<Sealed, Error<E>> {
        let key = self.key.as_ref().ok_or(Error::Closed)?;
        let number = self.last.checked_add(1);
        // The answer needs a number too.
        let Some(number) = number.filter(|number| *number < u32::MAX) else {
            self.close();
            return Err(Error::Closed);
        };
        let mut message = Sealed::new(question, self.level, number).ok_or(Error::Request)?;
        if message.seal(&self.aead, key).is_err() {
            return Err(Error::Request);
        }
        Ok(message)
    }

    /// Shows the host `message` until it is answered; answers with the place of the payload in `page`.
    fn carry<T: GuestRequest>(
        &mut self,
        message: &Sealed,
        host: &mut T,
        certificates: Option<&mut [u8]>,
        page: &mut ResponsePage,
    ) -> Result<core::ops::Range<usize>, Error<T::Error>> {
        let space = match self.show(message, host, certificates, page) {
            Ok(space) => space,
            Err(error) => {
                page.zeroize();
                if !matches!(error, Error::Busy) {
                    self.close();
                }
                return Err(error);
            }
        };
        let opened = match &self.key {
            Some(key) => Header::open(message, &self.aead, key, page),
            None => return Err(Error::Closed),
        };
        let Some(payload) = opened else {
            page.zeroize();
            self.close();
            return Err(Error::Answer);
        };
        self.pending = None;
        // Checked when the message was sealed: the answer's number exists.
        self.last = message.number().saturating_add(1);
        match space {
            None => Ok(payload),
            Some(pages) => {
                page.zeroize();
                Err(Error::CertificateSpace { pages })
            }
        }
    }

    /// Shows the host `message` until it says that it was answered. Also answers with the number of pages that certificates need,
    /// if those that were offered were too few: then the message was answered without them, so that its number is used up.
    fn show<T: GuestRequest>(
        &self,
        message: &Sealed,
        host: &mut T,
        mut certificates: Option<&mut [u8]>,
        page: &mut ResponsePage,
    ) -> Result<Option<u64>, Error<T::Error>> {
        let mut space = None;
        for tries in 1..=MAX_TRIES {
            let status = host
                .pass(message.bytes(), page, certificates.as_deref_mut())
                .map_err(Error::Transport)?;
            match (status.host, status.firmware) {
                (0, 0) => return Ok(space),
                (HOST_INVALID_LENGTH, _) if certificates.is_some() => {
                    space = Some(status.pages);
                    mem::take(&mut certificates);
                }
                (HOST_BUSY, _) if host.wait(tries) => {}
                (HOST_BUSY, _) => return Err(Error::Busy),
                (host, firmware) => return Err(Error::Refused { host, firmware }),
            }
        }
        Err(Error::Busy)
    }
}

impl<A> fmt::Debug for Channel<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("level", &self.level)
            .field("open", &self.key.is_some())
            .field("last", &self.last)
            .field("pending", &self.pending.is_some())
            .finish_non_exhaustive()
    }
}

/// Why there is no answer. `E` is the error of what carries the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Error<E> {
    /// The channel was closed before, or its numbers are used up.
    Closed,
    /// The host is busy. The message waits; the next use of the channel shows it again before it does anything else.
    Busy,
    /// The certificates need more room. The message was answered without them; nothing is lost.
    CertificateSpace {
        /// How many pages they need, as the host says.
        pages: u64,
    },
    /// The security processor understood the message and does not do what it asks; nothing is lost.
    Status(u32),
    /// The question cannot be asked: it speaks for a level above the channel's, or does not fit into a message. Nothing is lost.
    Request,
    /// The answer does not fit into the buffer for it. Nothing but the answer is lost.
    Buffer {
        /// How many bytes it has.
        needed: usize,
    },
    /// The message was not carried. The channel is closed.
    Transport(E),
    /// The host or the security processor refused to look into the message. The channel is closed.
    Refused {
        /// The host's code.
        host: u32,
        /// The security processor's code.
        firmware: u32,
    },
    /// What came back is no answer to the message. The channel is closed.
    Answer,
    /// The security processor answered, but not in the form that it should. Nothing but the answer is lost.
    Malformed,
}

impl<E> Error<E> {
    /// Whose fault it is.
    #[must_use]
    pub const fn blame(&self) -> Blame {
        match self {
            Self::Closed
            | Self::CertificateSpace { .. }
            | Self::Status(_)
            | Self::Request
            | Self::Buffer { .. } => Blame::Caller,
            Self::Busy
            | Self::Transport(_)
            | Self::Refused { .. }
            | Self::Answer
            | Self::Malformed => Blame::Host,
        }
    }
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the channel to the security processor is closed"),
            Self::Busy => f.write_str("the host is busy"),
            Self::CertificateSpace { pages } => write!(f, "the certificates need {pages} pages"),
            Self::Status(status) => write!(f, "the security processor answers {status:#x}"),
            Self::Request => f.write_str("the channel cannot ask that"),
            Self::Buffer { needed } => write!(f, "the answer has {needed} bytes"),
            Self::Transport(error) => write!(f, "the message was not carried: {error}"),
            Self::Refused { host, firmware } => write!(
                f,
                "the message was refused: host {host:#x}, firmware {firmware:#x}"
            ),
            Self::Answer => f.write_str("what came back is no answer to the message"),
            Self::Malformed => f.write_str("the answer of the security processor is malformed"),
        }
    }
}

impl<E: fmt::Display + fmt::Debug> core::error::Error for Error<E> {}
