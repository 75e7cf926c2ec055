//! Whether the parts of a hand-off fit together.

use core::iter;

use svsm_platform::addr::{Gpa, GpaRange, Gva, GvaRange, PageSize};
use svsm_platform::encryption::Encryption;

use super::{EncryptionKind, HANDOFF_BYTES, Handoff, Platform};
use crate::error::{Error, Fault, Result};
use crate::layout::{self, MAX_TABLES, WINDOW_SLOTS};
use crate::region::{Area, Parameter, Region, check_disjoint, pages_from};

/// SIPI carries a page number of eight bits.
const REAL_MODE_END: u64 = 1 << 20;
/// What the 32-bit entry can address.
const UNPAGED_END: u64 = 1 << 32;

pub(super) fn check(handoff: &Handoff) -> Result<()> {
    check_platform(handoff)?;
    check_places(handoff)?;
    check_lengths(handoff)?;
    check_window(handoff)?;
    check_entry(handoff)?;
    check_disjoint(gpa_parts(handoff)?)?;
    check_disjoint(gva_parts(handoff)?)
}

const fn refuse(region: Region, fault: Fault) -> Error {
    Error::Region { region, fault }
}

fn check_platform(handoff: &Handoff) -> Result<()> {
    let fits = matches!(
        (handoff.platform, handoff.encryption),
        (Platform::Native, EncryptionKind::None)
            | (Platform::Snp, EncryptionKind::CBit | EncryptionKind::Vtom)
            | (Platform::Tdx, EncryptionKind::SharedBit)
    );
    let rule_fits = handoff.run_time.is_none_or(|run_time| {
        EncryptionKind::of(run_time.encryption) == handoff.encryption
            && addressable(run_time.encryption, &handoff.svsm)
            && addressable(run_time.encryption, &handoff.stage2)
    });
    if fits && rule_fits {
        Ok(())
    } else {
        Err(refuse(Region::Svsm, Fault::WrongEncryption))
    }
}

/// Whether all pages of `range` can be told from their aliases.
pub(crate) fn addressable(encryption: Encryption, range: &GpaRange) -> bool {
    match encryption {
        Encryption::None => true,
        // A range that holds an address with the bit starts with one, or crosses a multiple of it.
        Encryption::CBit(bit) | Encryption::SharedBit(bit) => {
            let below = range.end().as_u64().saturating_sub(1);
            (range.start().as_u64() | below) & bit.mask() == 0 && range.len_bytes() <= bit.mask()
        }
        Encryption::Vtom(top) => range.end() <= top,
    }
}

/// Every area, with its name.
fn areas(handoff: &Handoff) -> impl Iterator<Item = (Region, Area)> + Clone {
    let parameters = Parameter::ALL
        .into_iter()
        .zip(handoff.parameters)
        .filter_map(|(parameter, area)| Some((Region::Parameter(parameter), area?)));
    let segments = (0..).zip(handoff.segments.iter());
    let optional = [
        (Region::Archive, handoff.archive),
        (Region::Cpuid, handoff.cpuid),
        (Region::Secrets, handoff.secrets),
    ];
    [
        (Region::Handoff, handoff.handoff),
        (Region::Mailbox, handoff.mailbox),
        (Region::Tables, handoff.tables),
        (Region::Heap, handoff.heap),
        (Region::BootStack, handoff.boot_stack),
    ]
    .into_iter()
    .chain(
        optional
            .into_iter()
            .filter_map(|(region, area)| Some((region, area?))),
    )
    .chain(parameters)
    .chain(segments.map(|(index, segment)| (Region::SvsmSegment(index), segment.area)))
}

fn trampoline(handoff: &Handoff) -> Result<GpaRange> {
    pages_from(Region::Trampoline, handoff.trampoline, 1)
}

fn gpa_parts(handoff: &Handoff) -> Result<impl Iterator<Item = (Region, GpaRange)> + Clone> {
    let low = [
        (Region::Trampoline, trampoline(handoff)?),
        (Region::Stage2Tables, handoff.stage2_tables),
    ];
    Ok(areas(handoff)
        .map(|(region, area)| (region, area.gpa_range()))
        .chain(low))
}

fn gva_parts(handoff: &Handoff) -> Result<impl Iterator<Item = (Region, GvaRange)> + Clone> {
    let window = GvaRange::new(handoff.window.gva, PageSize::Size2M.bytes()).ok_or(refuse(
        Region::Window,
        Fault::Wraps {
            address: handoff.window.gva.as_u64(),
        },
    ))?;
    let guarded = guarded(handoff.boot_stack.gva_range())
        .ok_or(refuse(Region::BootStack, Fault::Wraps { address: 0 }))?;
    Ok(areas(handoff)
        .map(move |(region, area)| match region {
            Region::BootStack => (region, guarded),
            _ => (region, area.gva_range()),
        })
        .chain(iter::once((Region::Window, window))))
}

/// A stack with the unmapped pages on both sides.
fn guarded(stack: GvaRange) -> Option<GvaRange> {
    let page = PageSize::Size4K.bytes();
    GvaRange::from_bounds(
        stack.start().checked_sub(page)?,
        stack.end().checked_add(page)?,
    )
}

fn check_places(handoff: &Handoff) -> Result<()> {
    if handoff.stage2.end().as_u64() > UNPAGED_END {
        return Err(refuse(
            Region::Stage2,
            Fault::NoAddress { value: UNPAGED_END },
        ));
    }
    let trampoline = trampoline(handoff)?;
    for (region, low) in [
        (Region::Trampoline, trampoline),
        (Region::Mailbox, handoff.mailbox.gpa_range()),
    ] {
        if low.end().as_u64() > REAL_MODE_END {
            return Err(refuse(
                region,
                Fault::NoAddress {
                    value: low.start().as_u64(),
                },
            ));
        }
    }
    if layout::mailbox(handoff.trampoline) != Some(handoff.mailbox.gpa()) {
        return Err(refuse(Region::Mailbox, Fault::Outside(Region::Trampoline)));
    }
    check_disjoint(
        [
            (Region::Trampoline, trampoline),
            (Region::Mailbox, handoff.mailbox.gpa_range()),
            (Region::Stage2, handoff.stage2),
            (Region::Svsm, handoff.svsm),
        ]
        .into_iter(),
    )?;
    for (region, area) in areas(handoff) {
        let (home, range) = match region {
            Region::Mailbox => continue,
            Region::Handoff | Region::Cpuid => (Region::Stage2, handoff.stage2),
            _ => (Region::Svsm, handoff.svsm),
        };
        if !range.contains_range(&area.gpa_range()) {
            return Err(refuse(region, Fault::Outside(home)));
        }
    }
    if !handoff.stage2.contains_range(&handoff.stage2_tables) {
        return Err(refuse(Region::Stage2Tables, Fault::Outside(Region::Stage2)));
    }
    Ok(())
}

fn check_lengths(handoff: &Handoff) -> Result<()> {
    let page = PageSize::Size4K.bytes();
    let exact = [
        (
            Region::Handoff,
            Some(handoff.handoff),
            u64::from(HANDOFF_BYTES),
        ),
        (Region::Mailbox, Some(handoff.mailbox), page),
        (Region::Cpuid, handoff.cpuid, page),
        (Region::Secrets, handoff.secrets, page),
    ];
    for (region, area, len_bytes) in exact {
        if area.is_some_and(|area| area.len_bytes() != len_bytes) {
            return Err(refuse(
                region,
                Fault::WrongLength {
                    expected: len_bytes,
                },
            ));
        }
    }
    for (region, area) in areas(handoff) {
        let whole_pages = matches!(
            region,
            Region::Tables | Region::Heap | Region::BootStack | Region::SvsmSegment(_)
        );
        if whole_pages && area.len_bytes() % page != 0 {
            let address = area.gpa().as_u64().wrapping_add(area.len_bytes());
            return Err(refuse(region, Fault::Unaligned { address }));
        }
    }
    if handoff.tables.pages().as_u64() > MAX_TABLES as u64 {
        return Err(refuse(Region::Tables, Fault::TooMany));
    }
    let follows = handoff.heap.gpa() == handoff.tables.gpa_range().end()
        && handoff.heap.gva() == handoff.tables.gva_range().end();
    if follows {
        Ok(())
    } else {
        Err(refuse(Region::Heap, Fault::Outside(Region::Linear)))
    }
}

fn check_window(handoff: &Handoff) -> Result<()> {
    let window = handoff.window;
    let slot = |n: u16| {
        window
            .gva
            .checked_add(u64::from(n) * PageSize::Size4K.bytes())
    };
    let fault = if !window.gva.is_aligned(PageSize::Size2M) {
        Fault::Unaligned {
            address: window.gva.as_u64(),
        }
    } else if window.slots == 0 {
        Fault::Empty
    } else if window.slots > WINDOW_SLOTS {
        Fault::TooMany
    } else if slot(WINDOW_SLOTS) != Some(window.switch) {
        Fault::NoAddress {
            value: window.switch.as_u64(),
        }
    } else if slot(WINDOW_SLOTS + 1) != Some(window.table) {
        Fault::NoAddress {
            value: window.table.as_u64(),
        }
    } else if !is_page_in(handoff.stage2_window_table, &handoff.stage2_tables) {
        Fault::Outside(Region::Stage2Tables)
    } else {
        return Ok(());
    };
    Err(refuse(Region::Window, fault))
}

fn is_page_in(page: Gpa, range: &GpaRange) -> bool {
    page.is_aligned(PageSize::Size4K) && range.contains(page)
}

fn check_entry(handoff: &Handoff) -> Result<()> {
    let at: Gva = handoff.entry;
    let segment = handoff
        .segments
        .iter()
        .find(|segment| segment.area.gva_range().contains(at));
    match segment {
        Some(segment) if segment.rights.is_executable() => Ok(()),
        Some(_) => Err(refuse(Region::Entry, Fault::WrongRights)),
        None => Err(refuse(Region::Entry, Fault::Outside(Region::Image))),
    }
}
