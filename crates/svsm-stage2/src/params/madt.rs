//! The processors' APIC ids: ACPI's Multiple APIC Description Table.
//!
//! ACPI Specification 6.5, section 5.2.12. Of its many kinds of entry two name processors.

use svsm_platform::claim::Claim;
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::error::{Error, Flaw, Result};
use crate::region::Parameter;

const LOCAL_APIC: u8 = 0;
const LOCAL_X2APIC: u8 = 9;
const ENABLED: u32 = 1 << 0;

/// The header that all ACPI tables have, and what the MADT has before its entries.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    signature: [u8; 4],
    length: U32,
    revision: u8,
    checksum: u8,
    oem_id: [u8; 6],
    oem_table_id: [u8; 8],
    oem_revision: U32,
    creator_id: [u8; 4],
    creator_revision: U32,
    local_apic_address: U32,
    flags: U32,
}

const HEADER_BYTES: usize = 44;
const _: () = assert!(size_of::<Header>() == HEADER_BYTES);

/// "Processor Local APIC Structure".
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct LocalApic {
    kind: u8,
    length: u8,
    processor_uid: u8,
    apic_id: u8,
    flags: U32,
}

/// "Processor Local x2APIC Structure".
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct LocalX2Apic {
    kind: u8,
    length: u8,
    reserved: [u8; 2],
    x2apic_id: U32,
    flags: U32,
    processor_uid: U32,
}

const _: () = assert!(size_of::<LocalApic>() == 8 && size_of::<LocalX2Apic>() == 16);

/// A table whose length and checksum are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Madt<'a> {
    table: &'a [u8], // at least the header, no more than the table
}

const fn claim(offset: usize, flaw: Flaw) -> Error {
    Error::Claim {
        parameter: Parameter::Madt,
        offset,
        flaw,
    }
}

impl<'a> Madt<'a> {
    /// Checks the table's header, length and sum. `None` if the loader deposited no table.
    ///
    /// # Errors
    ///
    /// [`Error::Claim`] with the offset of the field that is wrong.
    pub fn parse(area: Claim<&'a [u8]>) -> Result<Option<Self>> {
        area.check_with(|bytes| {
            if super::is_blank(bytes) {
                return Ok(None);
            }
            let Ok((header, _)) = Header::ref_from_prefix(bytes) else {
                return Err(claim(bytes.len(), Flaw::Truncated));
            };
            if header.signature != *b"APIC" {
                return Err(claim(0, Flaw::Magic));
            }
            let length = usize::try_from(header.length.get()).unwrap_or(usize::MAX);
            let table = match bytes.get(..length) {
                None => return Err(claim(4, Flaw::Truncated)),
                Some(table) if table.len() < HEADER_BYTES => return Err(claim(4, Flaw::Length)),
                Some(table) => table,
            };
            if table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)) != 0 {
                return Err(claim(9, Flaw::Checksum));
            }
            Ok(Some(Self { table }))
        })
    }

    /// Lists the APIC ids of the processors that are enabled, each once, in the table's order.
    ///
    /// # Errors
    ///
    /// [`Error::Claim`] with the offset of the entry that has an impossible length, names the
    /// broadcast id or an id that came before, or does not fit into `room`; if there is none.
    pub fn apic_ids<'r>(&self, room: &'r mut [u32]) -> Result<&'r [u32]> {
        let mut count = 0;
        let mut offset = HEADER_BYTES;
        // Every entry has at least two bytes, so the table's length bounds the steps.
        while let Some([kind, length, ..]) =
            self.table.get(offset..).filter(|rest| !rest.is_empty())
        {
            let end = offset + usize::from(*length);
            let entry = match self.table.get(offset..end) {
                Some(entry) if entry.len() >= 2 => entry,
                Some(_) => return Err(claim(offset, Flaw::Length)),
                None => return Err(claim(offset, Flaw::Truncated)),
            };
            if let Some(id) = enabled_id(*kind, entry, offset)? {
                let (known, free) = room.split_at_mut_checked(count).ok_or(Error::Bug)?;
                if known.contains(&id) {
                    return Err(claim(offset, Flaw::Duplicate));
                }
                *free.first_mut().ok_or(claim(offset, Flaw::TooMany))? = id;
                count += 1;
            }
            offset = end;
        }
        if offset != self.table.len() {
            return Err(claim(offset, Flaw::Truncated));
        }
        match room.get(..count) {
            Some(ids) if !ids.is_empty() => Ok(ids),
            _ => Err(claim(0, Flaw::Empty)),
        }
    }
}

/// The id of the processor that an entry names, if it does and the processor is enabled.
fn enabled_id(kind: u8, entry: &[u8], offset: usize) -> Result<Option<u32>> {
    let (id, broadcast, flags) = match kind {
        LOCAL_APIC => {
            let entry =
                LocalApic::ref_from_bytes(entry).map_err(|_| claim(offset, Flaw::Length))?;
            (u32::from(entry.apic_id), u32::from(u8::MAX), entry.flags)
        }
        LOCAL_X2APIC => {
            let entry =
                LocalX2Apic::ref_from_bytes(entry).map_err(|_| claim(offset, Flaw::Length))?;
            (entry.x2apic_id.get(), u32::MAX, entry.flags)
        }
        _ => return Ok(None),
    };
    if flags.get() & ENABLED == 0 {
        return Ok(None);
    }
    if id == broadcast {
        return Err(claim(offset, Flaw::Unknown));
    }
    Ok(Some(id))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn table(entries: &[&[u8]]) -> Vec<u8> {
        let mut table = Vec::from([0; HEADER_BYTES]);
        table[..4].copy_from_slice(b"APIC");
        table.extend(entries.concat());
        let length = u32::try_from(table.len()).unwrap();
        table[4..8].copy_from_slice(&length.to_le_bytes());
        let sum = table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        table[9] = 0_u8.wrapping_sub(sum);
        table.extend([0xee; 7]); // what lies behind the table in its area
        table
    }

    fn local(id: u8, flags: u8) -> [u8; 8] {
        [LOCAL_APIC, 8, id, id, flags, 0, 0, 0]
    }

    fn x2apic(id: u32, flags: u8) -> [u8; 16] {
        let mut entry = [0; 16];
        entry[..2].copy_from_slice(&[LOCAL_X2APIC, 16]);
        entry[4..8].copy_from_slice(&id.to_le_bytes());
        entry[8] = flags;
        entry
    }

    fn ids(entries: &[&[u8]]) -> Result<Vec<u32>> {
        let mut room = [0; 4];
        let table = table(entries);
        let madt = Madt::parse(Claim::new(&table))?.unwrap();
        madt.apic_ids(&mut room).map(Vec::from)
    }

    #[test]
    fn enabled_processors_are_listed_in_order() {
        let io_apic = [1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0];
        let seen = ids(&[
            &local(2, 1),
            &io_apic,
            &local(5, 2),
            &x2apic(300, 1),
            &local(0, 3),
        ]);
        assert_eq!(seen, Ok(Vec::from([2, 300, 0])));
    }

    #[test]
    fn hostile_entries_are_refused_where_they_lie() {
        let at = |entries: &[&[u8]]| match ids(entries) {
            Err(Error::Claim {
                parameter: Parameter::Madt,
                offset,
                flaw,
            }) => (offset, flaw),
            other => panic!("{other:?}"),
        };
        assert_eq!(at(&[]), (0, Flaw::Empty));
        assert_eq!(at(&[&local(1, 0)]), (0, Flaw::Empty));
        assert_eq!(at(&[&local(1, 1), &[3, 0]]), (52, Flaw::Length));
        assert_eq!(at(&[&local(1, 1), &[3, 1]]), (52, Flaw::Length));
        assert_eq!(at(&[&local(1, 1), &[3]]), (52, Flaw::Truncated));
        assert_eq!(at(&[&[3, 200, 0]]), (44, Flaw::Truncated));
        assert_eq!(at(&[&[0, 7, 0, 1, 1, 0, 0]]), (44, Flaw::Length));
        assert_eq!(at(&[&local(0xff, 1)]), (44, Flaw::Unknown));
        assert_eq!(at(&[&x2apic(u32::MAX, 1)]), (44, Flaw::Unknown));
        assert_eq!(at(&[&local(7, 1), &x2apic(7, 1)]), (52, Flaw::Duplicate));
        let five = [0, 1, 2, 3, 4].map(|id| local(id, 1));
        let five: Vec<&[u8]> = five.iter().map(<[u8; 8]>::as_slice).collect();
        assert_eq!(at(&five), (76, Flaw::TooMany));
    }

    #[test]
    fn broken_headers_are_refused() {
        let good = table(&[&local(0, 1)]);
        let refused = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut table = good.clone();
            change(&mut table);
            Madt::parse(Claim::new(&table)).map(|madt| madt.is_some())
        };
        assert_eq!(refused(&|t| t[0] = b'a'), Err(claim(0, Flaw::Magic)));
        assert_eq!(refused(&|t| t[20] ^= 1), Err(claim(9, Flaw::Checksum)));
        assert_eq!(refused(&|t| t[5] = 0xff), Err(claim(4, Flaw::Truncated)));
        assert_eq!(refused(&|t| t[4] = 43), Err(claim(4, Flaw::Length)));
        assert_eq!(
            refused(&|t| t.truncate(43)),
            Err(claim(43, Flaw::Truncated))
        );
        assert_eq!(refused(&|t| t.fill(0)), Ok(false));
    }

    proptest! {
        #[test]
        fn junk_entries_never_panic(entries in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(ids) = ids(&[&entries]) {
                prop_assert!(!ids.is_empty());
            }
        }
    }
}
