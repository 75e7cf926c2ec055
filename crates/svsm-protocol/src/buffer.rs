//! Bytes that a guest names: checked when they are used, and not before.

use core::fmt;

use svsm_platform::addr::{Gpa, GpaRange, PageSize};
use svsm_platform::irq::IrqCtl;
use svsm_platform::seam::{GuestMap, Owner};

use crate::ResultCode;
use crate::registry::{Registry, Vcpus};
use crate::seam::GuestMemory;

/// The guest's memory as one call may use it: what is the guest's, and holds nobody's registers.
///
/// Another processor of the guest can make a page a save area at any time, and whoever writes there then would write registers
/// for the guest. So every access checks its range under the lock that such a change needs, and ends before it lets go.
pub struct GuestBuffers<'a, 'm, M, G, I: IrqCtl> {
    registry: &'a Registry<'m, I>,
    map: G,
    memory: M,
}

impl<'a, 'm, M: GuestMemory, G: GuestMap, I: IrqCtl> GuestBuffers<'a, 'm, M, G, I> {
    /// Memory that `map` calls the guest's, reached through `memory`.
    #[must_use]
    pub const fn new(registry: &'a Registry<'m, I>, map: G, memory: M) -> Self {
        Self {
            registry,
            map,
            memory,
        }
    }

    /// Whether a range may be used right now.
    ///
    /// # Errors
    /// [`ResultCode::INVALID_ADDRESS`].
    pub fn check(&self, at: u64, len_bytes: u64) -> Result<(), ResultCode> {
        self.range(&self.registry.read(), at, len_bytes).map(drop)
    }

    /// Copies bytes out, each once; they may cross pages.
    ///
    /// # Errors
    /// [`ResultCode::INVALID_ADDRESS`]; what `to` holds then is not to be used.
    pub fn read(&mut self, at: u64, to: &mut [u8]) -> Result<(), ResultCode> {
        let vcpus = self.registry.read();
        let mut from = self.range(&vcpus, at, to.len() as u64)?;
        let mut rest = to;
        while !rest.is_empty() {
            let (now, later) = rest.split_at_mut(in_page(from, rest.len()));
            self.memory.read(from, now).map_err(unreachable)?;
            from = after(from, now.len());
            rest = later;
        }
        Ok(())
    }

    /// Copies bytes in; they may cross pages.
    ///
    /// # Errors
    /// [`ResultCode::INVALID_ADDRESS`]. Nothing was written if the range is not the guest's; some may have been if the host took
    /// a page away.
    pub fn write(&mut self, at: u64, from: &[u8]) -> Result<(), ResultCode> {
        let vcpus = self.registry.read();
        let mut to = self.range(&vcpus, at, from.len() as u64)?;
        let mut rest = from;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(in_page(to, rest.len()));
            self.memory.write(to, now).map_err(unreachable)?;
            to = after(to, now.len());
            rest = later;
        }
        Ok(())
    }

    fn range(&self, vcpus: &Vcpus<'_>, at: u64, len_bytes: u64) -> Result<Gpa, ResultCode> {
        let at = Gpa::new(at).ok_or(ResultCode::INVALID_ADDRESS)?;
        let range = GpaRange::new(at, len_bytes.max(1)).ok_or(ResultCode::INVALID_ADDRESS)?;
        let pages = range
            .grow_to(PageSize::Size4K)
            .ok_or(ResultCode::INVALID_ADDRESS)?;
        if self.map.owner(pages) == Some(Owner::Guest) && !vcpus.has_save_area_in(pages) {
            Ok(at)
        } else {
            Err(ResultCode::INVALID_ADDRESS)
        }
    }
}

impl<M, G, I: IrqCtl> fmt::Debug for GuestBuffers<'_, '_, M, G, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestBuffers").finish_non_exhaustive()
    }
}

/// How many of `len` bytes from `at` on lie in its page.
fn in_page(at: Gpa, len: usize) -> usize {
    let rest = PageSize::Size4K.bytes() - at.page_offset(PageSize::Size4K);
    usize::try_from(rest).map_or(len, |rest| rest.min(len))
}

/// Where the bytes after those begin, which are in the same checked range.
fn after(at: Gpa, len: usize) -> Gpa {
    at.checked_add(len as u64).unwrap_or(at)
}

const fn unreachable(_: crate::seam::Unreachable) -> ResultCode {
    ResultCode::INVALID_ADDRESS
}
