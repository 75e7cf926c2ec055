//! The reverse map table (RMP) of SEV-SNP: for each page of system memory, who owns it, at which guest physical address, and
//! what each privilege level may do with it (24593, "Reverse Map Table").

mod entry;
mod guest;
mod host;
#[cfg(test)]
mod tests;

pub use entry::{Access, Entry, PageSize, Permissions, State, Vmpl};
pub use guest::{Adjust, Caller, Fault, GuestFailure, Mapping, Queried, Validated};
pub use host::{HostFailure, HostFault, Known, NewState};

/// Pages of 4 KiB in one of 2 MiB.
const PAGES_IN_2M: usize = 512;

/// The table, in memory that the caller lends: entry *n* describes the page of system memory at *n* · 4096.
#[derive(Debug)]
pub struct Rmp<'m> {
    entries: &'m mut [Entry],
}

impl<'m> Rmp<'m> {
    /// A table over `entries`, as they are.
    #[must_use]
    pub const fn new(entries: &'m mut [Entry]) -> Self {
        Self { entries }
    }

    /// The entry that speaks for the page at `spa`: that of its 2 MiB region, where the region is one page. `None` above the
    /// memory that the table covers.
    #[must_use]
    pub fn entry(&self, spa: u64) -> Option<&Entry> {
        self.entries.get(self.index(spa)?)
    }

    fn entry_mut(&mut self, spa: u64) -> Option<&mut Entry> {
        let index = self.index(spa)?;
        self.entries.get_mut(index)
    }

    fn index(&self, spa: u64) -> Option<usize> {
        let own = usize::try_from(spa / PageSize::Size4K.bytes()).ok()?;
        let head = own - own % PAGES_IN_2M;
        match self.entries.get(head) {
            Some(entry) if entry.assigned && entry.size == PageSize::Size2M => Some(head),
            _ => (own < self.entries.len()).then_some(own),
        }
    }
}
