//! What a process has open: objects behind small numbers.

use core::fmt;

use crate::{
    abi::SysError,
    quota::{Quota, Resource},
    request::Operation,
};

/// Something that a process can have open.
///
/// `C` is what the kernel lends for the time of a call: the process, its memory, the scheduler.
pub trait Object<C: ?Sized> {
    /// Does what a program asks for.
    ///
    /// # Errors
    /// What the program gets instead of an answer; [`SysError::NOT_SUPPORTED`] for operations that
    /// are not this object's.
    fn call(&self, operation: Operation, context: &mut C) -> Result<u64, SysError>;

    /// A handle to it was closed. There may be others, and the kernel may hold it, too.
    fn close(&self, context: &mut C) {
        let _ = context;
    }
}

/// Passes everything on to what is behind a pointer.
macro_rules! behind {
    ($($(#[$attribute:meta])* $pointer:ty),+ $(,)?) => {
        $($(#[$attribute])*
        impl<C: ?Sized, O: Object<C> + ?Sized> Object<C> for $pointer {
            fn call(&self, operation: Operation, context: &mut C) -> Result<u64, SysError> {
                O::call(self, operation, context)
            }

            fn close(&self, context: &mut C) {
                O::close(self, context);
            }
        })+
    };
}

behind!(
    &O,
    #[cfg(feature = "alloc")]
    alloc::boxed::Box<O>,
    #[cfg(feature = "alloc")]
    alloc::sync::Arc<O>,
);

/// The number by which a program names what it has open.
///
/// The lower half is a place in a table, the upper counts how often the place was used before, so
/// that a program that uses a handle after closing it does not reach what was opened since. The
/// first handle of a table is 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Handle(u32);

impl Handle {
    /// What a program passed.
    #[must_use]
    pub const fn from_u32(handle: u32) -> Self {
        Self(handle)
    }

    /// What a program gets.
    #[must_use]
    pub const fn as_u32(self) -> u32 {
        self.0
    }

    const fn new(place: u16, generation: u16) -> Self {
        Self((generation as u32) << 16 | place as u32)
    }

    const fn place(self) -> usize {
        (self.0 & 0xffff) as usize
    }

    const fn generation(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({}.{})", self.place(), self.generation())
    }
}

/// What one process has open: up to `N` objects, at most 65,536.
///
/// ```
/// use svsm_syscall::{abi::SysError, handle::HandleTable, quota::{Budget, Resource}};
///
/// let mut quota = Budget::new().with(Resource::Handles, 2);
/// let mut table = HandleTable::<&str, 8>::new();
/// let log = table.insert("log", &mut quota).unwrap();
/// assert_eq!(log.as_u32(), 0);
/// table.insert("file", &mut quota).unwrap();
/// assert_eq!(table.insert("one too many", &mut quota).unwrap_err().1, SysError::QUOTA);
///
/// assert_eq!(table.remove(log, &mut quota), Some("log"));
/// let other = table.insert("other", &mut quota).unwrap();
/// assert_eq!(table.get(log), Err(SysError::NOT_FOUND)); // though it is the same place
/// assert_eq!(table.get(other), Ok(&"other"));
/// ```
pub struct HandleTable<O, const N: usize> {
    places: [Place<O>; N],
}

struct Place<O> {
    generation: u16,
    object: Option<O>,
}

impl<O, const N: usize> HandleTable<O, N> {
    /// Nothing open.
    #[must_use]
    pub const fn new() -> Self {
        const { assert!(N <= 1 << 16, "handles have 16 bits for the place") };
        Self {
            places: [const {
                Place {
                    generation: 0,
                    object: None,
                }
            }; N],
        }
    }

    /// Opens an object and charges the quota for one handle.
    ///
    /// # Errors
    /// The object, and why it is not open: the quota, or [`SysError::NO_MEMORY`] if the table is
    /// full.
    pub fn insert(&mut self, object: O, quota: &mut impl Quota) -> Result<Handle, (O, SysError)> {
        let free = (0_u16..)
            .zip(&mut self.places)
            .find(|(_, place)| place.object.is_none());
        let Some((number, place)) = free else {
            return Err((object, SysError::NO_MEMORY));
        };
        if let Err(error) = quota.charge(Resource::Handles, 1) {
            return Err((object, error));
        }
        place.object = Some(object);
        Ok(Handle::new(number, place.generation))
    }

    /// What is open by that number.
    ///
    /// # Errors
    /// [`SysError::NOT_FOUND`] if nothing is.
    pub fn get(&self, handle: Handle) -> Result<&O, SysError> {
        self.places
            .get(handle.place())
            .filter(|place| place.generation == handle.generation())
            .and_then(|place| place.object.as_ref())
            .ok_or(SysError::NOT_FOUND)
    }

    /// Takes an object out and gives its handle back to the quota. What a process that ends has
    /// left is taken out by [`drain`](Self::drain).
    pub fn remove(&mut self, handle: Handle, quota: &mut impl Quota) -> Option<O> {
        let place = self.places.get_mut(handle.place())?;
        if place.generation != handle.generation() {
            return None;
        }
        place.take(quota)
    }

    /// Takes out all objects, one by one.
    pub fn drain<'a>(&'a mut self, quota: &'a mut impl Quota) -> impl Iterator<Item = O> + 'a {
        self.places.iter_mut().filter_map(|place| place.take(quota))
    }

    /// How many are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places
            .iter()
            .filter(|place| place.object.is_some())
            .count()
    }

    /// Whether none is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<O> Place<O> {
    fn take(&mut self, quota: &mut impl Quota) -> Option<O> {
        let object = self.object.take()?;
        self.generation = self.generation.wrapping_add(1);
        quota.refund(Resource::Handles, 1);
        Some(object)
    }
}

impl<O, const N: usize> Default for HandleTable<O, N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<O: fmt::Debug, const N: usize> fmt::Debug for HandleTable<O, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = (0_u16..).zip(&self.places).filter_map(|(number, place)| {
            Some((
                Handle::new(number, place.generation),
                place.object.as_ref()?,
            ))
        });
        f.debug_map().entries(open).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, vec::Vec};

    use proptest::prelude::*;

    use super::*;
    use crate::quota::Budget;

    fn plenty() -> Budget {
        Budget::new().with(Resource::Handles, 1000)
    }

    #[test]
    fn a_full_table_gives_the_object_back() {
        let (mut table, mut quota) = (HandleTable::<u8, 1>::new(), plenty());
        table.insert(1, &mut quota).unwrap();
        assert_eq!(table.insert(2, &mut quota), Err((2, SysError::NO_MEMORY)));
        assert_eq!(quota.left(Resource::Handles), 999);
    }

    #[test]
    fn a_process_that_ends_leaves_nothing_open() {
        let (mut table, mut quota) = (HandleTable::<u8, 4>::new(), plenty());
        for object in 0..4 {
            table.insert(object, &mut quota).unwrap();
        }
        assert_eq!(table.drain(&mut quota).collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert!(table.is_empty());
        assert_eq!(quota.left(Resource::Handles), 1000);
    }

    proptest! {
        #[test]
        fn handles_name_what_they_were_given_for_or_nothing(
            steps in proptest::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..200),
        ) {
            let (mut table, mut quota) = (HandleTable::<usize, 8>::new(), plenty());
            let (mut open, mut given) = (BTreeMap::new(), Vec::new());
            for (step, (opens, index)) in steps.into_iter().enumerate() {
                if opens {
                    match table.insert(step, &mut quota) {
                        Ok(handle) => {
                            prop_assert!(!given.contains(&handle));
                            given.push(handle);
                            open.insert(handle.as_u32(), step);
                        }
                        Err(_) => prop_assert_eq!(open.len(), 8),
                    }
                } else if !given.is_empty() {
                    let handle = *index.get(&given);
                    prop_assert_eq!(table.remove(handle, &mut quota), open.remove(&handle.as_u32()));
                }
                for handle in &given {
                    prop_assert_eq!(table.get(*handle).ok(), open.get(&handle.as_u32()));
                }
                prop_assert_eq!(table.len(), open.len());
                prop_assert_eq!(quota.left(Resource::Handles), 1000 - open.len() as u64);
            }
        }
    }
}
