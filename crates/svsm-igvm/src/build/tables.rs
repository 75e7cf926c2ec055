//! Final page tables, made by the code that edits them at run time.

use std::collections::BTreeMap;

use svsm_mm::frame::{FrameSource, Order};
use svsm_mm::table::{Attributes, Levels, PageTable, Rights};
use svsm_mm::window::HostMemory;
use svsm_platform::addr::{Gpa, GvaRange};
use svsm_platform::encryption::Encryption;
use svsm_stage2::plan::{AddressSpace, Mapping};
use svsm_stage2::region;

use crate::PageContents;
use crate::error::{Error, Result};

/// The pages of an address space's tables by their addresses.
///
/// Addresses are written as on a machine without encryption: which bit says
/// private is known only at run time, and stage2 adds it.
pub(super) fn tables(space: &AddressSpace) -> Result<BTreeMap<Gpa, PageContents>> {
    let mut memory = HostMemory::new(space.tables);
    let mut frames = memory.frames().map_err(Error::Tables)?;
    let root = frames.take(Order::SINGLE).map_err(Error::Tables)?;
    let mut table = PageTable::new(root, Encryption::None, Levels::Four, &memory)
        .map_err(|refused| Error::Tables(refused.error))?;
    if table.root() != space.root() {
        return Err(Error::Bug);
    }
    let mut editor = table.editor(&mut frames, &memory);
    for mapping in &space.mappings {
        let attributes = Attributes::private(rights(mapping));
        editor
            .map_up_to(range(mapping)?, mapping.gpa, attributes, mapping.size)
            .map_err(|stopped| Error::Tables(stopped.cause))?;
    }
    // The plan counted the tables beforehand, and put things behind them.
    if frames.remaining_bytes() != 0 {
        return Err(Error::Bug);
    }
    Ok(memory
        .pages()
        .map(|(page, contents)| (page, *contents))
        .collect())
}

fn range(mapping: &Mapping) -> Result<GvaRange> {
    let bytes = mapping.pages.len_bytes(mapping.size);
    bytes
        .and_then(|bytes| GvaRange::new(mapping.gva, bytes))
        .ok_or(Error::Bug)
}

const fn rights(mapping: &Mapping) -> Rights {
    match mapping.rights {
        region::Rights::Read => Rights::READ,
        region::Rights::ReadWrite => Rights::READ_WRITE,
        region::Rights::ReadExecute => Rights::READ_EXECUTE,
    }
}
