//! The device tree: whether there is one, and whether its blocks lie inside it.

use svsm_platform::claim::Claim;
use zerocopy::big_endian::U32;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::error::{Error, Flaw, Result};
use crate::region::Parameter;

const MAGIC: u32 = 0xd00d_feed;
/// The version whose layout this is; blobs say down to which one they are compatible.
const VERSION: u32 = 17;

/// The header (Devicetree Specification 0.4, section 5.2).
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    magic: U32,
    total_bytes: U32,
    structure_offset: U32,
    strings_offset: U32,
    reservations_offset: U32,
    version: U32,
    last_compatible_version: U32,
    boot_cpu: U32,
    strings_bytes: U32,
    structure_bytes: U32,
}

const HEADER_BYTES: u32 = 40;
const _: () = assert!(size_of::<Header>() == HEADER_BYTES as usize);

/// A flattened device tree whose blocks lie inside it. What they say is not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceTree<'a> {
    blob: &'a [u8],
}

impl<'a> DeviceTree<'a> {
    /// Checks the header. `None` if the loader deposited no device tree.
    ///
    /// # Errors
    ///
    /// [`Error::Claim`] with the offset of the header's field that is wrong.
    pub fn parse(area: Claim<&'a [u8]>) -> Result<Option<Self>> {
        area.check_with(|bytes| {
            if super::is_blank(bytes) {
                return Ok(None);
            }
            let claim = |offset, flaw| Error::Claim {
                parameter: Parameter::DeviceTree,
                offset,
                flaw,
            };
            let Ok((header, _)) = Header::ref_from_prefix(bytes) else {
                return Err(claim(bytes.len(), Flaw::Truncated));
            };
            if header.magic.get() != MAGIC {
                return Err(claim(0, Flaw::Magic));
            }
            let total = header.total_bytes.get();
            let blob = usize::try_from(total)
                .ok()
                .and_then(|total| bytes.get(..total));
            let blob = blob.ok_or(claim(4, Flaw::Truncated))?;
            if total < HEADER_BYTES {
                return Err(claim(4, Flaw::Length));
            }
            if header.version.get() < VERSION || header.last_compatible_version.get() > VERSION {
                return Err(claim(20, Flaw::Version));
            }
            let blocks = [
                (8, header.structure_offset, header.structure_bytes.get(), 4),
                (12, header.strings_offset, header.strings_bytes.get(), 1),
                // The list ends with an entry of 16 zero bytes, so it has at least that one.
                (16, header.reservations_offset, 16, 8),
            ];
            for (field, offset, length, alignment) in blocks {
                let offset = offset.get();
                let is_inside = offset >= HEADER_BYTES
                    && offset % alignment == 0
                    && offset.checked_add(length).is_some_and(|end| end <= total);
                if !is_inside {
                    return Err(claim(field, Flaw::Address));
                }
            }
            Ok(Some(Self { blob }))
        })
    }

    /// The whole tree.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.blob
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    fn blob() -> Vec<u8> {
        let words = [MAGIC, 88, 56, 80, 40, 17, 16, 0, 8, 24];
        let mut blob: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        blob.resize(128, 0);
        blob
    }

    fn refusal(field: usize, value: u32) -> (usize, Flaw) {
        let mut blob = blob();
        blob[field..field + 4].copy_from_slice(&value.to_be_bytes());
        match DeviceTree::parse(Claim::new(&blob)) {
            Err(Error::Claim {
                parameter: Parameter::DeviceTree,
                offset,
                flaw,
            }) => (offset, flaw),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn trees_end_where_they_say() {
        let blob = blob();
        let tree = DeviceTree::parse(Claim::new(&blob)).unwrap().unwrap();
        assert_eq!(tree.as_bytes(), &blob[..88]);
        assert_eq!(DeviceTree::parse(Claim::new(&[0; 64])), Ok(None));
    }

    #[test]
    fn hostile_headers_are_refused() {
        assert_eq!(refusal(0, 0xedfe_0dd0), (0, Flaw::Magic));
        assert_eq!(refusal(4, 129), (4, Flaw::Truncated));
        assert_eq!(refusal(4, 39), (4, Flaw::Length));
        assert_eq!(refusal(8, 0), (8, Flaw::Address));
        assert_eq!(refusal(8, 58), (8, Flaw::Address));
        assert_eq!(refusal(8, !3), (8, Flaw::Address));
        assert_eq!(refusal(12, 81), (12, Flaw::Address));
        assert_eq!(refusal(16, 80), (16, Flaw::Address));
        assert_eq!(refusal(20, 16), (20, Flaw::Version));
        assert_eq!(refusal(24, 18), (20, Flaw::Version));
        assert_eq!(refusal(36, u32::MAX), (8, Flaw::Address));
    }
}
