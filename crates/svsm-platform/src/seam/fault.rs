use crate::addr::Gva;

/// Knows the instructions that are allowed to fault, and where execution goes on when they do.
pub trait FaultTable {
    /// Where to go on after a fault at the instruction at `fault`; `None` if it must not fault.
    fn landing(&self, fault: Gva) -> Option<Gva>;
}

impl<T: FaultTable + ?Sized> FaultTable for &T {
    fn landing(&self, fault: Gva) -> Option<Gva> {
        T::landing(self, fault)
    }
}
