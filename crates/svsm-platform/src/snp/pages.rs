//! Page states and rights: PVALIDATE, RMPADJUST and what the host has to do for them.

use super::{
    Error,
    error::{Failure, Instruction},
    ghcb::{BUFFER_BYTES, Ghcb},
    insn::{Insn, Raw, RmpSize},
};
use crate::{
    addr::{Gpa, GpaRange, Gva},
    level::Vmpl,
    seam::{GuestAccess, PageState, Rights, Stopped},
};

/// Entries of a list of page-state changes that fit into the GHCB page's buffer.
pub const MAX_ENTRIES: usize = BUFFER_BYTES / 8 - 1;

/// How many exits in a row may bring a list no further.
const PATIENCE: u32 = 64;

/// Shows a private page to instructions that want a virtual address.
///
/// # Safety
///
/// The address that `run` gets is mapped to all of that page, as private, while `run` runs, and nothing else is mapped there.
#[expect(unsafe_code, reason = "instructions act on what the address maps to")]
pub unsafe trait Reach {
    /// Whether pages of 2 MiB can be shown.
    fn reaches_large(&self) -> bool;

    /// Runs `run` with the address of `page`. `None` if the page cannot be shown.
    fn reach<R>(&mut self, page: Gpa, size: RmpSize, run: impl FnOnce(Gva) -> R) -> Option<R>;
}

/// Changes page states and rights of this guest's memory, through one CPU's GHCB page.
///
/// Works in the largest pages that fit. A large page that turns out to be many small ones is done one by one.
#[derive(Debug)]
pub struct Pages<'p, I, R> {
    insn: I,
    ghcb: Option<Ghcb<'p, I>>,
    reach: R,
    counts: Counts,
}

/// What was done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Counts {
    /// PVALIDATEs that changed a page.
    pub pvalidates: u64,
    /// RMPADJUSTs that succeeded.
    pub rmpadjusts: u64,
    /// Exits to the host.
    pub exits: u64,
}

impl<'p, I: Insn + Copy, R: Reach> Pages<'p, I, R> {
    /// Pages that `reach` shows. Without a GHCB page there is no talking to the host: memory can be accepted and granted, but
    /// not shared.
    ///
    /// # Safety
    /// As long as this is used, Rust code relies on nothing in the pages whose state or rights it is made to change.
    #[expect(unsafe_code, reason = "takes pages away")]
    #[must_use]
    pub const unsafe fn new(insn: I, ghcb: Option<Ghcb<'p, I>>, reach: R) -> Self {
        Self {
            insn,
            ghcb,
            reach,
            counts: Counts {
                pvalidates: 0,
                rmpadjusts: 0,
                exits: 0,
            },
        }
    }

    /// What was done so far.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// What shows the pages.
    pub const fn reach(&mut self) -> &mut R {
        &mut self.reach
    }

    /// Validates or invalidates one page.
    ///
    /// # Errors
    /// Why the page is as it was; also if it had that state already.
    pub fn validate(&mut self, page: Gpa, size: RmpSize, validate: bool) -> Result<(), Error> {
        let insn = self.insn;
        // SAFETY: who made this value says that nobody relies on the page.
        #[expect(unsafe_code, reason = "changes the state of a page")]
        let run = |at| unsafe { insn.pvalidate(at, size, validate) };
        let raw = self
            .reach
            .reach(page, size, run)
            .ok_or(Error::NotMapped { page })?;
        judge(Instruction::Pvalidate, raw)?;
        self.counts.pvalidates += 1;
        Ok(())
    }

    /// Sets what a level may do with a page, and whether it is a save area.
    ///
    /// # Errors
    /// Why the page is as it was.
    pub fn adjust(
        &mut self,
        page: Gpa,
        size: RmpSize,
        level: Vmpl,
        rights: Rights,
        is_vmsa: bool,
    ) -> Result<(), Error> {
        let insn = self.insn;
        let word = u64::from(level.as_u8())
            | u64::from(rights.bits()) << RIGHTS_SHIFT
            | u64::from(is_vmsa) << VMSA_SHIFT;
        // SAFETY: who made this value says that nobody relies on the page.
        #[expect(unsafe_code, reason = "gives rights to a page")]
        let run = |at| unsafe { insn.rmpadjust(at, size, word) };
        let raw = self
            .reach
            .reach(page, size, run)
            .ok_or(Error::NotMapped { page })?;
        judge(Instruction::Rmpadjust, raw)?;
        self.counts.rmpadjusts += 1;
        Ok(())
    }

    /// Does something to each page of a range, in the largest pages that fit.
    fn each(
        &mut self,
        range: GpaRange,
        mut change: impl FnMut(&mut Self, Gpa, RmpSize) -> Result<(), Error>,
    ) -> Result<(), Stopped<Error>> {
        let mut walk = Walk::new(range, self.reach.reaches_large())?;
        let start = range.start();
        // The end of a large page that is known to be many small ones.
        let mut small_until = start;
        while let Some((page, mut size)) = walk.peek() {
            if page < small_until {
                size = RmpSize::Size4K;
            }
            let result = match change(self, page, size) {
                Err(error) if size == RmpSize::Size2M && error.is_size_mismatch() => {
                    small_until = page.checked_add(size.bytes()).unwrap_or(range.end());
                    continue;
                }
                result => result,
            };
            result.map_err(|cause| Stopped {
                done_bytes: page.checked_offset_from(start).unwrap_or(0),
                doubtful_bytes: 0,
                cause,
            })?;
            walk.advance(size);
        }
        Ok(())
    }

    /// Has the host change the state of a range; answers how many bytes are changed for sure, how many may be, and why it
    /// stopped.
    fn host_changes(&mut self, range: GpaRange, private: bool) -> Result<(), Stopped<Error>> {
        let Some(ghcb) = &self.ghcb else {
            return Err(Stopped::at_start(Error::Request));
        };
        let mut walk = Walk::new(range, true)?;
        let mut done_bytes = 0;
        while walk.peek().is_some() {
            let mut list = List::new();
            while let Some((page, size)) = walk.peek().filter(|_| !list.is_full()) {
                list.push(page, size, private);
                walk.advance(size);
            }
            while !list.is_done() {
                // SAFETY: who made this value says that nobody relies on the pages.
                #[expect(unsafe_code, reason = "takes pages away")]
                let result = unsafe { list.work(ghcb) };
                self.counts.exits += 1;
                result.map_err(|cause| Stopped {
                    done_bytes: done_bytes + list.done_bytes(),
                    doubtful_bytes: list.bytes() - list.done_bytes(),
                    cause,
                })?;
            }
            done_bytes += list.bytes();
        }
        Ok(())
    }
}

/// Where RMPADJUST's word has the rights.
const RIGHTS_SHIFT: u32 = 8;
/// Where it says that the page is a save area.
const VMSA_SHIFT: u32 = 16;

/// What an instruction's registers mean.
const fn judge(instruction: Instruction, raw: Raw) -> Result<(), Error> {
    let failure = match raw {
        Raw::Faulted => Failure::Faulted,
        Raw::Done { code, carry } => match (code, carry) {
            (0, false) => return Ok(()),
            (0, true) => Failure::Unchanged,
            (1, _) => Failure::Input,
            (2, _) => Failure::Permission,
            (6, _) => Failure::SizeMismatch,
            (code, _) => Failure::Unknown(code),
        },
    };
    Err(Error::Instruction {
        instruction,
        failure,
    })
}

/// The pages of a range, from its start to its end.
struct Walk {
    rest: GpaRange,
    large: bool,
}

impl Walk {
    fn new(range: GpaRange, large: bool) -> Result<Self, Stopped<Error>> {
        if range.is_aligned(RmpSize::Size4K.page_size()) {
            Ok(Self { rest: range, large })
        } else {
            Err(Stopped::at_start(Error::Unaligned))
        }
    }

    fn peek(&self) -> Option<(Gpa, RmpSize)> {
        if self.rest.is_empty() {
            return None;
        }
        let start = self.rest.start();
        let large = RmpSize::Size2M;
        let fits = start.is_aligned(large.page_size()) && self.rest.len_bytes() >= large.bytes();
        let size = if self.large && fits {
            large
        } else {
            RmpSize::Size4K
        };
        Some((start, size))
    }

    fn advance(&mut self, size: RmpSize) {
        let next = self.rest.start().checked_add(size.bytes());
        self.rest = next
            .and_then(|start| GpaRange::from_bounds(start, self.rest.end()))
            .unwrap_or(GpaRange::empty(self.rest.end()));
    }
}

/// A list of page-state changes, and how far the host says that it came. The copy here is what counts: the host cannot change
/// what was asked for, nor go back.
struct List {
    words: [u64; MAX_ENTRIES],
    len: usize,
    /// The entry at which the host works.
    current: usize,
    /// 4 KiB pages of that entry that are done.
    pages: u64,
    /// Exits since it came further.
    idle: u32,
}

/// The low bits of an entry count the pages that are done.
const ENTRY_PAGES: u64 = 0xfff;
const ENTRY_LARGE: u64 = 1 << 56;

impl List {
    const fn new() -> Self {
        Self {
            words: [0; MAX_ENTRIES],
            len: 0,
            current: 0,
            pages: 0,
            idle: 0,
        }
    }

    const fn is_full(&self) -> bool {
        self.len == MAX_ENTRIES
    }

    const fn is_done(&self) -> bool {
        self.current >= self.len
    }

    fn push(&mut self, page: Gpa, size: RmpSize, private: bool) {
        let operation = if private { 1_u64 } else { 2 };
        if let Some(word) = self.words.get_mut(self.len) {
            *word = page.as_u64() | operation << 52 | size.as_u64() << 56;
            self.len += 1;
        }
    }

    fn entries(&self) -> &[u64] {
        self.words.get(..self.len).unwrap_or_default()
    }

    /// Bytes of the entries before `entry`.
    fn bytes_before(&self, entry: usize) -> u64 {
        self.entries()
            .iter()
            .take(entry)
            .map(|word| entry_bytes(*word))
            .sum()
    }

    fn bytes(&self) -> u64 {
        self.bytes_before(self.len)
    }

    fn done_bytes(&self) -> u64 {
        self.bytes_before(self.current) + self.pages * RmpSize::Size4K.bytes()
    }

    /// Makes one exit, and notes how far the host came.
    ///
    /// # Safety
    /// Rust code relies on nothing in the pages.
    #[expect(unsafe_code, reason = "takes pages away")]
    unsafe fn work<I: Insn>(&mut self, ghcb: &Ghcb<'_, I>) -> Result<(), Error> {
        let mut words = self.words;
        if let Some(word) = words.get_mut(self.current) {
            *word |= self.pages;
        }
        let words = words.get(..self.len).unwrap_or_default();
        let last = self.len.saturating_sub(1) as u64;
        let (mut current, mut pages) = (usize::MAX, 0);
        let note = |index: usize, word: u64| {
            if index == 0 {
                current = usize::from(u16::try_from(word & 0xffff).unwrap_or(u16::MAX));
            } else if index - 1 == current {
                pages = word & ENTRY_PAGES;
            }
        };
        // SAFETY: the caller vouches for the pages.
        let result = unsafe { ghcb.change_pages(last << 16 | self.current as u64, words, note) };
        let before = (self.current, self.pages);
        let limit = words
            .get(current)
            .map_or(0, |word| entry_bytes(*word) / RmpSize::Size4K.bytes());
        // Neither back nor beyond. A page counter that says all is one that forgot to go on to the next entry.
        if current > self.len || (current, pages) < before || pages > limit {
            return result.and(Err(Error::Answer { request: REQUEST }));
        }
        (self.current, self.pages) = (current, pages);
        result?;
        self.idle = if (current, pages) == before {
            self.idle + 1
        } else {
            0
        };
        if self.idle > PATIENCE {
            return Err(Error::NoAnswer { request: REQUEST });
        }
        Ok(())
    }
}

/// The exit's code, for errors.
const REQUEST: u64 = 0x8000_0010;

const fn entry_bytes(word: u64) -> u64 {
    if word & ENTRY_LARGE != 0 {
        RmpSize::Size2M.bytes()
    } else {
        RmpSize::Size4K.bytes()
    }
}

/// Only what comes of the host's part is in doubt.
fn part(range: GpaRange, done_bytes: u64) -> GpaRange {
    range
        .start()
        .checked_add(done_bytes)
        .and_then(|end| GpaRange::from_bounds(range.start(), end))
        .unwrap_or(GpaRange::empty(range.start()))
}

impl<I: Insn + Copy, R: Reach> PageState for Pages<'_, I, R> {
    type Error = Error;

    fn accept(&mut self, range: GpaRange) -> Result<(), Stopped<Error>> {
        self.each(range, |pages, page, size| pages.validate(page, size, true))
    }

    fn release(&mut self, range: GpaRange) -> Result<(), Stopped<Error>> {
        self.each(range, |pages, page, size| pages.validate(page, size, false))
    }

    fn make_shared(&mut self, range: GpaRange) -> Result<(), Stopped<Error>> {
        // Invalid pages are nobody's: what was released before a failure is in doubt, not shared.
        if let Err(stopped) = self.release(range) {
            return Err(Stopped {
                done_bytes: 0,
                doubtful_bytes: stopped.done_bytes + stopped.doubtful_bytes,
                cause: stopped.cause,
            });
        }
        self.host_changes(range, false).map_err(|stopped| Stopped {
            doubtful_bytes: range.len_bytes() - stopped.done_bytes,
            ..stopped
        })
    }

    fn make_private(&mut self, range: GpaRange) -> Result<(), Stopped<Error>> {
        let changed = self.host_changes(range, true);
        let changed_bytes = match &changed {
            Ok(()) => range.len_bytes(),
            Err(stopped) => stopped.done_bytes,
        };
        // What the host has done is accepted in any case: that prefix is in the new state.
        self.accept(part(range, changed_bytes))
            .map_err(|stopped| Stopped {
                doubtful_bytes: changed_bytes - stopped.done_bytes,
                ..stopped
            })?;
        changed
    }
}

impl<I: Insn + Copy, R: Reach> GuestAccess for Pages<'_, I, R> {
    type Level = Vmpl;
    type Error = Error;

    fn grant(
        &mut self,
        range: GpaRange,
        level: Vmpl,
        rights: Rights,
    ) -> Result<(), Stopped<Error>> {
        self.each(range, |pages, page, size| {
            pages.adjust(page, size, level, rights, false)
        })
    }

    fn revoke(&mut self, range: GpaRange, level: Vmpl) -> Result<(), Stopped<Error>> {
        self.grant(range, level, Rights::empty())
    }

    fn rights(&mut self, page: Gpa, level: Vmpl) -> Result<Rights, Error> {
        let page = page.align_down(RmpSize::Size4K.page_size());
        let insn = self.insn;
        let found = self
            .reach
            .reach(page, RmpSize::Size4K, |at| insn.rmpquery(at, level))
            .ok_or(Error::NotMapped { page })?;
        judge(Instruction::Rmpquery, found.raw)?;
        let [_, rights, ..] = found.word.to_le_bytes();
        Ok(Rights::from_bits_truncate(rights))
    }
}
