//! The exception table: instructions that may fault, and where execution goes on when they do.
//!
//! A leaf that touches memory which others can take away marks the instruction with
//! [`fault_entry!`](crate::fault_entry). The entries of all crates meet in the section `svsm_faults` of the image; its linker
//! script keeps it, and the firmware lends its bounds to a [`FaultEntries`]:
//!
//! ```text
//! svsm_faults : { __start_svsm_faults = .; KEEP(*(svsm_faults)) __stop_svsm_faults = .; }
//! ```

use core::fmt;

use crate::{addr::Gva, seam::FaultTable};

/// One instruction that may fault, and where to go on: distances from each field to what it names,
/// so that an image needs no relocation and an entry takes 8 bytes. It means something only at the place it was made for.
#[repr(C)]
pub struct FaultEntry {
    fault: i32,
    landing: i32,
}

const _: () = assert!(size_of::<FaultEntry>() == 8 && align_of::<FaultEntry>() == 4);

impl FaultEntry {
    /// An entry for tables that no assembler makes, such as those of tests.
    #[must_use]
    pub const fn from_distances(fault: i32, landing: i32) -> Self {
        Self { fault, landing }
    }

    fn fault(&self) -> u64 {
        resolve(&self.fault)
    }

    fn landing(&self) -> u64 {
        resolve(&self.landing)
    }
}

impl fmt::Debug for FaultEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "FaultEntry({:#x} -> {:#x})",
            self.fault(),
            self.landing()
        )
    }
}

/// What a distance names: it counts from where it is stored.
fn resolve(distance: &i32) -> u64 {
    let at = core::ptr::from_ref(distance).addr() as u64;
    at.wrapping_add_signed(i64::from(*distance))
}

/// The entries of an image.
///
/// The linker orders them as it orders the code, which is by address nearly always. Whether it did is checked once; if not,
/// each lookup reads all entries, which is slow but never wrong.
#[derive(Clone, Copy, Debug)]
pub struct FaultEntries<'a> {
    entries: &'a [FaultEntry],
    sorted: bool,
}

impl<'a> FaultEntries<'a> {
    /// The entries between the bounds of the section `svsm_faults`, in any order.
    #[must_use]
    pub fn new(entries: &'a [FaultEntry]) -> Self {
        Self {
            entries,
            sorted: entries.is_sorted_by_key(FaultEntry::fault),
        }
    }

    /// Whether lookups are fast.
    #[must_use]
    pub const fn is_sorted(&self) -> bool {
        self.sorted
    }
}

impl FaultTable for FaultEntries<'_> {
    fn landing(&self, fault: Gva) -> Option<Gva> {
        let fault = fault.as_u64();
        let entry = if self.sorted {
            let at = self.entries.partition_point(|entry| entry.fault() < fault);
            self.entries.get(at).filter(|entry| entry.fault() == fault)
        } else {
            self.entries.iter().find(|entry| entry.fault() == fault)
        };
        Gva::new(entry?.landing())
    }
}

/// Inside `asm!`: the instruction at the label `$fault` may fault; execution then goes on at `$landing`.
///
/// Both are literals that name local labels. All registers are as they were at the fault.
///
/// ```
/// use svsm_platform::fault_entry;
///
/// /// Reads a byte, or answers 256 if it can't be read.
/// fn read(at: *const u8) -> u32 {
///     let value: u32;
///     // SAFETY: a fault at 2: lands at 3: with the value in place.
///     unsafe {
///         core::arch::asm!(
///             "mov {value:e}, 256",
///             "2: movzx {value:e}, byte ptr [{at}]",
///             "3:",
///             fault_entry!("2b", "3b"),
///             at = in(reg) at,
///             value = out(reg) value,
///             options(nostack, readonly),
///         );
///     }
///     value
/// }
/// assert_eq!(read(&7), 7);
/// ```
#[macro_export]
macro_rules! fault_entry {
    ($fault:literal, $landing:literal) => {
        concat!(
            ".pushsection svsm_faults, \"a\", @progbits\n",
            ".balign 4\n",
            ".long ",
            $fault,
            " - .\n",
            ".long ",
            $landing,
            " - .\n",
            ".popsection",
        )
    };
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::{boxed::Box, vec::Vec};

    use super::*;
    use proptest::prelude::*;

    /// Entries at their final place that say `(base + fault, base + landing)`, where `base` is the slice's own address.
    fn table(pairs: &[(i32, i32)]) -> (u64, Box<[FaultEntry]>) {
        let mut entries: Box<[FaultEntry]> = pairs
            .iter()
            .map(|_| FaultEntry {
                fault: 0,
                landing: 0,
            })
            .collect();
        for (place, (entry, (fault, landing))) in
            (0..).step_by(8).zip(entries.iter_mut().zip(pairs))
        {
            *entry = FaultEntry {
                fault: fault - place,
                landing: landing - place - 4,
            };
        }
        (entries.as_ptr().addr() as u64, entries)
    }

    fn at(base: u64, offset: i32) -> Gva {
        Gva::new(base.wrapping_add_signed(i64::from(offset))).unwrap()
    }

    #[test]
    fn empty_table_forgives_nothing() {
        assert_eq!(FaultEntries::new(&[]).landing(Gva::ZERO), None);
    }

    proptest! {
        #[test]
        fn lookup_agrees_with_a_list(
            pairs in prop::collection::btree_map(-1000_i32..1000, -1000_i32..1000, 0..50),
            swaps in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
            probe in -1000_i32..1000,
        ) {
            let mut list: Vec<(i32, i32)> = pairs.iter().map(|(fault, landing)| (*fault, *landing)).collect();
            let len = list.len();
            for swap in swaps.iter().filter(|_| len > 0) {
                list.swap(0, swap.index(len));
            }
            let (base, entries) = table(&list);
            let faults = FaultEntries::new(&entries);
            prop_assert_eq!(faults.is_sorted(), list.is_sorted());
            prop_assert_eq!(faults.landing(at(base, probe)), pairs.get(&probe).map(|landing| at(base, *landing)));
            for (fault, landing) in &pairs {
                prop_assert_eq!(faults.landing(at(base, *fault)), Some(at(base, *landing)));
            }
        }
    }
}
