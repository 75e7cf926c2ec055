//! Names for private memory that are in the nested tables only while a CPU walks the guest's tables.
//!
//! Hardware takes the guest's own page tables, and the code that it fetches, for private whatever the C-bit says. Nested tables
//! cannot tell a walk from an access, so a name without the C-bit leads to private memory until the walk is over, and no longer.

use super::nested::Mode;
use super::shared::{Ownership, Shared};
use crate::paging::MapError;
use crate::phys::HostMemory;
use svsm_sim::rmp::Vmpl;

/// More than one instruction can need at the same time: three tables and a page of code for each of the addresses that it, its
/// operands and the delivery of an exception touch.
const NAMES: usize = 32;

/// The names that one CPU's nested tables have.
#[derive(Debug)]
pub(super) struct Walk([Option<(Vmpl, u64)>; NAMES]);

impl Walk {
    /// None.
    pub(super) const fn new() -> Self {
        Self([None; NAMES])
    }

    /// Notes one, which was put into the tables. Where there are too many already, a walk cannot need all of them, and those go.
    pub(super) fn note(
        &mut self,
        level: Vmpl,
        raw: u64,
        shared: &Shared<'_>,
        memory: &mut impl HostMemory,
    ) -> Result<(), MapError> {
        if self.0.iter().all(Option::is_some) {
            self.forget(shared, memory)?;
        }
        if let Some(slot) = self.0.iter_mut().find(|slot| slot.is_none()) {
            *slot = Some((level, raw));
        }
        Ok(())
    }

    /// Takes all of them away again.
    pub(super) fn forget(
        &mut self,
        shared: &Shared<'_>,
        memory: &mut impl HostMemory,
    ) -> Result<(), MapError> {
        if self.0.iter().all(Option::is_none) {
            return Ok(());
        }
        let mut owned = shared.state.lock();
        let Ownership { nested, pool, .. } = &mut *owned;
        for (level, raw) in self.0.iter_mut().filter_map(Option::take) {
            let tree = nested.tree(level, Mode::Paged, pool, memory)?;
            tree.clear(raw, 0, memory)?;
        }
        Ok(())
    }
}
