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
/// so that an image needs no relocation and an entry takes 8 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
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
/// They are searched one after the other. A table has a handful of entries, and a fault that needs it is rare.
#[derive(Clone, Copy, Debug)]
pub struct FaultEntries<'a>(&'a [FaultEntry]);

impl<'a> FaultEntries<'a> {
    /// The entries between the bounds of the section `svsm_faults`.
    #[must_use]
    pub const fn new(entries: &'a [FaultEntry]) -> Self {
        Self(entries)
    }
}

impl FaultTable for FaultEntries<'_> {
    fn landing(&self, fault: Gva) -> Option<Gva> {
        let entry = self
            .0
            .iter()
            .find(|entry| entry.fault() == fault.as_u64())?;
        Gva::new(entry.landing())
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
    use super::*;

    #[test]
    fn faults_land_where_their_entry_says_and_nowhere_else() {
        let entries = [
            FaultEntry::from_distances(0x100, 0x200),
            FaultEntry::from_distances(-64, 32),
        ];
        let at = |entry: usize, distance: i64| {
            let start = core::ptr::from_ref(&entries[entry]).addr() as u64;
            Gva::new(start.wrapping_add_signed(distance)).unwrap()
        };
        let table = FaultEntries::new(&entries);
        assert_eq!(table.landing(at(0, 0x100)), Some(at(0, 4 + 0x200)));
        assert_eq!(table.landing(at(1, -64)), Some(at(1, 4 + 32)));
        assert_eq!(table.landing(at(0, 0x101)), None);
        assert_eq!(FaultEntries::new(&[]).landing(at(0, 0x100)), None);
    }
}
