//! The ACPI tables of QEMU's firmware, read for the CPUs; and tables for the guest ([`table`]).

pub mod table;

use crate::addr::{Address, Hpa};
use crate::board::MAX_CPUS;
use crate::phys::{HostMemory, Unreachable};
use core::fmt;

/// Tables longer than this are not believed.
const LONGEST: u32 = 64 << 10;
/// Bytes before a table's own content.
const HEADER: u64 = 36;
/// Root tables list at most as many tables here.
const MOST_TABLES: u64 = 64;

/// Why the CPUs could not be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcpiError {
    /// A table is not there or not in memory.
    Missing([u8; 4]),
    /// A table's length or signature is wrong.
    Bad([u8; 4]),
    /// The CPU that booted is not among the others.
    NotListed(u32),
    /// There are more CPUs than this program can run.
    TooManyCpus,
}

impl fmt::Display for AcpiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(table) | Self::Bad(table) => {
                let name = core::str::from_utf8(table).unwrap_or("????");
                write!(f, "the firmware's ACPI table {name} is missing or broken")
            }
            Self::NotListed(id) => {
                write!(
                    f,
                    "the firmware's tables do not have the CPU with APIC id {id}"
                )
            }
            Self::TooManyCpus => write!(f, "there are more than {MAX_CPUS} CPUs"),
        }
    }
}

impl core::error::Error for AcpiError {}

/// The APIC ids of all CPUs that can be used.
#[derive(Clone, Copy, Debug)]
pub struct ApicIds {
    ids: [u32; MAX_CPUS],
    len: usize,
}

impl ApicIds {
    /// The ids, in the order of the table.
    #[must_use]
    pub fn as_slice(&self) -> &[u32] {
        self.ids.get(..self.len).unwrap_or_default()
    }

    /// Puts one CPU first: the one that booted.
    ///
    /// # Errors
    /// [`AcpiError::NotListed`].
    pub fn with_first(mut self, first: u32) -> Result<Self, AcpiError> {
        let missing = AcpiError::NotListed(first);
        let at = self
            .as_slice()
            .iter()
            .position(|id| *id == first)
            .ok_or(missing)?;
        self.ids.get_mut(..=at).ok_or(missing)?.rotate_right(1);
        Ok(self)
    }

    fn push(&mut self, id: u32) -> Result<(), AcpiError> {
        *self.ids.get_mut(self.len).ok_or(AcpiError::TooManyCpus)? = id;
        self.len += 1;
        Ok(())
    }
}

/// Finds the CPUs, from the root pointer on.
///
/// # Errors
/// See [`AcpiError`].
pub fn cpus(rsdp: u64, memory: &impl HostMemory) -> Result<ApicIds, AcpiError> {
    let (at, bytes) = find(rsdp, *b"APIC", memory)?;
    let bad = AcpiError::Bad(*b"APIC");
    let mut cpus = ApicIds {
        ids: [0; MAX_CPUS],
        len: 0,
    };
    let end = u64::from(bytes);
    // The local APIC's address and flags come before the list.
    let mut offset = HEADER + 8;
    while offset + 2 <= end {
        let mut head = [0; 2];
        read(at, offset, &mut head, memory).ok_or(bad)?;
        let [kind, len] = head;
        if len < 2 || offset + u64::from(len) > end {
            return Err(bad);
        }
        match (kind, len) {
            (0, 8) => {
                let mut entry = [0; 8];
                read(at, offset, &mut entry, memory).ok_or(bad)?;
                let [_, _, _, id, enabled, ..] = entry;
                if enabled & 1 != 0 {
                    cpus.push(u32::from(id))?;
                }
            }
            (9, 16) => {
                let mut entry = [0; 16];
                read(at, offset, &mut entry, memory).ok_or(bad)?;
                let [_, _, _, _, i0, i1, i2, i3, enabled, ..] = entry;
                if enabled & 1 != 0 {
                    cpus.push(u32::from_le_bytes([i0, i1, i2, i3]))?;
                }
            }
            _ => {}
        }
        offset += u64::from(len);
    }
    if cpus.len == 0 { Err(bad) } else { Ok(cpus) }
}

/// The name that nobody has a use for: a table of the maker's own.
pub const NOBODYS: [u8; 4] = *b"OEM0";

/// The table that describes units for DMA remapping.
pub const REMAPPING: [u8; 4] = *b"DMAR";

/// Finds the registers of the first unit for DMA remapping, if there is one (Intel VT-d, revision 4.1, chapter 8).
///
/// QEMU has no more than one, which remaps what all PCI devices do; that the table names them one by one says no more.
pub fn remapping(rsdp: u64, memory: &impl HostMemory) -> Option<Hpa> {
    const UNIT: u64 = 0;
    let (at, bytes) = find(rsdp, REMAPPING, memory).ok()?;
    // The width of addresses and flags come before the list.
    let mut offset = HEADER + 12;
    while offset + 16 <= u64::from(bytes) {
        let kind = word(at, offset, 2, memory)?;
        let len = word(at, offset + 2, 2, memory)?;
        if kind == UNIT {
            return Hpa::new(word(at, offset + 8, 8, memory)?);
        }
        // A length of zero would be no end.
        offset += len.max(4);
    }
    None
}

/// Makes a table one of which nobody knows what it says: what it describes is not for the guest.
pub fn hide(rsdp: u64, signature: [u8; 4], memory: &mut impl HostMemory) -> Option<()> {
    let (at, bytes) = find(rsdp, signature, memory).ok()?;
    let body = u64::from(bytes) - HEADER;
    memory.write(at, &NOBODYS).ok()?;
    memory.zero(at.checked_add(HEADER)?, body).ok()?;
    let sum_at = at.checked_add(9)?;
    memory.write(sum_at, &[0]).ok()?;
    let mut sum = 0_u8;
    for offset in 0..HEADER {
        let mut byte = [0];
        read(at, offset, &mut byte, memory)?;
        let [byte] = byte;
        sum = sum.wrapping_add(byte);
    }
    memory.write(sum_at, &[sum.wrapping_neg()]).ok()
}

/// The address and length of the table with a signature.
fn find(rsdp: u64, signature: [u8; 4], memory: &impl HostMemory) -> Result<(Hpa, u32), AcpiError> {
    let rsd = AcpiError::Missing(*b"RSD ");
    let pointer = Hpa::new(rsdp).filter(|at| *at != Hpa::ZERO).ok_or(rsd)?;
    let mut mark = [0; 8];
    read(pointer, 0, &mut mark, memory).ok_or(rsd)?;
    if mark != *b"RSD PTR " {
        return Err(AcpiError::Bad(*b"RSD "));
    }
    let mut revision = [0];
    read(pointer, 15, &mut revision, memory).ok_or(rsd)?;
    let xsdt = if revision >= [2] {
        word(pointer, 24, 8, memory).ok_or(rsd)?
    } else {
        0
    };
    let (root, name, width) = if xsdt != 0 {
        (xsdt, *b"XSDT", 8)
    } else {
        (word(pointer, 16, 4, memory).ok_or(rsd)?, *b"RSDT", 4)
    };
    let root = Hpa::new(root).ok_or(AcpiError::Missing(name))?;
    let bytes = header(root, name, memory)?;
    let count = (u64::from(bytes).saturating_sub(HEADER) / width).min(MOST_TABLES);
    for index in 0..count {
        let at = word(root, HEADER + index * width, width, memory)
            .and_then(Hpa::new)
            .ok_or(AcpiError::Bad(name))?;
        if let Ok(bytes) = header(at, signature, memory) {
            return Ok((at, bytes));
        }
    }
    Err(AcpiError::Missing(signature))
}

/// Checks a table's signature, and says how long it is.
fn header(at: Hpa, name: [u8; 4], memory: &impl HostMemory) -> Result<u32, AcpiError> {
    let mut head = [0; 8];
    read(at, 0, &mut head, memory).ok_or(AcpiError::Missing(name))?;
    let [s0, s1, s2, s3, l0, l1, l2, l3] = head;
    let bytes = u32::from_le_bytes([l0, l1, l2, l3]);
    if [s0, s1, s2, s3] != name || u64::from(bytes) < HEADER || bytes > LONGEST {
        return Err(AcpiError::Bad(name));
    }
    Ok(bytes)
}

fn word(at: Hpa, offset: u64, width: u64, memory: &impl HostMemory) -> Option<u64> {
    let mut bytes = [0; 8];
    read(
        at,
        offset,
        bytes.get_mut(..usize::try_from(width).ok()?)?,
        memory,
    )?;
    Some(u64::from_le_bytes(bytes))
}

fn read(at: Hpa, offset: u64, into: &mut [u8], memory: &impl HostMemory) -> Option<()> {
    let at = at.checked_add(offset)?;
    memory.read(at, into).map_err(|Unreachable(_)| ()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phys::Memory;
    use crate::phys::fake::Ram;
    use proptest::prelude::*;

    fn machine(ids: &[u32]) -> Ram {
        let mut ram = Ram::new(0x4000);
        let mut rsdp = *b"RSD PTR \0BOCHS \0\0\x10\0\0";
        rsdp[16..20].copy_from_slice(&0x1000_u32.to_le_bytes());
        ram.0[0x100..0x114].copy_from_slice(&rsdp);
        ram.0[0x1000..0x1004].copy_from_slice(b"RSDT");
        ram.0[0x1004..0x1008].copy_from_slice(&44_u32.to_le_bytes());
        ram.0[0x1024..0x1028].copy_from_slice(&0x3000_u32.to_le_bytes());
        ram.0[0x1028..0x102c].copy_from_slice(&0x2000_u32.to_le_bytes());
        let mut buffer = [0; 4096];
        let len = table::madt(ids, &mut buffer).unwrap();
        ram.0[0x2000..0x2000 + len].copy_from_slice(&buffer[..len]);
        ram
    }

    #[test]
    fn our_own_tables_are_read_back() {
        let ids: Vec<u32> = (0..5).chain([254, 255, 1000]).collect();
        let found = cpus(0x100, &machine(&ids)).unwrap();
        assert_eq!(found.as_slice(), ids);
        assert_eq!(found.with_first(2).unwrap().as_slice()[..4], [2, 0, 1, 3]);
        assert_eq!(found.with_first(7).unwrap_err(), AcpiError::NotListed(7));
    }

    /// A machine with a table of DMA remapping instead of that of CPUs.
    fn remapped(unit: &[u8]) -> Ram {
        let mut ram = machine(&[0]);
        let bytes = u32::try_from(48 + unit.len()).unwrap();
        ram.0[0x2000..0x2024].fill(0);
        ram.0[0x2000..0x2004].copy_from_slice(b"DMAR");
        ram.0[0x2004..0x2008].copy_from_slice(&bytes.to_le_bytes());
        ram.0[0x2030..0x2030 + unit.len()].copy_from_slice(unit);
        ram
    }

    #[test]
    fn the_unit_is_found_and_hidden() {
        // Something else; a unit; another.
        let mut units = vec![1, 0, 8, 0, 1, 0, 0, 0];
        units.extend([0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0xd9, 0xfe, 0, 0, 0, 0]);
        units.extend([0, 0, 16, 0, 1, 0, 0, 0, 0, 0x10, 0xd9, 0xfe, 0, 0, 0, 0]);
        let mut ram = remapped(&units);
        assert_eq!(remapping(0x100, &ram), Hpa::new(0xfed9_0000));
        hide(0x100, REMAPPING, &mut ram).unwrap();
        assert_eq!(remapping(0x100, &ram), None);
        let table = &ram.0[0x2000..0x2030 + units.len()];
        assert_eq!(table[..4], NOBODYS);
        assert!(table[36..].iter().all(|byte| *byte == 0));
        let sum = table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        assert_eq!(sum, 0);
        assert_eq!(remapping(0x100, &machine(&[0])), None);
        assert_eq!(remapping(0x100, &remapped(&[1; 40])), None);
    }

    #[test]
    fn missing_tables_are_named() {
        let mut ram = machine(&[0]);
        assert_eq!(cpus(0, &ram).unwrap_err(), AcpiError::Missing(*b"RSD "));
        assert_eq!(
            cpus(u64::MAX, &ram).unwrap_err(),
            AcpiError::Missing(*b"RSD ")
        );
        ram.0[0x2000] = b'X';
        assert_eq!(cpus(0x100, &ram).unwrap_err(), AcpiError::Missing(*b"APIC"));
    }

    proptest! {
        #[test]
        fn broken_tables_do_not_hang_or_panic(
            hits in prop::collection::vec((0usize..0x200, any::<u8>()), 1..8),
        ) {
            let mut ram = machine(&[0, 1, 2]);
            for (at, value) in hits {
                let table = [0x100, 0x1000, 0x2000][at % 3];
                ram.0[table + at / 3] = value;
            }
            let _ = cpus(0x100, &ram);
            let _ = Memory::<Hpa>::read_u64(&ram, Hpa::ZERO);
        }
    }
}
