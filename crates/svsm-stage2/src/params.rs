//! What the loader deposited in the parameter areas.
//!
//! All of it is the host's word. The parsers here make it well-formed: lengths, order, counts and
//! text are checked, lists are bounded by the room the caller lends, and nothing panics. Whether it
//! is *true* (whether there is memory, whether such a CPU exists) only using it can show.

use core::num::NonZeroU32;

use svsm_platform::claim::Claim;
use zerocopy::FromBytes;
use zerocopy::little_endian::U32;

use crate::error::{Error, Flaw, Result};
use crate::region::Parameter;

mod command_line;
mod device_tree;
mod madt;
mod memory_map;

pub use command_line::{CommandLine, Words};
pub use device_tree::DeviceTree;
pub use madt::Madt;
pub use memory_map::{MAP_ENTRY_BYTES, MemoryKind, MemoryMap, MemoryRegion, is_memory};

/// The number of virtual processors.
///
/// # Errors
///
/// [`Error::Claim`] if the area is too short, or there is no processor.
pub fn vp_count(area: Claim<&[u8]>) -> Result<NonZeroU32> {
    let claim = |flaw| Error::Claim {
        parameter: Parameter::VpCount,
        offset: 0,
        flaw,
    };
    area.check_with(|bytes| {
        let (count, _) = U32::read_from_prefix(bytes).map_err(|_| claim(Flaw::Truncated))?;
        NonZeroU32::new(count.get()).ok_or(claim(Flaw::Empty))
    })
}

/// Whether the loader left the area as it was.
fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn no_processor_is_no_machine() {
        let claim = |flaw| {
            Err(Error::Claim {
                parameter: Parameter::VpCount,
                offset: 0,
                flaw,
            })
        };
        assert_eq!(vp_count(Claim::new(&[0; 4096])), claim(Flaw::Empty));
        assert_eq!(vp_count(Claim::new(&[1, 0, 0])), claim(Flaw::Truncated));
    }

    proptest! {
        #[test]
        fn counts_are_little_endian(count in 1_u32..) {
            let bytes = count.to_le_bytes();
            prop_assert_eq!(vp_count(Claim::new(&bytes)).unwrap().get(), count);
        }

        #[test]
        fn junk_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..600), good in 0..48_usize) {
            let mut bytes = bytes;
            // Past the first checks, so that the inner ones see junk too.
            let header: &[u8] = if good % 2 == 0 { b"APIC" } else { b"\xd0\x0d\xfe\xed" };
            for (place, byte) in bytes.iter_mut().zip(header) {
                *place = *byte;
            }
            let mut regions = [MemoryRegion::NONE; 8];
            let _ = MemoryMap::parse(Claim::new(&bytes), &mut regions);
            let mut ids = [0; 8];
            let _ = Madt::parse(Claim::new(&bytes)).map(|madt| madt.map(|madt| madt.apic_ids(&mut ids).is_ok()));
            let _ = CommandLine::parse(Claim::new(&bytes)).map(|line| line.words().count());
            let _ = DeviceTree::parse(Claim::new(&bytes));
            let _ = vp_count(Claim::new(&bytes));
        }
    }
}
