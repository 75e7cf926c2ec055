//! From the hand-off block to the SVSM's first instruction.

#![expect(
    unsafe_code,
    reason = "trusts the registers and tables that the machine started with"
)]

use core::ptr::{NonNull, with_exposed_provenance_mut};
use core::slice;

use svsm_mm::table::Processor;
use svsm_mm::window::TempWindow;
use svsm_platform::addr::Gva;
use svsm_platform::encryption::Encryption;
use svsm_platform::seam::Reason;
use svsm_stage2::entry::{self, Entries, Stage2};
use svsm_stage2::exec::{self, Jump};
use svsm_stage2::handoff::{HANDOFF_BYTES, RunTime};
use svsm_stage2::{Error, Result, layout};

use crate::console;

enum Firmware {}

impl Stage2 for Firmware {
    extern "C" fn main(handoff: u64, tsc: u64) -> ! {
        match prepare(handoff, tsc) {
            Ok(jump) => {
                console::say(format_args!(
                    "stage2: svsm at {}, tables at {:#x}",
                    jump.entry, jump.cr3
                ));
                // SAFETY: `jump` is `exec::run`'s answer, stage2's tables are those with which the
                // machine started, and nothing comes after this.
                unsafe { entry::enter(jump) }
            }
            Err(error) => {
                console::say(format_args!("stage2: {error}"));
                console::fatal(Reason::BadImage)
            }
        }
    }
}

#[used]
#[unsafe(link_section = ".stage2.keep")]
static ENTRIES: Entries = Entries::of::<Firmware>();

fn prepare(handoff: u64, tsc: u64) -> Result<Jump> {
    let block = usize::try_from(handoff).map_err(|_| Error::Bug)?;
    let block = NonNull::new(with_exposed_provenance_mut::<u8>(block)).ok_or(Error::Bug)?;
    // SAFETY: by the plan the machine starts with the hand-off's address in RDI, and stage2's tables
    // map its page there, writable. No one else runs, and this is the only reference to it.
    let block = unsafe { slice::from_raw_parts_mut(block.as_ptr(), HANDOFF_BYTES as usize) };
    let run_time = RunTime {
        encryption: Encryption::None,
        tsc_at_entry: tsc,
    };
    exec::run(block, run_time, &window()?)
}

/// How many pages of the SVSM are in view at once: a table at a time.
const SLOTS: u32 = 4;

fn window() -> Result<TempWindow<Processor>> {
    let at = |gva: Gva| {
        let address = usize::try_from(gva.as_u64()).map_err(|_| Error::Bug)?;
        NonNull::new(with_exposed_provenance_mut::<u8>(address)).ok_or(Error::Bug)
    };
    let (pages, entries) = (at(layout::WINDOW)?, at(layout::WINDOW_TABLE)?.cast());
    // SAFETY: stage2's tables map the window's page table at `WINDOW_TABLE` and nothing in its free
    // slots, by the plan; the machine starts with this one CPU, and this is called once.
    let window = unsafe { TempWindow::new(entries, pages, SLOTS, Encryption::None, Processor) };
    window.map_err(|_| Error::Bug)
}
