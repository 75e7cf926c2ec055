//! Low memory: stage2, what it runs with, and what other CPUs start with.

use svsm_platform::addr::{GpaRange, Gva, PageSize};

use super::areas::Room;
use super::build::{Draft, Part, address, refuse, segment_part};
use super::tables::{self, address_space, identity};
use super::{AddressSpace, Content, Request};
use crate::error::{Error, Fault, Result};
use crate::handoff::HANDOFF_BYTES;
use crate::layout;
use crate::region::{Area, Region, Rights, pages_from};

const PAGE: u64 = PageSize::Size4K.bytes();

/// What lies in low memory.
pub(super) struct Low {
    pub(super) range: GpaRange,
    pub(super) handoff: Area,
    pub(super) mailbox: Area,
    pub(super) cpuid: Option<Area>,
    pub(super) space: AddressSpace,
    pub(super) stack_top: Gva,
}

/// Stage2's segments, stack, hand-off and tables; mailbox and trampoline.
pub(super) fn plan(request: &Request<'_>, draft: &mut Draft) -> Result<Low> {
    let range = GpaRange::from_bounds(request.stage2_start, request.stage2_end).ok_or(refuse(
        Region::Stage2,
        Fault::Wraps {
            address: request.stage2_start.as_u64(),
        },
    ))?;
    let mut bounds = [range.start(), range.end()].into_iter();
    if let Some(bound) = bounds.find(|bound| !bound.is_aligned(PageSize::Size4K)) {
        let address = bound.as_u64();
        return Err(refuse(Region::Stage2, Fault::Unaligned { address }));
    }
    let segments = place_stage2(request, range, draft)?;
    let mut room = Room::new(Region::Stage2, segments);

    let stack = Part::new(
        Region::Stage2Stack,
        request.stage2_stack_bytes,
        Rights::ReadWrite,
        Content::Zero,
    );
    let stack_gpa = room.take_guarded(stack.region, stack.len_bytes)?;
    if stack_gpa.len_bytes() != stack.len_bytes {
        let address = stack_gpa.start().as_u64().saturating_add(stack.len_bytes);
        return Err(refuse(stack.region, Fault::Unaligned { address }));
    }
    draft.place(stack, stack_gpa, None);

    let handoff = Part::new(
        Region::Handoff,
        HANDOFF_BYTES.into(),
        Rights::Read,
        Content::Handoff,
    );
    let handoff_gpa = room.take_guarded(handoff.region, handoff.len_bytes)?;
    let handoff = draft.place_area_at(handoff, handoff_gpa)?;

    let mailbox = Part::new(Region::Mailbox, PAGE, Rights::ReadWrite, Content::Zero);
    let mailbox_gpa = layout::mailbox(request.trampoline).ok_or(refuse(
        mailbox.region,
        Fault::Wraps {
            address: request.trampoline.as_u64(),
        },
    ))?;
    let mailbox_gpa = pages_from(mailbox.region, mailbox_gpa, PAGE)?;
    let mailbox = draft.place_area_at(mailbox, mailbox_gpa)?;

    let cpuid = Part::new(Region::Cpuid, PAGE, Rights::Read, Content::Platform);
    let cpuid = request
        .cpuid
        .then(|| draft.place_area(cpuid, &mut room))
        .transpose()?;

    let (window_table, mut mappings) = tables::window(room.rest().start(), request.trampoline)?;
    for placement in &draft.placements {
        // The hand-off is the SVSM's to read and stage2's to fill in.
        let rights = match placement.region {
            Region::Handoff => Rights::ReadWrite,
            _ => placement.rights,
        };
        let gva = identity(placement.region, placement.gpa)?;
        tables::push(&mut mappings, placement.region, gva, placement.gpa, rights);
    }
    let space = address_space(
        Region::Stage2Tables,
        Region::Stage2,
        room.rest(),
        window_table,
        mappings,
    )?;
    let tables = Part::new(
        Region::Stage2Tables,
        space.tables.len_bytes(),
        Rights::ReadWrite,
        Content::Tables,
    );
    draft.place(tables, space.tables, None);
    let stack_top = identity(Region::Stage2Stack, stack_gpa)?.end();
    Ok(Low {
        range,
        handoff,
        mailbox,
        cpuid,
        space,
        stack_top,
    })
}

/// Places stage2's segments where they are linked; gives back what is left of its region above.
fn place_stage2(request: &Request<'_>, range: GpaRange, draft: &mut Draft) -> Result<GpaRange> {
    let trampoline = pages_from(Region::Trampoline, request.trampoline, PAGE)?;
    let mut free = range.start();
    let mut found = false;
    for (index, facts) in request.stage2.segments.iter().enumerate() {
        let Ok(number) = u8::try_from(index) else {
            return Err(refuse(Region::Stage2Segment(u8::MAX), Fault::TooMany));
        };
        let segment = Region::Stage2Segment(number);
        let gpa: GpaRange = pages_from(segment, address(segment, facts.address)?, facts.mem_bytes)?;
        let mut part = segment_part(segment, facts)?;
        if gpa == trampoline {
            part.region = Region::Trampoline;
            found = true;
            if !part.rights.is_executable() {
                return Err(refuse(Region::Trampoline, Fault::WrongRights));
            }
        } else if range.contains_range(&gpa) {
            free = free.max(gpa.end());
        } else {
            return Err(refuse(segment, Fault::Outside(Region::Stage2)));
        }
        draft.place(part, gpa, None);
    }
    if !found {
        return Err(refuse(Region::Trampoline, Fault::Missing));
    }
    GpaRange::from_bounds(free, range.end()).ok_or(Error::Bug)
}
