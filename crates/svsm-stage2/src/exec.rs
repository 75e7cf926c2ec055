//! What stage2 does when it runs: check the hand-off, finish the SVSM's page tables, fill in what
//! is only known now, and say where to go.
//!
//! None of it is instructions: the tables are reached through a [`Window`], the block is a slice,
//! and the [`Jump`] is data until `entry::enter` makes it.

use svsm_mm::window::Window;
use svsm_platform::addr::Gva;
use svsm_platform::encryption::Visibility;
use zerocopy::IntoBytes;

use crate::error::{Error, Fault, Flaw, Result};
use crate::handoff::{Handoff, RunTime};
use crate::layout;
use crate::region::Region;
use crate::staged::InPlace;

mod tables;

#[cfg(feature = "plan")]
#[cfg(test)]
mod tests;

/// The SVSM's first instruction and the state in which it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Jump {
    /// CR3: the root of the SVSM's page tables, encoded as private.
    pub cr3: u64,
    /// RSP.
    pub stack_top: Gva,
    /// RIP.
    pub entry: Gva,
    /// RDI: the hand-off block as the SVSM sees it.
    pub argument: Gva,
}

/// Does stage2's work on the hand-off in `block`, whose page tables `window` shows. `in_place` says that they are there.
///
/// On an unprotected machine the tables are right as they are; they are checked all the same.
///
/// # Errors
///
/// [`Error::Handoff`] and [`Error::Region`] for a block that is malformed, does not suit
/// `run_time` or `in_place`, or was used before; [`Error::Table`] for an entry that no plan asks for. The SVSM
/// cannot run then: its tables may be half finished.
pub fn run<W: Window>(
    block: &mut [u8],
    run_time: RunTime,
    in_place: &InPlace,
    window: &W,
) -> Result<Jump> {
    let mut handoff = Handoff::parse(block)?;
    if !in_place.is_of(&handoff) {
        return Err(Error::Region {
            region: Region::SvsmStaging,
            fault: Fault::Missing,
        });
    }
    if handoff.run_time.is_some() {
        let offset = core::mem::offset_of!(crate::handoff::WireHandoff, flags);
        return Err(Error::Handoff {
            offset,
            flaw: Flaw::Order,
        });
    }
    // The trampoline's code knows this address from the layout.
    if handoff.window.switch != layout::SWITCH {
        let value = handoff.window.switch.as_u64();
        return Err(Error::Region {
            region: Region::Window,
            fault: Fault::NoAddress { value },
        });
    }
    handoff.run_time = Some(run_time);
    handoff.check()?;
    tables::finish(&handoff, run_time.encryption, window)?;

    let wire = handoff.encode();
    let target = block.get_mut(..wire.as_bytes().len()).ok_or(Error::Bug)?;
    target.copy_from_slice(wire.as_bytes());

    let wrong = Error::Region {
        region: Region::Tables,
        fault: Fault::WrongEncryption,
    };
    Ok(Jump {
        cr3: run_time
            .encryption
            .encode(handoff.root(), Visibility::Private)
            .ok_or(wrong)?,
        stack_top: handoff.boot_stack_top(),
        entry: handoff.entry,
        argument: handoff.handoff.gva(),
    })
}
