//! The manifest of all services: a table of names, places and lengths, then what they say (58019, "Services Manifest").

use core::fmt;

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Attested;

/// A name of 16 bytes, as it lies in memory: the first three fields of its text are little-endian.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
)]
#[repr(transparent)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// The one whose text has these fields.
    #[must_use]
    pub const fn new(first: u32, second: u16, third: u16, rest: [u8; 8]) -> Self {
        let [a0, a1, a2, a3] = first.to_le_bytes();
        let ([b0, b1], [c0, c1]) = (second.to_le_bytes(), third.to_le_bytes());
        let [d0, d1, d2, d3, d4, d5, d6, d7] = rest;
        Self([
            a0, a1, a2, a3, b0, b1, c0, c1, d0, d1, d2, d3, d4, d5, d6, d7,
        ])
    }

    /// The virtual TPM.
    pub const VTPM: Self = Self::new(
        0xc476_f1eb,
        0x0123,
        0x45a5,
        [0x96, 0x41, 0xb4, 0xe7, 0xdd, 0xe5, 0xbf, 0xe3],
    );
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a0, a1, a2, a3, b0, b1, c0, c1, d0, d1, node @ ..] = self.0;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{d0:02x}{d1:02x}-",
            u32::from_le_bytes([a0, a1, a2, a3]),
            u16::from_le_bytes([b0, b1]),
            u16::from_le_bytes([c0, c1]),
        )?;
        node.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for Guid {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Guid({=[u8; 16]:02x})", self.0);
    }
}

/// The name of the table itself.
pub const MANIFEST_TABLE: Guid = Guid::new(
    0x6384_9ebb,
    0x3d92,
    0x4670,
    [0xa1, 0xff, 0x58, 0xf9, 0xc9, 0x4b, 0x87, 0xbb],
);

const HEADER_BYTES: usize = 24;
const ENTRY_BYTES: usize = 24;

/// The version in which services speak in the table.
const VERSION: u32 = 0;

/// Writes the table of `services` to the start of `out`; answers with its length, or `None` if there is no room.
pub(super) fn write(services: &[&dyn Attested], out: &mut [u8]) -> Option<usize> {
    let mut end = HEADER_BYTES + services.len().checked_mul(ENTRY_BYTES)?;
    for (index, service) in services.iter().enumerate() {
        // A service that has nothing to say is in the table with no data.
        let room = out.get_mut(end..)?;
        let bytes = service.manifest(VERSION, room).unwrap_or(0);
        let entry = out.get_mut(HEADER_BYTES + index * ENTRY_BYTES..)?;
        put(entry, service.guid(), end, bytes)?;
        end = end.checked_add(bytes)?;
    }
    put(out, MANIFEST_TABLE, end, services.len())?;
    Some(end)
}

fn put(out: &mut [u8], guid: Guid, first: usize, second: usize) -> Option<()> {
    let words = [first, second].map(|word| u32::try_from(word).map(U32::new));
    let [Ok(first), Ok(second)] = words else {
        return None;
    };
    let (name, rest) = out.split_first_chunk_mut::<16>()?;
    let (words, _) = rest.split_first_chunk_mut::<8>()?;
    *name = guid.0;
    *words = zerocopy::transmute!([first, second]);
    Some(())
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::ToString;

    use super::*;

    struct Said(Guid, &'static [u8]);

    impl Attested for Said {
        fn guid(&self) -> Guid {
            self.0
        }

        fn manifest(&self, version: u32, out: &mut [u8]) -> Option<usize> {
            assert_eq!(version, 0);
            out.get_mut(..self.1.len())?.copy_from_slice(self.1);
            Some(self.1.len())
        }
    }

    #[test]
    fn names_print_as_they_are_written() {
        assert_eq!(
            MANIFEST_TABLE.to_string(),
            "63849ebb-3d92-4670-a1ff-58f9c94b87bb"
        );
        assert_eq!(
            Guid::VTPM.to_string(),
            "c476f1eb-0123-45a5-9641-b4e7dde5bfe3"
        );
    }

    #[test]
    fn services_follow_their_table() {
        let other = Guid([9; 16]);
        let (one, two) = (Said(Guid::VTPM, b"abc"), Said(other, b""));
        let mut out = [0xee; 100];
        let len = write(&[&one, &two], &mut out).unwrap();
        assert_eq!(len, 24 * 3 + 3);
        assert_eq!(out[..16], MANIFEST_TABLE.0);
        assert_eq!(out[16..24], [75, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(out[24..40], Guid::VTPM.0);
        assert_eq!(out[40..48], [72, 0, 0, 0, 3, 0, 0, 0]);
        assert_eq!(out[48..64], [9; 16]);
        assert_eq!(out[64..72], [75, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(out[72..76], *b"abc\xee");
        // No room for the data: no data. No room for the table: no table.
        assert_eq!(write(&[&one, &two], &mut out[..74]), Some(72));
        assert_eq!(write(&[&one, &two], &mut out[..60]), None);
        assert_eq!(write(&[], &mut out), Some(24));
    }
}
