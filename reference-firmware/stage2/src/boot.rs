//! From the hand-off block to the SVSM's first instruction.

#![expect(
    unsafe_code,
    reason = "trusts the registers and tables that the machine started with"
)]

use core::ptr::{NonNull, with_exposed_provenance, with_exposed_provenance_mut};
use core::slice;

use svsm_mm::table::Processor;
use svsm_mm::window::TempWindow;
use svsm_platform::addr::Gva;
use svsm_platform::encryption::Encryption;
use svsm_platform::snp::CpuidPage;
use svsm_stage2::entry::{self, Entries, Stage2};
use svsm_stage2::exec::{self, Jump};
use svsm_stage2::handoff::{HANDOFF_BYTES, Handoff, Platform, RunTime, WireHandoff};
use svsm_stage2::region::Region;
use svsm_stage2::zerocopy::FromBytes;
use svsm_stage2::{Error, Fault, Result, layout};

use crate::machine;
use crate::staged::{self, Failure};

enum Firmware {}

impl Stage2 for Firmware {
    extern "C" fn main(handoff: u64, tsc: u64) -> ! {
        match prepare(handoff, tsc) {
            Ok(jump) => {
                machine::say(format_args!(
                    "stage2: svsm at {}, tables at {:#x}",
                    jump.entry, jump.cr3
                ));
                // SAFETY: `jump` is `exec::run`'s answer, stage2's tables are those with which the
                // machine started, and nothing comes after this.
                unsafe { entry::enter(jump) }
            }
            Err(error) => {
                machine::say(format_args!("stage2: {error}"));
                machine::fatal(error.reason())
            }
        }
    }
}

#[used]
#[unsafe(link_section = ".stage2.keep")]
static ENTRIES: Entries = Entries::of::<Firmware>();

fn prepare(handoff: u64, tsc: u64) -> Result<Jump, Failure> {
    let block = usize::try_from(handoff).map_err(|_| Error::Bug)?;
    let block = NonNull::new(with_exposed_provenance_mut::<u8>(block)).ok_or(Error::Bug)?;
    // SAFETY: by the plan the machine starts with the hand-off's address in RDI, and stage2's tables
    // map its page there, writable. No one else runs, and this is the only reference to it.
    let block = unsafe { slice::from_raw_parts_mut(block.as_ptr(), HANDOFF_BYTES as usize) };
    // Whatever else is wrong with the block: how to speak, and how to end, depends on this.
    if let Ok((wire, _)) = WireHandoff::ref_from_prefix(block) {
        machine::know(wire.platform);
    }
    let image = Handoff::parse(block)?;
    let encryption = encryption(&image)?;
    let run_time = RunTime {
        encryption,
        tsc_at_entry: tsc,
    };
    let window = window(encryption)?;
    let in_place = staged::receive(&image, &window)?;
    Ok(exec::run(block, run_time, &in_place, &window)?)
}

/// How this machine's page-table entries say private.
fn encryption(image: &Handoff) -> Result<Encryption> {
    let unknown = Error::Region {
        region: Region::Cpuid,
        fault: Fault::WrongEncryption,
    };
    match image.platform {
        Platform::Native => Ok(Encryption::None),
        Platform::Snp => {
            let page = image.cpuid.ok_or(unknown)?;
            let at = with_exposed_provenance::<u8>(page.gpa().as_u64() as usize);
            // SAFETY: by the plan stage2's tables map the CPUID page at its address. It is private, so nobody else writes it.
            let bytes = unsafe { slice::from_raw_parts(at, 4096) };
            CpuidPage::new(bytes)
                .and_then(|page| page.c_bit())
                .map(Encryption::CBit)
                .ok_or(unknown)
        }
        _ => Err(unknown),
    }
}

/// How many pages of the SVSM are in view at once: a table at a time.
const SLOTS: u32 = 4;

fn window(encryption: Encryption) -> Result<TempWindow<Processor>> {
    let at = |gva: Gva| {
        let address = usize::try_from(gva.as_u64()).map_err(|_| Error::Bug)?;
        NonNull::new(with_exposed_provenance_mut::<u8>(address)).ok_or(Error::Bug)
    };
    let (pages, entries) = (at(layout::WINDOW)?, at(layout::WINDOW_TABLE)?.cast());
    // SAFETY: stage2's tables map the window's page table at `WINDOW_TABLE` and nothing in its free
    // slots, by the plan; the machine starts with this one CPU, and this is called once.
    let window = unsafe { TempWindow::new(entries, pages, SLOTS, encryption, Processor) };
    window.map_err(|_| Error::Bug)
}
