//! `SVSM_CORE_PVALIDATE`, and the lending of memory that this SVSM does not need.

use svsm_platform::addr::{Gpa, PageSize};
use svsm_platform::irq::IrqCtl;
use svsm_platform::seam::GuestMap;

use super::list::List;
use super::{Core, unreachable};
use crate::registry::Vcpus;
use crate::seam::{Machine, PageError};
use crate::{Outcome, ResultCode};

/// Bytes of memory that one call validates: the time of a few hundred pages to clear.
const BUDGET_BYTES: u64 = 32 << 20;

/// An entry of the list.
#[derive(Clone, Copy, Debug)]
struct Entry {
    page: Gpa,
    size: PageSize,
    validate: bool,
    may_be_unchanged: bool,
}

impl Entry {
    fn parse(word: u64) -> Result<Self, ResultCode> {
        let size = match word & 3 {
            0 => PageSize::Size4K,
            1 => PageSize::Size2M,
            _ => return Err(ResultCode::INVALID_PARAMETER),
        };
        if word & 0xff0 != 0 {
            return Err(ResultCode::INVALID_PARAMETER);
        }
        let page = Gpa::new(word & !0xfff).ok_or(ResultCode::INVALID_ADDRESS)?;
        if !page.is_aligned(size) {
            return Err(ResultCode::INVALID_PARAMETER);
        }
        Ok(Self {
            page,
            size,
            validate: word & 1 << 2 != 0,
            may_be_unchanged: word & 1 << 3 != 0,
        })
    }
}

/// What the guest is told of an instruction that did nothing.
fn failed(error: PageError) -> ResultCode {
    const PAGE_ERRORS: u32 = 0x8000_1000;
    let code = match error {
        PageError::Code(code @ 0..16) => PAGE_ERRORS + code,
        PageError::Code(_) => PAGE_ERRORS + 0x11,
        PageError::Unchanged => PAGE_ERRORS + 0x10,
        // As a processor calls an address that leads nowhere.
        PageError::Faulted => PAGE_ERRORS + 1,
    };
    ResultCode::new(code)
}

impl<M: Machine, G: GuestMap, I: IrqCtl> Core<'_, '_, M, G, I> {
    pub(super) fn validate(&mut self, at: u64) -> Outcome {
        let at = List::place(at)?;
        let registry = self.registry;
        // As long as this is held, no page becomes a save area or a calling area.
        let vcpus = registry.read();
        self.list_is_usable(at, &vcpus)?;
        let mut list = List::read(at, &mut self.machine)?;
        let mut left_bytes = BUDGET_BYTES;
        let mut must_flush = false;
        let outcome = loop {
            let Some(word) = list.next(&mut self.machine) else {
                break Ok(ResultCode::SUCCESS);
            };
            if left_bytes == 0 {
                break Ok(ResultCode::INCOMPLETE);
            }
            let done = word.and_then(Entry::parse).and_then(|entry| {
                must_flush |= !entry.validate;
                left_bytes = left_bytes.saturating_sub(entry.size.bytes());
                self.change(entry, &vcpus)
            });
            match done {
                Ok(()) => list.advance(),
                Err(code) => break Err(code),
            }
        };
        if must_flush {
            self.machine.flush();
        }
        // The index is the guest's to read whatever the outcome is; a list that has gone away meanwhile is an error of its own.
        list.store(&mut self.machine)?;
        outcome
    }

    /// Whether a list may lie there: in the guest's memory, and not among registers.
    fn list_is_usable(&self, at: Gpa, vcpus: &Vcpus<'_>) -> Result<(), ResultCode> {
        let page = at.align_down(PageSize::Size4K);
        if self.is_guests(page, PageSize::Size4K) && !vcpus.holds_save_area(page, PageSize::Size4K)
        {
            Ok(())
        } else {
            Err(ResultCode::INVALID_ADDRESS)
        }
    }

    fn change(&mut self, entry: Entry, vcpus: &Vcpus<'_>) -> Result<(), ResultCode> {
        let Entry {
            page,
            size,
            validate,
            may_be_unchanged,
        } = entry;
        if !self.is_guests(page, size) || vcpus.holds_save_area(page, size) {
            return Err(ResultCode::INVALID_ADDRESS);
        }
        if !validate {
            self.take(page, size).map_err(failed)?;
        }
        match self.machine.validate(page, size, validate) {
            Err(PageError::Unchanged) if may_be_unchanged => {}
            done => done.map_err(failed)?,
        }
        if validate {
            // A host that shows SVSM memory here, or old contents of the page, shows nothing to the guest.
            self.machine.clear(page, size).map_err(unreachable)?;
            self.give(page, size).map_err(failed)?;
        }
        Ok(())
    }

    /// `SVSM_CORE_DEPOSIT_MEM`: no call ever asks for memory, so none is taken.
    pub(super) fn deposit(&mut self, at: u64) -> Outcome {
        let at = List::place(at)?;
        let registry = self.registry;
        self.list_is_usable(at, &registry.read())?;
        let _ = List::read(at, &mut self.machine)?;
        Err(ResultCode::INVALID_REQUEST)
    }

    /// `SVSM_CORE_WITHDRAW_MEM`: there is nothing to give back.
    pub(super) fn withdraw(&mut self, at: u64) -> Outcome {
        let at = List::place(at)?;
        let registry = self.registry;
        self.list_is_usable(at, &registry.read())?;
        // The count, and room for one entry.
        if at.page_offset(PageSize::Size4K) + 16 > PageSize::Size4K.bytes() {
            return Err(ResultCode::INVALID_PARAMETER);
        }
        self.machine.write(at, &[0; 2]).map_err(unreachable)?;
        Ok(ResultCode::SUCCESS)
    }
}
