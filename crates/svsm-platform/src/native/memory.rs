use crate::{
    Error,
    addr::{GpaRange, PageSize},
    seam::{PageState, Stopped},
};

/// Memory without protection: every page is everybody's, so no change of state has anything to do.
///
/// It counts as private ([`Encryption::None`](crate::encryption::Encryption::None)), as there is no other kind.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unprotected;

impl Unprotected {
    /// Refuses what a confidential platform would have to refuse, lest a caller be wrong there only.
    fn check(range: GpaRange) -> Result<(), Stopped<Error>> {
        for bound in [range.start(), range.end()] {
            if !bound.is_aligned(PageSize::Size4K) {
                return Err(Stopped::at_start(Error::Misaligned {
                    value: bound.as_u64(),
                }));
            }
        }
        Ok(())
    }
}

impl PageState for Unprotected {
    type Error = Error;

    fn accept(&mut self, range: GpaRange) -> Result<(), Stopped<Error>> {
        Self::check(range)
    }

    fn release(&mut self, range: GpaRange) -> Result<(), Stopped<Error>> {
        Self::check(range)
    }

    fn make_shared(&mut self, range: GpaRange) -> Result<(), Stopped<Error>> {
        Self::check(range)
    }

    fn make_private(&mut self, range: GpaRange) -> Result<(), Stopped<Error>> {
        Self::check(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Gpa;

    #[test]
    fn fractions_of_pages_are_refused() {
        let range = |start, len| GpaRange::new(Gpa::new(start).unwrap(), len).unwrap();
        assert_eq!(Unprotected.accept(range(0x1000, 0x1000)), Ok(()));
        let refused = Stopped::at_start(Error::Misaligned { value: 0x1800 });
        assert_eq!(Unprotected.make_shared(range(0x1000, 0x800)), Err(refused));
        assert_eq!(Unprotected.release(range(0x1800, 0x800)), Err(refused));
    }
}
