//! The private region: the SVSM, what it starts with, and its free memory.

use svsm_platform::addr::{Gpa, GpaRange, GvaRange, PageSize};

use super::areas::Room;
use super::build::{Draft, Part, address, refuse, segment_part};
use super::tables::{self, address_space};
use super::{AddressSpace, Content, Placement, Request};
use crate::error::{Error, Fault, Result};
use crate::handoff::{MAX_SEGMENTS, Segment, Segments, Staged};
use crate::layout;
use crate::region::{Area, Parameter, Region, Rights, pages_from};

const PAGE: u64 = PageSize::Size4K.bytes();

/// What lies in the private region.
pub(super) struct High {
    pub(super) range: GpaRange,
    pub(super) segments: Segments,
    pub(super) boot_stack: Area,
    pub(super) secrets: Option<Area>,
    pub(super) parameters: [Option<Area>; Parameter::ALL.len()],
    pub(super) archive: Option<Area>,
    pub(super) staged: Option<Staged>,
    pub(super) staged_svsm: Option<Staged>,
    pub(super) tables: Area,
    pub(super) heap: Area,
    pub(super) space: AddressSpace,
}

/// The SVSM's segments, stack, deposits, archive, tables and free memory.
pub(super) fn plan(request: &Request<'_>, draft: &mut Draft) -> Result<High> {
    let range: GpaRange = pages_from(Region::Svsm, request.svsm_base, request.svsm_bytes)?;
    if range.len_bytes() != request.svsm_bytes || !range.start().is_aligned(PageSize::Size2M) {
        let address = range.start().as_u64().saturating_add(request.svsm_bytes);
        return Err(refuse(Region::Svsm, Fault::Unaligned { address }));
    }
    let mut room = Room::new(Region::Svsm, range);
    let segments = place_svsm(request, &mut room, draft)?;

    let stack = Part::new(
        Region::BootStack,
        request.boot_stack_bytes,
        Rights::ReadWrite,
        Content::Zero,
    );
    let boot_stack = draft.place_area(stack, &mut room)?;
    let secrets = Part::new(Region::Secrets, PAGE, Rights::Read, Content::Platform);
    let secrets = request
        .secrets
        .then(|| draft.place_area(secrets, &mut room))
        .transpose()?;
    let mut parameters = [None; Parameter::ALL.len()];
    let wanted = Parameter::ALL.into_iter().zip(request.parameter_bytes);
    for (place, (parameter, len_bytes)) in parameters.iter_mut().zip(wanted) {
        let part = Part::new(
            Region::Parameter(parameter),
            len_bytes,
            Rights::Read,
            Content::Deposited(parameter),
        );
        if len_bytes != 0 {
            *place = Some(draft.place_area(part, &mut room)?);
        }
    }
    let archive = Part::new(
        Region::Archive,
        request.archive_bytes,
        Rights::Read,
        match request.staged {
            Some(_) => Content::Free,
            None => Content::Archive {
                file_bytes: request.archive_bytes,
            },
        },
    );
    let archive = (request.archive_bytes != 0)
        .then(|| draft.place_area(archive, &mut room))
        .transpose()?;
    let staged = place_staged(request, draft)?;

    let (window_table, mut mappings) = tables::window(room.rest().start(), request.trampoline)?;
    for placement in &draft.placements {
        if let Some(gva) = placement.gva {
            let Placement {
                region,
                gpa,
                rights,
                ..
            } = *placement;
            tables::push(&mut mappings, region, gva, gpa, rights);
        }
    }
    let linear = linear(range, room.rest())?;
    tables::push(
        &mut mappings,
        Region::Linear,
        linear,
        room.rest(),
        Rights::ReadWrite,
    );
    let space = address_space(
        Region::Tables,
        Region::Svsm,
        room.rest(),
        window_table,
        mappings,
    )?;

    let tables = place_linear(
        Part::new(
            Region::Tables,
            space.tables.len_bytes(),
            Rights::ReadWrite,
            match request.staged_svsm {
                Some(_) => Content::Free,
                None => Content::Tables,
            },
        ),
        &mut room,
        range,
        draft,
    )?;
    let heap = Part::new(
        Region::Heap,
        room.rest().len_bytes(),
        Rights::ReadWrite,
        Content::Free,
    );
    let heap = place_linear(heap, &mut room, range, draft)?;
    let staged_svsm = place_staged_svsm(request, &segments, tables, draft)?;
    Ok(High {
        range,
        segments,
        boot_stack,
        secrets,
        parameters,
        archive,
        staged,
        staged_svsm,
        tables,
        heap,
        space,
    })
}

/// Places what arrives where the host can see it.
fn place_staged(request: &Request<'_>, draft: &mut Draft) -> Result<Option<Staged>> {
    let Some(arrival) = request.staged.filter(|_| request.archive_bytes != 0) else {
        return Ok(None);
    };
    let content = Content::Staged {
        file_bytes: request.archive_bytes,
    };
    let part = Part::new(
        Region::Staging,
        request.archive_bytes,
        Rights::Read,
        content,
    );
    let source = pages_from(part.region, arrival.start, part.len_bytes)?;
    draft.place(part, source, None);
    Ok(Some(Staged {
        source,
        digest: arrival.digest,
    }))
}

/// Places the SVSM where it arrives, if that is where the host can see it.
fn place_staged_svsm(
    request: &Request<'_>,
    segments: &Segments,
    tables: Area,
    draft: &mut Draft,
) -> Result<Option<Staged>> {
    let Some(start) = request.staged_svsm else {
        return Ok(None);
    };
    let parts = segments.iter().map(|segment| segment.area);
    let len_bytes = parts
        .chain([tables])
        .map(|part| part.gpa_range().len_bytes())
        .fold(0, u64::saturating_add);
    let part = Part::new(
        Region::SvsmStaging,
        len_bytes,
        Rights::Read,
        Content::StagedSvsm,
    );
    let source = pages_from(part.region, start, len_bytes)?;
    draft.place(part, source, None);
    Ok(Some(Staged {
        source,
        digest: [0; 48],
    }))
}

/// Packs the SVSM's segments into `room`, each at the virtual address at which it is linked.
fn place_svsm(request: &Request<'_>, room: &mut Room<Gpa>, draft: &mut Draft) -> Result<Segments> {
    let image = GvaRange::from_bounds(layout::IMAGE, layout::IMAGE_END).ok_or(Error::Bug)?;
    if request.svsm.segments.is_empty() {
        return Err(refuse(Region::SvsmSegment(0), Fault::Missing));
    }
    let mut segments = Segments::new();
    for (index, facts) in (0..).zip(request.svsm.segments) {
        let region = Region::SvsmSegment(index);
        if usize::from(index) >= MAX_SEGMENTS {
            return Err(refuse(region, Fault::TooMany));
        }
        let gva: GvaRange = pages_from(region, address(region, facts.address)?, facts.mem_bytes)?;
        if !image.contains_range(&gva) {
            return Err(refuse(region, Fault::Outside(Region::Image)));
        }
        let mut part = segment_part(region, facts)?;
        if request.staged_svsm.is_some() {
            part.content = Content::Free;
        }
        let gpa = room.take(region, facts.mem_bytes)?;
        draft.place(part, gpa, Some(gva));
        let area = Area::new(region, gpa.start(), gva.start(), gpa.len_bytes())?;
        segments.push(Segment {
            area,
            rights: part.rights,
        })?;
    }
    Ok(segments)
}

/// Where `part` of the SVSM's region appears in the linear mapping.
fn linear(svsm: GpaRange, part: GpaRange) -> Result<GvaRange> {
    let all = GvaRange::from_bounds(layout::LINEAR, layout::LINEAR_END).ok_or(Error::Bug)?;
    let offset = part
        .start()
        .checked_offset_from(svsm.start())
        .ok_or(Error::Bug)?;
    layout::LINEAR
        .checked_add(offset)
        .and_then(|start| GvaRange::new(start, part.len_bytes()))
        .filter(|gva| all.contains_range(gva))
        .ok_or(refuse(Region::Svsm, Fault::Outside(Region::Linear)))
}

fn place_linear(
    part: Part,
    room: &mut Room<Gpa>,
    svsm: GpaRange,
    draft: &mut Draft,
) -> Result<Area> {
    let gpa = room.take(part.region, part.len_bytes)?;
    let gva = linear(svsm, gpa)?;
    draft.place(part, gpa, Some(gva));
    Area::new(part.region, gpa.start(), gva.start(), part.len_bytes)
}
