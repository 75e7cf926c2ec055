//! Memory of the guest: whatever it names is a claim, and whatever is read is a copy.

#![expect(
    unsafe_code,
    reason = "memory is accessed that a guest writes at any time"
)]

use svsm_platform::addr::{Gpa, GpaRange, PageSize};
use svsm_platform::claim::Claim;
use svsm_platform::encryption::Visibility;
use svsm_platform::seam::GuestMap;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::window::{PAGE_BYTES, Window};
use crate::{Error, Result};

/// Copies from and to private memory of the guest.
///
/// Each byte is read once: judge the copy, never read again. A copy that crosses a page bound is
/// not one moment's picture, and neither is a longer one.
#[derive(Clone, Debug)]
pub struct GuestMemory<W, M> {
    window: W,
    map: M,
}

impl<W: Window, M: GuestMap> GuestMemory<W, M> {
    /// Guest memory according to `map`, reached by `window`.
    ///
    /// # Safety
    /// What `map` says is the guest's stays so while a copy is made, is backed by memory that can
    /// be accessed, and holds no Rust object.
    pub const unsafe fn new(window: W, map: M) -> Self {
        Self { window, map }
    }

    /// Copies what the guest has at `at`.
    ///
    /// # Errors
    /// [`Error::Claim`] if not all of it is the guest's; nothing is read then. Or what the window
    /// says, when some may have been.
    pub fn read(&self, at: Claim<Gpa>, bytes: &mut [u8]) -> Result<()> {
        let range = self.check(at, bytes.len() as u64)?;
        let mut rest = bytes;
        self.for_parts(range, |cell, offset, len| {
            let part = rest.split_off_mut(..len).ok_or(Error::Bug)?;
            cell.read(offset, part)
        })
    }

    /// Copies `bytes` to `at` in the guest's memory.
    ///
    /// # Errors
    /// [`Error::Claim`] if not all of it is the guest's; nothing is written then. Or what the
    /// window says, when some may have been.
    pub fn write(&self, at: Claim<Gpa>, bytes: &[u8]) -> Result<()> {
        let range = self.check(at, bytes.len() as u64)?;
        let mut rest = bytes;
        self.for_parts(range, |cell, offset, len| {
            let part = rest.split_off(..len).ok_or(Error::Bug)?;
            cell.write(offset, part)
        })
    }

    /// Copies a value of a wire format. Its fields are as much a claim as its address was.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub fn read_value<T: FromBytes + IntoBytes>(&self, at: Claim<Gpa>) -> Result<T> {
        let mut value = T::new_zeroed();
        self.read(at, value.as_mut_bytes())?;
        Ok(value)
    }

    /// Copies a value of a wire format into the guest's memory.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    pub fn write_value<T: IntoBytes + Immutable>(&self, at: Claim<Gpa>, value: &T) -> Result<()> {
        self.write(at, value.as_bytes())
    }

    fn check(&self, at: Claim<Gpa>, len_bytes: u64) -> Result<GpaRange> {
        let out = Error::OutOfBounds {
            offset: at.as_told().as_u64(),
            len_bytes,
        };
        at.check_with(|at| {
            let range = GpaRange::new(at, len_bytes).ok_or(out)?;
            if range.is_empty() {
                return Ok(range);
            }
            Claim::new(range).check(&self.map).map_err(Error::Claim)
        })
    }

    /// Shows `copy` each page that has a part of the range, with that part's offset and length.
    fn for_parts(
        &self,
        range: GpaRange,
        mut copy: impl FnMut(&crate::window::PageCell, u64, usize) -> Result<()>,
    ) -> Result<()> {
        let mut at = range.start();
        while at < range.end() {
            let offset = at.page_offset(PageSize::Size4K);
            let left = range.end().checked_offset_from(at).ok_or(Error::Bug)?;
            let len = left.min(PAGE_BYTES - offset);
            let page = at.align_down(PageSize::Size4K);
            // SAFETY: callers pass ranges that `check` has found to be the guest's, which by the
            // promise of `new` may be accessed at any time.
            let cell = unsafe { self.window.map(page, Visibility::Private) }?;
            copy(&cell, offset, usize::try_from(len).map_err(|_| Error::Bug)?)?;
            at = at.checked_add(len).ok_or(Error::Bug)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use svsm_platform::seam::Owner;

    use super::*;
    use crate::window::HostMemory;

    const GUEST: (u64, u64) = (0x10_0000, 0x11_0000);

    /// The guest has what is between the two, the SVSM all else.
    struct Map;

    impl GuestMap for Map {
        fn owner(&self, range: GpaRange) -> Option<Owner> {
            let guest = GUEST.0 <= range.start().as_u64() && range.end().as_u64() <= GUEST.1;
            guest.then_some(Owner::Guest)
        }
    }

    fn memory() -> HostMemory {
        HostMemory::new(GpaRange::new(Gpa::ZERO, 0x20_0000).unwrap())
    }

    fn told(at: u64) -> Claim<Gpa> {
        Claim::new(Gpa::new(at).unwrap())
    }

    #[test]
    fn copies_cross_pages() {
        let memory = memory();
        // SAFETY: host memory holds no Rust object and is always there.
        let guest = unsafe { GuestMemory::new(&memory, Map) };
        let text: std::vec::Vec<u8> = (0_u32..9001).map(|n| n.to_le_bytes()[0]).collect();
        for at in [GUEST.0 + 0xffd, GUEST.0 + 0x1000, GUEST.0 + 0x2abc] {
            guest.write(told(at), &text).unwrap();
            let mut copy = std::vec![0; text.len()];
            guest.read(told(at), &mut copy).unwrap();
            assert!(copy == text);
        }
        guest
            .write_value(told(GUEST.0 + 0xffe), &0x1234_5678_u32)
            .unwrap();
        assert_eq!(
            guest.read_value::<u32>(told(GUEST.0 + 0xffe)),
            Ok(0x1234_5678)
        );
        assert_eq!(
            guest.read_value::<[u8; 2]>(told(GUEST.0 + 0xffe)),
            Ok([0x78, 0x56])
        );
    }

    #[test]
    fn guest_cannot_name_memory_of_others() {
        let memory = memory();
        // SAFETY: host memory holds no Rust object and is always there.
        let guest = unsafe { GuestMemory::new(&memory, Map) };
        for at in [GUEST.0 - 1, GUEST.1 - 3, 0, (1 << 52) - 8] {
            assert!(
                matches!(guest.read_value::<u32>(told(at)), Err(Error::Claim(_))),
                "{at:#x}"
            );
            assert!(matches!(
                guest.write(told(at), &[0; 4]),
                Err(Error::Claim(_))
            ));
        }
        let at = told((1 << 52) - 2);
        assert!(matches!(
            guest.read_value::<u32>(at),
            Err(Error::OutOfBounds { .. })
        ));
        assert_eq!(guest.read(at, &mut []), Ok(()));
    }
}
