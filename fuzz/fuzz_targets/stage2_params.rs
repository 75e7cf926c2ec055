//! Parameter areas: whatever the host deposits, what is accepted is in order and bounded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use svsm_platform::claim::Claim;
use svsm_stage2::params::{self, CommandLine, DeviceTree, Madt, MemoryMap, MemoryRegion};

fuzz_target!(|bytes: &[u8]| {
    let _ = params::vp_count(Claim::new(bytes));
    memory_map(bytes);
    madt(bytes);
    if let Ok(line) = CommandLine::parse(Claim::new(bytes)) {
        assert!(line.as_str().len() < bytes.len());
        assert!(line.words().all(|(name, _)| !name.contains(' ')));
    }
    if let Ok(Some(tree)) = DeviceTree::parse(Claim::new(bytes)) {
        assert!(bytes.starts_with(tree.as_bytes()));
    }
});

fn memory_map(bytes: &[u8]) {
    let mut room = [MemoryRegion::NONE; 16];
    if let Ok(map) = MemoryMap::parse(Claim::new(bytes), &mut room) {
        let regions = map.regions();
        assert!(regions.iter().all(|region| !region.range.is_empty()));
        assert!(regions.is_sorted_by(|below, above| below.range.end() <= above.range.start()));
        for region in regions {
            assert_eq!(map.is_memory(region.range), region.kind.is_usable());
        }
    }
}

fn madt(bytes: &[u8]) {
    // The right checksum, so that the search comes past it.
    let mut table = bytes.to_vec();
    if let Some(length) = table.get(4..8).and_then(|length| length.try_into().ok()) {
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        let sum = table.iter().take(length).fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        if let Some(checksum) = table.get_mut(9) {
            *checksum = checksum.wrapping_sub(sum);
        }
    }
    let mut room = [0; 16];
    if let Ok(Some(madt)) = Madt::parse(Claim::new(&table))
        && let Ok(ids) = madt.apic_ids(&mut room)
    {
        assert!(!ids.is_empty());
        assert!(ids.iter().enumerate().all(|(index, id)| !ids[..index].contains(id)));
    }
}
