//! Whether the parts of a hand-off fit together.

use svsm_platform::addr::{Gpa, GpaRange, Gva, GvaRange, PageSize};
use svsm_platform::encryption::Encryption;
use svsm_platform::level::Vmpl;

use super::{EncryptionKind, HANDOFF_BYTES, Handoff, MAX_SEGMENTS, Platform, Staged, WireHandoff};
use crate::error::{Error, Fault, Flaw, Result};
use crate::layout::{self, MAX_TABLES, WINDOW_SLOTS};
use crate::region::{Area, Parameter, Region, Span, check_disjoint, pages_from};

/// SIPI carries a page number of eight bits.
const REAL_MODE_END: u64 = 1 << 20;
/// What the 32-bit entry can address.
const UNPAGED_END: u64 = 1 << 32;

pub(super) fn check(handoff: &Handoff) -> Result<()> {
    check_platform(handoff)?;
    let areas = Areas::of(handoff);
    check_low(handoff)?;
    check_places(handoff, &areas)?;
    check_lengths(handoff, &areas)?;
    check_window(handoff)?;
    check_entry(handoff)?;
    check_gpas(handoff, &areas)?;
    check_gvas(handoff, &areas)
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
    if handoff.guest_level == Some(Vmpl::Vmpl0) {
        let offset = core::mem::offset_of!(WireHandoff, guest_level);
        let flaw = Flaw::Unknown;
        return Err(Error::Handoff { offset, flaw });
    }
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

/// Parts with an area: eight single ones, parameters, segments.
const AREAS: usize = 8 + Parameter::ALL.len() + MAX_SEGMENTS;

/// Every area, with its name.
struct Areas([Option<(Region, Area)>; AREAS]);

impl Areas {
    fn of(handoff: &Handoff) -> Self {
        let mut areas = [None; AREAS];
        let mut places = areas.iter_mut();
        let mut put = |region, area: Option<Area>| {
            if let Some(place) = places.next() {
                *place = area.map(|area| (region, area));
            }
        };
        put(Region::Handoff, Some(handoff.handoff));
        put(Region::Mailbox, Some(handoff.mailbox));
        put(Region::Tables, Some(handoff.tables));
        put(Region::Heap, Some(handoff.heap));
        put(Region::BootStack, Some(handoff.boot_stack));
        put(Region::Archive, handoff.archive);
        put(Region::Cpuid, handoff.cpuid);
        put(Region::Secrets, handoff.secrets);
        for (parameter, area) in Parameter::ALL.into_iter().zip(handoff.parameters) {
            put(Region::Parameter(parameter), area);
        }
        for (index, segment) in (0..).zip(handoff.segments.iter()) {
            put(Region::SvsmSegment(index), Some(segment.area));
        }
        Self(areas)
    }

    fn iter(&self) -> impl Iterator<Item = (Region, Area)> {
        self.0.iter().copied().flatten()
    }
}

/// What is to be disjoint: the areas and two parts more.
struct Spans {
    spans: [Span; AREAS + 2],
    len: usize,
}

impl Spans {
    fn starting_with(first: Span) -> Self {
        Self {
            spans: [first; AREAS + 2],
            len: 1,
        }
    }

    fn push(&mut self, span: Span) {
        if let Some(place) = self.spans.get_mut(self.len) {
            *place = span;
            self.len += 1;
        }
    }

    fn check(&self) -> Result<()> {
        check_disjoint(self.spans.get(..self.len).ok_or(Error::Bug)?)
    }
}

fn trampoline(handoff: &Handoff) -> Result<GpaRange> {
    pages_from(Region::Trampoline, handoff.trampoline, 1)
}

fn check_gpas(handoff: &Handoff, areas: &Areas) -> Result<()> {
    let mut spans = Spans::starting_with(Span::of(Region::Trampoline, trampoline(handoff)?));
    spans.push(Span::of(Region::Stage2Tables, handoff.stage2_tables));
    for (region, area) in areas.iter() {
        spans.push(Span::of(region, area.gpa_range()));
    }
    spans.check()
}

fn check_gvas(handoff: &Handoff, areas: &Areas) -> Result<()> {
    let address = handoff.window.gva.as_u64();
    let window = GvaRange::new(handoff.window.gva, PageSize::Size2M.bytes())
        .ok_or(refuse(Region::Window, Fault::Wraps { address }))?;
    let address = handoff.boot_stack.gva().as_u64();
    let stack = guarded(handoff.boot_stack.gva_range())
        .ok_or(refuse(Region::BootStack, Fault::Wraps { address }))?;
    let mut spans = Spans::starting_with(Span::of(Region::Window, window));
    for (region, area) in areas.iter() {
        let range = if region == Region::BootStack {
            stack
        } else {
            area.gva_range()
        };
        spans.push(Span::of(region, range));
    }
    spans.check()
}

/// A stack with the unmapped pages on both sides.
fn guarded(stack: GvaRange) -> Option<GvaRange> {
    let page = PageSize::Size4K.bytes();
    GvaRange::from_bounds(
        stack.start().checked_sub(page)?,
        stack.end().checked_add(page)?,
    )
}

fn check_low(handoff: &Handoff) -> Result<()> {
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
    let regions = [
        Span::of(Region::Trampoline, trampoline),
        Span::of(Region::Mailbox, handoff.mailbox.gpa_range()),
        Span::of(Region::Stage2, handoff.stage2),
        Span::of(Region::Svsm, handoff.svsm),
    ];
    check_disjoint(&regions)?;
    if let Some(staged) = handoff.staged {
        let archive = handoff.archive;
        let archive = archive.ok_or(refuse(Region::Archive, Fault::Missing))?;
        let expected = archive.gpa_range().len_bytes();
        check_staged(handoff, Region::Staging, &staged, expected, regions)?;
    }
    if let Some(staged) = handoff.staged_svsm {
        let expected = handoff.svsm_bytes();
        check_staged(handoff, Region::SvsmStaging, &staged, expected, regions)?;
    }
    match (handoff.staged, handoff.staged_svsm) {
        (Some(archive), Some(svsm)) => check_disjoint(&[
            Span::of(Region::Staging, archive.source),
            Span::of(Region::SvsmStaging, svsm.source),
        ]),
        _ => Ok(()),
    }
}

/// Checks that staged payload is as long as the place to which it goes, and comes from memory that is not the SVSM's.
fn check_staged(
    handoff: &Handoff,
    region: Region,
    staged: &Staged,
    expected: u64,
    regions: [Span; 4],
) -> Result<()> {
    let source = &staged.source;
    if source.len_bytes() != expected {
        return Err(refuse(region, Fault::WrongLength { expected }));
    }
    let told_apart = |rule| addressable(rule, source);
    if !handoff
        .run_time
        .is_none_or(|run_time| told_apart(run_time.encryption))
    {
        return Err(refuse(region, Fault::WrongEncryption));
    }
    let [trampoline, mailbox, stage2, svsm] = regions;
    let source = Span::of(region, *source);
    check_disjoint(&[trampoline, mailbox, stage2, svsm, source])
}

/// Checks that every part lies in the region where it belongs.
fn check_places(handoff: &Handoff, areas: &Areas) -> Result<()> {
    for (region, area) in areas.iter() {
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

fn check_lengths(handoff: &Handoff, areas: &Areas) -> Result<()> {
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
    for (region, area) in areas.iter() {
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
