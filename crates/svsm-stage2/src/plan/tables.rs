//! Mappings, and the page tables they need.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use svsm_platform::addr::{Gpa, GpaRange, Gva, GvaRange, PageCount, PageSize};

use super::{AddressSpace, Mapping};
use crate::error::{Error, Fault, Result};
use crate::layout;
use crate::region::{Region, Rights};

const PAGE: u64 = PageSize::Size4K.bytes();

/// The tables on the way to the first mapping's entry: root, two more, the page table itself.
const WINDOW_TABLE_INDEX: u64 = 3;

/// The mappings of an address space whose tables start at `tables`, and nothing else yet: the
/// window's table in the window itself, which has to be the first, and the page on which CPUs
/// change from one address space to the other.
pub(super) fn window(tables: Gpa, trampoline: Gpa) -> Result<(Gpa, Vec<Mapping>)> {
    let table = tables
        .checked_add(WINDOW_TABLE_INDEX * PAGE)
        .ok_or(Error::Region {
            region: Region::Window,
            fault: Fault::Wraps {
                address: tables.as_u64(),
            },
        })?;
    let page = |region, gva, gpa, rights| Mapping {
        region,
        gva,
        gpa,
        size: PageSize::Size4K,
        pages: PageCount::new(1),
        rights,
    };
    let mappings = [
        page(
            Region::Window,
            layout::WINDOW_TABLE,
            table,
            Rights::ReadWrite,
        ),
        page(
            Region::Trampoline,
            layout::SWITCH,
            trampoline,
            Rights::ReadExecute,
        ),
    ];
    Ok((table, mappings.to_vec()))
}

/// Maps `gpa` at `gva` (equally long, whole pages) with the largest pages that fit.
pub(super) fn push(
    mappings: &mut Vec<Mapping>,
    region: Region,
    gva: GvaRange,
    gpa: GpaRange,
    rights: Rights,
) {
    let huge = PageSize::Size2M;
    let congruent = gva.start().page_offset(huge) == gpa.start().page_offset(huge);
    let head_bytes = match gpa.start().page_offset(huge) {
        0 => 0,
        offset => huge.bytes() - offset,
    };
    let total_bytes = gpa.len_bytes();
    let huge_bytes = match total_bytes.checked_sub(head_bytes) {
        Some(rest) if congruent => rest & !huge.offset_mask(),
        _ => 0,
    };
    let head_bytes = if huge_bytes == 0 {
        total_bytes
    } else {
        head_bytes
    };
    let mut offset = 0;
    for (len_bytes, size) in [
        (head_bytes, PageSize::Size4K),
        (huge_bytes, huge),
        (total_bytes - head_bytes - huge_bytes, PageSize::Size4K),
    ] {
        let places = (
            gva.start().checked_add(offset),
            gpa.start().checked_add(offset),
        );
        if let (Some(gva), Some(gpa)) = places
            && len_bytes != 0
        {
            let pages = PageCount::covering(len_bytes, size);
            mappings.push(Mapping {
                region,
                gva,
                gpa,
                size,
                pages,
                rights,
            });
        }
        offset += len_bytes;
    }
}

/// How many pages the tables for `mappings` take.
pub(super) fn pages_needed(mappings: &[Mapping]) -> u64 {
    let mut tables = BTreeSet::new();
    for mapping in mappings {
        let step = mapping.size.bytes();
        for page in 0..mapping.pages.as_u64() {
            let gva = mapping.gva.as_u64().wrapping_add(page * step);
            // A table is known by the part of the address that it serves.
            for shift in [39, 30, 21] {
                if shift > mapping.size.shift() {
                    tables.insert((shift, gva >> shift));
                }
            }
        }
    }
    1 + tables.len() as u64
}

/// The address space with these mappings, if its tables fit into `room`.
pub(super) fn address_space(
    region: Region,
    home: Region,
    room: GpaRange,
    window_table: Gpa,
    mappings: Vec<Mapping>,
) -> Result<AddressSpace> {
    let len_bytes = pages_needed(&mappings) * PAGE;
    let tables = GpaRange::new(room.start(), len_bytes)
        .filter(|tables| room.contains_range(tables))
        .ok_or(Error::Region {
            region,
            fault: Fault::NoRoom {
                region: home,
                missing_bytes: len_bytes.saturating_sub(room.len_bytes()),
            },
        })?;
    Ok(AddressSpace {
        tables,
        window_table,
        mappings,
    })
}

/// The identity mapping's virtual side of low memory.
pub(super) fn identity(region: Region, gpa: GpaRange) -> Result<GvaRange> {
    Gva::new(gpa.start().as_u64())
        .and_then(|start| GvaRange::new(start, gpa.len_bytes()))
        .ok_or(Error::Region {
            region,
            fault: Fault::NoAddress {
                value: gpa.start().as_u64(),
            },
        })
}
