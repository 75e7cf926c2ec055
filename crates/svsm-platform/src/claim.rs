//! What another party said, before it is checked.
//!
//! A guest or host names an address, a length, a count. Until checked it is only their word, and the type says so: a
//! [`Claim`] can be carried, transformed and printed, but no function here takes one where it needs the truth.

use core::fmt;

use crate::{
    Error, Result,
    addr::{Gpa, GpaRange, PageSize},
    seam::{GuestMap, Owner},
};

/// A value some other party told us. Holding one proves nothing about it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Claim<T>(T);

impl<T> Claim<T> {
    /// Marks a value as told by others. Do this at the border, where the value is read.
    #[must_use]
    pub const fn new(told: T) -> Self {
        Self(told)
    }

    /// The value as told, to print it or to compare it with the truth; not to act on it.
    #[must_use]
    pub const fn as_told(&self) -> &T {
        &self.0
    }

    /// Something computed from it, which is no better proved.
    #[must_use]
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Claim<U> {
        Claim(f(self.0))
    }

    /// Turns the claim into a fact by a check of the caller's.
    ///
    /// # Errors
    /// Whatever the check says.
    pub fn check_with<U, E>(self, check: impl FnOnce(T) -> Result<U, E>) -> Result<U, E> {
        check(self.0)
    }
}

impl Claim<u64> {
    /// Reads the number as a guest physical address; where that points to is still a claim.
    ///
    /// # Errors
    /// [`Error::NoSuchAddress`] if no address has that number.
    pub fn gpa(self) -> Result<Claim<Gpa>> {
        Gpa::try_from(self.0).map(Claim)
    }
}

impl Claim<Gpa> {
    /// Turns the claim into the address of a page of `size`, if the guest really owns all of that page.
    ///
    /// # Errors
    /// [`Error::Misaligned`] if no such page starts there, [`Error::NotGuestMemory`] if it is not all the guest's.
    pub fn check_page(self, size: PageSize, guest: &impl GuestMap) -> Result<Gpa> {
        let value = self.0.as_u64();
        if !self.0.is_aligned(size) {
            return Err(Error::Misaligned { value });
        }
        let page = GpaRange::new(self.0, size.bytes()).ok_or(Error::NoSuchAddress { value })?;
        Claim(page).check(guest).map(|page| page.start())
    }
}

impl Claim<GpaRange> {
    /// Turns the claim into memory, if the guest really owns all of it. An empty range is nobody's.
    ///
    /// # Errors
    /// [`Error::NotGuestMemory`] if it is not all the guest's.
    pub fn check(self, guest: &impl GuestMap) -> Result<GpaRange> {
        match guest.owner(self.0) {
            Some(Owner::Guest) if !self.0.is_empty() => Ok(self.0),
            _ => Err(Error::NotGuestMemory { range: self.0 }),
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Claim<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Claim").field(&self.0).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The guest has one megabyte from one megabyte on; below is the SVSM's.
    struct Map;

    impl GuestMap for Map {
        fn owner(&self, range: GpaRange) -> Option<Owner> {
            match (
                range.start().as_u64() >> 20,
                range.end().as_u64().checked_sub(1)? >> 20,
            ) {
                (0, 0) => Some(Owner::Svsm),
                (1, 1) => Some(Owner::Guest),
                _ => None,
            }
        }
    }

    fn claim(start: u64, len: u64) -> Claim<GpaRange> {
        Claim::new(GpaRange::new(Gpa::new(start).unwrap(), len).unwrap())
    }

    #[test]
    fn only_what_is_all_the_guests_becomes_a_fact() {
        assert!(claim(0x10_0000, 0x10_0000).check(&Map).is_ok());
        for (start, len) in [
            (0, 1),
            (0xf_ffff, 2),
            (0x1f_ffff, 2),
            (0x20_0000, 1),
            (0x10_0000, 0),
        ] {
            let refused = claim(start, len).check(&Map).unwrap_err();
            assert_eq!(
                refused,
                Error::NotGuestMemory {
                    range: *claim(start, len).as_told()
                }
            );
        }
    }

    #[test]
    fn guest_pages_are_whole_pages() {
        let page = |value, size| {
            Claim::new(value)
                .gpa()
                .and_then(|gpa: Claim<Gpa>| gpa.check_page(size, &Map))
        };
        assert_eq!(
            page(0x10_1000, PageSize::Size4K).map(Gpa::as_u64),
            Ok(0x10_1000)
        );
        assert_eq!(
            page(0x10_1800, PageSize::Size4K),
            Err(Error::Misaligned { value: 0x10_1800 })
        );
        assert!(matches!(
            page(0x20_0000, PageSize::Size2M),
            Err(Error::NotGuestMemory { .. })
        ));
        // The last page of the address space has no end.
        let last = (1 << 52) - 0x1000;
        assert_eq!(
            page(last, PageSize::Size4K),
            Err(Error::NoSuchAddress { value: last })
        );
        assert_eq!(
            page(u64::MAX, PageSize::Size4K),
            Err(Error::NoSuchAddress { value: u64::MAX })
        );
    }
}
