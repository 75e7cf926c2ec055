use core::fmt;

use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned, little_endian::U32};

/// The name of a certificate: a GUID as it stands on the wire, its first three parts little-endian.
#[derive(Clone, Copy, PartialEq, Eq, Hash, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(transparent)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// The certificate of the chip's key.
    pub const VCEK: Self = Self::new(0x63da_758d, 0xe664, 0x4564, 0xadc5_f4b9_3be8_accd);
    /// The certificate of the key that the owner of many chips loaded.
    pub const VLEK: Self = Self::new(0xa807_4bc2, 0xa25a, 0x483e, 0xaae6_39c0_45a0_b8a1);
    /// The certificate of the key that signed one of those.
    pub const ASK: Self = Self::new(0x4ab7_b379, 0xbbac, 0x4fe4, 0xa02f_05ae_f327_c782);
    /// The certificate of AMD's root key.
    pub const ARK: Self = Self::new(0xc0b4_06a4, 0xa803, 0x4952, 0x9743_3fb6_014c_d0ae);
    /// A list of certificates that count no more.
    pub const CRL: Self = Self::new(0x92f8_1bc3, 0x5811, 0x4d3d, 0x97ff_d19f_88dc_67ea);

    /// A GUID of its parts; the last one has all that follows the third dash.
    #[must_use]
    pub const fn new(first: u32, second: u16, third: u16, rest: u64) -> Self {
        let [a, b, c, d] = first.to_le_bytes();
        let ([e, f], [g, h]) = (second.to_le_bytes(), third.to_le_bytes());
        let [i, j, k, l, m, n, o, p] = rest.to_be_bytes();
        Self([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p])
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f2, g, h, i, j, rest @ ..] = self.0;
        let first = u32::from_le_bytes([a, b, c, d]);
        let (second, third) = (u16::from_le_bytes([e, f2]), u16::from_le_bytes([g, h]));
        write!(f, "{first:08x}-{second:04x}-{third:04x}-{i:02x}{j:02x}-")?;
        rest.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// An entry of the table: a name, and where its data are.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Entry {
    guid: Guid,
    offset: U32,
    length: U32,
}
const _: () = assert!(size_of::<Entry>() == 24);

impl Entry {
    fn is_end(&self) -> bool {
        self.guid.0 == [0; 16] && self.offset.get() == 0 && self.length.get() == 0
    }
}

/// The certificates that a host hands out with a report (56421, "SNP Extended Guest Request"): a table, then the data.
///
/// All of it is the host's word. What is checked is that every certificate lies inside of the buffer and outside of the table.
#[derive(Clone, Copy)]
pub struct Certificates<'b> {
    entries: &'b [Entry],
    bytes: &'b [u8],
}

impl<'b> Certificates<'b> {
    /// Reads what the host left. An empty table says that it has none.
    ///
    /// # Errors
    /// [`Malformed`] if the table has no end, or if an entry points outside of `bytes` or into the table.
    pub fn parse(bytes: &'b [u8]) -> Result<Self, Malformed> {
        let (all, _) =
            <[Entry]>::ref_from_prefix_with_elems(bytes, bytes.len() / size_of::<Entry>())
                .map_err(|_| Malformed)?;
        let count = all.iter().position(Entry::is_end).ok_or(Malformed)?;
        let (entries, _) = all.split_at_checked(count).ok_or(Malformed)?;
        let table = size_of_val(entries) + size_of::<Entry>();
        let found = Self { entries, bytes };
        for entry in entries {
            let data = found.data(entry).ok_or(Malformed)?;
            if data.start < table {
                return Err(Malformed);
            }
        }
        Ok(found)
    }

    fn data(&self, entry: &Entry) -> Option<core::ops::Range<usize>> {
        let start = usize::try_from(entry.offset.get()).ok()?;
        let end = start.checked_add(entry.length.get().try_into().ok()?)?;
        self.bytes.get(start..end).map(|_| start..end)
    }

    /// The certificates by name, in the order of the table.
    pub fn iter(&self) -> impl Iterator<Item = (Guid, &'b [u8])> + use<'b> {
        let found = *self;
        found.entries.iter().map(move |entry| {
            let data = found.data(entry).and_then(|data| found.bytes.get(data));
            (entry.guid, data.unwrap_or_default())
        })
    }

    /// The first certificate of that name.
    #[must_use]
    pub fn get(&self, guid: Guid) -> Option<&'b [u8]> {
        self.iter()
            .find(|(name, _)| *name == guid)
            .map(|(_, data)| data)
    }

    /// The table and all data, and nothing behind them: what to hand on. Empty if there are no certificates.
    #[must_use]
    pub fn as_bytes(&self) -> &'b [u8] {
        let ends = self.entries.iter().filter_map(|entry| self.data(entry));
        let end = ends.map(|data| data.end).max().unwrap_or(0);
        self.bytes.get(..end).unwrap_or_default()
    }
}

impl fmt::Debug for Certificates<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lengths = self.iter().map(|(guid, data)| (guid, data.len()));
        f.debug_map().entries(lengths).finish()
    }
}

/// It is no table of certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the host's table of certificates is malformed")
    }
}

impl core::error::Error for Malformed {}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use proptest::prelude::*;
    use std::{format, vec, vec::Vec};

    fn table(entries: &[(Guid, u32, u32)], len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (guid, offset, length) in entries {
            bytes.extend(guid.0);
            bytes.extend(offset.to_le_bytes());
            bytes.extend(length.to_le_bytes());
        }
        bytes.resize(len, 0);
        bytes
    }

    #[test]
    fn certificates_are_found_by_name() {
        let mut bytes = table(&[(Guid::VCEK, 0x50, 3), (Guid::ASK, 0x53, 2)], 0x100);
        bytes[0x50..0x55].copy_from_slice(b"vcask");
        let found = Certificates::parse(&bytes).unwrap();
        assert_eq!(found.get(Guid::VCEK), Some(b"vca".as_slice()));
        assert_eq!(found.get(Guid::ASK), Some(b"sk".as_slice()));
        assert_eq!(found.get(Guid::ARK), None);
        assert_eq!(found.as_bytes().len(), 0x55);
        assert_eq!(
            format!("{found:?}"),
            "{63da758d-e664-4564-adc5-f4b93be8accd: 3, 4ab7b379-bbac-4fe4-a02f-05aef327c782: 2}"
        );
    }

    #[test]
    fn a_host_without_certificates_says_so() {
        let found = Certificates::parse(&[0; 4096]).unwrap();
        assert_eq!((found.iter().count(), found.as_bytes().len()), (0, 0));
    }

    #[test]
    fn tables_that_lead_elsewhere_are_refused() {
        let parse = |entries: &[_], len| Certificates::parse(&table(entries, len)).err();
        for entry in [
            (Guid::VCEK, 0x100, 1),
            (Guid::VCEK, 0xff, 2),
            (Guid::VCEK, u32::MAX, u32::MAX),
            // Into the table, and into its end.
            (Guid::VCEK, 0, 24),
            (Guid::VCEK, 47, 1),
        ] {
            assert_eq!(parse(&[entry], 0x100), Some(Malformed), "{entry:?}");
        }
        assert_eq!(parse(&[(Guid::VCEK, 48, 0)], 48), None);
        // No end.
        assert_eq!(parse(&[(Guid::VCEK, 24, 0)], 24), Some(Malformed));
        assert_eq!(parse(&[(Guid::VCEK, 24, 0)], 47), Some(Malformed));
        assert_eq!(parse(&[], 23), Some(Malformed));
    }

    proptest! {
        #[test]
        fn whatever_the_host_writes_stays_inside(
            bytes in prop::collection::vec(prop_oneof![Just(0_u8), any::<u8>()], 0..200),
            padding in 0..100_usize,
        ) {
            let bytes = [bytes, vec![0; padding]].concat();
            if let Ok(found) = Certificates::parse(&bytes) {
                let used = found.as_bytes().len();
                for (guid, data) in found.iter() {
                    prop_assert!(data.len() <= used);
                    prop_assert!(found.get(guid).is_some());
                }
            }
        }
    }
}
