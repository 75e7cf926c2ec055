//! Who has which RAM: the guest the first `memory=` bytes, L0 what follows.
//!
//! RAM is counted in address order, the low part first, then what QEMU put above
//! 4 GiB, so a guest whose memory spans the PCI hole sees the hole where QEMU has
//! it. All guest RAM keeps its address (GPA = HPA).

use crate::addr::{Gpa, GpaRange, HpaRange, PAGE};
use crate::range_set::{InsertError, RangeSet};
use core::fmt;

/// How much RAM L0 asks for beyond the guest's: what a runner adds to QEMU's `-m`
/// (and the size of the image file on top of it).
pub const RESERVE: u64 = 128 << 20;

/// The least that L0 runs in.
const LEAST: u64 = 8 << 20;

/// The least that a guest has: QEMU loads L0 below, before it moves away.
const LEAST_GUEST: u64 = 32 << 20;

/// The hole for video memory and firmware below 1 MiB.
const LEGACY: (u64, u64) = (0xa_0000, 0x10_0000);

const FOUR_GIB: u64 = 1 << 32;

/// A line of the memory map that QEMU's firmware gave us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapEntry {
    /// The first byte.
    pub start: u64,
    /// How many bytes.
    pub bytes: u64,
    /// The E820 type: 1 is RAM.
    pub kind: u32,
}

impl MapEntry {
    const RAM: u32 = 1;

    const fn end(&self) -> u64 {
        self.start.saturating_add(self.bytes)
    }
}

/// The guest's RAM: at most below the legacy hole, up to the PCI hole, above 4 GiB.
pub type GuestRam = RangeSet<Gpa, 3>;

/// Who has which RAM.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// The guest's.
    pub guest: GuestRam,
    /// How much the guest was promised, the hole below 1 MiB included.
    pub memory: u64,
    /// L0's.
    pub own: HpaRange,
    /// Where RAM below 4 GiB ends, and the window of devices begins.
    pub low_end: u64,
}

/// Why RAM could not be divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutError {
    /// The guest's memory is less than 32 MiB or not a multiple of a page.
    Memory(u64),
    /// There is not enough RAM for the guest and for L0.
    TooLittle {
        /// What there is.
        ram: u64,
        /// What the guest was promised.
        memory: u64,
    },
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(memory) => {
                write!(
                    f,
                    "a guest has 32 MiB at least, in whole pages, and not {memory} bytes"
                )
            }
            Self::TooLittle { ram, memory } => {
                write!(
                    f,
                    "{ram} bytes of RAM are too little for a guest of {memory} and for L0"
                )
            }
        }
    }
}

impl core::error::Error for LayoutError {}

impl Layout {
    /// Divides the RAM of a memory map.
    ///
    /// # Errors
    /// See [`LayoutError`].
    pub fn new(map: &[MapEntry], memory: Option<u64>) -> Result<Self, LayoutError> {
        let (low_end, low_usable) = low_ram(map);
        let high_end = map
            .iter()
            .filter(|entry| entry.kind == MapEntry::RAM && entry.start == FOUR_GIB)
            .map(MapEntry::end)
            .max()
            .unwrap_or(FOUR_GIB);
        let ram = low_end + (high_end - FOUR_GIB);
        let memory = memory.unwrap_or_else(|| ram.saturating_sub(RESERVE) & !(PAGE - 1));
        if memory < LEAST_GUEST || memory & (PAGE - 1) != 0 {
            return Err(LayoutError::Memory(memory));
        }
        let too_little = LayoutError::TooLittle { ram, memory };

        let low = memory.min(low_end);
        let high = FOUR_GIB.checked_add(memory - low).ok_or(too_little)?;
        // What follows the guest's RAM, in whichever part there is more of it.
        let after_low = (low, low_usable.max(low));
        let after_high = (high, high_end);
        let (start, end) = if after_low.1 - after_low.0 > after_high.1.saturating_sub(high) {
            after_low
        } else {
            after_high
        };
        let own = HpaRange::from_u64(start, end & !(PAGE - 1))
            .filter(|own| own.len_bytes() >= LEAST && high <= high_end)
            .ok_or(too_little)?;

        let guest = ram_ranges(low, high).map_err(|_| too_little)?;
        Ok(Self {
            guest,
            memory,
            own,
            low_end,
        })
    }
}

/// Where RAM below 4 GiB ends, and how much of it the firmware left free.
///
/// The firmware keeps its tables at the very end and marks them as reserved; they
/// are RAM all the same, and the guest's if its memory reaches that far.
fn low_ram(map: &[MapEntry]) -> (u64, u64) {
    let usable = map
        .iter()
        .filter(|entry| entry.kind == MapEntry::RAM && entry.end() <= FOUR_GIB)
        .map(MapEntry::end)
        .max()
        .unwrap_or(0);
    let mut end = usable;
    for _ in 0..map.len() {
        let next = map
            .iter()
            .find(|e| e.start == end && e.bytes > 0 && e.end() < FOUR_GIB);
        match next {
            Some(entry) => end = entry.end(),
            None => break,
        }
    }
    (end, usable)
}

fn ram_ranges(low: u64, high: u64) -> Result<GuestRam, InsertError> {
    let mut guest = GuestRam::new();
    for (start, end) in [(0, LEGACY.0), (LEGACY.1, low), (FOUR_GIB, high)] {
        if let Some(range) = GpaRange::from_u64(start, end) {
            guest.insert(range)?;
        }
    }
    Ok(guest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn map(low: u64, high: u64) -> Vec<MapEntry> {
        let entry = |start, bytes, kind| MapEntry { start, bytes, kind };
        let mut map = vec![
            entry(0, 0x9_fc00, 1),
            entry(0x9_fc00, 0x400, 2),
            entry(0xf_0000, 0x1_0000, 2),
            entry(MIB, low - MIB - 0x2_1000, 1),
            entry(low - 0x2_1000, 0x2_1000, 2),
            entry(0xfffc_0000, 0x4_0000, 2),
        ];
        if high > 0 {
            map.push(entry(FOUR_GIB, high, 1));
        }
        map
    }

    fn ranges(layout: &Layout) -> Vec<(u64, u64)> {
        layout
            .guest
            .iter()
            .map(|r| (r.start().as_u64(), r.end().as_u64()))
            .collect()
    }

    #[test]
    fn a_small_guest_has_l0_right_above_it() {
        let layout = Layout::new(&map(192 * MIB, 0), Some(64 * MIB)).unwrap();
        assert_eq!(ranges(&layout), [(0, 0xa_0000), (MIB, 64 * MIB)]);
        assert_eq!(
            layout.own,
            HpaRange::from_u64(64 * MIB, 192 * MIB - 0x2_1000).unwrap()
        );
        assert_eq!(layout.low_end, 192 * MIB);
    }

    #[test]
    fn a_guest_across_the_hole_sees_the_split() {
        let layout = Layout::new(&map(2048 * MIB, 2176 * MIB), Some(4096 * MIB)).unwrap();
        assert_eq!(
            ranges(&layout),
            [
                (0, 0xa_0000),
                (MIB, 2048 * MIB),
                (FOUR_GIB, FOUR_GIB + 2048 * MIB)
            ]
        );
        assert_eq!(
            layout.own,
            HpaRange::from_u64(FOUR_GIB + 2048 * MIB, FOUR_GIB + 2176 * MIB).unwrap()
        );
    }

    #[test]
    fn l0_takes_the_high_part_when_the_low_one_is_nearly_full() {
        let layout = Layout::new(&map(2048 * MIB, 780 * MIB), Some(2047 * MIB)).unwrap();
        assert_eq!(layout.own.start().as_u64(), FOUR_GIB);
    }

    #[test]
    fn too_little_ram_is_an_error() {
        let ram = map(192 * MIB, 0);
        for memory in [191 * MIB, 192 * MIB, 4096 * MIB, 1 << 60] {
            assert!(
                matches!(
                    Layout::new(&ram, Some(memory)),
                    Err(LayoutError::TooLittle { .. })
                ),
                "{memory}"
            );
        }
        assert_eq!(
            Layout::new(&ram, Some(5)).unwrap_err(),
            LayoutError::Memory(5)
        );
        assert!(Layout::new(&[], None).is_err());
    }
}
