//! What an image builder does: lay out page tables on a host, and print the pages they take.
//!
//! The tables are built with a shared bit, because nobody knows yet where the C-bit of the machine
//! will be; the first code that runs there gives them their final form, here with bit 51.

use svsm_mm::frame::{FrameSource, Order};
use svsm_mm::table::{Attributes, Levels, PageTable, Rights};
use svsm_mm::window::HostMemory;
use svsm_platform::addr::{Gpa, GpaRange, Gva, GvaRange};
use svsm_platform::encryption::{BitPosition, Encryption};

/// Sections of an image: where it is linked, where it lies, its size, and what is allowed.
const SECTIONS: [(u64, u64, u64, Rights); 3] = [
    (
        0xffff_ffff_8000_0000,
        0x80_0000_0000,
        0x20_0000,
        Rights::READ_EXECUTE,
    ),
    (0xffff_ffff_8020_0000, 0x80_0020_0000, 0x5000, Rights::READ),
    (
        0xffff_ffff_8020_5000,
        0x80_0020_5000,
        0xb000,
        Rights::READ_WRITE,
    ),
];

fn main() -> Result<(), Box<dyn core::error::Error>> {
    let bit = BitPosition::new(51).ok_or("no such bit")?;
    let at = Gpa::new(0x80_00f0_0000).ok_or("no such address")?;
    let mut memory = HostMemory::new(GpaRange::new(at, 0x10_0000).ok_or("no such range")?);
    let mut frames = memory.frames()?;
    let root = frames.take(Order::SINGLE)?;
    let mut table = PageTable::new(root, Encryption::SharedBit(bit), Levels::Four, &memory)
        .map_err(|refused| refused.error)?;

    let mut editor = table.editor(&mut frames, &memory);
    for (gva, gpa, len, rights) in SECTIONS {
        let gva = Gva::new(gva).ok_or("no such address")?;
        let gpa = Gpa::new(gpa).ok_or("no such address")?;
        let range = GvaRange::new(gva, len).ok_or("no such range")?;
        editor.map(range, gpa, Attributes::private(rights))?;
    }
    table.recode(&memory, Encryption::CBit(bit))?;

    println!("CR3 {:#x}", table.cr3()?.bits());
    for (page, contents) in memory.pages() {
        let (entries, _) = contents.as_chunks::<8>();
        for (index, entry) in entries.iter().enumerate() {
            match u64::from_le_bytes(*entry) {
                0 => {}
                entry => println!("{page} [{index:3}] {entry:#018x}"),
            }
        }
    }
    Ok(())
}
