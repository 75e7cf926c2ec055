//! What a kernel does for a process: an address space with a program and a stack, and back.

use svsm_mm::frame::{Buddy, FrameMeta, FrameSource, Order};
use svsm_mm::space::{AddressSpace, Means, Place};
use svsm_mm::table::{Levels, PageTable, Rights};
use svsm_mm::window::{HostMemory, NoProcessor};
use svsm_platform::addr::{Gpa, GpaRange, Gva, GvaRange};
use svsm_platform::encryption::Encryption;

fn main() -> Result<(), Box<dyn core::error::Error>> {
    let gva = |at| Gva::new(at).ok_or("no such address");
    let start = Gpa::new(0x80_0000_0000).ok_or("no such address")?;
    let range = GpaRange::new(start, 4 << 20).ok_or("no such range")?;

    // A kernel has a window to its memory, and a shootdown that reaches its CPUs.
    let window = HostMemory::new(range);
    let mut shootdown = NoProcessor;
    let mut meta = [FrameMeta::EMPTY; 1024];
    let mut frames = Buddy::new(range, &mut meta)?;
    #[expect(unsafe_code, reason = "a source has to be told what is its own")]
    // SAFETY: the addresses name memory of `window` alone.
    unsafe { frames.add(range) }?;

    let root = frames.take(Order::SINGLE)?;
    let table = PageTable::new(root, Encryption::None, Levels::Four, &window)
        .map_err(|refused| refused.error)?;
    let area =
        GvaRange::from_bounds(gva(0x1000)?, gva(0x7fff_ffff_f000)?).ok_or("no such range")?;
    let mut space = AddressSpace::user(table, area);
    let mut means = Means {
        frames: &mut frames,
        window: &window,
        shootdown: &mut shootdown,
    };

    let text = Place::At(GvaRange::new(gva(0x40_0000)?, 0x2000).ok_or("no such range")?);
    let code = [0xb8, 0x2a, 0, 0, 0, 0xcd, 0x80]; // mov eax, 42; int 0x80
    space.map_filled(&mut means, text, 0, &code, Rights::READ_EXECUTE)?;
    let stack = Place::Guarded {
        len_bytes: 64 << 10,
    };
    space.map_fresh(&mut means, stack, Rights::READ_WRITE)?;

    for region in space.regions() {
        println!(
            "{} {:?} {:?}",
            region.range(),
            region.rights(),
            region.backing()
        );
    }
    println!("{} frames free while it lives", means.frames.free_frames());
    space.clear(&mut means)?;
    frames
        .give(space.into_table().into_root())
        .map_err(|refused| refused.error)?;
    println!("{} frames free afterwards", frames.free_frames());
    Ok(())
}
