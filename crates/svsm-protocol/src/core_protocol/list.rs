//! Lists of pages in guest memory: a count, the index of the next entry, and the entries.

use svsm_platform::addr::{Gpa, PageSize};

use crate::ResultCode;
use crate::seam::GuestMemory;

const HEADER_BYTES: u64 = 8;
const ENTRY_BYTES: u64 = 8;
const PAGE: u64 = PageSize::Size4K.bytes();

/// A list whose place and header have been checked. All of it lies in one page.
#[derive(Debug)]
pub(super) struct List {
    at: Gpa,
    count: u16,
    next: u16,
}

impl List {
    /// Whether a list can start there.
    pub(super) fn place(at: u64) -> Result<Gpa, ResultCode> {
        if !at.is_multiple_of(ENTRY_BYTES) {
            return Err(ResultCode::INVALID_PARAMETER);
        }
        Gpa::new(at).ok_or(ResultCode::INVALID_ADDRESS)
    }

    /// Reads the header of the list at `at`, which is the guest's.
    pub(super) fn read(at: Gpa, memory: &mut impl GuestMemory) -> Result<Self, ResultCode> {
        let mut header = [0; 8];
        memory.read(at, &mut header).map_err(super::unreachable)?;
        let [c0, c1, n0, n1, ..] = header;
        let count = u16::from_le_bytes([c0, c1]);
        let next = u16::from_le_bytes([n0, n1]);
        let end = at.page_offset(PageSize::Size4K) + HEADER_BYTES + u64::from(count) * ENTRY_BYTES;
        if count == 0 || next >= count || end > PAGE {
            return Err(ResultCode::INVALID_PARAMETER);
        }
        Ok(Self { at, count, next })
    }

    /// Reads the next entry; `None` if all are done.
    pub(super) fn next(&self, memory: &mut impl GuestMemory) -> Option<Result<u64, ResultCode>> {
        if self.next >= self.count {
            return None;
        }
        let offset = HEADER_BYTES + u64::from(self.next) * ENTRY_BYTES;
        let mut entry = [0; 8];
        let read = self
            .at
            .checked_add(offset)
            .ok_or(ResultCode::INVALID_ADDRESS)
            .and_then(|at| memory.read(at, &mut entry).map_err(super::unreachable));
        Some(read.map(|()| u64::from_le_bytes(entry)))
    }

    /// The next entry is done.
    pub(super) const fn advance(&mut self) {
        self.next += 1;
    }

    /// Tells the guest how far it went.
    pub(super) fn store(&self, memory: &mut impl GuestMemory) -> Result<(), ResultCode> {
        let at = self.at.checked_add(2).ok_or(ResultCode::INVALID_ADDRESS)?;
        memory
            .write(at, &self.next.to_le_bytes())
            .map_err(super::unreachable)
    }
}
