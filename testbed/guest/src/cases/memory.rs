//! What is where.

use super::{Failed, Result, check};
use crate::bare::{read, write};
use crate::layout;

pub(super) fn parameters() -> Result {
    let cpus: u32 = read(layout::FACTS + u64::from(layout::VP_COUNT));
    let environment: u32 = read(layout::FACTS + u64::from(layout::ENVIRONMENT));
    check("environment", u64::from(environment), 0)?;
    let window: u64 = read(layout::FACTS + u64::from(layout::MMIO));
    let pages: u64 = read(layout::FACTS + u64::from(layout::MMIO) + 8);
    check(
        "the window of devices ends at 4 GiB",
        window + pages,
        1 << 20,
    )?;
    check(
        "the tree's mark",
        u64::from(read::<u32>(layout::DEVICE_TREE)),
        0xedfe_0dd0,
    )?;

    check(
        "the mark of the MADT",
        u64::from(read::<u32>(layout::MADT)),
        0x4349_5041,
    )?;
    let bytes: u32 = read(layout::MADT + 4);
    let mut sum = 0_u8;
    for offset in 0..u64::from(bytes) {
        sum = sum.wrapping_add(read(layout::MADT + offset));
    }
    check("the sum of the MADT", u64::from(sum), 0)?;
    let (mut at, mut found) = (44, 0);
    while at < u64::from(bytes) {
        let kind: u8 = read(layout::MADT + at);
        let length: u8 = read(layout::MADT + at + 1);
        found += u64::from(kind == 0 || kind == 9);
        at += u64::from(length.max(2));
    }
    check("CPUs in the MADT", found, u64::from(cpus))
}

/// Every entry of the memory map, as first page and number of pages.
fn memory_map() -> impl Iterator<Item = (u64, u64)> {
    (0..)
        .map(|index| layout::MEMORY_MAP + 24 * index)
        .map(|at| (read::<u64>(at), read::<u64>(at + 8)))
        .take_while(|(_, pages)| *pages != 0)
}

/// Both ends of every piece of memory hold what is written to them.
pub(super) fn ram() -> Result {
    let mut before = 0;
    let mut total = 0;
    for (first, pages) in memory_map() {
        if first < before {
            return Err(Failed {
                what: "the memory map is not sorted",
                got: first,
            });
        }
        before = first + pages;
        total += pages;
        for at in [(first + pages) * 4096 - 8, first * 4096 + 0x2000] {
            write(at, at ^ 0x5a5a);
            check("memory", read(at), at ^ 0x5a5a)?;
        }
    }
    crate::bare::say(format_args!("{total} pages"));
    Ok(())
}

/// The image's memory where no machine has RAM.
pub(super) fn far() -> Result {
    let bytes = u64::from(layout::FAR_MEMORY_BYTES);
    let (start, end) = (layout::FAR_MEMORY, layout::FAR_MEMORY + bytes);
    let listed = memory_map().any(|(first, pages)| first * 4096 == start && pages * 4096 == bytes);
    check("far memory is in the map", u64::from(listed), 1)?;
    for (offset, byte) in (0..).zip(layout::FAR_DATA) {
        let got: u8 = read(end - 4096 + offset);
        check("data", u64::from(got), u64::from(*byte))?;
    }
    check("memory that nobody filled", read(start), 0)?;
    write(start, u64::MAX);
    check("memory", read(start), u64::MAX)
}
