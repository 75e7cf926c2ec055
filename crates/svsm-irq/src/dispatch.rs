//! From an interrupt's vector to whoever handles it: a table that the firmware owns.

use core::fmt;

use crate::{Error, Result, Vector};

/// Handles an interrupt in the firmware's context `C`.
pub type Handler<C> = fn(&mut C, Vector);

/// The handlers of one CPU, or of all if they share.
pub struct DispatchTable<C> {
    handlers: [Option<Handler<C>>; Vector::COUNT],
    unclaimed: u64,
}

/// What became of an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[must_use = "an unclaimed interrupt is worth a word"]
pub enum Outcome {
    /// Its handler ran.
    Handled,
    /// It has no handler, and was counted.
    Unclaimed,
}

impl<C> DispatchTable<C> {
    /// A table without handlers.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            handlers: [None; Vector::COUNT],
            unclaimed: 0,
        }
    }

    /// Gives a vector its handler.
    ///
    /// # Errors
    /// [`Error::VectorTaken`] if it has one.
    pub fn claim(&mut self, vector: Vector, handler: Handler<C>) -> Result<()> {
        let place = self.handlers.get_mut(vector.index());
        match place {
            Some(place @ None) => {
                *place = Some(handler);
                Ok(())
            }
            _ => Err(Error::VectorTaken(vector)),
        }
    }

    /// Gives the handler a free vector of the priority class, which is 2 to 15.
    ///
    /// `int 0x80` is a vector of class 8; claim it first if system calls use it.
    ///
    /// # Errors
    /// [`Error::NoVectorFree`] if there is none.
    pub fn claim_any(&mut self, class: u8, handler: Handler<C>) -> Result<Vector> {
        let vector = Vector::all()
            .filter(|vector| vector.class() == class)
            .find(|vector| matches!(self.handlers.get(vector.index()), Some(None)))
            .ok_or(Error::NoVectorFree)?;
        self.claim(vector, handler)?;
        Ok(vector)
    }

    /// Takes a vector's handler away, and answers with it.
    pub fn release(&mut self, vector: Vector) -> Option<Handler<C>> {
        self.handlers.get_mut(vector.index())?.take()
    }

    /// The handler of a vector. To run it without borrowing the table, where the context holds
    /// that.
    #[must_use]
    pub fn handler(&self, vector: Vector) -> Option<Handler<C>> {
        self.handlers.get(vector.index()).copied().flatten()
    }

    /// Runs the handler of a vector.
    pub fn dispatch(&mut self, context: &mut C, vector: Vector) -> Outcome {
        match self.handler(vector) {
            Some(handler) => {
                handler(context, vector);
                Outcome::Handled
            }
            None => {
                self.unclaimed = self.unclaimed.saturating_add(1);
                Outcome::Unclaimed
            }
        }
    }

    /// How many interrupts arrived that had no handler.
    #[must_use]
    pub const fn unclaimed(&self) -> u64 {
        self.unclaimed
    }
}

impl<C> Default for DispatchTable<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C> fmt::Debug for DispatchTable<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let claimed = Vector::all().filter(|&vector| self.handler(vector).is_some());
        f.debug_set().entries(claimed).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::{vec, vec::Vec};

    use super::{DispatchTable, Outcome};
    use crate::{Error, Vector};

    fn record(seen: &mut Vec<u8>, vector: Vector) {
        seen.push(vector.as_u8());
    }

    #[test]
    fn a_vector_runs_its_own_handler() {
        let mut table = DispatchTable::new();
        let (a, b) = (Vector::new(32).unwrap(), Vector::LAST);
        table.claim(a, record).unwrap();
        table.claim(b, record).unwrap();
        let mut seen = vec![];
        assert_eq!(table.dispatch(&mut seen, b), Outcome::Handled);
        assert_eq!(table.dispatch(&mut seen, a), Outcome::Handled);
        assert_eq!(
            table.dispatch(&mut seen, Vector::SYSCALL),
            Outcome::Unclaimed
        );
        assert_eq!((seen, table.unclaimed()), (vec![255, 32], 1));
    }

    #[test]
    fn nobody_takes_a_vector_from_another() {
        let mut table = DispatchTable::<Vec<u8>>::new();
        table.claim(Vector::SYSCALL, record).unwrap();
        assert_eq!(
            table.claim(Vector::SYSCALL, record),
            Err(Error::VectorTaken(Vector::SYSCALL))
        );
        assert!(table.release(Vector::SYSCALL).is_some());
        table.claim(Vector::SYSCALL, record).unwrap();
    }

    #[test]
    fn a_class_has_sixteen_vectors_and_no_more() {
        let mut table = DispatchTable::<Vec<u8>>::new();
        for _ in 0..16 {
            assert_eq!(table.claim_any(5, record).unwrap().class(), 5);
        }
        assert_eq!(table.claim_any(5, record), Err(Error::NoVectorFree));
        assert_eq!(table.claim_any(1, record), Err(Error::NoVectorFree));
    }
}
