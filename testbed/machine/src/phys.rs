//! Physical memory behind a seam, so that all that reads or fills it runs on a host too.

use crate::addr::{Address, Gpa, Hpa};

/// An access to physical memory that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreachable<A>(
    /// The first byte of the access.
    pub A,
);

/// Memory by its address: the machine's own ([`Hpa`]) or the guest's ([`Gpa`]).
pub trait Memory<A: Address> {
    /// Copies bytes out.
    ///
    /// # Errors
    /// Some of the memory is not there; `into` may be partly filled.
    fn read(&self, at: A, into: &mut [u8]) -> Result<(), Unreachable<A>>;

    /// Copies bytes in.
    ///
    /// # Errors
    /// Some of the memory is not there; part of it may be written.
    fn write(&mut self, at: A, bytes: &[u8]) -> Result<(), Unreachable<A>>;

    /// Fills memory with zeros.
    ///
    /// # Errors
    /// Some of the memory is not there; part of it may be written.
    fn zero(&mut self, at: A, bytes: u64) -> Result<(), Unreachable<A>>;

    /// One little-endian word.
    ///
    /// # Errors
    /// The memory is not there.
    fn read_u64(&self, at: A) -> Result<u64, Unreachable<A>> {
        let mut word = [0; 8];
        self.read(at, &mut word)?;
        Ok(u64::from_le_bytes(word))
    }

    /// Writes one little-endian word.
    ///
    /// # Errors
    /// The memory is not there.
    fn write_u64(&mut self, at: A, value: u64) -> Result<(), Unreachable<A>> {
        self.write(at, &value.to_le_bytes())
    }
}

/// The machine's memory.
pub trait HostMemory: Memory<Hpa> {}
impl<M: Memory<Hpa>> HostMemory for M {}

/// The guest's memory.
pub trait GuestMemory: Memory<Gpa> {}
impl<M: Memory<Gpa>> GuestMemory for M {}

#[cfg(test)]
pub(crate) mod fake {
    use super::*;

    /// A few pages of memory from address zero on.
    pub(crate) struct Ram(pub(crate) Vec<u8>);

    impl Ram {
        pub(crate) fn new(bytes: usize) -> Self {
            Self(vec![0xcc; bytes])
        }
    }

    impl<A: Address> Memory<A> for Ram {
        fn read(&self, at: A, into: &mut [u8]) -> Result<(), Unreachable<A>> {
            let start = usize::try_from(at.as_u64()).unwrap();
            let from = self
                .0
                .get(start..start + into.len())
                .ok_or(Unreachable(at))?;
            into.copy_from_slice(from);
            Ok(())
        }

        fn write(&mut self, at: A, bytes: &[u8]) -> Result<(), Unreachable<A>> {
            let start = usize::try_from(at.as_u64()).unwrap();
            let to = self
                .0
                .get_mut(start..start + bytes.len())
                .ok_or(Unreachable(at))?;
            to.copy_from_slice(bytes);
            Ok(())
        }

        fn zero(&mut self, at: A, bytes: u64) -> Result<(), Unreachable<A>> {
            let start = usize::try_from(at.as_u64()).unwrap();
            let to = self
                .0
                .get_mut(start..start + usize::try_from(bytes).unwrap())
                .ok_or(Unreachable(at))?;
            to.fill(0);
            Ok(())
        }
    }
}
