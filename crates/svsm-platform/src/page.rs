//! Pages whose visibility is part of their type.
//!
//! A page that was handed to the host must never be used as if it were still ours, and one whose hand-over failed half-way
//! is neither. So each state is a type, a change consumes the page, and a failure gives back a page of which nothing is
//! known:
//!
//! ```text
//!               share                    unshare
//! Page<Private> ──────▶ Page<Shared> ──────────▶ Page<Private>
//!        │ failed            │ failed                 ▲
//!        └──────▶ Page<Lost> ◀┘ ────── recover ───────┘
//! ```
#![expect(
    unsafe_code,
    reason = "making a page out of an address is the caller's word that nobody else has it"
)]

use core::{fmt, marker::PhantomData};

use crate::{
    addr::{Gpa, GpaRange, PageSize},
    seam::PageState,
};

mod sealed {
    pub trait Sealed {
        const NAME: &'static str;
    }
}

/// What is known about a page: [`Private`], [`Shared`] or [`Lost`].
///
/// Sealed: code that matches on the state of a page relies on there being no others.
pub trait State: sealed::Sealed {}

/// Only the guest (of which the SVSM is a part) can read and write the page.
#[derive(Debug)]
pub enum Private {}

/// The host can read and write the page at any time.
#[derive(Debug)]
pub enum Shared {}

/// A change of visibility failed; nobody knows who can read and write the page.
#[derive(Debug)]
pub enum Lost {}

impl sealed::Sealed for Private {
    const NAME: &'static str = "Private";
}
impl sealed::Sealed for Shared {
    const NAME: &'static str = "Shared";
}
impl sealed::Sealed for Lost {
    const NAME: &'static str = "Lost";
}
impl State for Private {}
impl State for Shared {}
impl State for Lost {}

/// One page of guest physical memory that has exactly one holder.
///
/// Neither `Copy` nor `Clone`: two holders could give it two states. Dropping it leaks the page, which is safe.
///
/// ```
/// use svsm_platform::{page::{Lost, Page, Private, Shared}, seam::PageState};
///
/// fn lend<P: PageState>(page: Page<Private>, platform: &mut P) -> Result<Page<Shared>, P::Error> {
///     page.share(platform).or_else(|(lost, cause)| {
///         // Of a lost page nothing is known: try to get it back, else leak it.
///         let _: Result<Page<Private>, _> = lost.recover(platform);
///         Err(cause)
///     })
/// }
/// ```
///
/// A page that was handed to the host is gone:
///
/// ```compile_fail,E0382
/// use svsm_platform::{page::{Page, Private}, seam::PageState};
///
/// fn lend<P: PageState>(page: Page<Private>, platform: &mut P) -> Page<Private> {
///     let _ = page.share(platform);
///     page
/// }
/// ```
///
/// And a lost one is not a shared one:
///
/// ```compile_fail,E0599
/// use svsm_platform::{page::{Lost, Page}, seam::PageState};
///
/// fn take_back<P: PageState>(page: Page<Lost>, platform: &mut P) {
///     let _ = page.unshare(platform);
/// }
/// ```
#[must_use = "a page that is dropped is never used again"]
pub struct Page<S: State> {
    range: GpaRange, // exactly one page of `size`
    size: PageSize,
    state: PhantomData<S>,
}

impl<S: State> Page<S> {
    /// Takes charge of the page of `size` at `start`; `None` if no such page starts there.
    ///
    /// # Safety
    /// - The page is in the state `S`.
    /// - Nobody else holds it or a part of it: there is no other `Page` over these addresses, no frame in an allocator, and
    ///   no Rust reference into it, for as long as this one is held.
    pub unsafe fn assume(start: Gpa, size: PageSize) -> Option<Self> {
        if !start.is_aligned(size) {
            return None;
        }
        let range = GpaRange::new(start, size.bytes())?;
        Some(Self {
            range,
            size,
            state: PhantomData,
        })
    }

    /// Its first address.
    #[must_use]
    pub const fn start(&self) -> Gpa {
        self.range.start()
    }

    /// Its size.
    #[must_use]
    pub const fn size(&self) -> PageSize {
        self.size
    }

    /// Its addresses.
    #[must_use]
    pub const fn range(&self) -> GpaRange {
        self.range
    }

    /// The name of what is known about it.
    #[must_use]
    pub const fn state(&self) -> &'static str {
        S::NAME
    }

    const fn into_state<T: State>(self) -> Page<T> {
        Page {
            range: self.range,
            size: self.size,
            state: PhantomData,
        }
    }
}

impl Page<Private> {
    /// Hands the page, with all that is in it, to the host. Overwrite secrets first.
    ///
    /// # Errors
    /// After a failure its state is unknown: [recover](Page::recover) it or leak it.
    pub fn share<P: PageState>(
        self,
        platform: &mut P,
    ) -> Result<Page<Shared>, (Page<Lost>, P::Error)> {
        match platform.make_shared(self.range) {
            Ok(()) => Ok(self.into_state()),
            Err(stopped) => Err((self.into_state(), stopped.cause)),
        }
    }
}

impl Page<Shared> {
    /// Takes the page back from the host. What is in it is unspecified: overwrite it before you read it.
    ///
    /// # Errors
    /// After a failure its state is unknown: [recover](Page::recover) it or leak it.
    pub fn unshare<P: PageState>(
        self,
        platform: &mut P,
    ) -> Result<Page<Private>, (Page<Lost>, P::Error)> {
        match platform.make_private(self.range) {
            Ok(()) => Ok(self.into_state()),
            Err(stopped) => Err((self.into_state(), stopped.cause)),
        }
    }
}

impl Page<Lost> {
    /// Tries to make the page private. What is in it is unspecified: overwrite it before you read it.
    ///
    /// # Errors
    /// The page stays lost.
    pub fn recover<P: PageState>(
        self,
        platform: &mut P,
    ) -> Result<Page<Private>, (Self, P::Error)> {
        match platform.make_private(self.range) {
            Ok(()) => Ok(self.into_state()),
            Err(stopped) => Err((self, stopped.cause)),
        }
    }
}

impl<S: State> fmt::Debug for Page<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Page<{}>({:?}, {:?})",
            self.state(),
            self.start(),
            self.size
        )
    }
}
