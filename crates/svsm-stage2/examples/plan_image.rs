//! Lays out an image, prints where everything goes, builds its page tables, and runs stage2's work
//! on them, all in the memory of this program.
//!
//! Run with `cargo run -p svsm-stage2 --features plan --example plan_image`.

use core::error::Error;

use svsm_mm::frame::{FrameSource, Order};
use svsm_mm::table::{Attributes, Levels, PageTable, Rights as TableRights};
use svsm_mm::window::HostMemory;
use svsm_platform::addr::GvaRange;
use svsm_platform::encryption::Encryption;
use svsm_stage2::exec;
use svsm_stage2::handoff::RunTime;
use svsm_stage2::plan::{AddressSpace, Plan, ProgramFacts, Request, SegmentFacts};
use svsm_stage2::region::{Parameter, Rights};
use svsm_stage2::staged::InPlace;
use zerocopy::IntoBytes;

/// A segment as `readelf -l` shows it.
fn segment(address: u64, mem_bytes: u64, rights: &str) -> SegmentFacts {
    SegmentFacts {
        address,
        mem_bytes,
        file_bytes: mem_bytes,
        writable: rights.contains('w'),
        executable: rights.contains('x'),
    }
}

/// Makes the tables of an address space as its documentation says.
fn build_tables(space: &AddressSpace) -> Result<HostMemory, Box<dyn Error>> {
    let memory = HostMemory::new(space.tables);
    let mut frames = memory.frames()?;
    let root = frames.take(Order::SINGLE)?;
    let mut table = PageTable::new(root, Encryption::None, Levels::Four, &memory)
        .map_err(|refused| refused.error)?;
    for mapping in &space.mappings {
        let rights = match mapping.rights {
            Rights::Read => TableRights::READ,
            Rights::ReadWrite => TableRights::READ_WRITE,
            Rights::ReadExecute => TableRights::READ_EXECUTE,
        };
        let len_bytes = mapping.pages.len_bytes(mapping.size).ok_or("too long")?;
        let range = GvaRange::new(mapping.gva, len_bytes).ok_or("too long")?;
        table
            .editor(&mut frames, &memory)
            .map_up_to(
                range,
                mapping.gpa,
                Attributes::private(rights),
                mapping.size,
            )
            .map_err(|stopped| stopped.cause)?;
    }
    Ok(memory)
}

fn main() -> Result<(), Box<dyn Error>> {
    let stage2 = [
        segment(0x8000, 0x10e, "rx"),
        segment(0x1_0000, 0x5488, "rx"),
        segment(0x1_6000, 0xff0, "r"),
    ];
    let svsm = [
        segment(0xffff_ffff_8000_0000, 0x2_3000, "rx"),
        segment(0xffff_ffff_8002_3000, 0x9000, "r"),
        segment(0xffff_ffff_8002_c000, 0x1_4000, "rw"),
    ];
    let mut request = Request::new(
        ProgramFacts {
            segments: &stage2,
            entry: 0x1_0070,
        },
        ProgramFacts {
            segments: &svsm,
            entry: 0xffff_ffff_8000_0000,
        },
    );
    request.deposit(Parameter::VpCount, 0x1000);
    request.deposit(Parameter::MemoryMap, 0x1000);
    request.deposit(Parameter::Madt, 0x4000);
    request.archive_bytes = 0x3_4567;
    let plan = Plan::new(&request)?;

    println!(
        "{:<22}{:<28}{:<40}rights",
        "what", "guest physical", "the svsm sees it at"
    );
    for placement in &plan.placements {
        println!(
            "{:<22}{:<28}{:<40}{}",
            placement.region.to_string(),
            placement.gpa.to_string(),
            placement.gva.map(|gva| gva.to_string()).unwrap_or_default(),
            placement.rights,
        );
    }

    let tables = build_tables(&plan.svsm)?;
    let mut block = plan.handoff.encode();
    let run_time = RunTime {
        encryption: Encryption::None,
        tsc_at_entry: 0,
    };
    let in_place = InPlace::loaded(&plan.handoff)?;
    let jump = exec::run(block.as_mut_bytes(), run_time, &in_place, &tables)?;
    println!(
        "\nstage2 would load {:#x} into CR3 and jump to {}",
        jump.cr3, jump.entry
    );
    Ok(())
}
