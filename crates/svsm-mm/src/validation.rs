//! Which pages are in which state, as far as the SVSM has brought them there.
//!
//! The host decides what backs a guest physical address; the guest decides what it has accepted. A
//! page that was accepted once and is accepted again may have been swapped in between, and its old
//! contents replayed. The only protection is to remember. So a [`Validation`] knows the state of
//! each page, every change goes through it, and a second acceptance is an error that says so.

use svsm_platform::addr::{Gpa, GpaRange, PageSize};
use svsm_platform::seam::{PageState, Stopped};

use crate::{Error, Result};

/// What a page is, as far as the SVSM has brought it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum PageUse {
    /// Assigned by the host perhaps, but never accepted, or released again.
    Unaccepted = 0,
    /// Accepted: the guest's alone.
    Private = 1,
    /// The host's as well.
    Shared = 2,
    /// A change failed half-way; nobody knows.
    InDoubt = 3,
}

impl PageUse {
    const fn from_bits(bits: u64) -> Self {
        match bits & 3 {
            0 => Self::Unaccepted,
            1 => Self::Private,
            2 => Self::Shared,
            _ => Self::InDoubt,
        }
    }

    /// The state in all 32 fields of a word.
    const fn word(self) -> u64 {
        self as u64 * 0x5555_5555_5555_5555
    }
}

const FIELDS: u64 = 32;
const WORDS: usize = 16;

/// The states of the 512 pages of a 2 MiB block. All-zero bytes are a valid value: nothing accepted.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Block {
    /// One more than the state that all pages have, or 0 to look at `words`; but a block that was
    /// never touched is all zero, and its words say the same.
    uniform: u64,
    words: [u64; WORDS],
}

impl Block {
    /// A block of which nothing is accepted.
    pub const UNACCEPTED: Self = Self {
        uniform: 0,
        words: [0; WORDS],
    };

    const fn all(&self) -> Option<PageUse> {
        match self.uniform {
            0 => None,
            state => Some(PageUse::from_bits(state - 1)),
        }
    }

    fn page(&self, page: u64) -> PageUse {
        self.all().unwrap_or_else(|| {
            let word = usize::try_from(page / FIELDS)
                .ok()
                .and_then(|word| self.words.get(word));
            PageUse::from_bits(word.map_or(3, |word| word >> (page % FIELDS * 2)))
        })
    }

    /// The first page from `first` on, but before `end`, that is not in `state`.
    fn first_other(&self, first: u64, end: u64, state: PageUse) -> u64 {
        match self.all() {
            Some(all) if all == state => return end,
            Some(_) => return first,
            None => {}
        }
        let mut page = first;
        while page < end {
            let word = usize::try_from(page / FIELDS)
                .ok()
                .and_then(|word| self.words.get(word));
            let differs =
                (word.copied().unwrap_or(!state.word()) ^ state.word()) >> (page % FIELDS * 2);
            if differs != 0 {
                return end.min(page + u64::from(differs.trailing_zeros() / 2));
            }
            page += FIELDS - page % FIELDS;
        }
        end
    }

    fn set(&mut self, first: u64, end: u64, state: PageUse) {
        if first == 0 && end == PAGES {
            self.uniform = state as u64 + 1;
            return;
        }
        if let Some(all) = self.all() {
            self.words = [all.word(); WORDS];
            self.uniform = 0;
        }
        for (start, word) in (0..).step_by(32).zip(&mut self.words) {
            let from = first.clamp(start, start + FIELDS) - start;
            let to = end.clamp(start, start + FIELDS) - start;
            let mask = below(to) & !below(from);
            *word = *word & !mask | state.word() & mask;
        }
    }
}

/// A word with the fields before `field` set.
const fn below(field: u64) -> u64 {
    if field >= FIELDS {
        u64::MAX
    } else {
        (1 << (field * 2)) - 1
    }
}

const PAGES: u64 = 512;
const BLOCK_BYTES: u64 = PageSize::Size2M.bytes();

/// The states of all pages of a span.
#[derive(Debug)]
pub struct Validation<'m> {
    span: GpaRange,
    first_block: u64,
    blocks: &'m mut [Block],
}

impl<'m> Validation<'m> {
    /// How many [`Block`]s a span needs.
    #[must_use]
    pub const fn blocks_len(span: GpaRange) -> u64 {
        let first = span.start().as_u64() / BLOCK_BYTES;
        span.end().as_u64().div_ceil(BLOCK_BYTES) - first
    }

    /// A span of which nothing is accepted yet.
    ///
    /// # Errors
    /// [`Error::Misaligned`] if a bound is not a page's, and [`Error::MetadataTooShort`].
    pub fn new(span: GpaRange, blocks: &'m mut [Block]) -> Result<Self> {
        check_pages(span)?;
        let needed = Self::blocks_len(span);
        let blocks = usize::try_from(needed)
            .ok()
            .and_then(|needed| blocks.get_mut(..needed));
        let blocks = blocks.ok_or(Error::MetadataTooShort { needed })?;
        blocks.fill(Block::UNACCEPTED);
        Ok(Self {
            span,
            first_block: span.start().as_u64() / BLOCK_BYTES,
            blocks,
        })
    }

    /// The span.
    #[must_use]
    pub const fn span(&self) -> GpaRange {
        self.span
    }

    /// The state of the page that holds `at`.
    ///
    /// # Errors
    /// [`Error::Untracked`] outside of the span.
    pub fn page(&self, at: Gpa) -> Result<PageUse> {
        let page = GpaRange::page_of(at, PageSize::Size4K).ok_or(Error::Bug)?;
        let (index, first, _) = self.part(page)?;
        Ok(self.blocks.get(index).ok_or(Error::Bug)?.page(first))
    }

    /// The longest beginning of `range` that is in one state, and that state.
    ///
    /// # Errors
    /// [`Error::Untracked`] if the range leaves the span, [`Error::Misaligned`] unless it is of
    /// whole pages.
    pub fn first_run(&self, range: GpaRange) -> Result<(GpaRange, PageUse)> {
        self.check(range)?;
        let state = self.page(range.start())?;
        let mut rest = range;
        while !rest.is_empty() {
            let (index, first, end) = self.part(rest)?;
            let block = self.blocks.get(index).ok_or(Error::Bug)?;
            let other = block.first_other(first, end, state);
            let bytes = (other - first) * PageSize::Size4K.bytes();
            rest = split(rest, bytes)?.1;
            if other < end {
                break;
            }
        }
        Ok((
            GpaRange::from_bounds(range.start(), rest.start()).ok_or(Error::Bug)?,
            state,
        ))
    }

    /// States what pages are, without doing anything to them: for what an image or an earlier
    /// stage has accepted.
    ///
    /// # Errors
    /// As for [`first_run`](Self::first_run).
    pub fn assume(&mut self, range: GpaRange, state: PageUse) -> Result<()> {
        self.check(range)?;
        let mut rest = range;
        while !rest.is_empty() {
            let (index, first, end) = self.part(rest)?;
            self.blocks
                .get_mut(index)
                .ok_or(Error::Bug)?
                .set(first, end, state);
            rest = split(rest, (end - first) * PageSize::Size4K.bytes())?.1;
        }
        Ok(())
    }

    /// The block that `range` starts in, and the first and end page of its part there.
    fn part(&self, range: GpaRange) -> Result<(usize, u64, u64)> {
        if !self.span.contains_range(&range) {
            return Err(Error::Untracked { range });
        }
        let first = range.start().as_u64() / PageSize::Size4K.bytes();
        let end = range.end().as_u64().div_ceil(PageSize::Size4K.bytes());
        let index = usize::try_from(first / PAGES - self.first_block).map_err(|_| Error::Bug)?;
        let base = first / PAGES * PAGES;
        Ok((index, first - base, end.min(base + PAGES) - base))
    }

    fn check(&self, range: GpaRange) -> Result<()> {
        check_pages(range)?;
        if self.span.contains_range(&range) {
            Ok(())
        } else {
            Err(Error::Untracked { range })
        }
    }
}

/// Why a range was not brought into another state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum StateError<E> {
    /// The page is in a state from which this is no way; above all, it was accepted before.
    Wrong {
        /// The page.
        page: Gpa,
        /// Its state.
        state: PageUse,
    },
    /// The request itself is wrong.
    Request(Error),
    /// The platform, or the host through it.
    Platform(E),
}

/// What [`Validation`] remembers, together with what does the work.
///
/// All operations go through a range from start to end, in the largest pages that it allows, and
/// stop at the first page that is not in the state they start from. What failed half-way is
/// remembered as [`PageUse::InDoubt`], and only [`recover`](Self::recover) brings it back.
#[derive(Debug)]
pub struct Tracked<'v, 'm, P> {
    validation: &'v mut Validation<'m>,
    platform: &'v mut P,
}

type Outcome<P> = core::result::Result<(), Stopped<StateError<<P as PageState>::Error>>>;

impl<'v, 'm, P: PageState> Tracked<'v, 'm, P> {
    /// Both together.
    pub const fn new(validation: &'v mut Validation<'m>, platform: &'v mut P) -> Self {
        Self {
            validation,
            platform,
        }
    }

    /// Accepts pages that never were, or were released.
    ///
    /// # Errors
    /// How far it came, and why it stopped.
    pub fn accept(&mut self, range: GpaRange) -> Outcome<P> {
        self.change(range, PageUse::Unaccepted, PageUse::Private, P::accept)
    }

    /// Accepts what in `range` is not yet, and leaves alone what is private already: for memory
    /// that is accepted as it is needed. Shared pages and those in doubt stop it.
    ///
    /// # Errors
    /// How far it came, and why it stopped.
    pub fn ensure(&mut self, range: GpaRange) -> Outcome<P> {
        let mut rest = range;
        while !rest.is_empty() {
            let done = range.len_bytes() - rest.len_bytes();
            let further = |stopped| further(done, stopped);
            let request = |error| further(Stopped::at_start(StateError::Request(error)));
            let (run, state) = self.validation.first_run(rest).map_err(request)?;
            if state != PageUse::Private {
                self.accept(run).map_err(further)?;
            }
            rest = split(rest, run.len_bytes()).map_err(request)?.1;
        }
        Ok(())
    }

    /// Releases private pages, so that the host may take them away.
    ///
    /// # Errors
    /// How far it came, and why it stopped.
    pub fn release(&mut self, range: GpaRange) -> Outcome<P> {
        self.change(range, PageUse::Private, PageUse::Unaccepted, P::release)
    }

    /// Shares private pages with the host.
    ///
    /// # Errors
    /// How far it came, and why it stopped.
    pub fn share(&mut self, range: GpaRange) -> Outcome<P> {
        self.change(range, PageUse::Private, PageUse::Shared, P::make_shared)
    }

    /// Takes shared pages away from the host. Their contents are arbitrary.
    ///
    /// # Errors
    /// How far it came, and why it stopped.
    pub fn unshare(&mut self, range: GpaRange) -> Outcome<P> {
        self.change(range, PageUse::Shared, PageUse::Private, P::make_private)
    }

    /// Makes pages private whose last change failed. Their contents are arbitrary.
    ///
    /// # Errors
    /// How far it came, and why it stopped.
    pub fn recover(&mut self, range: GpaRange) -> Outcome<P> {
        self.change(range, PageUse::InDoubt, PageUse::Private, P::make_private)
    }

    fn change(
        &mut self,
        range: GpaRange,
        from: PageUse,
        to: PageUse,
        work: impl FnOnce(
            &mut P,
            GpaRange,
        ) -> core::result::Result<(), Stopped<<P as PageState>::Error>>,
    ) -> Outcome<P> {
        let request = |error| Stopped::at_start(StateError::Request(error));
        if range.is_empty() {
            return Ok(());
        }
        let (run, state) = self.validation.first_run(range).map_err(request)?;
        if state != from {
            return Err(Stopped::at_start(StateError::Wrong {
                page: range.start(),
                state,
            }));
        }
        let outcome = work(self.platform, run);
        // A platform that claims more than it was asked for gets credit for no more.
        let (done, doubtful) = match &outcome {
            Ok(()) => (run.len_bytes(), 0),
            Err(stopped) => {
                let mask = PageSize::Size4K.offset_mask();
                let done = stopped.done_bytes.min(run.len_bytes()) & !mask;
                let reached = stopped.done_bytes.saturating_add(stopped.doubtful_bytes);
                let end = reached.min(run.len_bytes()).saturating_add(mask) & !mask;
                (done, end - done)
            }
        };
        let (changed, rest) = split(run, done).map_err(request)?;
        let (unclear, _) = split(rest, doubtful).map_err(request)?;
        self.validation.assume(changed, to).map_err(request)?;
        self.validation
            .assume(unclear, PageUse::InDoubt)
            .map_err(request)?;
        if let Err(stopped) = outcome {
            return Err(Stopped {
                done_bytes: done,
                doubtful_bytes: doubtful,
                cause: StateError::Platform(stopped.cause),
            });
        }
        if run.end() < range.end() {
            let state = self.validation.page(run.end()).map_err(request)?;
            let cause = StateError::Wrong {
                page: run.end(),
                state,
            };
            return Err(Stopped {
                done_bytes: done,
                doubtful_bytes: 0,
                cause,
            });
        }
        Ok(())
    }
}

fn check_pages(range: GpaRange) -> Result<()> {
    for bound in [range.start(), range.end()] {
        if !bound.is_aligned(PageSize::Size4K) {
            return Err(Error::Misaligned {
                address: bound.as_u64(),
            });
        }
    }
    Ok(())
}

fn split(range: GpaRange, bytes: u64) -> Result<(GpaRange, GpaRange)> {
    range
        .start()
        .checked_add(bytes)
        .and_then(|at| range.split_at(at))
        .ok_or(Error::Bug)
}

fn further<E>(done: u64, stopped: Stopped<E>) -> Stopped<E> {
    Stopped {
        done_bytes: done + stopped.done_bytes,
        ..stopped
    }
}

#[cfg(test)]
mod tests;
