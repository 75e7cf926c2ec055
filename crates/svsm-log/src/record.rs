//! The record on the wire: a header of 28 bytes, then the payload.
//!
//! | Offset | Bytes | Field |
//! |---|---|---|
//! | 0 | 4 | sync: `ff 53 56 fe`; 0xff never occurs in UTF-8 text |
//! | 4 | 1 | version, 1 |
//! | 5 | 1 | class: 0 local, 1 public |
//! | 6 | 1 | kind of the payload ([`Kind`]) |
//! | 7 | 1 | reserved, 0 |
//! | 8 | 2 | CPU |
//! | 10 | 2 | length of the payload, at most [`MAX_PAYLOAD`] |
//! | 12 | 4 | image: the first four bytes of the build id of the ELF that logs |
//! | 16 | 8 | time in ticks of the time-stamp counter |
//! | 24 | 2 | CRC-16/IBM-3740 of the payload |
//! | 26 | 2 | CRC-16/IBM-3740 of the 26 bytes before |
//!
//! Numbers are little-endian. The header has a check of its own so that a reader need not wait for
//! as many bytes as junk would have it.

use core::fmt;

use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::check::crc16;

/// The longest payload of a record.
pub const MAX_PAYLOAD: usize = 4096;

/// Length of a record's header.
pub const HEADER_LEN: usize = size_of::<Header>();

pub(crate) const SYNC: [u8; 4] = [0xff, b'S', b'V', 0xfe];
const VERSION: u8 = 1;

/// Who may see a record.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Class {
    /// Stays inside the guest. What nobody thought about is local.
    #[default]
    Local,
    /// May leave the guest: it says nothing that the host must not know.
    Public,
}

/// What a record's payload is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Kind(pub u8);

impl Kind {
    /// One `defmt` frame as the macros write it, without transport encoding.
    pub const FRAME: Self = Self(1);
    /// UTF-8 text: what speaks before (or without) `defmt`. The reader bears with other bytes.
    pub const TEXT: Self = Self(2);
    /// The firmware's verdict on itself ([`Verdict`](crate::Verdict)).
    pub const VERDICT: Self = Self(3);
    /// Where code was, and who had called it ([`StackTrace`](crate::StackTrace)).
    pub const STACK_TRACE: Self = Self(4);
    /// How many records were dropped before this one ([`Dropped`](crate::Dropped)).
    pub const DROPPED: Self = Self(5);
    /// Where a panic happened ([`PanicLocation`](crate::PanicLocation)).
    pub const PANIC: Self = Self(6);
    /// The message of a panic, UTF-8; it may quote anything, so it is not for the public.
    pub const PANIC_MESSAGE: Self = Self(7);
}

/// Which ELF file a record comes from: the first four bytes of its build id.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ImageId([u8; 4]);

impl ImageId {
    /// No image: text of unknown origin.
    pub const UNKNOWN: Self = Self([0; 4]);

    /// Takes the id from a whole build id; `None` if that has fewer than four bytes.
    #[must_use]
    pub fn from_build_id(build_id: &[u8]) -> Option<Self> {
        build_id.first_chunk().copied().map(Self)
    }

    /// Finds the build id in the bytes of an ELF note section (`.note.gnu.build-id`).
    ///
    /// A firmware passes the section between two symbols of its linker script; a loader passes the
    /// contents of a note segment. Other notes are skipped; damaged ones end the search.
    #[must_use]
    pub fn from_notes(mut notes: &[u8]) -> Option<Self> {
        const GNU_BUILD_ID: u32 = 3;
        loop {
            let (header, rest) = notes.split_first_chunk::<12>()?;
            let [name_len, desc_len, kind] = zerocopy::transmute!(*header);
            let [name_len, desc_len, kind] =
                [name_len, desc_len, kind].map(|word: zerocopy::little_endian::U32| word.get());
            let name = rest.get(..usize::try_from(name_len).ok()?)?;
            let rest = rest.get(padded(name_len)?..)?;
            let desc = rest.get(..usize::try_from(desc_len).ok()?)?;
            if kind == GNU_BUILD_ID && name == b"GNU\0" {
                return Self::from_build_id(desc);
            }
            notes = rest.get(padded(desc_len)?..)?;
        }
    }

    /// The bytes in the order in which a build id is printed.
    #[must_use]
    pub const fn bytes(self) -> [u8; 4] {
        self.0
    }
}

/// Notes are padded to four bytes.
fn padded(len: u32) -> Option<usize> {
    usize::try_from(len.checked_next_multiple_of(4)?).ok()
}

impl From<[u8; 4]> for ImageId {
    fn from(bytes: [u8; 4]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

/// Who wrote a record, and when.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Stamp {
    /// Index of the CPU, as the firmware counts them.
    pub cpu: u16,
    /// The ELF file whose code wrote it.
    pub image: ImageId,
    /// Ticks of the time-stamp counter.
    pub time: u64,
}

/// One record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Record<'a> {
    /// Who wrote it, and when.
    pub stamp: Stamp,
    /// Who may see it.
    pub class: Class,
    /// What the payload is.
    pub kind: Kind,
    /// At most [`MAX_PAYLOAD`] bytes.
    pub payload: &'a [u8],
}

impl Record<'_> {
    /// The header that goes before the payload; `None` if that is too long.
    #[must_use]
    pub fn header(&self) -> Option<[u8; HEADER_LEN]> {
        let len = u16::try_from(self.payload.len()).ok()?;
        if self.payload.len() > MAX_PAYLOAD {
            return None;
        }
        let mut header = Header {
            sync: SYNC,
            version: VERSION,
            class: match self.class {
                Class::Local => Header::LOCAL,
                Class::Public => Header::PUBLIC,
            },
            kind: self.kind.0,
            reserved: 0,
            cpu: U16::new(self.stamp.cpu),
            payload_len: U16::new(len),
            image: self.stamp.image.0,
            time: U64::new(self.stamp.time),
            payload_check: U16::new(crc16(self.payload)),
            header_check: U16::ZERO,
        };
        header.header_check = U16::new(header.check());
        Some(zerocopy::transmute!(header))
    }

    /// Length of header and payload together.
    #[must_use]
    pub const fn encoded_len(&self) -> usize {
        HEADER_LEN.saturating_add(self.payload.len())
    }
}

/// A record's header as it travels.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Header {
    sync: [u8; 4],
    version: u8,
    class: u8,
    kind: u8,
    reserved: u8,
    cpu: U16,
    payload_len: U16,
    image: [u8; 4],
    time: U64,
    payload_check: U16,
    header_check: U16,
}
const _: () = assert!(HEADER_LEN == 28);

impl Header {
    const LOCAL: u8 = 0;
    const PUBLIC: u8 = 1;

    fn check(&self) -> u16 {
        let bytes = self.as_bytes();
        crc16(
            bytes
                .split_last_chunk::<2>()
                .map_or(bytes, |(covered, _)| covered),
        )
    }

    /// Reads a header; `None` if this is not one that we could have written.
    pub(crate) fn parse(bytes: &[u8; HEADER_LEN]) -> Option<Self> {
        let header: Self = zerocopy::transmute!(*bytes);
        let ours = header.sync == SYNC
            && header.version == VERSION
            && header.class <= Self::PUBLIC
            && header.payload_len() <= MAX_PAYLOAD
            && header.header_check.get() == header.check();
        ours.then_some(header)
    }

    pub(crate) fn payload_len(&self) -> usize {
        usize::from(self.payload_len.get())
    }

    /// The whole record; `None` if the payload is not the one the header was made for.
    pub(crate) fn with_payload<'a>(&self, payload: &'a [u8]) -> Option<Record<'a>> {
        (crc16(payload) == self.payload_check.get()).then_some(Record {
            stamp: Stamp {
                cpu: self.cpu.get(),
                image: ImageId(self.image),
                time: self.time.get(),
            },
            class: if self.class == Self::PUBLIC {
                Class::Public
            } else {
                Class::Local
            },
            kind: Kind(self.kind),
            payload,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_is_as_documented() {
        let record = Record {
            stamp: Stamp {
                cpu: 0x0102,
                image: ImageId([0xde, 0xad, 0xbe, 0xef]),
                time: 0x1122,
            },
            class: Class::Public,
            kind: Kind::TEXT,
            payload: b"123456789",
        };
        let header = record.header().unwrap();
        assert_eq!(
            header[..26],
            [
                0xff, 0x53, 0x56, 0xfe, 1, 1, 2, 0, 0x02, 0x01, 9, 0, 0xde, 0xad, 0xbe, 0xef, 0x22,
                0x11, 0, 0, 0, 0, 0, 0, 0xb1, 0x29
            ]
        );
        let parsed = Header::parse(&header).unwrap();
        assert_eq!(parsed.with_payload(b"123456789"), Some(record));
        assert_eq!(parsed.with_payload(b"123456780"), None);
    }

    #[test]
    fn any_changed_bit_of_a_header_is_noticed() {
        let record = Record {
            stamp: Stamp::default(),
            class: Class::Local,
            kind: Kind::FRAME,
            payload: &[],
        };
        let header = record.header().unwrap();
        for bit in 0..HEADER_LEN * 8 {
            let mut changed = header;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::parse(&changed).is_none(), "bit {bit}");
        }
    }

    #[test]
    fn image_id_is_found_among_other_notes() {
        let mut notes = [0u8; 64];
        // A note of another owner, 5 bytes of description padded to 8.
        notes[..12].copy_from_slice(&[4, 0, 0, 0, 5, 0, 0, 0, 3, 0, 0, 0]);
        notes[12..16].copy_from_slice(b"Xen\0");
        notes[24..36].copy_from_slice(&[4, 0, 0, 0, 20, 0, 0, 0, 3, 0, 0, 0]);
        notes[36..40].copy_from_slice(b"GNU\0");
        notes[40..44].copy_from_slice(&[0xc0, 0xff, 0xee, 0x01]);
        let id = ImageId::from_notes(&notes[..60]).unwrap();
        assert_eq!(alloc::format!("{id}"), "c0ffee01");
        assert_eq!(ImageId::from_notes(&notes[..59]), None);
        assert_eq!(ImageId::from_notes(&[0xff; 24]), None);
    }
}
