//! The nested page tables of an SNP guest: one tree for each level, derived page by page from the reverse map table.
//!
//! A tree maps *raw* guest physical addresses, as the guest's page tables hold them: with the encryption bit or
//! without, or above and below vTOM. What the table of ownership does not allow is not mapped, so that every access
//! that hardware would check ends up here.

use crate::addr::Hpa;
use crate::paging::{Flags, Levels, MapError, Tables};
use crate::phys::HostMemory;
use crate::pool::Pool;
use svsm_sim::rmp::{PageSize, Vmpl};

/// How the guest says whether an access is private.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// By this bit of the address: set is private.
    CBit(u64),
    /// By this boundary, a power of two: below is private, and each address above is the shared alias of one below.
    Vtom(u64),
}

/// A guest physical address taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Without any bit that says how it is accessed.
    pub gpa: u64,
    /// Whether the access is private.
    pub private: bool,
}

impl Encryption {
    /// Takes a raw address apart.
    #[must_use]
    pub const fn place(self, raw: u64) -> Place {
        match self {
            Self::CBit(bit) => Place {
                gpa: raw & !bit,
                private: raw & bit != 0,
            },
            Self::Vtom(boundary) => Place {
                gpa: raw & !boundary,
                private: raw & boundary == 0,
            },
        }
    }

    /// The bit of page-table entries that is no part of an address.
    #[must_use]
    pub const fn bit(self) -> u64 {
        match self {
            Self::CBit(bit) | Self::Vtom(bit) => bit,
        }
    }
}

/// Whether the guest's CPU uses paging; without, all it does is private, whatever the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// With paging.
    Paged,
    /// Without.
    Unpaged,
}

/// The trees of all levels.
#[derive(Debug)]
pub struct Nested {
    levels: Levels,
    trees: [[Option<Tables>; 2]; 4],
}

impl Nested {
    /// No trees yet.
    #[must_use]
    pub const fn new(levels: Levels) -> Self {
        Self {
            levels,
            trees: [[None; 2]; 4],
        }
    }

    /// The tree of a level; it is made when it is first asked for.
    ///
    /// # Errors
    /// No memory is left for tables.
    pub fn tree(
        &mut self,
        level: Vmpl,
        mode: Mode,
        pool: &mut Pool,
        memory: &mut impl HostMemory,
    ) -> Result<Tables, MapError> {
        let slot = self
            .trees
            .get_mut(usize::from(level.as_u8()))
            .and_then(|modes| modes.get_mut(mode as usize))
            .ok_or(MapError::OutOfMemory)?;
        if let Some(tables) = slot {
            return Ok(*tables);
        }
        let tables = Tables::new(self.levels, pool, memory)?;
        *slot = Some(tables);
        Ok(tables)
    }

    /// Takes a page out of all trees, under every name it can have there. Says whether any had it.
    ///
    /// # Errors
    /// A table is out of reach.
    pub fn forget(
        &self,
        gpa: u64,
        size: PageSize,
        encryption: Encryption,
        memory: &mut impl HostMemory,
    ) -> Result<bool, MapError> {
        let level = match size {
            PageSize::Size4K => 0,
            PageSize::Size2M => 1,
        };
        let mut had = false;
        for tables in self.trees.iter().flatten().flatten() {
            for raw in [gpa, gpa | encryption.bit()] {
                had |= tables.clear(raw, level, memory)?;
            }
        }
        Ok(had)
    }
}

/// What a level may do with a page, as a nested leaf says it.
///
/// Nested tables cannot tell ring 3's fetches from others: a level that may fetch in some rings fetches in all.
#[must_use]
pub fn leaf_flags(permissions: svsm_sim::rmp::Permissions) -> Flags {
    use svsm_sim::rmp::Permissions as P;
    let mut flags = Flags::PRESENT | Flags::USER;
    flags.set(Flags::WRITE, permissions.contains(P::WRITE));
    let fetch = permissions.intersects(P::EXECUTE_SUPERVISOR | P::EXECUTE_USER);
    flags.set(Flags::NO_EXECUTE, !fetch);
    flags
}

/// Maps one page for one tree.
///
/// # Errors
/// See [`MapError`].
pub fn map(
    tables: Tables,
    raw: u64,
    home: Hpa,
    size: PageSize,
    flags: Flags,
    pool: &mut Pool,
    memory: &mut impl HostMemory,
) -> Result<(), MapError> {
    let level = match size {
        PageSize::Size4K => 0,
        PageSize::Size2M => 1,
    };
    tables.set(raw, home, level, flags, pool, memory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::HpaRange;
    use crate::phys::fake::Ram;
    use svsm_sim::rmp::Permissions;

    #[test]
    fn addresses_say_how_they_are_meant() {
        let c = Encryption::CBit(1 << 51);
        let private = Place {
            gpa: 0x5000,
            private: true,
        };
        let shared = Place {
            gpa: 0x5000,
            private: false,
        };
        assert_eq!(c.place(1 << 51 | 0x5000), private);
        assert_eq!(c.place(0x5000), shared);
        let vtom = Encryption::Vtom(1 << 46);
        assert_eq!(vtom.place(0x5000), private);
        assert_eq!(vtom.place(1 << 46 | 0x5000), shared);
    }

    #[test]
    fn a_page_is_forgotten_by_all_levels_and_under_both_names() {
        let mut ram = Ram::new(64 * 4096);
        let own = HpaRange::from_u64(4096, 64 * 4096).unwrap();
        let mut pool = Pool::new(own, HpaRange::from_u64(0, 0).unwrap());
        let mut nested = Nested::new(Levels::Five);
        let c = Encryption::CBit(1 << 51);
        let flags = leaf_flags(Permissions::READ);
        assert!(flags.contains(Flags::NO_EXECUTE) && !flags.contains(Flags::WRITE));
        for (level, mode, raw) in [
            (Vmpl::VMPL0, Mode::Unpaged, 0x5000),
            (Vmpl::VMPL0, Mode::Paged, 1 << 51 | 0x5000),
            (Vmpl::VMPL2, Mode::Paged, 1 << 51 | 0x5000),
        ] {
            let tree = nested.tree(level, mode, &mut pool, &mut ram).unwrap();
            let home = Hpa::new(0x9000).unwrap();
            map(
                tree,
                raw,
                home,
                PageSize::Size4K,
                flags,
                &mut pool,
                &mut ram,
            )
            .unwrap();
        }
        assert_eq!(
            nested.forget(0x5000, PageSize::Size4K, c, &mut ram),
            Ok(true)
        );
        for (level, mode) in [(Vmpl::VMPL0, Mode::Unpaged), (Vmpl::VMPL2, Mode::Paged)] {
            let tree = nested.tree(level, mode, &mut pool, &mut ram).unwrap();
            assert_eq!(tree.leaf(0x5000, &ram), Ok(None));
            assert_eq!(tree.leaf(1 << 51 | 0x5000, &ram), Ok(None));
        }
        assert_eq!(
            nested.forget(0x5000, PageSize::Size4K, c, &mut ram),
            Ok(false)
        );
    }
}
